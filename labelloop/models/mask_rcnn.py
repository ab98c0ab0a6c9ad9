"""Mask R-CNN (He et al. 2017) as an InstanceModel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList

from labelloop.models.backbones import TimmPyramid
from labelloop.models.data_stats import DataStats
from labelloop.models.inputs import ResizingModule, input_scale
from labelloop.models.protocol import Prediction, Target
from labelloop.models.regions import prediction_of_boxes, roi_target, rpn_target
from labelloop.models.roi_heads import FullPrecisionRPNHead, HeadConfig, IgnoringRPN, RoiHeads

USUAL_INPUT_PX = 448 * 448  # what the limits of ``MaskRCNNConfig`` are meant for; larger inputs get more


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig:
    """What follows from the data. ``fit_to`` makes one.

    Attributes:
        n_classes: Classes without background.
        input_scale: The network sees images resized by this factor.
        anchor_sides: Side of the anchors per pyramid level (strides 4 to 64), input px.
        proposals_train: Proposals per image kept before and after suppression, in training.
        proposals_test: Likewise in prediction.
        head: The heads.
        rpn_convolutions: Before the proposals.
    """

    n_classes: int
    input_scale: float
    anchor_sides: tuple[float, ...]
    proposals_train: tuple[int, int]
    proposals_test: tuple[int, int]
    head: HeadConfig
    rpn_convolutions: int = 1


def fit_to(stats: DataStats, *, target_diameter_px: float, head: HeadConfig) -> MaskRCNNConfig:
    """The configuration that the labelled data ask for.

    The input scale brings the median object to ``target_diameter_px``, as far as enlarging images pays;
    anchors span the objects' boxes; proposals, sampled boxes and detections grow with the objects per image.

    Args:
        stats: Of the labelled images.
        target_diameter_px: Equivalent diameter of the median object in the network's input.
        head: Sizes; its limits are raised where the data need more.
    """
    scale = input_scale(stats, target_diameter_px=target_diameter_px)
    smallest = max(stats.box_side_px[0] * scale * 0.8, 8.0)
    largest = max(stats.box_side_px[2] * scale * 1.1, smallest * 4)
    sides = tuple(float(s) for s in np.geomspace(smallest, largest, 5))
    most = stats.objects_per_image[1]
    detections = max(head.detections_per_image, math.ceil(2 * most / 50) * 50)
    boxes = int(min(max(head.boxes_per_image, math.ceil(most / 16) * 16), 512))
    return MaskRCNNConfig(
        n_classes=len(stats.classes),
        input_scale=scale,
        anchor_sides=sides,
        proposals_train=(600, max(300, 2 * boxes)),
        proposals_test=(max(600, 2 * detections), max(300, detections)),
        head=replace(head, boxes_per_image=boxes, detections_per_image=detections),
    )


class MaskRCNN(ResizingModule):
    """Mask R-CNN on a feature pyramid.

    Args:
        backbone: The pyramid, strides 4 to 64.
        config: What follows from the data.
    """

    def __init__(self, backbone: TimmPyramid | BackboneWithFPN, config: MaskRCNNConfig) -> None:
        super().__init__(config.input_scale)
        self.config = config
        self.backbone = backbone
        channels = backbone.out_channels
        anchors = AnchorGenerator(
            sizes=tuple((s,) for s in config.anchor_sides),
            aspect_ratios=((0.6, 1.0, 1.67),) * len(config.anchor_sides),
        )
        self.rpn = IgnoringRPN(
            anchors,
            FullPrecisionRPNHead(channels, 3, config.rpn_convolutions),
            fg_iou_thresh=0.6,
            bg_iou_thresh=0.3,
            batch_size_per_image=max(128, config.head.boxes_per_image),
            positive_fraction=0.5,
            pre_nms_top_n={"training": config.proposals_train[0], "testing": config.proposals_test[0]},
            post_nms_top_n={"training": config.proposals_train[1], "testing": config.proposals_test[1]},
            nms_thresh=0.75,
        )
        self.roi_heads = RoiHeads(channels, config.n_classes, config.head)

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Target], *, resized_by: float = 1.0
    ) -> dict[str, Tensor]:
        """Losses ``objectness``, ``proposal``, ``class``, ``box`` and ``mask``; see Coarse."""
        batch, scales = self.batch(images, resized_by)
        features = self._features(batch)
        roi_targets = [roi_target(t, s) for t, s in zip(targets, scales, strict=True)]
        rpn_targets = [rpn_target(t) for t in roi_targets]
        self.rpn.train()
        proposals, rpn_losses = self.rpn(batch, features, rpn_targets)
        losses = {"objectness": rpn_losses["loss_objectness"], "proposal": rpn_losses["loss_rpn_box_reg"]}
        losses |= self.roi_heads.loss(features, proposals, roi_targets)
        return losses

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Tensor], *, min_score: float = 0.05, resized_by: float = 1.0
    ) -> list[Prediction]:
        """What the model sees; see Coarse."""
        was_training = self.training
        self.eval()
        batch, scales = self.batch(images, resized_by)
        features = self._features(batch)
        room = max(1.0, batch.tensors.shape[-2] * batch.tensors.shape[-1] / USUAL_INPUT_PX)
        before, after = (math.ceil(n * room) for n in self.config.proposals_test)
        self.rpn._pre_nms_top_n["testing"], self.rpn._post_nms_top_n["testing"] = before, after
        limit = math.ceil(self.config.head.detections_per_image * room)
        found = self.roi_heads.detect(
            features, self.rpn(batch, features)[0], batch.image_sizes, min_score=min_score, limit=limit
        )
        self.train(was_training)
        return [
            prediction_of_boxes(
                boxes,
                scores,
                labels - 1,
                masks,
                scale_xy=scale,
                size_hw=(int(image.shape[-2]), int(image.shape[-1])),
            )
            for (boxes, scores, labels, masks), scale, image in zip(found, scales, images, strict=True)
        ]

    def _features(self, batch: ImageList) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.backbone(batch.tensors)
        return {name: f.float() for name, f in features.items()}
