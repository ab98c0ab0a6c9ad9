"""Embeddings: what an image looks like, as a vector, before any model of the project exists.

Features of an ImageNet network tell micrographs apart well enough to cover a pool evenly, and cost one
forward pass per image. Each is computed once and kept in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from sqlalchemy import select
from torch import Tensor, nn

from labelloop.errors import ImageError
from labelloop.images import normalise, percentiles, read_image
from labelloop.models.backbones import IMAGENET_MEAN, IMAGENET_STD, efficientnet_lite0
from labelloop.models.precision import autocast_for
from labelloop.progress import Progress, Silent, stage
from labelloop.project.project import ImageRecord, Project
from labelloop.project.tables import EmbeddingRow

ENCODER = "efficientnet-lite0-256-v1"
SIDE_PX = 256  # images are looked at with this longer side
LEVELS = (1, 2, 3)  # strides 8, 16 and 32: texture, parts, things
DIMENSIONS = 40 + 112 + 320
STORE_EVERY = 64  # images; what an interruption may cost
INTENSITY_PERCENTILE = (0.5, 99.5)

Vectors = npt.NDArray[np.float32]


def embed_images(
    project: Project, images: Sequence[ImageRecord], *, device: str = "cpu", progress: Progress | None = None
) -> Vectors:
    """Embeds images; those that were embedded before are taken from the ledger.

    Args:
        project: Whose ledger.
        images: Which.
        device: cpu or a CUDA device.
        progress: Who watches, as the stage ``looking at images``.

    Returns:
        float32 (n, DIMENSIONS), unit norm; zeros for an image that cannot be read.
    """
    progress = progress or Silent()
    place = {image.id: row for row, image in enumerate(images)}
    vectors = np.zeros((len(images), DIMENSIONS), np.float32)
    found = _read_into(vectors, project, place)
    missing = [image for image in images if image.id not in found]
    if missing:
        encoder = Encoder(torch.device(device))
        with stage(progress, "looking at images", len(missing)):
            for start in range(0, len(missing), STORE_EVERY):
                fresh = {}
                for image in missing[start : start + STORE_EVERY]:
                    fresh[image.id] = _embed(encoder, image)
                    progress.advance()
                _store(project, fresh)
                for image_id, vector in fresh.items():
                    vectors[place[image_id]] = vector
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


def _embed(encoder: Encoder, image: ImageRecord) -> Vectors:
    try:
        return encoder(read_image(image.path, page=image.page, channel=image.channel).pixels)
    except ImageError:
        return np.zeros(DIMENSIONS, np.float32)


def _read_into(vectors: Vectors, project: Project, place: dict[int, int]) -> set[int]:
    """Fills in the rows that the ledger has; the ids of their images."""
    statement = select(EmbeddingRow.image_id, EmbeddingRow.vector).where(EmbeddingRow.encoder == ENCODER)
    found = set()
    with project.ledger.read() as session:
        for image_id, vector in session.execute(statement):
            if image_id in place:
                vectors[place[image_id]] = np.frombuffer(vector, "<f4")
                found.add(image_id)
    return found


def _store(project: Project, fresh: dict[int, Vectors]) -> None:
    with project.ledger.write() as session:
        for image_id, vector in fresh.items():
            session.merge(
                EmbeddingRow(encoder=ENCODER, image_id=image_id, vector=vector.astype("<f4").tobytes())
            )
