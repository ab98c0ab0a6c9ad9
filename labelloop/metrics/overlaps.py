"""Metrics of how masks lie in one another: merged and split objects, the aggregated Jaccard index.

Where true objects overlap, a prediction that is right about one of them lies over part of the others too.
That is no mistake: of what a prediction shares with a true object, as much is left out as this object shares
with the one that the prediction stands for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelloop.metrics.pairs import BoolColumn, IntColumn, PairTable
from labelloop.metrics.working_point import Values, in_crowd, match, ratio


@dataclass(frozen=True, kw_only=True, eq=False)
class OverlapSums:
    """What is added over images; float64 (n_images,) each.

    Attributes:
        truths: True objects, crowds left out.
        merges: Predictions that cover half or more of each of two or more true objects; of each but the one
            that they stand for, what it shares with that one left out.
        splits: True objects with two or more predictions that lie in them by half or more; of those that
            stand for another one, what the two share left out.
        common: Intersections that the aggregated Jaccard index adds up, px.
        together: Unions that it adds up, px.
        overlapping: Why the index is not defined, or None.
    """

    truths: Values
    merges: Values
    splits: Values
    common: Values
    together: Values
    overlapping: str | None

    @classmethod
    def of(cls, table: PairTable, min_score: float, only: BoolColumn | None = None) -> OverlapSums:
        """Looks at the predictions scored ``min_score`` or more and the true objects that are no crowds.

        Args:
            table: The pairs of all images.
            min_score: The score threshold.
            only: bool (t,), the true objects of which one at least has to be merged, or that have to be
                split, to be counted as such; all if None.
        """
        kept, counted = table.det_score >= min_score, ~table.truth_crowd
        pairs = np.flatnonzero(kept[table.pair_det] & counted[table.pair_truth])
        det, truth, common = table.pair_det[pairs], table.pair_truth[pairs], table.pair_intersection()[pairs]
        covered = _beyond_what_is_shared(table, pairs, common, table.truth_area[truth])
        matched = match(table, min_score) if len(table.truth_overlap) else pairs[:0]
        within = _beyond_what_is_shared(table, pairs, common, table.det_area[det], matched)
        wanted = counted if only is None else only
        merges = np.bincount(det[covered], minlength=len(kept)) >= 2
        merges &= np.bincount(det[covered & wanted[truth]], minlength=len(kept)) >= 1
        splits = (np.bincount(truth[within], minlength=len(counted)) >= 2) & wanted
        intersections, unions = _jaccard_sums(table, pairs, kept)
        return cls(
            truths=_per_image(table, table.truth_image[counted]),
            merges=_per_image(table, table.det_image[merges]),
            splits=_per_image(table, table.truth_image[splits]),
            common=intersections,
            together=unions,
            overlapping=_overlapping(table, kept, counted),
        )


def merges_per_100(sums: OverlapSums, times: Values) -> Values:
    """Predictions that cover half or more of each of two or more true objects, per 100 true objects.

    0 is best; NaN without true objects. Where true masks overlap, a prediction stands for the one that it
    fits best of those that it covers by half; what others share with that one does not count as covered.
    So two objects as one are a merge unless more than half of one lies in the other.
    """
    return 100 * ratio(times @ sums.merges, times @ sums.truths)


def splits_per_100(sums: OverlapSums, times: Values) -> Values:
    """True objects in which two or more predictions lie by half or more, per 100 true objects.

    0 is best; NaN without true objects. Where true masks overlap, a prediction stands for its match at IoU
    0.5, without one for the object that it fits best of those in which it lies by half; what others share
    with that one does not count as lying in them.
    """
    return 100 * ratio(times @ sums.splits, times @ sums.truths)


def aggregated_jaccard(sums: OverlapSums, times: Values) -> Values:
    """Aggregated Jaccard index, pooled over images; 0..1, higher is better (Kumar et al. 2017, algorithm 1).

    Each true object is joined with the prediction of its class with the highest IoU, whichever else has it
    too. Their intersections, over their unions and the predictions that none was joined with
    (doi:10.1109/TMI.2017.2677499). Crowds, and predictions that lie in them and are joined with nothing, are
    left out. NaN without true objects, and where masks of one side overlap, as the index is for label images.
    """
    if sums.overlapping is not None:
        return np.full(len(times), np.nan)
    index = ratio(times @ sums.common, times @ sums.together)
    return np.where(times @ sums.truths > 0, index, np.nan)


def _beyond_what_is_shared(
    table: PairTable, pairs: IntColumn, common: IntColumn, area: IntColumn, matched: IntColumn | None = None
) -> BoolColumn:
    """Which pairs have half of an area or more in common, beyond what the true objects share.

    Args:
        table: The pairs of all images.
        pairs: int64 (k,), rows of its pairs.
        common: int64 (k,), px that each pair has in common.
        area: int64 (k,), px of which it is to be half.
        matched: int64 (m,), rows of pairs whose detections stand for their true objects; the others stand for
            the one that they fit best of those that they have half in common with.

    Returns:
        bool (k,).
    """
    half = 2 * common >= area
    if len(table.truth_overlap) == 0:
        return half
    det, truth = table.pair_det[pairs], table.pair_truth[pairs]
    own: IntColumn = np.full(len(table.det_image), -1)
    order = np.flatnonzero(half)
    order = order[np.lexsort((-truth[order], table.pair_overlap[pairs[order]]))]
    own[det[order]] = truth[order]  # of several the last one stays, which fits best
    if matched is not None:
        own[table.pair_det[matched]] = table.pair_truth[matched]
    for_another = half & (own[det] != truth)
    explained = table.shared_by(own[det[for_another]], truth[for_another])
    half[for_another] = 2 * (common[for_another] - explained) >= area[for_another]
    return half


def _jaccard_sums(table: PairTable, pairs: IntColumn, kept: BoolColumn) -> tuple[Values, Values]:
    """Intersections and unions of each image, px."""
    order = pairs[np.lexsort((-table.pair_overlap[pairs], table.pair_truth[pairs]))]
    _, first = np.unique(table.pair_truth[order], return_index=True)
    best = order[first]  # of each true object that a prediction touches
    det, truth, common = table.pair_det[best], table.pair_truth[best], table.pair_intersection()[best]
    alone_truth, alone_det = ~table.truth_crowd, kept & ~in_crowd(table)
    alone_truth[truth] = alone_det[det] = False
    union = table.det_area[det] + table.truth_area[truth] - common
    together = _per_image(table, table.truth_image[truth], union)
    together += _per_image(table, table.truth_image[alone_truth], table.truth_area[alone_truth])
    together += _per_image(table, table.det_image[alone_det], table.det_area[alone_det])
    return _per_image(table, table.truth_image[truth], common), together


def _overlapping(table: PairTable, kept: BoolColumn, counted: BoolColumn) -> str | None:
    sides = {
        "true objects": counted[table.truth_overlap].all(axis=1).any(),
        "predictions": kept[table.det_overlap].all(axis=1).any(),
    }
    found = [name for name, overlap in sides.items() if overlap]
    return f"{' and '.join(found)} overlap one another" if found else None


def _per_image(table: PairTable, image: IntColumn, weights: IntColumn | None = None) -> Values:
    return np.bincount(image, weights=weights, minlength=table.n_images).astype(np.float64)
