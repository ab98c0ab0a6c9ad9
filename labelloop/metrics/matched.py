"""MatchedModel: one model's predictions after matching, and every metric of any resample of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.metrics.agreement import (
    MatchedPairs,
    area_agreement,
    boundary_error,
    count_concordance,
    count_errors,
)
from labelloop.metrics.coco_ap import RankedClass, average_precision, rank
from labelloop.metrics.matching import IOU_THRESHOLDS
from labelloop.metrics.overlaps import OverlapSums, aggregated_jaccard, merges_per_100, splits_per_100
from labelloop.metrics.pairs import BoolColumn, PairTable
from labelloop.metrics.reliability import ReliabilityBins, calibration_error
from labelloop.metrics.working_point import (
    Tally,
    Values,
    cellpose_ap,
    f1,
    match,
    panoptic,
    per_hundred,
    precision,
    recall,
    tally,
)

METRICS = (
    "coco_ap", "coco_ap50", "coco_ap75",
    "cellpose_ap50", "cellpose_ap75", "cellpose_ap90",
    "precision_50", "recall_50", "f1_50", "precision_70", "recall_70", "f1_70",
    "pq", "sq", "rq", "aji",
    "merges_per_100", "splits_per_100", "misses_per_100", "spurious_per_100",
    "count_bias", "count_mae", "count_ccc",
    "area_bias", "area_low_loa", "area_high_loa", "boundary_error",
    "detection_ece",
)  # fmt: skip
SURPLUS = ("coco_ap", "coco_ap50", "coco_ap75", "detection_ece")  # noise makes them larger: maxima, gaps
BOUNDS_OF_SURPLUS = (0.0, 1.0)  # of these, not of their differences

_OF_COUNTS = ("count_bias", "count_mae", "count_ccc")
_PRECISIONS = ("precision_50", "precision_70")
NEED_NO_TRUTH = (*_PRECISIONS, *_OF_COUNTS, "detection_ece")
_OF_PAIRS = ("area_bias", "area_low_loa", "area_high_loa", "boundary_error")

Replicates = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchedModel:
    """All that a metric of any resample is computed from.

    A new metric adds what it needs here, and its name in ``METRICS`` and ``values``; intervals, parts and
    differences follow.

    Attributes:
        table: The pairs of all images.
        min_score: The working threshold.
        ranked: Of COCO AP.
        at_half: Counts of the matching at IoU 0.5.
        beyond_half: Counts beyond IoU 0.5, of PQ.
        at_70: Counts at IoU 0.7.
        most_pairs: Counts of cellpose's matching at IoU 0.5, 0.75 and 0.9.
        pairs: The pairs matched at IoU 0.5.
        overlaps: Of merges, splits and the aggregated Jaccard index.
        bins: Of the calibration error.
    """

    table: PairTable
    min_score: float
    ranked: list[RankedClass]
    at_half: Tally
    beyond_half: Tally
    at_70: Tally
    most_pairs: tuple[Tally, Tally, Tally]
    pairs: MatchedPairs
    overlaps: OverlapSums
    bins: ReliabilityBins

    @classmethod
    def of(
        cls, table: PairTable, min_score: float, pixel_sizes_um: Sequence[float | None] | None = None
    ) -> MatchedModel:
        """Matches once, in COCO's way and at the working threshold.

        Args:
            table: The pairs of all images.
            min_score: The working threshold.
            pixel_sizes_um: Side of a pixel of each image, µm; None where it is not known.
        """

        def counted(iou: float, *, beyond: bool = False, most: bool = False) -> Tally:
            return tally(table, min_score, match(table, min_score, iou=iou, beyond=beyond, most=most))

        at_half = match(table, min_score)
        return cls(
            table=table,
            min_score=min_score,
            ranked=rank(table),
            at_half=tally(table, min_score, at_half),
            beyond_half=counted(0.5, beyond=True),
            at_70=counted(0.7),
            most_pairs=(counted(0.5, most=True), counted(0.75, most=True), counted(0.9, most=True)),
            pairs=MatchedPairs.of(table, at_half, pixel_sizes_um),
            overlaps=OverlapSums.of(table, min_score),
            bins=ReliabilityBins.of(table),
        )

    def values(self, times: npt.NDArray[np.int32]) -> Replicates:
        """Every metric of every resample: float64 (r,), NaN where undefined.

        Args:
            times: int32 (r, n_images), how often each image is in each resample.
        """
        weights = times.astype(np.float64)
        ap = average_precision(self.ranked, times)
        cellpose = [cellpose_ap(t, weights) for t in self.most_pairs]
        pq, sq, rq = panoptic(self.beyond_half, weights)
        misses, spurious = per_hundred(self.at_half, weights)
        bias, mae = count_errors(self.at_half, weights)
        area, area_low, area_high = area_agreement(self.pairs, times)
        return {
            "coco_ap": ap.mean(axis=1),
            "coco_ap50": ap[:, 0],
            "coco_ap75": ap[:, _threshold_index(0.75)],
            "cellpose_ap50": cellpose[0],
            "cellpose_ap75": cellpose[1],
            "cellpose_ap90": cellpose[2],
            "precision_50": precision(self.at_half, weights),
            "recall_50": recall(self.at_half, weights),
            "f1_50": f1(self.at_half, weights),
            "precision_70": precision(self.at_70, weights),
            "recall_70": recall(self.at_70, weights),
            "f1_70": f1(self.at_70, weights),
            "pq": pq,
            "sq": sq,
            "rq": rq,
            "aji": aggregated_jaccard(self.overlaps, weights),
            "merges_per_100": merges_per_100(self.overlaps, weights),
            "splits_per_100": splits_per_100(self.overlaps, weights),
            "misses_per_100": misses,
            "spurious_per_100": spurious,
            "count_bias": bias,
            "count_mae": mae,
            "count_ccc": count_concordance(self.at_half, weights),
            "area_bias": area,
            "area_low_loa": area_low,
            "area_high_loa": area_high,
            "boundary_error": boundary_error(self.pairs, weights),
            "detection_ece": calibration_error(self.bins, weights),
        }

    def point(self) -> dict[str, float]:
        """Every metric of all images, each once."""
        once = self.values(np.ones((1, self.table.n_images), np.int32))
        return {name: float(once[name][0]) for name in METRICS}

    def holding(self, name: str) -> BoolColumn | None:
        """Which images tell anything of a metric; None where all do.

        Those with a prediction that counts, a matched pair or, of most metrics, a true object.
        """
        if name in _OF_COUNTS:
            return None
        if name == "detection_ece":
            return _any(self.bins.n)
        if name in _PRECISIONS:
            at = self.at_half if name == "precision_50" else self.at_70
            return _any(at.hits + at.false_alarms)
        if name == "sq":
            return _any(self.beyond_half.hits)
        return _any(self.at_half.hits) if name in _OF_PAIRS else self.table.holding()

    def unit(self, name: str) -> str | None:
        """The unit of a metric that has not always the same one."""
        return self.pairs.unit if name == "boundary_error" else None

    def why_undefined(self, name: str) -> str:
        """Why a metric is undefined on all images."""
        if self.table.n_images == 0:
            return "there are no images"
        if name in _PRECISIONS:
            return f"there are no predictions scored {self.min_score:g} or more{self._outside_crowds()}"
        if name == "detection_ece" and self.bins.undefined is not None:
            return self.bins.undefined
        if name == "detection_ece":
            return f"there are no predictions{self._outside_crowds()}"
        if name == "count_ccc":
            alone = self.table.n_images == 1
            return "there is only one image" if alone else "the counts do not vary from image to image"
        if bool(self.table.truth_crowd.all()) and name not in NEED_NO_TRUTH:
            return "there are no true objects"
        if name == "aji" and self.overlaps.overlapping is not None:
            return self.overlaps.overlapping
        if len(self.pairs.image) and name in _OF_PAIRS:
            alone = len(self.pairs.image) == 1
            return "there is only one matched pair" if alone else "outlines were not measured"
        return f"no prediction scored {self.min_score:g} or more matches a true object"

    def _outside_crowds(self) -> str:
        return " outside of crowds" if self.table.truth_crowd.any() else ""


def _any(counts: Values) -> BoolColumn:
    """Bool (n_images,), which rows hold anything."""
    return np.asarray(counts.any(axis=1))


def _threshold_index(iou: float) -> int:
    return int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))
