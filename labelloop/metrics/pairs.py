"""PairTable: every prediction that touches a true object, for all images, as columns.

Masks are looked at here and nowhere later: metrics, and each of their bootstrap replicates, are computed from
the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from labelloop.instances import Instances
from labelloop.metrics.boundary import boundary_distances

MATCH_IOU = 0.5  # the least IoU of a pair that any matching takes
MOST_OVERLAPS = 4_000_000  # that are in memory at a time: a large field may have 10,000 objects on each side
IntColumn = npt.NDArray[np.int64]
BoolColumn = npt.NDArray[np.bool_]
FloatColumn = npt.NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

_NO_ROWS: IntColumn = np.zeros((0, 2), np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairTable:
    """d detections, t true objects and the p pairs of one image and class with a common pixel.

    Rows are ordered by image, within an image as given.

    Attributes:
        n_images: Number of images, empty ones included.
        n_classes: Number of classes.
        det_image: int64 (d,), index of the image.
        det_label: int64 (d,), class index.
        det_score: float32 (d,); 1 where predictions came without scores.
        has_scores: Whether all predictions came with scores.
        det_area: int64 (d,), px.
        truth_image: int64 (t,), index of the image.
        truth_label: int64 (t,), class index.
        truth_crowd: bool (t,), neither a hit nor a miss.
        truth_area: int64 (t,), px.
        pair_det: int64 (p,), row of the detection.
        pair_truth: int64 (p,), row of the true object.
        pair_overlap: float64 (p,), mask IoU; with a crowd the share of the detection that lies in it (COCO).
        pair_distance: float64 (p,), average symmetric boundary distance, px; NaN where IoU is below 0.5, with
            a crowd, and where the table was built without.
        det_overlap: int64 (k, 2), rows of two detections with a common pixel, of whatever classes.
        truth_overlap: int64 (l, 2), likewise of true objects; ascending.
        truth_shared: int64 (l,), px that these two have in common.
    """

    n_images: int
    n_classes: int
    has_scores: bool
    det_image: IntColumn
    det_label: IntColumn
    det_score: npt.NDArray[np.float32]
    det_area: IntColumn
    truth_image: IntColumn
    truth_label: IntColumn
    truth_crowd: BoolColumn
    truth_area: IntColumn
    pair_det: IntColumn
    pair_truth: IntColumn
    pair_overlap: FloatColumn
    pair_distance: FloatColumn
    det_overlap: IntColumn
    truth_overlap: IntColumn
    truth_shared: IntColumn

    @classmethod
    def build(
        cls,
        truth: Sequence[Instances],
        predicted: Sequence[Instances],
        *,
        n_classes: int,
        outlines: bool = True,
    ) -> PairTable:
        """Compares the masks of each image.

        Args:
            truth: One per image.
            predicted: One per image, the same images in the same order.
            n_classes: Labels are 0..n_classes - 1.
            outlines: Whether to measure how far outlines lie apart, and which masks overlap others of their
                own side; half of the work.

        Raises:
            ValueError: The two do not fit each other, a label is out of range, or a score is not finite.
        """
        _check(truth, predicted, n_classes)
        scores = [np.ones(len(p), np.float32) if p.scores is None else p.scores for p in predicted]
        n_dets = np.asarray([len(p) for p in predicted], np.int64)
        n_truths = np.asarray([len(t) for t in truth], np.int64)
        first_det, first_truth = np.cumsum(n_dets) - n_dets, np.cumsum(n_truths) - n_truths
        pairs = [
            (dets + first[0], truths + first[1], overlap)
            for first, (dets, truths, overlap) in zip(
                zip(first_det, first_truth, strict=True), map(_touching, truth, predicted), strict=True
            )
        ]
        det_overlap = truth_overlap = _NO_ROWS
        truth_shared = _NO_ROWS[:, 0]
        if outlines:
            det_overlap, _ = _overlapping_of_all(predicted, first_det)
            truth_overlap, truth_shared = _overlapping_of_all(truth, first_truth)
        table = cls(
            n_images=len(truth),
            n_classes=n_classes,
            has_scores=all(p.scores is not None for p in predicted if len(p)),
            det_image=np.repeat(np.arange(len(predicted)), n_dets),
            det_label=_column([p.labels for p in predicted], np.int64),
            det_score=_column(scores, np.float32),
            det_area=_column([p.areas for p in predicted], np.int64),
            truth_image=np.repeat(np.arange(len(truth)), n_truths),
            truth_label=_column([t.labels for t in truth], np.int64),
            truth_crowd=_column([t.crowd for t in truth], np.bool_),
            truth_area=_column([t.areas for t in truth], np.int64),
            pair_det=_column([dets for dets, _, _ in pairs], np.int64),
            pair_truth=_column([truths for _, truths, _ in pairs], np.int64),
            pair_overlap=_column([overlap for _, _, overlap in pairs], np.float64),
            pair_distance=np.full(sum(len(dets) for dets, _, _ in pairs), np.nan),
            det_overlap=det_overlap,
            truth_overlap=truth_overlap,
            truth_shared=truth_shared,
        )
        return table._with_distances(truth, predicted) if outlines else table

    def select(self, dets: BoolColumn, truths: BoolColumn, images: BoolColumn | None = None) -> PairTable:
        """The table of some detections and true objects, with the pairs that are left.

        Args:
            dets: bool (d,), which detections stay.
            truths: bool (t,), which true objects stay.
            images: bool (n_images,), which images stay; all if None. No object of another one may stay.
        """
        kept_images = np.ones(self.n_images, np.bool_) if images is None else images
        new_image, new_det, new_truth = (np.cumsum(kept) - 1 for kept in (kept_images, dets, truths))
        pair = dets[self.pair_det] & truths[self.pair_truth]
        both_true = truths[self.truth_overlap].all(axis=1)
        return PairTable(
            n_images=int(kept_images.sum()),
            n_classes=self.n_classes,
            has_scores=self.has_scores,
            det_image=new_image[self.det_image[dets]],
            det_label=self.det_label[dets],
            det_score=self.det_score[dets],
            det_area=self.det_area[dets],
            truth_image=new_image[self.truth_image[truths]],
            truth_label=self.truth_label[truths],
            truth_crowd=self.truth_crowd[truths],
            truth_area=self.truth_area[truths],
            pair_det=new_det[self.pair_det[pair]],
            pair_truth=new_truth[self.pair_truth[pair]],
            pair_overlap=self.pair_overlap[pair],
            pair_distance=self.pair_distance[pair],
            det_overlap=new_det[self.det_overlap[dets[self.det_overlap].all(axis=1)]],
            truth_overlap=new_truth[self.truth_overlap[both_true]],
            truth_shared=self.truth_shared[both_true],
        )

    def of_class(self, label: int) -> PairTable:
        """The table of one class, all images."""
        return self.select(self.det_label == label, self.truth_label == label)

    def holding(self, area_px: tuple[float, float] = (0, np.inf)) -> BoolColumn:
        """Bool (n_images,), in which images there is a true object of this area, crowds left out."""
        least, most = area_px
        counted = ~self.truth_crowd & (self.truth_area >= least) & (self.truth_area <= most)
        return np.bincount(self.truth_image[counted], minlength=self.n_images) > 0

    def pair_intersection(self) -> IntColumn:
        """int64 (p,), px that the detection and the true object of each pair have in common.

        Found again from IoU and areas; exact, as it is a whole number.
        """
        areas = self.det_area[self.pair_det], self.truth_area[self.pair_truth]
        of_crowd: IntColumn = np.rint(self.pair_overlap * areas[0]).astype(np.int64)
        return np.where(self.truth_crowd[self.pair_truth], of_crowd, _intersection(self.pair_overlap, *areas))

    def shared_by(self, one: IntColumn, other: IntColumn) -> IntColumn:
        """int64 (n,), px that two different true objects have in common; known of a table with outlines.

        Args:
            one: int64 (n,), rows of true objects.
            other: int64 (n,), rows of those beside them.
        """
        if len(self.truth_overlap) == 0:
            return np.zeros(len(one), np.int64)
        n = len(self.truth_area)
        key = np.minimum(one, other) * n + np.maximum(one, other)
        known = self.truth_overlap[:, 0] * n + self.truth_overlap[:, 1]
        place = np.minimum(np.searchsorted(known, key), len(known) - 1)
        return np.where(known[place] == key, self.truth_shared[place], 0)

    def _with_distances(self, truth: Sequence[Instances], predicted: Sequence[Instances]) -> PairTable:
        near = np.flatnonzero((self.pair_overlap >= MATCH_IOU) & ~self.truth_crowd[self.pair_truth])
        det_rles, truth_rles = ([rle for i in side for rle in i.rles] for side in (predicted, truth))
        heights = np.asarray([t.size_hw[0] for t in truth], np.int64)
        distance = self.pair_distance.copy()
        distance[near] = boundary_distances(
            [det_rles[i] for i in self.pair_det[near]],
            [truth_rles[i] for i in self.pair_truth[near]],
            heights[self.det_image[self.pair_det[near]]],
        )
        return replace(self, pair_distance=distance)

    @property
    def max_dets(self) -> int:
        """COCO's maxDets that cuts nothing: max(100, most true objects, most detections in an image)."""
        most_truth = np.bincount(self.truth_image, minlength=1).max()
        most_dets = np.bincount(self.det_image, minlength=1).max()
        return int(max(100, most_truth, most_dets))


def _check(truth: Sequence[Instances], predicted: Sequence[Instances], n_classes: int) -> None:
    if len(truth) != len(predicted):
        raise ValueError(f"truth of {len(truth)} images, predictions of {len(predicted)}")
    for i, (t, p) in enumerate(zip(truth, predicted, strict=True)):
        if t.size_hw != p.size_hw:
            raise ValueError(f"image {i}: truth is {t.size_hw} (h, w), prediction {p.size_hw}")
        for labels in (t.labels, p.labels):
            if len(labels) and not (labels.min() >= 0 and labels.max() < n_classes):
                raise ValueError(f"image {i}: labels {np.unique(labels)}, but n_classes is {n_classes}")
        if p.scores is not None and not np.isfinite(p.scores).all():
            raise ValueError(f"image {i}: a score is not finite")


def _touching(truth: Instances, predicted: Instances) -> tuple[IntColumn, IntColumn, FloatColumn]:
    """Detection, true object and overlap of the pairs of one image that share a class and a pixel."""
    empty = np.zeros(0, np.int64)
    if not len(truth) or not len(predicted):
        return empty, empty, np.zeros(0)
    det_rles, truth_rles = predicted.coco_rles(), truth.coco_rles()
    found = []
    for label in np.intersect1d(truth.labels, predicted.labels):
        dets, truths = np.flatnonzero(predicted.labels == label), np.flatnonzero(truth.labels == label)
        crowd = truth.crowd[truths].astype(int).tolist()
        row, column, overlap = _common([det_rles[i] for i in dets], [truth_rles[i] for i in truths], crowd)
        found.append((dets[row], truths[column], overlap))
    if not found:
        return empty, empty, np.zeros(0)
    first, second, third = zip(*found, strict=True)
    return np.concatenate(first), np.concatenate(second), np.concatenate(third)


def _overlapping_of_all(side: Sequence[Instances], first: IntColumn) -> tuple[IntColumn, IntColumn]:
    """Masks of one side with a common pixel: int64 (k, 2), rows a < b, and int64 (k,), px in common.

    Args:
        side: One per image.
        first: int64 (n_images,), row of the first mask of each image.
    """
    found = [_overlapping(instances) for instances in side]
    rows = [of_image + start for (of_image, _), start in zip(found, first, strict=True)]
    shared = [px for _, px in found]
    return np.concatenate([_NO_ROWS, *rows]), _column(shared, np.int64)


def _overlapping(instances: Instances) -> tuple[IntColumn, IntColumn]:
    """int64 (k, 2), indices a < b of masks of one image with a common pixel, and int64 (k,), px in common."""
    if len(instances) < 2:
        return _NO_ROWS, _NO_ROWS[:, 0]
    rles, areas = instances.coco_rles(), instances.areas
    row, column, overlap = _common(rles, rles, [0] * len(rles))
    once = row < column
    row, column = row[once], column[once]
    return np.stack([row, column], axis=1), _intersection(overlap[once], areas[row], areas[column])


def _intersection(iou: FloatColumn, area: IntColumn, other_area: IntColumn) -> IntColumn:
    """Px that two masks have in common; exact, as it is a whole number."""
    return np.asarray(np.rint(iou / (1 + iou) * (area + other_area)), np.int64)


def _common(
    rows: Sequence[Any], columns: Sequence[Any], crowd: Sequence[int]
) -> tuple[IntColumn, IntColumn, FloatColumn]:
    """Index of the row, of the column, and overlap of those masks that have a pixel in common.

    An empty mask has NaN with itself and touches nothing.
    """
    at_once = max(MOST_OVERLAPS // len(columns), 1)
    found = []
    for first in range(0, len(rows), at_once):
        overlap = np.asarray(coco_mask.iou(rows[first : first + at_once], columns, crowd))
        row, column = np.nonzero(overlap > 0)
        found.append((row + first, column, overlap[row, column]))
    first_part, second, third = zip(*found, strict=True)
    return np.concatenate(first_part), np.concatenate(second), np.concatenate(third)


def _column(parts: Sequence[npt.NDArray[Any]], dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    column: npt.NDArray[Scalar] = np.concatenate([*parts, np.zeros(0, dtype)]).astype(dtype, copy=False)
    return column
