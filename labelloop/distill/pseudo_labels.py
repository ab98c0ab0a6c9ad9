"""Pseudo-labels: what of a teacher's predictions a student should learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from labelloop.data.objects import SoftObjects
from labelloop.distill.pseudo_settings import ORIENTATIONS, PseudoLabelConfig
from labelloop.masks import resample_mask
from labelloop.models.protocol import InstanceModel, Prediction, seen_by


def predict_views(
    model: InstanceModel,
    images: Sequence[Tensor],
    *,
    views: int,
    zooms: Sequence[float] = (1.0,),
    min_score: float = 0.05,
    scale: float = 1.0,
) -> list[Prediction]:
    """A model's predictions averaged over flips, quarter turns and sizes of the images.

    Args:
        model: Any.
        images: float32 (3, h, w) each.
        views: How many of the eight orientations, 1..8.
        zooms: Sizes of the views, by turns.
        min_score: Of the single predictions.
        scale: The model is shown the images resized by this, its ``grid_scale`` at least; the predictions
            are of images of this size.
    """
    seen: list[list[Prediction]] = [[] for _ in images]
    sized = {zoom: [resized(image, zoom * scale) for image in images] for zoom in zooms[:views]}
    for number, (turns, flip) in enumerate(ORIENTATIONS[:views]):
        turned = [
            torch.rot90(i.flip(-1) if flip else i, turns, (-2, -1)).contiguous()
            for i in sized[zooms[number % len(zooms)]]
        ]
        predictions = seen_by(model, turned, min_score=min_score, resized_by=scale)
        for back, image, prediction in zip(seen, images, predictions, strict=True):
            upright = turn_back(prediction, turns=turns, flip=flip)
            back.append(size_back(upright, resized_hw(image, scale)))
    return [predictions[0] if views == 1 else merge_views(predictions) for predictions in seen]


def resized(image: Tensor, zoom: float) -> Tensor:
    """An image (3, h, w) made larger or smaller."""
    if zoom == 1.0:
        return image
    size_hw = resized_hw(image, zoom)
    larger: Tensor = F.interpolate(image[None], size_hw, mode="bilinear", antialias=zoom < 1)[0]
    return larger


def resized_hw(image: Tensor, zoom: float) -> tuple[int, int]:
    """Height and width of an image (3, h, w) that is made larger or smaller."""
    height, width = (max(round(side * zoom), 1) for side in image.shape[1:])
    return height, width


def size_back(prediction: Prediction, size_hw: tuple[int, int]) -> Prediction:
    """The prediction on an image that was resized, in the image of this size."""
    if prediction.size_hw == size_hw:
        return prediction
    per_y, per_x = (ours / theirs for ours, theirs in zip(size_hw, prediction.size_hw, strict=True))
    crops, offsets = [], []
    for crop, (y, x) in zip(prediction.crops, prediction.offsets_yx, strict=True):
        box = (x * per_x, y * per_y, (x + crop.shape[1]) * per_x, (y + crop.shape[0]) * per_y)
        own, top, left = resample_mask(crop, box, size_hw)
        crops.append(own)
        offsets.append((top, left))
    return replace(
        prediction,
        size_hw=size_hw,
        crops=tuple(crops),
        offsets_yx=np.array(offsets, np.int64).reshape(-1, 2),
    )


def turn_back(prediction: Prediction, *, turns: int, flip: bool) -> Prediction:
    """The prediction on an image that was flipped left-right and then turned, in the unturned image."""
    height, width = prediction.size_hw
    crops, offsets = list(prediction.crops), prediction.offsets_yx.copy()
    for _ in range(turns):  # undo one quarter turn at a time: (y, x) -> (x, height - 1 - y), clockwise
        ends = np.array([y + c.shape[0] for c, (y, _) in zip(crops, offsets, strict=True)], np.int64)
        offsets = np.stack([offsets[:, 1], height - ends], 1) if len(crops) else offsets
        crops = [np.rot90(c, -1) for c in crops]
        height, width = width, height
    if flip:
        ends = np.array([x + c.shape[1] for c, (_, x) in zip(crops, offsets, strict=True)], np.int64)
        offsets = np.stack([offsets[:, 0], width - ends], 1) if len(crops) else offsets
        crops = [c[:, ::-1] for c in crops]
    return Prediction(
        size_hw=(height, width),
        labels=prediction.labels,
        scores=prediction.scores,
        quality=prediction.quality,
        crops=tuple(np.ascontiguousarray(c) for c in crops),
        offsets_yx=offsets.reshape(-1, 2),
        class_scores=prediction.class_scores,
    )


def merge_views(predictions: Sequence[Prediction]) -> Prediction:
    """Averages what several views of one image show.

    Objects of one class from different views are one where the IoU of their masks is 0.5 or more. Its mask is
    the mean over the views that show it; its scores are the means over all views, absent ones counting zero.
    """
    rows = sorted(
        ((float(p.scores[i]), v, i) for v, p in enumerate(predictions) for i in range(len(p))),
        key=lambda r: -r[0],
    )
    clusters: list[_Cluster] = []
    for score, view, i in rows:
        p = predictions[view]
        crop, label, sure = p.crops[i], int(p.labels[i]), float(p.class_probabilities[i])
        y, x = (int(o) for o in p.offsets_yx[i])
        best, best_iou = None, 0.5
        for cluster in clusters:
            if cluster.label == label and view not in cluster.views:
                overlap = _crop_iou(cluster.first, cluster.at, crop, (y, x))
                if overlap >= best_iou:
                    best, best_iou = cluster, overlap
        if best is None:
            clusters.append(_Cluster(label, {view}, crop, (y, x), [score], [sure], [(crop, (y, x))]))
        else:
            best.views.add(view)
            best.scores.append(score)
            best.sure.append(sure)
            best.members.append((crop, (y, x)))
    n = len(predictions)
    merged = [(sum(c.scores) / n, *_mean_crop(c.members), c.label, sum(c.sure) / n) for c in clusters]
    merged.sort(key=lambda m: -m[0])
    apart = any(p.class_scores is not None for p in predictions)
    return Prediction(
        size_hw=predictions[0].size_hw,
        labels=np.array([m[3] for m in merged], np.int64),
        scores=np.array([m[0] for m in merged], np.float32),
        quality=np.array([sharpness(m[1]) for m in merged], np.float32),
        crops=tuple(m[1] for m in merged),
        offsets_yx=np.array([m[2] for m in merged], np.int64).reshape(-1, 2),
        class_scores=np.array([m[4] for m in merged], np.float32) if apart else None,
    )


def sharpness(crop: npt.NDArray[np.uint8]) -> float:
    """Mean of |2p - 1| over the pixels inside a soft mask, 0..1; 0 for an empty one."""
    inside = crop[crop > 127].astype(np.float32)
    return float((2 * inside / 255 - 1).mean()) if inside.size else 0.0


def pseudo_objects(
    prediction: Prediction,
    config: PseudoLabelConfig,
    *,
    small_area_px: float,
    grid_yx: tuple[float, float] = (1.0, 1.0),
) -> SoftObjects:
    """The labels that a prediction is worth.

    Args:
        prediction: A teacher's.
        config: Thresholds.
        small_area_px: Area of a 5th-percentile object of the labelled data, in image px.
        grid_yx: Pixels of the prediction per pixel of the image, along y and x.
    """
    moved = _levels(config.mask_cut)
    recut = [moved[c] for c in prediction.crops]
    per_px = grid_yx[0] * grid_yx[1]
    soft_areas = np.array([c.sum(dtype=np.int64) / 255 / per_px for c in recut], np.float32)
    least = max(config.min_area_px, config.min_area_share * small_area_px)
    lowest = config.min_score if config.ignore_score is None else config.ignore_score
    scores = prediction.class_probabilities if config.score == "class" else prediction.scores
    keep = np.flatnonzero((scores > lowest) & (soft_areas > least))
    sure = (scores > config.min_score) & (prediction.quality >= config.min_quality)
    crops = tuple(recut[i] for i in keep)
    if not config.soft_masks:
        crops = tuple(np.where(c > 127, np.uint8(255), np.uint8(0)) for c in crops)
    return SoftObjects(
        size_hw=prediction.size_hw,
        labels=prediction.labels[keep],
        weights=scores[keep] if config.soft_scores else np.ones(len(keep), np.float32),
        ignore=~sure[keep],
        crops=crops,
        offsets_yx=prediction.offsets_yx[keep],
        grid_yx=grid_yx,
    )


def _levels(cut: float) -> npt.NDArray[np.uint8]:
    """For each of the 256 levels of a soft mask the one it becomes as ``cut`` moves to one half."""
    levels: npt.NDArray[np.float64] = np.interp(np.arange(256), (0, 255 * cut, 255), (0, 127.5, 255))
    return np.rint(levels).astype(np.uint8)


@dataclass
class _Cluster:
    label: int
    views: set[int]
    first: npt.NDArray[np.uint8]
    at: tuple[int, int]
    scores: list[float]
    sure: list[float]
    members: list[tuple[npt.NDArray[np.uint8], tuple[int, int]]]


def _crop_iou(
    a: npt.NDArray[np.uint8], a_at: tuple[int, int], b: npt.NDArray[np.uint8], b_at: tuple[int, int]
) -> float:
    top, left = max(a_at[0], b_at[0]), max(a_at[1], b_at[1])
    bottom = min(a_at[0] + a.shape[0], b_at[0] + b.shape[0])
    right = min(a_at[1] + a.shape[1], b_at[1] + b.shape[1])
    if bottom <= top or right <= left:
        return 0.0
    part_a = a[top - a_at[0] : bottom - a_at[0], left - a_at[1] : right - a_at[1]] > 127
    part_b = b[top - b_at[0] : bottom - b_at[0], left - b_at[1] : right - b_at[1]] > 127
    shared = np.count_nonzero(part_a & part_b)
    if shared == 0:
        return 0.0
    return float(shared / (np.count_nonzero(a > 127) + np.count_nonzero(b > 127) - shared))


def _mean_crop(
    members: Sequence[tuple[npt.NDArray[np.uint8], tuple[int, int]]],
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    top, left = (min(at[a] for _, at in members) for a in (0, 1))
    bottom, right = (max(at[a] + crop.shape[a] for crop, at in members) for a in (0, 1))
    total = np.zeros((bottom - top, right - left), np.float32)
    for crop, (y, x) in members:
        total[y - top : y - top + crop.shape[0], x - left : x - left + crop.shape[1]] += crop
    return np.rint(total / len(members)).astype(np.uint8), (top, left)
