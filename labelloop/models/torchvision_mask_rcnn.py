"""torchvision's Mask R-CNN with ResNet-50 and what it learnt from COCO, with heads that take soft labels."""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import (
    MaskRCNN_ResNet50_FPN_V2_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
)
from torchvision.models.detection.backbone_utils import BackboneWithFPN, _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

from labelloop.errors import ModelError
from labelloop.models.architecture import Architecture
from labelloop.models.data_stats import DataStats
from labelloop.models.inputs import input_scale
from labelloop.models.mask_rcnn import MaskRCNN, fit_to
from labelloop.models.protocol import InstanceModel
from labelloop.models.roi_heads import HeadConfig
from labelloop.plurals import plural

TARGET_DIAMETER_PX = 64.0  # of the median object in the network's input, as for mask-rcnn-r50
INPUT_SIDE_PX = 768
LEARNING_STAGES = 3  # of five; the stem and the first stage stay as they are, torchvision's default
CLASS_LAYERS = (  # one output for each class: COCO's classes are not the lab's
    "roi_heads.box_predictor.cls_score",
    "roi_heads.box_predictor.bbox_pred",
    "roi_heads.mask_predictor.mask_fcn_logits",
)
_HEAD = HeadConfig(box_features=1024, mask_channels=(256,) * 4, boxes_per_image=512, positives=0.25)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Version:
    """One of torchvision's two.

    Attributes:
        name: What ``--model`` takes.
        weights: Where torchvision's hub has its weights.
        head: Sizes of the heads.
        rpn_convolutions: Before the proposals.
        batch_norm: Whether backbone, pyramid and heads have batch normalisations; they are frozen.
    """

    name: str
    weights: Any
    head: HeadConfig
    rpn_convolutions: int
    batch_norm: bool

    def build(self, stats: DataStats, *, variant: str | None, pretrained: bool) -> InstanceModel:
        """See BuildsModel; the variant is a file with a state dict of torchvision's own model."""
        config = fit_to(stats, target_diameter_px=TARGET_DIAMETER_PX, head=self.head)
        model = MaskRCNN(self._backbone(), replace(config, rpn_convolutions=self.rpn_convolutions))
        if pretrained:
            state = self._from_hub() if variant is None else _from_file(Path(variant))
            _load(model, state, origin=variant or self.weights.url)
        if self.batch_norm:  # steps have few images: statistics stay those of the pretraining
            freeze_batch_norm_2d(model)
        return model

    def _backbone(self) -> BackboneWithFPN:
        # torchvision, too, sets the epsilon of the frozen statistics to zero for these weights.
        norm = nn.BatchNorm2d if self.batch_norm else partial(FrozenBatchNorm2d, eps=0.0)
        body = resnet50(weights=None, norm_layer=norm)
        pyramid_norm = nn.BatchNorm2d if self.batch_norm else None
        return _resnet_fpn_extractor(body, LEARNING_STAGES, norm_layer=pyramid_norm)

    def _from_hub(self) -> dict[str, Tensor]:
        try:
            state: dict[str, Tensor] = self.weights.get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"the weights could not be downloaded from torchvision's hub ({type(error).__name__})",
                value=self.weights.url,
                way_out=f"Download that file elsewhere and use it with --model {self.name}:FILE.",
            ) from error
        return state


def torchvision_r50() -> Architecture:
    """The usual one (torchvision's ``maskrcnn_resnet50_fpn``)."""
    version = _Version(
        name="torchvision-mask-rcnn-r50",
        weights=MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
        head=_HEAD,
        rpn_convolutions=1,
        batch_norm=False,
    )
    return _architecture(version, "torchvision's Mask R-CNN, ResNet-50, taught on COCO; for GPUs", 43.9)


def torchvision_r50_v2() -> Architecture:
    """The one that was trained longer and with more layers in its heads (``maskrcnn_resnet50_fpn_v2``)."""
    version = _Version(
        name="torchvision-mask-rcnn-r50-v2",
        weights=MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
        head=replace(_HEAD, box_channels=(256,) * 4, batch_norm=True),
        rpn_convolutions=2,
        batch_norm=True,
    )
    return _architecture(
        version, "torchvision's second version of it: better on COCO, about twice the time of a step", 45.8
    )


def _architecture(version: _Version, description: str, parameters_m: float) -> Architecture:
    return Architecture(
        name=version.name,
        description=description,
        parameters_m=parameters_m,
        weights=f"COCO, from torchvision's hub, or {version.name}:FILE",
        licence="BSD-3-Clause",
        build=version.build,
        training_view_px=_training_view_px,
        variant="a file with the weights that torchvision offers for it",
        note=lambda: "the hub needs network; a file does not",
    )


def _training_view_px(stats: DataStats) -> int:
    return max(round(INPUT_SIDE_PX / input_scale(stats, target_diameter_px=TARGET_DIAMETER_PX)), 32)


def _from_file(path: Path) -> dict[str, Tensor]:
    way_out = "Give the state dict of torchvision's own model, as its hub has it."
    if not path.is_file():
        raise ModelError("there is no such file of weights", value=path, way_out=way_out)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError("this file holds no weights", value=path, way_out=way_out) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError("this file holds no state dict", value=path, way_out=way_out)
    return dict(state)


def _load(model: nn.Module, state: dict[str, Tensor], *, origin: str) -> None:
    """Loads all but the layers that have one output for each class.

    Raises:
        ModelError: Anything else is missing, left over, or of another shape.
    """
    kept = {key: value for key, value in state.items() if not key.startswith(CLASS_LAYERS)}
    try:
        result = model.load_state_dict(kept, strict=False)  # torchvision's parts rename old keys
        wrong = [key for key in result.missing_keys if not key.startswith(CLASS_LAYERS)]
        wrong += result.unexpected_keys
    except RuntimeError as error:
        wrong = [str(error).splitlines()[-1].strip()]
    if wrong:
        tensors = plural(len(wrong), "tensor differs", "tensors differ")
        raise ModelError(
            f"these are not the weights of this network ({tensors}, as {wrong[0]})",
            value=origin,
            way_out="v1 and v2 have weights of their own.",
        )
    count = len(model.state_dict())
    logger.info("%d of %d tensors come from %s", count - len(result.missing_keys), count, origin)
