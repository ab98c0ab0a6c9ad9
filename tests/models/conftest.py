import numpy as np
import pytest
import torch

from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import Target


@pytest.fixture
def stats() -> DataStats:
    return DataStats(
        classes=("organoid",),
        image_size_hw=(64, 64),
        diameter_px=(12.0, 20.0, 30.0),
        box_side_px=(12.0, 20.0, 30.0),
        objects_per_image=(3.0, 5.0),
    )


@pytest.fixture
def discs():
    """A target of discs given as (y, x, radius) on a canvas."""

    def make(centres: list[tuple[float, float, float]], size: int = 64) -> Target:
        yy, xx = np.mgrid[:size, :size]
        masks = [((yy - y) ** 2 + (xx - x) ** 2 <= r * r) * np.uint8(255) for y, x, r in centres]
        stacked = np.stack(masks) if masks else np.zeros((0, size, size), np.uint8)
        n = len(centres)
        return Target(
            masks=torch.from_numpy(stacked.astype(np.uint8)),
            labels=torch.zeros(n, dtype=torch.int64),
            weights=torch.ones(n),
            ignore=torch.zeros(n, dtype=torch.bool),
        )

    return make
