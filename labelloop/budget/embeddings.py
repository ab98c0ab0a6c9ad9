"""Embeddings: what an image looks like, as a vector, before any model of the project exists.

Features of an ImageNet network tell micrographs apart well enough to cover a pool evenly, and cost one
forward pass per image. Each is computed once and kept in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from labelloop.errors import ImageError
from labelloop.progress import Progress, Silent, stage
from labelloop.project.project import ImageRecord, Project
from labelloop.project.recorded import read_recorded
from labelloop.project.tables import EmbeddingRow

if TYPE_CHECKING:
    from labelloop.budget.encoder import Encoder

ENCODER = "efficientnet-lite0-256-v1"
DIMENSIONS = 40 + 112 + 320
STORE_EVERY = 64  # images; what an interruption may cost

Vectors = npt.NDArray[np.float32]
Key = tuple[str, int]  # encoder with part, image id


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is embedded: an image, or a part of it.

    Attributes:
        image: Which.
        box: Top, left, bottom, right of the part, px; None for all of the image.
    """

    image: ImageRecord
    box: tuple[int, int, int, int] | None = None

    @property
    def key(self) -> Key:
        """Of its row in the ledger: encoder, with the part, and image."""
        part = "" if self.box is None else ":" + ",".join(map(str, self.box))
        return ENCODER + part, self.image.id


def embed(project: Project, pictures: Sequence[Picture], *, progress: Progress | None = None) -> Vectors:
    """Embeds pictures; those that were embedded before are taken from the ledger.

    Args:
        project: Whose ledger.
        pictures: Which, none twice.
        progress: Where progress is reported, as the stage ``looking at images``.

    Returns:
        float32 (n, DIMENSIONS), unit norm; zeros for an image that cannot be read, which are not kept.
    """
    progress = progress or Silent()
    place = {picture.key: row for row, picture in enumerate(pictures)}
    vectors = np.zeros((len(pictures), DIMENSIONS), np.float32)
    found = _read_into(vectors, project, place)
    missing = [picture for picture in pictures if picture.key not in found]
    if missing:
        from labelloop.budget.encoder import Encoder  # which loads torch

        encoder = Encoder()
        with stage(progress, "looking at images", len(missing)):
            for start in range(0, len(missing), STORE_EVERY):
                fresh = {}
                for picture in missing[start : start + STORE_EVERY]:
                    with suppress(ImageError):
                        fresh[picture.key] = _embed(encoder, picture)
                    progress.advance()
                _store(project, fresh)
                for key, vector in fresh.items():
                    vectors[place[key]] = vector
    return vectors


def _embed(encoder: Encoder, picture: Picture) -> Vectors:
    image = picture.image
    pixels = read_recorded(image).pixels
    top, left, bottom, right = picture.box or (0, 0, *image.size_hw)
    return encoder(pixels[top:bottom, left:right])


def _read_into(
    vectors: Vectors, project: Project, place: Mapping[tuple[str, int], int]
) -> set[tuple[str, int]]:
    """Fills in the rows that the ledger has; their keys."""
    statement = select(EmbeddingRow.encoder, EmbeddingRow.image_id, EmbeddingRow.vector).where(
        EmbeddingRow.encoder.startswith(ENCODER)
    )
    found = set()
    with project.ledger.read() as session:
        for encoder, image_id, vector in session.execute(statement):
            key = encoder, image_id
            if key in place:
                vectors[place[key]] = np.frombuffer(vector, "<f4")
                if vectors[place[key]].any():  # an image that could not be read was kept as zeros once
                    found.add(key)
    return found


def _store(project: Project, fresh: Mapping[Key, Vectors]) -> None:
    with project.ledger.write() as session:
        for (encoder, image_id), vector in fresh.items():
            session.merge(
                EmbeddingRow(encoder=encoder, image_id=image_id, vector=vector.astype("<f4").tobytes())
            )
