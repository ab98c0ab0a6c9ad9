"""COCO mask AP of many resamples of the images at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.metrics.matching import IOU_THRESHOLDS, coco_match
from labelloop.metrics.pairs import BoolColumn, IntColumn, PairTable

EVERY_AREA_PX = (0.0, math.inf)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)  # pycocotools' numbers to the last bit
_BLOCK_ELEMENTS = 20_000_000  # resamples x detections at once; 80 MB
_CACHED_ELEMENTS = 40_000  # resamples x runs at once; what a processor's cache holds


@dataclass(frozen=True, kw_only=True, eq=False)
class HitRuns:
    """The detections of a class at one IoU threshold that are not ignored, best score first.

    Precision rises along an unbroken run of hits, so only the last place of each run can be the best one, and
    a recall that is reached anywhere in a run has that place's precision.

    Attributes:
        images: Which of ``RankedClass.images`` holds the image of each detection.
        first: int64 (k,), place of the first hit of each unbroken run.
        after: int64 (k,), the place after its last hit.
    """

    images: int
    first: IntColumn
    after: IntColumn


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedClass:
    """One class: its detections over all images, best score first.

    Attributes:
        label: Which class.
        images: int64 (d,) arrays, the image of each detection; without crowds one serves all thresholds.
        runs: One for each IoU threshold.
        truths: int64 (n_images,), true objects that count (no crowds).
        hits: int64 (n_images, 10), how many of them are found.
    """

    label: int
    images: tuple[IntColumn, ...]
    runs: tuple[HitRuns, ...]
    truths: IntColumn
    hits: IntColumn


def rank(table: PairTable, *, area_px: tuple[float, float] = EVERY_AREA_PX) -> list[RankedClass]:
    """Matches and ranks every class that has a true object; the others have no AP.

    Equal scores keep the order of images, then the order given (pycocotools' mergesort).

    Args:
        table: The pairs of all images.
        area_px: Least and largest area, both included. Objects of other sizes are neither hits nor misses,
            and detections of other sizes that hit nothing are no false alarms.
    """

    def outside(areas: IntColumn) -> BoolColumn:
        return (areas < area_px[0]) | (areas > area_px[1])

    matches = coco_match(table, outside(table.truth_area))
    counted = ~table.truth_crowd & ~outside(table.truth_area)
    ignored = matches.ignored | (~matches.hit & outside(table.det_area))
    ranked = []
    for label in np.unique(table.truth_label[counted]).tolist():
        dets = np.flatnonzero(table.det_label == label)
        dets = dets[np.argsort(-table.det_score[dets], kind="stable")]
        of_class = counted & (table.truth_label == label)
        image, hit = table.det_image[dets], matches.hit[:, dets]
        images, runs = _runs(image, hit, ignored[:, dets])
        truths = np.bincount(table.truth_image[of_class], minlength=table.n_images)
        hits = np.stack([np.bincount(image[of], minlength=table.n_images) for of in hit], axis=1)
        ranked.append(RankedClass(label=label, images=images, runs=runs, truths=truths, hits=hits))
    return ranked


def _runs(
    image: IntColumn, hit: BoolColumn, ignored: BoolColumn
) -> tuple[tuple[IntColumn, ...], tuple[HitRuns, ...]]:
    """The images of detections and the runs of hits, from ranked columns by threshold."""
    number_of: dict[bytes, int] = {}
    images: list[IntColumn] = []
    runs: list[HitRuns] = []
    for t in range(len(IOU_THRESHOLDS)):
        valid = ~ignored[t]
        number = number_of.setdefault(valid.tobytes(), len(number_of))
        if number == len(images):
            images.append(image[valid])
        edges = np.diff(hit[t, valid].astype(np.int8), prepend=0, append=0)
        runs.append(
            HitRuns(images=number, first=np.flatnonzero(edges == 1), after=np.flatnonzero(edges == -1))
        )
    return tuple(images), tuple(runs)


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
        rows = max(1, _BLOCK_ELEMENTS // max(1, len(ranked.images[0])))
        for start in range(0, len(times), rows):
            block = times[start : start + rows]
            truths = block @ ranked.truths
            total[start : start + rows] += _class_precision(ranked, block, truths) * (truths > 0)[:, None]
            defined[start : start + rows, 0] += truths > 0
    mean: npt.NDArray[np.float64] = np.divide(
        total, defined, out=np.full(total.shape, np.nan), where=defined > 0
    )
    return mean


def average_recall(classes: list[RankedClass], times: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """The share of true objects that is found, mean over the IoU thresholds and the classes that have one.

    COCO's AR, range 0..1, higher is better: pycocotools' ``eval["recall"]`` averaged over its entries > -1.

    Args:
        classes: From ``rank``.
        times: int32 (r, n_images), how often each image is in each resample.

    Returns:
        float64 (r,), NaN where a resample holds no true object.
    """
    total, defined = np.zeros(len(times)), np.zeros(len(times))
    for ranked in classes:
        truths = times @ ranked.truths
        total += (times @ ranked.hits).mean(axis=1) / np.maximum(truths, 1)
        defined += truths > 0
    mean: npt.NDArray[np.float64] = np.divide(
        total, defined, out=np.full(len(times), np.nan), where=defined > 0
    )
    return mean


def _class_precision(
    ranked: RankedClass, times: npt.NDArray[np.int32], truths: IntColumn
) -> npt.NDArray[np.float64]:
    """float64 (r, 10): mean precision over the recall points, one class."""
    total = np.maximum(truths, 1)
    by_image = np.ascontiguousarray(times.T)
    seen = [running_sum(by_image, image) for image in ranked.images]
    mean = np.zeros((len(times), len(IOU_THRESHOLDS)))
    for t, runs in enumerate(ranked.runs):
        mean[:, t] = _mean_precision(seen[runs.images], runs, total)
    return mean


def running_sum(by_image: npt.NDArray[np.int32], image: IntColumn) -> npt.NDArray[np.int32]:
    """How many detections are seen before each place of a ranking: int32 (d + 1, r).

    Args:
        by_image: int32 (n_images, r), how often each image is in each resample.
        image: int64 (d,), the image of each detection, best score first.
    """
    seen = np.zeros((len(image) + 1, by_image.shape[1]), np.int32)
    np.take(by_image, image, axis=0, out=seen[1:])
    _accumulate(np.add, seen)
    return seen


def _mean_precision(seen: npt.NDArray[np.int32], runs: HitRuns, total: IntColumn) -> npt.NDArray[np.float64]:
    """float64 (r,): mean over the recall points of the best precision from there on.

    Args:
        seen: int32 (d + 1, r), from ``running_sum``.
        runs: k runs of hits.
        total: int64 (r,), true objects.
    """
    n_resamples, objects = seen.shape[1], total.astype(np.float64)
    best = np.zeros((len(RECALL_POINTS), n_resamples))
    hits: npt.NDArray[np.int32] = np.zeros((1, n_resamples), np.int32)
    rows = max(1, _CACHED_ELEMENTS // n_resamples)
    for start in range(0, len(runs.first), rows):
        seen_after = np.take(seen, runs.after[start : start + rows], axis=0)
        before = hits[-1]
        hits = seen_after - np.take(seen, runs.first[start : start + rows], axis=0)
        hits[0] += before
        _accumulate(np.add, hits)
        precision = hits / np.maximum(seen_after, 1, out=seen_after)
        _accumulate(np.maximum, precision[::-1])
        point = _last_point(hits / objects)
        reaches = np.ones(point.shape, np.bool_)  # a point that the run before it did not
        np.not_equal(point[1:], point[:-1], out=reaches[1:])
        place = np.flatnonzero(reaches)
        at = np.take(point, place) * n_resamples + place % n_resamples
        np.maximum.at(best.ravel(), at, np.take(precision, place))
    _accumulate(np.maximum, best[::-1])  # what is best at one recall is there for all lower ones
    return np.asarray(best.T.copy().mean(axis=1))


def _last_point(recall: npt.NDArray[np.float64]) -> IntColumn:
    """Which of the recall points is the last that is not above each recall."""
    point = recall * (len(RECALL_POINTS) - 1)
    point += 1e-9
    last = point.astype(np.int64)
    np.take(RECALL_POINTS, last, out=point, mode="clip")
    last -= point > recall  # it was a little below
    return last


def _accumulate(of: np.ufunc, lines: npt.NDArray[Any]) -> None:
    """``of.accumulate(lines, axis=0)`` in place, line by line: with long lines several times as fast."""
    for before, here in pairwise(lines):
        of(before, here, here)
