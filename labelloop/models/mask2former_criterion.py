"""The loss of Mask2Former for soft, weighted and ignored targets.

The criterion is that of Cheng et al. 2022 (Masked-attention Mask Transformer for Universal Image
Segmentation, sections 3.2 and 3.3): every decoder output is matched to the objects and learns their classes
and masks, the masks at points that are drawn where they are uncertain (Kirillov et al. 2020, PointRend,
section 3.1). What differs: an object may be *ignored*, may weigh less than one, and its mask may hold
probabilities. With masks of weight one and nothing ignored it is the authors' loss. Masks' losses are divided
by the objects of the whole step, as in the authors' code, classes' by its queries: there by those of a GPU.

All random numbers are of torch's global generator. Suffixes: B images, Q queries, N objects, M matched pairs,
P points, K classes and "no object", H and W cells of the mask grid, XY two coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from labelloop.errors import TrainingError
from labelloop.models.protocol import Amount

IGNORE_COVERED = 0.5  # a query lies on ignored objects if they cover this share of its mask


@dataclass(frozen=True, kw_only=True)
class CriterionConfig:
    """Weights and points. The defaults are the paper's.

    Attributes:
        class_weight: Of the classes, in the loss and in matching.
        mask_weight: Of the masks' cross-entropy, likewise.
        dice_weight: Of the masks' dice loss, likewise.
        no_object_weight: How much a query counts that should not be an object.
        points: At so many points a mask is compared.
        oversample: So many times more points are drawn, of which the most uncertain are kept.
        importance: Share of the points that are chosen like this; the others are uniform.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75


@dataclass(frozen=True, kw_only=True)
class QueryOutput:
    """What the queries see after one layer of the decoder.

    Attributes:
        classes_BQK: Class logits; the last one, of K + 1, is "no object".
        masks_BQHW: Mask logits on the grid of the padded batch.
    """

    classes_BQK: Tensor
    masks_BQHW: Tensor


@dataclass(frozen=True, kw_only=True)
class QueryTarget:
    """What the queries should see in one image.

    Attributes:
        masks: uint8 (n, h, w), 0..255, in the image's own pixels.
        labels: int64 (n,), class from 0.
        weights: float32 (n,), how sure it is that the object is one, 0..1.
        ignored: uint8 (h, w), the ignored objects; None where there is none.
        extent_xy: float32 (2,), the share of the padded batch that the image fills along x and y.
    """

    masks: Tensor
    labels: Tensor
    weights: Tensor
    ignored: Tensor | None
    extent_xy: Tensor


@dataclass(frozen=True, kw_only=True)
class _Match:
    """Which queries of an image are which of its objects.

    Attributes:
        queries: int64 (m,), ascending.
        objects: int64 (m,).
        left_out: bool (q,), queries that lie on ignored objects and belong to none of the others.
    """

    queries: Tensor
    objects: Tensor
    left_out: Tensor


@dataclass(frozen=True, kw_only=True)
class _Divisors:
    """What the losses are divided by; known before anything is matched, so that parts of a step add up.

    Attributes:
        objects: For masks: how many there are, each counted as much as it is sure, 1 at least.
        queries: For classes: how much all queries count. Those that are left out are in it as if they should
            be no object: how many they are is another number in every output of the decoder.
    """

    objects: float
    queries: float


def query_losses(
    outputs: Sequence[QueryOutput],
    targets: Sequence[QueryTarget],
    config: CriterionConfig,
    whole: Amount | None = None,
) -> dict[str, Tensor]:
    """Losses ``class``, ``mask`` and ``dice``, weighted, in float32, summed over the decoder's outputs.

    Args:
        outputs: Of the decoder's layers, the last one last.
        targets: Of the b images.
        config: Weights and points.
        whole: What the step holds that these images are a part of; None where they are all of it.

    Raises:
        TrainingError: An image has more objects than there are queries.
    """
    most, queries = max(len(t.labels) for t in targets), outputs[0].classes_BQK.shape[1]
    if most > queries:
        raise TrainingError(
            "an image has more objects than the model has queries",
            value=f"{most} objects, {queries} queries",
            way_out="Train a mask-rcnn model, or put the fullest image among the labelled ones: it decides"
            " how many queries there are.",
        )
    divisors = _divisors(whole or _amount(targets), queries, config)
    total = {name: torch.zeros((), device=targets[0].masks.device) for name in ("class", "mask", "dice")}
    with torch.autocast(targets[0].masks.device.type, enabled=False):
        for output in (outputs[-1], *outputs[:-1]):
            matches = [
                match(classes.float(), masks.float(), target, config)
                for classes, masks, target in zip(
                    output.classes_BQK.detach(), output.masks_BQHW.detach(), targets, strict=True
                )
            ]
            mask, dice = _mask_losses(output.masks_BQHW, targets, matches, config)
            classes = _class_loss(output.classes_BQK, targets, matches, config)
            total["class"] = total["class"] + classes / divisors.queries
            total["mask"] = total["mask"] + mask / divisors.objects
            total["dice"] = total["dice"] + dice / divisors.objects
    return {
        "class": config.class_weight * total["class"],
        "mask": config.mask_weight * total["mask"],
        "dice": config.dice_weight * total["dice"],
    }


def _amount(targets: Sequence[QueryTarget]) -> Amount:
    return Amount(images=len(targets), objects=float(torch.cat([t.weights for t in targets]).sum()))


def _divisors(whole: Amount, queries: int, config: CriterionConfig) -> _Divisors:
    """An object of weight w has a query that counts w and 1 - w times as much as one without an object."""
    none = config.no_object_weight
    all_queries = none * queries * whole.images + (1 - none) * whole.objects
    return _Divisors(objects=max(whole.objects, 1.0), queries=max(all_queries, 1e-6))


@torch.no_grad()
def match(classes_QK: Tensor, masks_QHW: Tensor, target: QueryTarget, config: CriterionConfig) -> _Match:
    """The queries that are the objects of an image at the least cost.

    An object's cost counts as much as it is sure, so that one of weight 0 takes no query from another.
    """
    points_1PXY = torch.rand(1, config.points, 2, device=masks_QHW.device)
    logits_QP = sample_logits(masks_QHW, points_1PXY * target.extent_xy)
    wanted_NP = sample_masks(target.masks, points_1PXY)
    positive, inside_QP = F.softplus(logits_QP).sum(1, keepdim=True), logits_QP.sigmoid()
    # -log sigmoid(x) = softplus(x) - x, so the cross-entropy of every pair is one product
    cross_entropy = (positive - logits_QP @ wanted_NP.T) / config.points
    dice = 1 - (2 * inside_QP @ wanted_NP.T + 1) / (inside_QP.sum(1)[:, None] + wanted_NP.sum(1) + 1)
    cost = (
        config.mask_weight * cross_entropy
        + config.dice_weight * dice
        - config.class_weight * classes_QK.softmax(-1)[:, target.labels]
    ) * target.weights
    most = torch.finfo(cost.dtype).max
    cost = torch.nan_to_num(cost, nan=most, posinf=most, neginf=most)
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    queries = torch.from_numpy(rows).to(cost.device)
    left_out = torch.zeros(len(cost), dtype=torch.bool, device=cost.device)
    if target.ignored is not None:
        ignored_P = sample_masks(target.ignored[None], points_1PXY)[0]
        left_out = inside_QP @ ignored_P > IGNORE_COVERED * inside_QP.sum(1)
        left_out[queries] = False
    return _Match(queries=queries, objects=torch.from_numpy(columns).to(cost.device), left_out=left_out)


def _class_loss(
    classes_BQK: Tensor, targets: Sequence[QueryTarget], matches: Sequence[_Match], config: CriterionConfig
) -> Tensor:
    """Sum of cross-entropies; a matched query should give its object the score that its weight is."""
    log_p = F.log_softmax(classes_BQK.float(), -1)
    sure = torch.zeros(log_p.shape[:2], device=log_p.device)
    labels = torch.zeros(log_p.shape[:2], dtype=torch.int64, device=log_p.device)
    counts = torch.ones_like(sure)
    for b, (target, found) in enumerate(zip(targets, matches, strict=True)):
        sure[b, found.queries] = target.weights[found.objects]
        labels[b, found.queries] = target.labels[found.objects]
        counts[b, found.left_out] = 0.0
    counts = counts * (sure + (1 - sure) * config.no_object_weight)
    as_object = log_p.gather(-1, labels[..., None])[..., 0]
    each = sure * as_object + (1 - sure) * log_p[..., -1]
    return -(each * counts).sum()


def _mask_losses(
    masks_BQHW: Tensor, targets: Sequence[QueryTarget], matches: Sequence[_Match], config: CriterionConfig
) -> tuple[Tensor, Tensor]:
    """Sums of cross-entropy and dice loss of the matched masks at their points, by how sure objects are."""
    chosen = torch.cat([masks[m.queries] for masks, m in zip(masks_BQHW, matches, strict=True)]).float()
    if len(chosen) == 0:
        return masks_BQHW.sum().float() * 0, masks_BQHW.sum().float() * 0
    counts = [len(m.queries) for m in matches]
    extent_M1XY = torch.cat([t.extent_xy.expand(n, 1, 2) for t, n in zip(targets, counts, strict=True)])
    with torch.no_grad():
        points_MPXY = uncertain_points(chosen, extent_M1XY, config)
        wanted, valid = zip(
            *(
                _wanted(target, found.objects, points)
                for target, found, points in zip(
                    targets, matches, torch.split(points_MPXY, counts), strict=True
                )
            ),
            strict=True,
        )
        wanted_MP, valid_MP = torch.cat(wanted), torch.cat(valid)
        weights_M = torch.cat([t.weights[m.objects] for t, m in zip(targets, matches, strict=True)])
    logits_MP = sample_logits(chosen, points_MPXY * extent_M1XY)
    each = F.binary_cross_entropy_with_logits(logits_MP, wanted_MP, weight=valid_MP, reduction="none").mean(1)
    inside_MP = logits_MP.sigmoid()
    shared = (inside_MP * wanted_MP * valid_MP).sum(1)
    both = ((inside_MP + wanted_MP) * valid_MP).sum(1)
    dice = 1 - (2 * shared + 1) / (both + 1)
    return (each * weights_M).sum(), (dice * weights_M).sum()


def _wanted(target: QueryTarget, objects: Tensor, points_MPXY: Tensor) -> tuple[Tensor, Tensor]:
    """Masks at points, float32 (m, p) 0..1, and how much each point counts.

    A pixel on an ignored object counts the less the less decided the mask itself is about it.
    """
    masks = target.masks[objects]
    wanted_MP = sample_masks(masks, points_MPXY)
    if target.ignored is None:
        return wanted_MP, torch.ones_like(wanted_MP)
    undecided = 255 - (2 * masks.int() - 255).abs()  # times 255 it is more than 16 bits hold
    left_out = (undecided * target.ignored // 255).byte()
    return wanted_MP, 1 - sample_masks(left_out, points_MPXY)


def uncertain_points(masks_MHW: Tensor, extent_M1XY: Tensor, config: CriterionConfig) -> Tensor:
    """Points at which masks are compared, float32 (m, p, 2), 0..1 of the image along x and y.

    Most are those of many random ones where the mask is least sure; the rest are uniform.
    """
    n, many = len(masks_MHW), int(config.points * config.oversample)
    drawn_MPXY = torch.rand(n, many, 2, device=masks_MHW.device)
    logits_MP = sample_logits(masks_MHW, drawn_MPXY * extent_M1XY)
    important = int(config.importance * config.points)
    index_MP = torch.topk(-logits_MP.abs(), important, dim=1).indices
    points_MPXY = drawn_MPXY.gather(1, index_MP[..., None].expand(-1, -1, 2))
    if important == config.points:
        return points_MPXY
    uniform = torch.rand(n, config.points - important, 2, device=masks_MHW.device)
    return torch.cat([points_MPXY, uniform], 1)


def sample_logits(masks_NHW: Tensor, points_NPXY: Tensor) -> Tensor:
    """Logits (n, p) at points, bilinear, zero outside.

    Args:
        masks_NHW: float32 (n, h, w).
        points_NPXY: float32 (n, p, 2), 0..1 along x and y; (1, p, 2) for the same points of every mask.
    """
    if len(points_NPXY) == 1:
        masks, points = masks_NHW[None], points_NPXY[:, :, None]
    else:
        masks, points = masks_NHW[:, None], points_NPXY[:, :, None]
    sampled = F.grid_sample(masks, 2 * points - 1, align_corners=False)
    return sampled[..., 0].reshape(len(masks_NHW), -1)


def sample_masks(masks_NHW: Tensor, points_NPXY: Tensor) -> Tensor:
    """Probabilities (n, p) at points, bilinear, zero outside; the masks stay bytes.

    Args:
        masks_NHW: uint8 (n, h, w), 0..255.
        points_NPXY: float32 (n, p, 2), 0..1 along x and y; (1, p, 2) for the same points of every mask.
    """
    n, height, width = masks_NHW.shape
    at = points_NPXY * points_NPXY.new_tensor([width, height]) - 0.5
    low = at.floor()
    share = at - low
    x, y = low.long().unbind(-1)
    flat = masks_NHW.reshape(n, height * width)
    total = points_NPXY.new_zeros((n, points_NPXY.shape[1]))
    for dy, across_y in ((0, 1 - share[..., 1]), (1, share[..., 1])):
        for dx, across_x in ((0, 1 - share[..., 0]), (1, share[..., 0])):
            row, column = y + dy, x + dx
            there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            total += flat.gather(1, index.expand(n, -1)).float() * (across_x * across_y * there)
    return total / 255
