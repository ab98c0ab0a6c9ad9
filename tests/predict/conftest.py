from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import Prediction, Target


class Components(nn.Module):
    """An InstanceModel without a doubt: in each colour, what is connected and bright is one object.

    Objects of different colours may overlap. The score is the mean brightness inside.
    """

    def __init__(self, threshold: float = 0.25) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self.calls: list[int] = []

    @classmethod
    def fit_to(cls, stats: DataStats) -> Self:
        return cls()

    def module(self) -> nn.Module:
        return self

    def loss(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        return {"none": self.threshold * 0}

    def predict(self, images: Sequence[Tensor], *, min_score: float = 0.05) -> list[Prediction]:
        self.calls.append(len(images))
        return [self._predict_one(image.numpy(), min_score) for image in images]

    def _predict_one(self, image: np.ndarray, min_score: float) -> Prediction:
        found: list[tuple[float, np.ndarray, tuple[int, int]]] = []
        for plane in image[:1] if (image[0] == image[1]).all() else image:
            numbered, _ = ndimage.label(plane > self.threshold.item())
            for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), 1):
                inside = numbered[rows, columns] == number
                score = float(plane[rows, columns][inside].mean())
                if score >= min_score:
                    found.append((score, inside.astype(np.uint8) * 255, (rows.start, columns.start)))
        found.sort(key=lambda one: -one[0])
        n = len(found)
        return Prediction(
            size_hw=(image.shape[1], image.shape[2]),
            labels=np.zeros(n, np.int64),
            scores=np.asarray([score for score, _, _ in found], np.float32),
            quality=np.ones(n, np.float32),
            crops=tuple(crop for _, crop, _ in found),
            offsets_yx=np.asarray([offset for _, _, offset in found], np.int64).reshape(n, 2),
        )


def ellipse_field(
    size_hw: tuple[int, int],
    centres_yx: Sequence[tuple[float, float]],
    radii: Sequence[tuple[float, float]],
    *,
    dtype: type = np.uint8,
    bright: int = 200,
) -> np.ndarray:
    """An image (h, w, 3) with ellipses on black, colours by turns, so that neighbours may overlap."""
    pixels = np.zeros((*size_hw, 3), dtype)
    for i, ((cy, cx), (ry, rx)) in enumerate(zip(centres_yx, radii, strict=True)):
        top, bottom = max(0, int(cy - ry)), min(size_hw[0], int(cy + ry) + 2)
        left, right = max(0, int(cx - rx)), min(size_hw[1], int(cx + rx) + 2)
        y, x = np.mgrid[top:bottom, left:right]
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
        pixels[top:bottom, left:right, i % 3][inside] = bright + i % 50
    return pixels


@pytest.fixture
def components() -> Components:
    return Components()


@pytest.fixture
def stats() -> DataStats:
    """Of a training set of 100 px images with objects of about 20 px."""
    return DataStats(
        classes=("organoid",),
        image_size_hw=(100, 100),
        diameter_px=(12, 16, 20),
        box_side_px=(14, 18, 24),
        objects_per_image=(10, 20),
        intensity_percentile=(0.0, 100.0),
    )


@pytest.fixture
def draw_ellipses():
    return ellipse_field
