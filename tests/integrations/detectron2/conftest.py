"""A Mask R-CNN of detectron2 that is small enough for a test, and what it is to see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import Target

TINY = """
MODEL:
  BACKBONE: {NAME: build_resnet_fpn_backbone}
  RESNETS:
    DEPTH: 50
    WIDTH_PER_GROUP: 8
    STEM_OUT_CHANNELS: 16
    RES2_OUT_CHANNELS: 32
    OUT_FEATURES: [res2, res3, res4, res5]
  FPN: {IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 16}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]]}
  RPN: {IN_FEATURES: [p2, p3, p4, p5, p6], BATCH_SIZE_PER_IMAGE: 64}
  ROI_HEADS: {NAME: StandardROIHeads, IN_FEATURES: [p2, p3, p4, p5], BATCH_SIZE_PER_IMAGE: 32}
  ROI_BOX_HEAD: {NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 64, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 1, CONV_DIM: 32, POOLER_RESOLUTION: 14}
  MASK_ON: true
VERSION: 2
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Path]:
    """Writes the small configuration, with further lines below, and returns its file."""

    def write(further: str = "", name: str = "tiny") -> Path:
        (tmp_path / "base.yaml").write_text(TINY)
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"_BASE_: base.yaml\n{further}\n")
        return path

    return write


@pytest.fixture
def stats() -> DataStats:
    return DataStats(
        classes=("organoid", "debris"),
        image_size_hw=(64, 64),
        diameter_px=(12.0, 20.0, 30.0),
        box_side_px=(12.0, 20.0, 30.0),
        objects_per_image=(3.0, 5.0),
    )


@pytest.fixture
def discs() -> Callable[..., Target]:
    """A target of discs given as (y, x, radius) on a square canvas."""

    def make(centres: list[tuple[float, float, float]], size: int = 64) -> Target:
        yy, xx = np.mgrid[:size, :size]
        masks = [((yy - y) ** 2 + (xx - x) ** 2 <= r * r) * np.uint8(255) for y, x, r in centres]
        stacked = np.stack(masks) if masks else np.zeros((0, size, size), np.uint8)
        return Target(
            masks=torch.from_numpy(stacked.astype(np.uint8)),
            labels=torch.zeros(len(centres), dtype=torch.int64),
            weights=torch.ones(len(centres)),
            ignore=torch.zeros(len(centres), dtype=torch.bool),
        )

    return make
