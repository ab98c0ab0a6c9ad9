"""Heads of detectron2 that learn from soft, weighted and ignored targets.

detectron2 puts a network together by the names in its registries. What comes out keeps its layers and its
weights; only the parts that make targets and losses are exchanged for the subclasses here, so nothing is
registered and any configuration keeps its own heads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNOutputLayers, ROIHeads
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor, nn
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from labelloop.models.regions import (
    IGNORE_COVERED,
    RoiTarget,
    covered_share,
    masks_in_boxes,
    rpn_target,
    soft_cross_entropy,
)

_IOU_LOSSES = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


class SoftMasks:
    """What detectron2 keeps as ``gt_masks``: the objects of a target, perhaps chosen and repeated.

    Args:
        target: All objects of the image.
        chosen: int64 (n,), which of them.
    """

    def __init__(self, target: RoiTarget, chosen: Tensor) -> None:
        self.target = target
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, item: Any) -> SoftMasks:
        return SoftMasks(self.target, self.chosen[item])

    def in_boxes(self, boxes: Tensor, side: int) -> Tensor:
        """The part of each mask inside its box: float32 (n, side, side), 0..1."""
        return masks_in_boxes(boxes, self.chosen, self.target, side)


def as_instances(target: RoiTarget, size_hw: tuple[int, int]) -> Any:
    """A target as detectron2's heads take it; ignored objects stand in ``gt_masks.target``.

    Args:
        target: In the coordinates of the network's input.
        size_hw: Of the input, without padding.
    """
    instances = Instances(size_hw)
    instances.gt_boxes = Boxes(target.boxes)
    instances.gt_classes = target.labels - 1
    instances.gt_weights = target.weights
    instances.gt_masks = SoftMasks(target, torch.arange(len(target.boxes), device=target.boxes.device))
    return instances


def soften(network: nn.Module) -> None:
    """Exchanges, in place, the parts of a network that make targets and losses."""
    kinds = (SoftCascadeROIHeads, SoftROIHeads, SoftRPN, FullPrecisionRPNHead, SoftOutputLayers, SoftMaskHead)
    for module in network.modules():
        softer = tuple(kind for kind in kinds if isinstance(module, kind.__bases__[0]))
        if softer:
            module.__class__ = type(f"Soft{type(module).__name__}", (*softer, type(module)), {})


class FullPrecisionRPNHead(StandardRPNHead):  # type: ignore[misc]
    """An RPN head whose answers are float32 whatever precision it computes in."""

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness and box deltas per level."""
        logits, deltas = super().forward(features)
        return [t.float() for t in logits], [t.float() for t in deltas]


class SoftRPN(RPN):  # type: ignore[misc]
    """An RPN that leaves anchors on ignored objects, and on those less likely than not, out of its loss."""

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Any], gt_instances: list[Any]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (1 object, 0 background, -1 left out) and matched boxes per anchor of each image."""
        everywhere = Boxes.cat(anchors)
        labels, boxes = [], []
        for instances in gt_instances:
            target = rpn_target(instances.gt_masks.target)
            matched, label = self.anchor_matcher(pairwise_iou(Boxes(target["boxes"]), everywhere))
            share = covered_share(
                everywhere.tensor, target["ignore_boxes"], target["unsure_boxes"], inside=target["image_box"]
            )
            on_ignored = share > IGNORE_COVERED
            label[on_ignored & (label == 0)] = -1
            if self.anchor_boundary_thresh >= 0:
                label[~everywhere.inside_box(instances.image_size, self.anchor_boundary_thresh)] = -1
            labels.append(self._subsample_labels(label))
            found = target["boxes"]
            boxes.append(found[matched] if len(found) else torch.zeros_like(everywhere.tensor))
        return labels, boxes


class SoftROIHeads(ROIHeads):  # type: ignore[misc]
    """Heads that leave proposals on ignored objects out."""

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals: list[Any], targets: list[Any]) -> list[Any]:
        """Proposals to learn from, with the fields of the objects they belong to."""
        pairs = zip(proposals, targets, strict=True)
        counted = [_without_ignored(p, t, self.proposal_matcher) for p, t in pairs]
        sampled: list[Any] = super().label_and_sample_proposals(counted, targets)
        return sampled


class SoftCascadeROIHeads(CascadeROIHeads):  # type: ignore[misc]
    """A cascade that leaves boxes on ignored objects out of each of its stages."""

    @torch.no_grad()
    def _match_and_label_boxes(self, proposals: list[Any], stage: int, targets: list[Any]) -> list[Any]:
        matcher = self.proposal_matchers[stage]
        counted = [_without_ignored(p, t, matcher) for p, t in zip(proposals, targets, strict=True)]
        labelled: list[Any] = super()._match_and_label_boxes(counted, stage, targets)
        for found, target in zip(labelled, targets, strict=True):
            if len(target):
                matched, _ = matcher(pairwise_iou(target.gt_boxes, found.proposal_boxes))
                found.gt_weights = target.gt_weights[matched]
        return labelled


def _without_ignored(proposals: Any, target: Any, matcher: Any) -> Any:
    """Proposals but for those that lie on an ignored object and belong to no other."""
    _, label = matcher(pairwise_iou(target.gt_boxes, proposals.proposal_boxes))
    ignored = target.gt_masks.target.ignore_boxes
    on_ignored = covered_share(proposals.proposal_boxes.tensor, ignored) > IGNORE_COVERED
    return proposals[~(on_ignored & (label == 0))]


class SoftOutputLayers(FastRCNNOutputLayers):  # type: ignore[misc]
    """Box predictors whose objects are to be given the score of how sure they are."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and box deltas, float32."""
        logits, deltas = super().forward(x)
        return logits.float(), deltas.float()

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: list[Any]) -> dict[str, Tensor]:
        """Losses ``loss_cls`` and ``loss_box_reg`` of sampled proposals."""
        logits, deltas = predictions
        classes = torch.cat([p.gt_classes for p in proposals])
        weights = torch.cat([_weights(p) for p in proposals])
        objects = classes < self.num_classes
        weights = torch.where(objects, weights, 1.0)
        n = max(len(classes), 1)
        boxes = torch.cat([p.proposal_boxes.tensor for p in proposals])
        wanted = torch.cat(
            [(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals]
        )
        each = self._each_box_loss(boxes[objects], wanted[objects], deltas[objects], classes[objects])
        losses = {
            "loss_cls": self._class_loss(logits, classes, weights) / n,
            "loss_box_reg": (each * weights[objects]).sum() / n,
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def _class_loss(self, logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
        if not self.use_sigmoid_ce:
            return soft_cross_entropy(logits, classes, weights, background=self.num_classes).sum()
        wanted = F.one_hot(classes, self.num_classes + 1) * weights[:, None]
        return F.binary_cross_entropy_with_logits(
            logits[:, : self.num_classes], wanted[:, : self.num_classes], reduction="sum"
        )

    def _each_box_loss(self, boxes: Tensor, wanted: Tensor, deltas: Tensor, classes: Tensor) -> Tensor:
        """The loss of each object's box, float32 (n,)."""
        if deltas.shape[1] > 4:
            deltas = deltas.view(-1, self.num_classes, 4)[torch.arange(len(classes)), classes]
        if self.box_reg_loss_type in _IOU_LOSSES:
            found = self.box2box_transform.apply_deltas(deltas, boxes)
            loss: Tensor = _IOU_LOSSES[self.box_reg_loss_type](found, wanted)
            return loss
        encoded = self.box2box_transform.get_deltas(boxes, wanted) if len(boxes) else boxes
        return F.smooth_l1_loss(deltas, encoded, beta=self.smooth_l1_beta, reduction="none").sum(1)


class SoftMaskHead(BaseMaskRCNNHead):  # type: ignore[misc]
    """Mask heads that learn probabilities, each as much as its object is sure."""

    def forward(self, x: Tensor, instances: list[Any]) -> Any:
        """The loss ``loss_mask`` in training; else the objects with their ``pred_masks``."""
        if not self.training:
            return super().forward(x, instances)
        logits = self.layers(x).float()
        found = [i for i in instances if len(i)]  # an image without objects has no masks
        if not found:
            return {"loss_mask": logits.sum() * 0}
        classes = torch.cat([i.gt_classes for i in found])
        chosen = logits[:, 0] if logits.shape[1] == 1 else logits[torch.arange(len(classes)), classes]
        side = logits.shape[-1]
        wanted = torch.cat([i.gt_masks.in_boxes(i.proposal_boxes.tensor, side) for i in found])
        weights = torch.cat([_weights(i) for i in found])
        each = F.binary_cross_entropy_with_logits(chosen, wanted, reduction="none").mean((1, 2))
        return {"loss_mask": self.loss_weight * (each * weights).sum() / len(classes)}

    def layers(self, x: Tensor) -> Tensor:
        """Logits, float32 whatever precision the layers compute in."""
        logits: Tensor = super().layers(x)
        return logits.float()


def _weights(instances: Any) -> Tensor:
    """How sure the object of each proposal is: float32 (n,); 1 in an image without objects."""
    if instances.has("gt_weights"):
        weights: Tensor = instances.gt_weights
        return weights
    return torch.ones_like(instances.gt_classes, dtype=torch.float32)
