"""Cityscapes' instance AP of many resamples of the images at once.

The rule is that of ``evalInstanceLevelSemanticLabeling`` in cityscapesScripts (Cordts et al. 2016,
doi:10.1109/CVPR.2016.350, section 4.2, and github.com/mcordts/cityscapesScripts), without its distances. It
differs from COCO's AP in the matching, in what is ignored and in the area under the curve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances
from labelloop.metrics.coco_ap import running_sum
from labelloop.metrics.pairs import BoolColumn, FloatColumn, IntColumn, PairTable

IOU_LIMITS = np.arange(0.5, 1.0, 0.05)  # an IoU has to be larger; cityscapesScripts' numbers to the last bit
LEAST_OBJECT_PX = 100  # smaller true objects are neither hits nor misses
_BLOCK_ELEMENTS = 1_000_000  # resamples x detections at once; 4 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class HitSteps:
    """The detections of a class at one IoU limit that count, best score first.

    A step is all detections of one score, where one of them or more are hits.

    Attributes:
        image: int64 (d,), the image of each detection that counts.
        hit_image: int64 (h,), those of the hits among them.
        first: int64 (k,), place in ``image`` at which each step begins.
        after: int64 (k,), the place after its last.
        first_hit: int64 (k,), place in ``hit_image`` at which it begins.
        after_hit: int64 (k,), the place after its last.
    """

    image: IntColumn
    hit_image: IntColumn
    first: IntColumn
    after: IntColumn
    first_hit: IntColumn
    after_hit: IntColumn

    @classmethod
    def of(cls, image: IntColumn, score: npt.NDArray[np.float32], hit: BoolColumn) -> HitSteps:
        """Ranks detections, (d,) each, by their score."""
        order = np.argsort(-score, kind="stable")
        image, score, hit = image[order], score[order], hit[order]
        places = np.flatnonzero(hit)
        scores = np.unique(score[places])[::-1]
        before, up_to = (np.searchsorted(-score, -scores, side=side) for side in ("left", "right"))
        return cls(
            image=image,
            hit_image=image[places],
            first=before,
            after=up_to,
            first_hit=np.searchsorted(places, before),
            after_hit=np.searchsorted(places, up_to),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class SteppedClass:
    """One class.

    Attributes:
        label: Which class.
        steps: One for each of ``IOU_LIMITS``.
        truths: int64 (n_images,), true objects that count.
    """

    label: int
    steps: tuple[HitSteps, ...]
    truths: IntColumn


def step_classes(truth: Sequence[Instances], table: PairTable) -> list[SteppedClass]:
    """Matches and ranks every class that has a true object that counts; the others have no AP.

    True objects count that are no crowds and have ``LEAST_OBJECT_PX`` or more. A detection hits the one with
    which its IoU is larger than the limit; of several that do the best scored one is the hit and the others
    are false alarms. What hits nothing is a false alarm too, unless more than that share of it (the limit,
    again) lies in crowds and in true objects that are too small. A crowd that several classes share is
    *void*; the others are *groups*, and where one is too small cityscapesScripts adds it twice.

    True masks of one image should not overlap, as in Cityscapes: a detection may hit each of them.

    Args:
        truth: The annotations, one per image.
        table: Of these annotations and the detections.
    """
    share = _ignored_share(table, _void(truth))
    counted = ~table.truth_crowd & (table.truth_area >= LEAST_OBJECT_PX)
    common = table.pair_intersection()
    iou = common / (table.det_area[table.pair_det] + table.truth_area[table.pair_truth] - common)
    pairs = np.flatnonzero((iou > IOU_LIMITS[0]) & counted[table.pair_truth])
    best_first = np.lexsort((-table.det_score[table.pair_det[pairs]], table.pair_truth[pairs]))
    pairs, iou = pairs[best_first], iou[pairs[best_first]]
    return [
        SteppedClass(
            label=label,
            steps=tuple(_steps(table, label, pairs[iou > limit], share <= limit) for limit in IOU_LIMITS),
            truths=np.bincount(
                table.truth_image[counted & (table.truth_label == label)], minlength=table.n_images
            ),
        )
        for label in np.unique(table.truth_label[counted]).tolist()
    ]


def _steps(table: PairTable, label: int, pairs: IntColumn, judged: BoolColumn) -> HitSteps:
    """One class at one limit.

    Args:
        table: The pairs of all images.
        label: Of the class.
        pairs: int64 (k,), those whose IoU is larger than the limit, by true object, best score first.
        judged: bool (d,), detections of which so little is to be ignored that they may be false alarms.
    """
    matched = np.zeros(len(table.det_label), np.bool_)
    matched[table.pair_det[pairs]] = True
    of_class = table.det_label == label
    pairs = pairs[of_class[table.pair_det[pairs]]]
    best = np.diff(table.pair_truth[pairs], prepend=-1) != 0
    alone = np.flatnonzero(of_class & ~matched & judged & (table.det_area > 0))
    dets = np.concatenate([table.pair_det[pairs], alone])
    hit = np.concatenate([best, np.zeros(len(alone), np.bool_)])
    return HitSteps.of(table.det_image[dets], table.det_score[dets], hit)


def _ignored_share(table: PairTable, void: BoolColumn) -> FloatColumn:
    """float64 (d,): the share of each detection that lies in what is to be ignored; may be above 1."""
    small = table.truth_area < LEAST_OBJECT_PX
    times = table.truth_crowd.astype(np.int64) + (small & ~void)
    ignored = np.bincount(
        table.pair_det,
        weights=table.pair_intersection() * times[table.pair_truth],
        minlength=len(table.det_area),
    )
    return np.asarray(ignored / np.maximum(table.det_area, 1), np.float64)


def _void(truth: Sequence[Instances]) -> BoolColumn:
    """Which true objects, bool (t,), are crowds of several classes at once."""
    void: list[bool] = []
    for instances in truth:
        times = Counter(rle for rle, crowd in zip(instances.rles, instances.crowd, strict=True) if crowd)
        void += [
            bool(crowd) and times[rle] > 1 for rle, crowd in zip(instances.rles, instances.crowd, strict=True)
        ]
    return np.asarray(void, np.bool_)


def cityscapes_average_precision(
    classes: list[SteppedClass], times: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Cityscapes' AP at each IoU limit, mean over the classes that have a true object that counts.

    AP is the area under the precision-recall curve by trapezoids, from precision 1 at recall 0 through the
    points of each score: no precision is replaced by a better one at a higher recall, as COCO does. Range
    0..1, higher is better. With every image once, the mean over the limits is cityscapesScripts' ``allAp``
    and the first limit's is ``allAp50%``; where it cannot go on, as no detection of a class counts, it is 0.

    Args:
        classes: From ``step_classes``.
        times: int32 (r, n_images), how often each image is in each resample.

    Returns:
        float64 (r, 10), NaN where a resample holds no true object that counts.
    """
    total = np.zeros((len(times), len(IOU_LIMITS)))
    defined = np.zeros((len(times), 1))
    for stepped in classes:
        truths = times @ stepped.truths
        defined[:, 0] += truths > 0
        for t, steps in enumerate(stepped.steps):
            total[:, t] += _area(steps, times) / np.maximum(truths, 1)
    mean: npt.NDArray[np.float64] = np.divide(
        total, defined, out=np.full(total.shape, np.nan), where=defined > 0
    )
    return mean


def _area(steps: HitSteps, times: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """float64 (r,): area under the curve of precision over hits.

    Precision at 0 detections is 1. Between two steps recall stays, so what precision does there adds nothing.
    """
    area = np.zeros(len(times))
    rows = max(1, _BLOCK_ELEMENTS // max(1, len(steps.image)))
    for start in range(0, len(times), rows):
        by_image = np.ascontiguousarray(times[start : start + rows].T)
        seen, hits = running_sum(by_image, steps.image), running_sum(by_image, steps.hit_image)
        before, after = hits[steps.first_hit], hits[steps.after_hit]
        seen_before, seen_after = seen[steps.first], seen[steps.after]
        precision = (
            before / np.maximum(seen_before, 1) + (seen_before == 0) + after / np.maximum(seen_after, 1)
        )
        precision *= after - before
        area[start : start + rows] = precision.sum(axis=0) / 2
    return area
