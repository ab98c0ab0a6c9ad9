"""Proposals, boxes and masks of Mask R-CNN for soft, weighted and ignored targets.

Built from torchvision's parts (He et al. 2017, Mask R-CNN; Ren et al. 2015, Faster R-CNN). What differs from
torchvision's own heads: an object may be *ignored* (what lies on it is neither positive nor background), may
weigh less than one, and its mask may hold probabilities instead of zeros and ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import _utils as det_utils
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image
from torchvision.ops.boxes import box_iou

from labelloop.models.region_pool import RegionPool
from labelloop.models.regions import (
    IGNORE_COVERED,
    RoiTarget,
    covered_share,
    masks_in_boxes,
    soft_cross_entropy,
)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Sizes and limits of the heads.

    Attributes:
        box_features: Width of the fully connected layers.
        box_channels: Widths of convolutions before one of these; with none, there are two of them instead.
        mask_channels: Widths of the mask head's convolutions.
        batch_norm: Whether a batch normalisation follows each convolution.
        boxes_per_image: Sampled boxes per image in training.
        positives: Share of them that may be positive.
        box_nms_iou: Boxes of one class that overlap more are one object.
        detections_per_image: At most this many objects per image.
        box_loss_beta: Where smooth L1 of the boxes turns linear.
    """

    box_features: int = 256
    box_channels: tuple[int, ...] = ()
    mask_channels: tuple[int, ...] = (64, 64)
    batch_norm: bool = False
    boxes_per_image: int = 96
    positives: float = 0.33
    box_nms_iou: float = 0.5
    detections_per_image: int = 300
    box_loss_beta: float = 1 / 9


class FullPrecisionRPNHead(RPNHead):  # type: ignore[misc]
    """An RPN head whose answers are float32 whatever precision it computes in."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness and box deltas per level."""
        logits, deltas = super().forward(x)
        return [t.float() for t in logits], [t.float() for t in deltas]


class IgnoringRPN(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's RPN, with anchors on ignored objects left out of the loss."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (1 positive, 0 background, -1 left out) and matched boxes per anchor."""
        labels, matched = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            share = covered_share(
                anchor, target["ignore_boxes"], target["unsure_boxes"], inside=target["image_box"]
            )
            on_ignored = share > IGNORE_COVERED
            label[on_ignored & (label == 0)] = -1.0
        return labels, matched

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Losses of objectness and boxes; zero, where torchvision's are NaN, if every anchor is left out."""
        if all(bool((label < 0).all()) for label in labels):
            return objectness.sum() * 0, pred_bbox_deltas.sum() * 0
        losses: tuple[Tensor, Tensor] = super().compute_loss(
            objectness, pred_bbox_deltas, labels, regression_targets
        )
        return losses


class RoiHeads(nn.Module):
    """Box and mask heads.

    Args:
        channels: Width of the pyramid.
        n_classes: Classes without background.
        config: Sizes and limits.
    """

    def __init__(self, channels: int, n_classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.box_pool = RegionPool(7)
        norm = nn.BatchNorm2d if config.batch_norm else None
        self.box_head = (
            FastRCNNConvFCHead(
                (channels, 7, 7), [*config.box_channels], [config.box_features], norm_layer=norm
            )
            if config.box_channels
            else TwoMLPHead(channels * 49, config.box_features)
        )
        self.box_predictor = FastRCNNPredictor(config.box_features, n_classes + 1)
        self.mask_pool = RegionPool(14)
        self.mask_head = MaskRCNNHeads(channels, config.mask_channels, dilation=1, norm_layer=norm)
        self.mask_predictor = MaskRCNNPredictor(config.mask_channels[-1], config.mask_channels[-1], n_classes)
        self.box_coder = det_utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
        self.sampler = det_utils.BalancedPositiveNegativeSampler(config.boxes_per_image, config.positives)

    def loss(
        self,
        features: dict[str, Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[RoiTarget],
    ) -> dict[str, Tensor]:
        """Losses ``class``, ``box`` and ``mask``."""
        boxes, labels, matched = zip(
            *(self._sample(p, t) for p, t in zip(proposals, targets, strict=True)), strict=True
        )
        weights = [
            torch.where(
                label > 0, t.weights[m] if len(t.weights) else torch.ones_like(m, dtype=torch.float32), 1.0
            )
            for label, m, t in zip(labels, matched, targets, strict=True)
        ]
        logits, deltas = self.box_predictor(self.box_head(self.box_pool(features, boxes)))
        wanted = [
            self.box_coder.encode([t.boxes[m] if len(t.boxes) else b], [b])[0]
            for b, m, t in zip(boxes, matched, targets, strict=True)
        ]
        class_loss, box_loss = _box_losses(
            logits.float(),
            deltas.float(),
            torch.cat(labels),
            torch.cat(wanted),
            torch.cat(weights),
            self.config,
        )
        positive = [label > 0 for label in labels]
        mask_loss = self._mask_loss(
            features,
            [b[p] for b, p in zip(boxes, positive, strict=True)],
            [m[p] for m, p in zip(matched, positive, strict=True)],
            targets,
        )
        return {"class": class_loss, "box": box_loss, "mask": mask_loss}

    @torch.no_grad()
    def _sample(self, proposals: Tensor, target: RoiTarget) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes to learn from, their labels (0 background) and the objects they belong to."""
        boxes = torch.cat([proposals, target.boxes])
        if len(target.boxes):
            best_iou, matched = box_iou(target.boxes, boxes).max(0)
            labels = torch.where(best_iou >= 0.5, target.labels[matched], 0)
        else:
            matched = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
            labels = torch.zeros_like(matched)
        left_out = (labels == 0) & (covered_share(boxes, target.ignore_boxes) > IGNORE_COVERED)
        labels = torch.where(left_out, -1, labels)
        positive, negative = self.sampler([labels])
        index = torch.where(positive[0] | negative[0])[0]
        return boxes[index], labels[index], matched[index]

    def _mask_loss(
        self,
        features: dict[str, Tensor],
        boxes: Sequence[Tensor],
        matched: Sequence[Tensor],
        targets: Sequence[RoiTarget],
    ) -> Tensor:
        labels = torch.cat([t.labels[m] - 1 for t, m in zip(targets, matched, strict=True)])
        pooled = self.mask_pool(features, boxes)
        logits: Tensor = self.mask_predictor(self.mask_head(pooled)).float()
        if len(labels) == 0:
            return logits.sum() * 0
        side = logits.shape[-1]
        wanted = torch.cat(
            [masks_in_boxes(b, m, t, side) for b, m, t in zip(boxes, matched, targets, strict=True)]
        )
        weights = torch.cat([t.weights[m] for t, m in zip(targets, matched, strict=True)])
        chosen = logits[torch.arange(len(labels), device=labels.device), labels]
        each = F.binary_cross_entropy_with_logits(chosen, wanted, reduction="none").mean((1, 2))
        return (each * weights).sum() / max(len(labels), 1)

    def detect(
        self,
        features: dict[str, Tensor],
        proposals: Sequence[Tensor],
        sizes_hw: list[tuple[int, int]],
        *,
        min_score: float,
        limit: int,
    ) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Per image: boxes (n, 4), scores (n,), labels (n,) from 1, mask probabilities (n, 28, 28)."""
        logits, deltas = self.box_predictor(self.box_head(self.box_pool(features, proposals)))
        decoded = self.box_coder.decode(deltas.float(), list(proposals))
        scores = F.softmax(logits.float(), -1)
        counts = [len(p) for p in proposals]
        found = [
            self._best(b, s, size, min_score, limit)
            for b, s, size in zip(
                torch.split(decoded, counts), torch.split(scores, counts), sizes_hw, strict=True
            )
        ]
        boxes = [f[0] for f in found]
        masks = self.mask_predictor(self.mask_head(self.mask_pool(features, boxes))).float()
        labels = torch.cat([f[2] for f in found])
        chosen = masks[torch.arange(len(labels), device=labels.device), labels - 1].sigmoid()
        split = torch.split(chosen, [len(b) for b in boxes])
        return [(*f, m) for f, m in zip(found, split, strict=True)]

    def _best(
        self, boxes: Tensor, scores: Tensor, size_hw: tuple[int, int], min_score: float, limit: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        boxes = clip_boxes_to_image(boxes, size_hw)[:, 1:]
        scores = scores[:, 1:]
        labels = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand_as(scores)
        sides = boxes[..., 2:] - boxes[..., :2]
        keep = (scores >= min_score) & (sides.amin(-1) >= 1e-2)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
        best = batched_nms(boxes, scores, labels, self.config.box_nms_iou)[:limit]
        return boxes[best], scores[best], labels[best]


def _box_losses(
    logits: Tensor, deltas: Tensor, labels: Tensor, wanted: Tensor, weights: Tensor, config: HeadConfig
) -> tuple[Tensor, Tensor]:
    n = max(len(labels), 1)
    class_loss = soft_cross_entropy(logits, labels, weights, background=0).sum() / n
    positive = torch.where(labels > 0)[0]
    chosen = deltas.reshape(len(labels), deltas.shape[1] // 4, 4)[positive, labels[positive]]
    each = F.smooth_l1_loss(chosen, wanted[positive], beta=config.box_loss_beta, reduction="none").sum(1)
    return class_loss, (each * weights[positive]).sum() / n
