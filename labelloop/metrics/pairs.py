"""PairTable: every prediction that touches a true object, for all images, as columns.

Masks are looked at here and nowhere later: metrics, and each of their bootstrap replicates, are computed from
the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from labelloop.instances import Instances

IntColumn = npt.NDArray[np.int64]
BoolColumn = npt.NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


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
        truth_image: int64 (t,), index of the image.
        truth_label: int64 (t,), class index.
        truth_crowd: bool (t,), neither a hit nor a miss.
        pair_det: int64 (p,), row of the detection.
        pair_truth: int64 (p,), row of the true object.
        pair_overlap: float64 (p,), mask IoU; with a crowd the share of the detection that lies in it (COCO).
    """

    n_images: int
    n_classes: int
    det_image: IntColumn
    det_label: IntColumn
    det_score: npt.NDArray[np.float32]
    truth_image: IntColumn
    truth_label: IntColumn
    truth_crowd: BoolColumn
    pair_det: IntColumn
    pair_truth: IntColumn
    pair_overlap: npt.NDArray[np.float64]

    @classmethod
    def build(
        cls, truth: Sequence[Instances], predicted: Sequence[Instances], *, n_classes: int
    ) -> PairTable:
        """Compares the masks of each image.

        Args:
            truth: One per image.
            predicted: One per image, the same images in the same order.
            n_classes: Labels are 0..n_classes - 1.

        Raises:
            ValueError: The two do not fit each other, a label is out of range, or a score is not finite.
        """
        _check(truth, predicted, n_classes)
        scores = [np.ones(len(p), np.float32) if p.scores is None else p.scores for p in predicted]
        n_dets = np.asarray([len(p) for p in predicted], np.int64)
        n_truths = np.asarray([len(t) for t in truth], np.int64)
        starts = zip(np.cumsum(n_dets) - n_dets, np.cumsum(n_truths) - n_truths, strict=True)
        pairs = [
            (dets + first_det, truths + first_truth, overlap)
            for (first_det, first_truth), (dets, truths, overlap) in zip(
                starts, map(_touching, truth, predicted), strict=True
            )
        ]
        return cls(
            n_images=len(truth),
            n_classes=n_classes,
            det_image=np.repeat(np.arange(len(predicted)), n_dets),
            det_label=_column([p.labels for p in predicted], np.int64),
            det_score=_column(scores, np.float32),
            truth_image=np.repeat(np.arange(len(truth)), n_truths),
            truth_label=_column([t.labels for t in truth], np.int64),
            truth_crowd=_column([t.crowd for t in truth], np.bool_),
            pair_det=_column([dets for dets, _, _ in pairs], np.int64),
            pair_truth=_column([truths for _, truths, _ in pairs], np.int64),
            pair_overlap=_column([overlap for _, _, overlap in pairs], np.float64),
        )

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


def _touching(truth: Instances, predicted: Instances) -> tuple[IntColumn, IntColumn, npt.NDArray[np.float64]]:
    """Detection, true object and overlap of the pairs of one image that share a class and a pixel."""
    empty = np.zeros(0, np.int64)
    if not len(truth) or not len(predicted):
        return empty, empty, np.zeros(0)
    det_rles, truth_rles = predicted.coco_rles(), truth.coco_rles()
    found = []
    for label in np.intersect1d(truth.labels, predicted.labels):
        dets, truths = np.flatnonzero(predicted.labels == label), np.flatnonzero(truth.labels == label)
        overlap = np.asarray(
            coco_mask.iou(
                [det_rles[i] for i in dets],
                [truth_rles[i] for i in truths],
                truth.crowd[truths].astype(int).tolist(),
            )
        )
        row, column = np.nonzero(overlap > 0)  # an empty mask has NaN with itself and touches nothing
        found.append((dets[row], truths[column], overlap[row, column]))
    if not found:
        return empty, empty, np.zeros(0)
    first, second, third = zip(*found, strict=True)
    return np.concatenate(first), np.concatenate(second), np.concatenate(third)


def _column(parts: Sequence[npt.NDArray[Any]], dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    column: npt.NDArray[Scalar] = np.concatenate([*parts, np.zeros(0, dtype)]).astype(dtype, copy=False)
    return column
