"""COCO mask AP of many resamples of the images at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.metrics.matching import IOU_THRESHOLDS, coco_match
from labelloop.metrics.pairs import BoolColumn, IntColumn, PairTable

RECALL_POINTS = np.linspace(0.0, 1.0, 101)  # pycocotools' numbers to the last bit
_BLOCK_ELEMENTS = 400_000  # resamples x detections at once; about what a processor's cache holds


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedClass:
    """One class: its detections over all images, best score first.

    Attributes:
        image: int64 (d,), image of each detection.
        hit: bool (10, d), by IoU threshold.
        ignored: bool (10, d), by IoU threshold.
        truths: int64 (n_images,), true objects that count (no crowds).
    """

    image: IntColumn
    hit: BoolColumn
    ignored: BoolColumn
    truths: IntColumn


def rank(table: PairTable) -> list[RankedClass]:
    """Matches and ranks every class that has a true object; the others have no AP.

    Equal scores keep the order of images, then the order given (pycocotools' mergesort).
    """
    matches = coco_match(table)
    counted = ~table.truth_crowd
    ranked = []
    for label in np.unique(table.truth_label[counted]):
        dets = np.flatnonzero(table.det_label == label)
        dets = dets[np.argsort(-table.det_score[dets], kind="stable")]
        of_class = counted & (table.truth_label == label)
        ranked.append(
            RankedClass(
                image=table.det_image[dets],
                hit=matches.hit[:, dets],
                ignored=matches.ignored[:, dets],
                truths=np.bincount(table.truth_image[of_class], minlength=table.n_images),
            )
        )
    return ranked


def average_precision(classes: list[RankedClass], times: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """COCO AP at each IoU threshold, mean over the classes that have a true object.

    AP is the mean over recalls 0, 0.01 .. 1 of the best precision at that recall or a higher one; range 0..1,
    higher is better. With every image once it equals pycocotools' ``eval["precision"]`` averaged over its
    entries > -1, for the area range "all" and a maxDets that cuts nothing.

    Args:
        classes: From ``rank``.
        times: int32 (r, n_images), how often each image is in each resample.

    Returns:
        float64 (r, 10), NaN where a resample holds no true object.
    """
    total = np.zeros((len(times), len(IOU_THRESHOLDS)))
    defined = np.zeros((len(times), 1))
    for ranked in classes:
        rows = max(1, _BLOCK_ELEMENTS // max(1, len(ranked.image)))
        for start in range(0, len(times), rows):
            block = times[start : start + rows]
            truths = block @ ranked.truths
            total[start : start + rows] += _class_precision(ranked, block, truths) * (truths > 0)[:, None]
            defined[start : start + rows, 0] += truths > 0
    mean: npt.NDArray[np.float64] = np.divide(
        total, defined, out=np.full(total.shape, np.nan), where=defined > 0
    )
    return mean


def _class_precision(
    ranked: RankedClass, times: npt.NDArray[np.int32], truths: IntColumn
) -> npt.NDArray[np.float64]:
    """float64 (r, 10): mean precision over the recall points, one class."""
    needed = _hits_needed(truths)
    mean = np.zeros((len(times), len(IOU_THRESHOLDS)))
    seen_of: dict[bytes, npt.NDArray[np.int32]] = {}
    for t in range(len(IOU_THRESHOLDS)):
        valid = ~ranked.ignored[t]
        key = np.packbits(valid).tobytes()
        if key not in seen_of:  # without crowds it is the same at all thresholds
            seen_of = {key: _running_sum(times, ranked.image[valid])}
        mean[:, t] = _mean_precision(seen_of[key], ranked.hit[t, valid], needed)
    return mean


def _running_sum(times: npt.NDArray[np.int32], image: IntColumn) -> npt.NDArray[np.int32]:
    """int32 (r, d + 1): detections seen before each place of the ranking."""
    seen = np.zeros((len(times), len(image) + 1), np.int32)
    np.cumsum(np.take(times, image, axis=1), axis=1, dtype=np.int32, out=seen[:, 1:])
    return seen


def _hits_needed(truths: IntColumn) -> npt.NDArray[np.int64]:
    """int64 (r, 101): the fewest hits whose recall hits / truths, in floating point, reaches each point."""
    total = np.maximum(truths, 1)[:, None]
    needed = np.ceil(RECALL_POINTS * total).astype(np.int64)
    needed -= (needed > 0) & ((needed - 1) / total >= RECALL_POINTS)
    needed += needed / total < RECALL_POINTS
    return np.asarray(needed, np.int64)


def _mean_precision(
    seen: npt.NDArray[np.int32], hit: BoolColumn, needed: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """float64 (r,): mean over the recall points of the best precision from there on.

    Precision rises along an unbroken run of hits, so only the last place of each run can be the best one, and
    a recall that is reached anywhere in a run has that place's precision.
    """
    edges = np.diff(np.concatenate([[0], hit.astype(np.int8), [0]]))
    first, after_last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if len(first) == 0:
        return np.zeros(len(seen))
    seen_after = np.take(seen, after_last, axis=1)
    hits = np.cumsum(seen_after - np.take(seen, first, axis=1), axis=1, dtype=np.int32)
    best = np.zeros((len(seen), len(first) + 1))  # the last column: recalls never reached
    np.divide(hits, np.maximum(seen_after, 1), out=best[:, :-1])
    np.maximum.accumulate(best[:, -2::-1], axis=1, out=best[:, -2::-1])
    return np.asarray(np.take_along_axis(best, _first_reaching(hits, needed), axis=1).mean(axis=1))


def _first_reaching(hits: npt.NDArray[np.int32], needed: npt.NDArray[np.int64]) -> IntColumn:
    """int64 (r, 101): first column of each (ascending) row of ``hits`` that is >= each of ``needed``.

    All rows are searched in one call: lifted above one another they are one ascending sequence.
    """
    n_rows, n_columns = hits.shape
    lift = (np.arange(n_rows, dtype=np.int64) * (1 + max(int(hits.max()), int(needed.max()))))[:, None]
    place = np.searchsorted((hits + lift).ravel(), (needed + lift).ravel(), side="left")
    column = place.reshape(needed.shape) - np.arange(n_rows)[:, None] * n_columns
    return np.asarray(np.minimum(column, n_columns))
