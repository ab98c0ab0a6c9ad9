"""Embeddings: what an image looks like, as a vector, before any model of the project exists.

Features of an ImageNet network tell micrographs apart well enough to cover a pool evenly, and cost one
forward pass per image. Each is computed once and kept in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sqlalchemy import select
from torch import Tensor, nn

from labelloop.errors import ImageError
from labelloop.images import normalise, percentiles
from labelloop.models.backbones import IMAGENET_MEAN, IMAGENET_STD, efficientnet_lite0
from labelloop.models.precision import autocast_for
from labelloop.progress import Progress, Silent, stage
from labelloop.project.project import ImageRecord, Project
from labelloop.project.recorded import read_recorded
from labelloop.project.tables import EmbeddingRow

ENCODER = "efficientnet-lite0-256-v1"
SIDE_PX = 256  # images are looked at with this longer side
LEVELS = (1, 2, 3)  # strides 8, 16 and 32: texture, parts, things
DIMENSIONS = 40 + 112 + 320
STORE_EVERY = 64  # images; what an interruption may cost
INTENSITY_PERCENTILE = (0.5, 99.5)

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


def embed(
    project: Project, pictures: Sequence[Picture], *, device: str = "cpu", progress: Progress | None = None
) -> Vectors:
    """Embeds pictures; those that were embedded before are taken from the ledger.

    Args:
        project: Whose ledger.
        pictures: Which, none twice.
        device: cpu or a CUDA device.
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
        encoder = Encoder(torch.device(device))
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


class Encoder:
    """EfficientNet-Lite0 with its ImageNet weights; features are averaged over the image.

    Args:
        device: Where to compute.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._body: nn.Module = efficientnet_lite0().to(device).eval().requires_grad_(False)
        self._mean = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None]
        self._std = torch.tensor(IMAGENET_STD, device=device)[:, None, None]

    @torch.inference_mode()
    def __call__(self, pixels: npt.NDArray[np.generic]) -> Vectors:
        """float32 (DIMENSIONS,) of unit norm; each level counts alike.

        Args:
            pixels: (h, w) or (h, w, 3), in the file's own type.
        """
        low, high = percentiles(pixels, INTENSITY_PERCENTILE)
        image = torch.from_numpy(normalise(pixels, low, high)).to(self._device)
        image = (_to_side(image) - self._mean) / self._std
        with autocast_for(self._device):
            features = self._body(image[None])
        pooled = [F.normalize(features[level].float().mean((2, 3)), dim=1) for level in LEVELS]
        vector: Vectors = F.normalize(torch.cat(pooled, 1), dim=1)[0].cpu().numpy()
        return vector


def _to_side(image: Tensor) -> Tensor:
    """The image with its longer side at ``SIDE_PX``, no side below 32 px."""
    zoom = SIDE_PX / max(image.shape[1:])
    size_hw = [max(round(side * zoom), 32) for side in image.shape[1:]]
    resized: Tensor = F.interpolate(image[None], size_hw, mode="bilinear", antialias=zoom < 1)[0]
    return resized


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
