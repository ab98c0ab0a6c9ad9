"""A Mask R-CNN of detectron2 as an InstanceModel."""

from __future__ import annotations

import logging
import math
import pickle
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from labelloop.errors import ModelError
from labelloop.integrations.detectron2.configs import (
    config_file,
    fit_config,
    proposals_before,
    read_config,
    weights_of,
)
from labelloop.integrations.detectron2.soft_heads import as_instances, soften
from labelloop.models.data_stats import DataStats
from labelloop.models.inputs import STRIDE, resized
from labelloop.models.mask_rcnn import USUAL_INPUT_PX, MaskRCNNConfig
from labelloop.models.protocol import Prediction, Target
from labelloop.models.regions import prediction_of_boxes, roi_target

logger = logging.getLogger(__name__)


def build_detectron2(
    name: str, stats: DataStats, *, target_diameter_px: float, pretrained: bool
) -> Detectron2RCNN:
    """A model of a configuration, fitted to the data.

    Args:
        name: A yaml file, or a name of detectron2's zoo.
        stats: Of the labelled images.
        target_diameter_px: Equivalent diameter of the median object in the network's input.
        pretrained: False leaves all weights random, for a network whose weights are loaded next.

    Raises:
        ModelError: The configuration, its weights, or what it needs of detectron2 cannot be found.
    """
    path = config_file(name)
    cfg = read_config(path)
    weights = weights_of(cfg, path) if pretrained else str(cfg.MODEL.WEIGHTS)  # the file may be gone since
    fitted = fit_config(cfg, stats, target_diameter_px=target_diameter_px, random_weights=not weights)
    try:
        network = GeneralizedRCNN(cfg)
    except (AssertionError, ImportError, KeyError, ValueError) as error:
        raise ModelError(
            f"detectron2 cannot build this configuration ({' '.join(str(error).split())})", value=path
        ) from error
    if not isinstance(getattr(network.roi_heads, "mask_head", None), BaseMaskRCNNHead):
        raise ModelError(
            "masks of this kind cannot be taught soft labels",
            value=f"{path}, MODEL.ROI_MASK_HEAD.NAME {cfg.MODEL.ROI_MASK_HEAD.NAME}",
            way_out="Take a configuration with MaskRCNNConvUpsampleHead.",
        )
    if weights:
        if pretrained:
            _load(network, weights)
        _name_the_body(network)
    soften(network)
    return Detectron2RCNN(network, fitted, bgr=cfg.INPUT.FORMAT == "BGR")


class Detectron2RCNN(nn.Module):
    """A network of detectron2 with softened heads.

    Args:
        network: A GeneralizedRCNN after ``soften``.
        config: What follows from the data.
        bgr: Whether it takes blue, green and red in this order.
    """

    def __init__(self, network: nn.Module, config: MaskRCNNConfig, *, bgr: bool) -> None:
        super().__init__()
        self.network: Any = network
        self.config = config
        self.channels = [2, 1, 0] if bgr else [0, 1, 2]

    def module(self) -> nn.Module:
        """Itself."""
        return self

    @property
    def stride_px(self) -> float:
        """Image px between neighbours on the coarsest grid: shifts by it change predictions least."""
        return (self.network.backbone.size_divisibility or STRIDE) / self.config.input_scale

    @property
    def grid_scale(self) -> float:
        """See Coarse."""
        return min(self.config.input_scale, 1.0)

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Target], *, resized_by: float = 1.0
    ) -> dict[str, Tensor]:
        """detectron2's losses ``cls``, ``box_reg``, ``mask``, ``rpn_cls`` and ``rpn_loc``."""
        was_training = self.training
        self.train()
        inputs, scales = self._inputs(images, resized_by)
        batch = self.network.preprocess_image(inputs)
        wanted = [
            as_instances(roi_target(target, scale), size_hw)
            for target, scale, size_hw in zip(targets, scales, batch.image_sizes, strict=True)
        ]
        features = self._features(batch.tensor)
        with EventStorage(0), _without_its_warnings():
            try:
                proposals, losses = self.network.proposal_generator(batch, features, wanted)
            except FloatingPointError:  # the network's answers are not finite, so its loss is not either
                losses = {"rpn_cls": math.nan * sum(feature.sum() for feature in features.values())}
            else:
                losses |= self.network.roi_heads(batch, features, proposals, wanted)[1]
        self.train(was_training)
        return {name.removeprefix("loss_"): loss for name, loss in losses.items()}

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Tensor], *, min_score: float = 0.05, resized_by: float = 1.0
    ) -> list[Prediction]:
        """What the model sees; see Coarse."""
        was_training = self.training
        self.eval()
        inputs, scales = self._inputs(images, resized_by)
        batch = self.network.preprocess_image(inputs)
        self._make_room(batch.tensor, min_score)
        features = self._features(batch.tensor)
        with _without_its_warnings():
            proposals, _ = self.network.proposal_generator(batch, features, None)
            found, _ = self.network.roi_heads(batch, features, proposals, None)
        self.train(was_training)
        return [
            prediction_of_boxes(
                f.pred_boxes.tensor,
                f.scores,
                f.pred_classes,
                f.pred_masks[:, 0],
                scale_xy=scale,
                size_hw=(int(image.shape[-2]), int(image.shape[-1])),
            )
            for f, scale, image in zip(found, scales, images, strict=True)
        ]

    def _make_room(self, batch: Tensor, min_score: float) -> None:
        """Larger inputs hold more objects; what scores less than is asked for is not looked at."""
        room = max(1.0, batch.shape[-2] * batch.shape[-1] / USUAL_INPUT_PX)
        rpn, heads = self.network.proposal_generator, self.network.roi_heads
        before, after = (math.ceil(n * room) for n in self.config.proposals_test)
        rpn.pre_nms_topk[False] = proposals_before(before, len(rpn.in_features))
        rpn.post_nms_topk[False] = after
        several = isinstance(heads.box_predictor, nn.ModuleList)  # a cascade has one for each stage
        for predictor in heads.box_predictor if several else [heads.box_predictor]:
            predictor.test_topk_per_image = math.ceil(self.config.head.detections_per_image * room)
            predictor.test_score_thresh = min_score

    def _features(self, batch: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.network.backbone(batch)
        return {name: f.float() for name, f in features.items()}

    def _inputs(
        self, images: Sequence[Tensor], resized_by: float
    ) -> tuple[list[dict[str, Tensor]], list[tuple[float, float]]]:
        """Images as detectron2 takes them, and the factors along x and y by which each was resized."""
        scale = self.config.input_scale / resized_by
        pairs = [resized(image[self.channels] * 255, scale) for image in images]
        return [{"image": image} for image, _ in pairs], [scale for _, scale in pairs]


class _Body(nn.Module):
    """Gives the parameters of a pretrained backbone the name by which they learn slower.

    Args:
        body: What is pretrained.
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        self.size_divisibility = body.size_divisibility
        self.padding_constraints = body.padding_constraints

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """What the backbone gives."""
        features: dict[str, Tensor] = self.body(images)
        return features


def _name_the_body(network: Any) -> None:
    if hasattr(network.backbone, "bottom_up"):  # below a pyramid
        network.backbone.bottom_up = _Body(network.backbone.bottom_up)
    else:
        network.backbone = _Body(network.backbone)


@contextmanager
def _without_its_warnings() -> Iterator[None]:
    """What PyTorch says of detectron2's code is for detectron2's developers."""
    of_tracing = logging.getLogger("torch.fx._symbolic_trace")
    level = of_tracing.level
    of_tracing.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
            yield
    finally:
        of_tracing.setLevel(level)


_NO_WEIGHTS = (  # what detectron2 raises of files that hold none, or none that it knows
    OSError, RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError, AssertionError,
    AttributeError, TypeError,
)  # fmt: skip


class _Checkpointer(DetectionCheckpointer):  # type: ignore[misc]
    """Keeps what did not fit instead of logging it."""

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        self.unmatched = {
            *incompatible.missing_keys,
            *(key for key, *_ in incompatible.incorrect_shapes),
        }


def _load(network: nn.Module, weights: str) -> None:
    """Loads every tensor of a file that fits, by name and shape.

    Raises:
        ModelError: The file cannot be found or read, or nothing in it fits.
    """
    checkpointer = _Checkpointer(network)
    try:
        checkpointer.load(weights)
    except _NO_WEIGHTS as error:
        raise ModelError(
            f"the weights of the configuration could not be found or downloaded ({type(error).__name__})",
            value=weights,
            way_out="Without a network, set MODEL.WEIGHTS in a yaml file to a file, or to nothing.",
        ) from error
    names = set(network.state_dict())
    fitting = len(names - checkpointer.unmatched)
    if fitting == 0:
        raise ModelError(
            "nothing in this file fits the configuration",
            value=weights,
            way_out="Set MODEL.WEIGHTS to weights of this network.",
        )
    logger.info("%d of %d tensors come from %s", fitting, len(names), weights)
