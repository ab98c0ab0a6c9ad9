"""What a network of regions is taught, and what it answers, in the coordinates of its input.

Shared by every model that looks at boxes first and at their masks second (He et al. 2017, Mask R-CNN).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_area, roi_align

from labelloop.masks import resample_mask
from labelloop.models.protocol import Prediction, Target

IGNORE_COVERED = 0.5  # a box lies on ignored objects if they cover this share of the box
MOST_RECTANGLES = 16  # an ignored region that is made of more counts by its box


@dataclass(frozen=True, kw_only=True)
class RoiTarget:
    """A target in the coordinates of the network's input.

    Attributes:
        boxes: float32 (n, 4) xyxy.
        labels: int64 (n,), 1..k.
        weights: float32 (n,), how sure it is that the object is one, 0..1: a matched box should be given this
            score, the rest goes to the background; box and mask count so much.
        masks: uint8 (n, h, w) in *image* coordinates, 0..255.
        mask_scale: Image pixels per input pixel, along x and y.
        ignore_boxes: float32 (m, 4) xyxy; of a region that is made of a few rectangles, as what is unknown
            where not all tiles came back, those.
    """

    boxes: Tensor
    labels: Tensor
    weights: Tensor
    masks: Tensor
    mask_scale: tuple[float, float]
    ignore_boxes: Tensor

    @property
    def image_box(self) -> Tensor:
        """Of the image in the input, which may be padded: float32 (4,) xyxy."""
        height, width = self.masks.shape[-2:]
        return self.boxes.new_tensor([0, 0, width / self.mask_scale[0], height / self.mask_scale[1]])


def roi_target(target: Target, scale_xy: tuple[float, float]) -> RoiTarget:
    """A target for an image that was resized by these factors along x and y."""
    boxes, filled = _boxes(target.masks)
    scale = boxes.new_tensor([*scale_xy, *scale_xy])
    counted, ignored = filled & ~target.ignore, filled & target.ignore
    return RoiTarget(
        boxes=boxes[counted] * scale,
        labels=target.labels[counted] + 1,
        weights=target.weights[counted],
        masks=target.masks[counted],
        mask_scale=(1 / scale_xy[0], 1 / scale_xy[1]),
        ignore_boxes=_ignored_boxes(target.masks[ignored], boxes[ignored]) * scale,
    )


def _ignored_boxes(masks: Tensor, boxes: Tensor) -> Tensor:
    """Boxes of ignored objects, image px: each one's own, or the rectangles that it is made of."""
    parts = [boxes[:0]]
    for mask, box in zip(masks, boxes, strict=True):
        found = _rectangles(mask > 127)
        parts.append(box[None] if found is None else box.new_tensor(found))
    return torch.cat(parts)


def _rectangles(inside: Tensor) -> list[tuple[int, int, int, int]] | None:
    """The xyxy rectangles, none upon another, that bands of equal rows make; None if they are too many.

    Args:
        inside: bool (h, w).
    """
    changes = torch.nonzero((inside[1:] != inside[:-1]).any(1))[:, 0] + 1
    if len(changes) > MOST_RECTANGLES:
        return None
    found = []
    for top, bottom in pairwise([0, *changes.tolist(), len(inside)]):
        edges = torch.diff(F.pad(inside[top].to(torch.int8), (1, 1)))
        starts, ends = (torch.nonzero(edges == way)[:, 0].tolist() for way in (1, -1))
        found += [(left, top, right, bottom) for left, right in zip(starts, ends, strict=True)]
    return found if len(found) <= MOST_RECTANGLES else None


def rpn_target(target: RoiTarget) -> dict[str, Tensor]:
    """What anchors should find; objects that are less likely than not neither attract nor repel them."""
    sure = target.weights >= 0.5
    return {
        "boxes": target.boxes[sure],
        "ignore_boxes": target.ignore_boxes,
        "unsure_boxes": target.boxes[~sure],
        "image_box": target.image_box,
    }


def covered_share(
    boxes: Tensor, ignored: Tensor, unsure: Tensor | None = None, *, inside: Tensor | None = None
) -> Tensor:
    """How much of each box is covered, float32 (n,), 0..1.

    Args:
        boxes: float32 (n, 4) xyxy.
        ignored: float32 (m, 4) xyxy, which count together.
        unsure: float32 (u, 4) xyxy, of which the one that covers most counts.
        inside: float32 (4,) xyxy; only what of the boxes lies inside counts, as that of anchors in the image.
    """
    if inside is not None:
        boxes = torch.min(torch.max(boxes, inside[:2].repeat(2)), inside[2:].repeat(2))
    share: Tensor = _covered(boxes, ignored).sum(1).clamp(max=1)
    if unsure is None or len(unsure) == 0:
        return share
    return torch.max(share, _covered(boxes, unsure).amax(1))


def _covered(boxes: Tensor, others: Tensor) -> Tensor:
    """How much of each box each of the others covers: float32 (n, m), 0..1."""
    top_left = torch.max(boxes[:, None, :2], others[None, :, :2])
    bottom_right = torch.min(boxes[:, None, 2:], others[None, :, 2:])
    sides = (bottom_right - top_left).clamp(min=0)
    areas: Tensor = box_area(boxes).clamp(min=1e-6)
    return sides[..., 0] * sides[..., 1] / areas[:, None]


def soft_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, *, background: int) -> Tensor:
    """Cross entropy of regions whose objects are only so sure, the rest being background: float32 (n,).

    Args:
        logits: float32 (n, k + 1).
        labels: int64 (n,), the class of the object that a region belongs to, or the background.
        weights: float32 (n,), how sure the object is, 0..1.
        background: Which of the logits is the background's.
    """
    as_object = F.cross_entropy(logits, labels, reduction="none")
    as_background = F.cross_entropy(logits, torch.full_like(labels, background), reduction="none")
    return as_object * weights + as_background * (1 - weights)


def masks_in_boxes(boxes: Tensor, matched: Tensor, target: RoiTarget, side: int) -> Tensor:
    """The part of each box's own mask inside the box: float32 (n, side, side), 0..1.

    Args:
        boxes: float32 (n, 4) xyxy, input px.
        matched: int64 (n,), which object of the target a box belongs to.
        target: The objects.
        side: Cells of the grid along each side.
    """
    if len(boxes) == 0:
        return boxes.new_zeros((0, side, side))
    per_x, per_y = target.mask_scale
    in_image = boxes * boxes.new_tensor([per_x, per_y, per_x, per_y])
    used, index = torch.unique(matched, return_inverse=True)  # only the masks that a sampled box belongs to
    rois = torch.cat([index[:, None].to(in_image), in_image], 1)
    masks = target.masks[used][:, None].float().mul_(1 / 255)
    inside: Tensor = roi_align(masks, rois, (side, side), 1.0, sampling_ratio=1, aligned=True)
    return inside[:, 0]


def prediction_of_boxes(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    masks: Tensor,
    *,
    scale_xy: tuple[float, float],
    size_hw: tuple[int, int],
) -> Prediction:
    """What was found in an image, on the CPU and in its coordinates.

    Args:
        boxes: (n, 4) xyxy, input px.
        scores: (n,), 0..1, best first.
        labels: (n,), class index from 0.
        masks: (n, rows, columns), probabilities on the boxes' grids.
        scale_xy: Factors by which the image was resized.
        size_hw: Of the image.
    """
    boxes_xyxy = boxes.cpu().float().numpy() / np.array([*scale_xy, *scale_xy], np.float32)
    grids = masks.cpu().float().numpy()
    pasted = [resample_mask(grid, box, size_hw) for grid, box in zip(grids, boxes_xyxy, strict=True)]
    inside = grids > 0.5
    sharpness = (np.abs(2 * grids - 1) * inside).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1)
    return Prediction(
        size_hw=size_hw,
        labels=labels.cpu().numpy().astype(np.int64),
        scores=scores.cpu().float().numpy(),
        quality=sharpness.astype(np.float32),
        crops=tuple(crop for crop, _, _ in pasted),
        offsets_yx=np.array([(top, left) for _, top, left in pasted], np.int64).reshape(-1, 2),
    )


def _boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes of soft masks at one half, float32 (n, 4) xyxy, and which masks have any pixel there."""
    n, height, width = masks.shape
    inside = masks > 127
    columns, rows = inside.any(1), inside.any(2)
    filled = columns.any(1)
    x0 = columns.float().argmax(1)
    x1 = width - columns.flip(1).float().argmax(1)
    y0 = rows.float().argmax(1)
    y1 = height - rows.flip(1).float().argmax(1)
    return torch.stack([x0, y0, x1, y1], 1).float().reshape(n, 4), filled
