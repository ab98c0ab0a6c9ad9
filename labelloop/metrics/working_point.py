"""Hits, false alarms and misses at a score threshold: precision, recall, F1, PQ, cellpose's AP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.metrics.matching import assign, solve, split
from labelloop.metrics.pairs import MATCH_IOU, BoolColumn, IntColumn, PairTable

CROWD_SHARE = 0.5  # of a prediction's area in a crowd: it is neither a hit nor a false alarm
NO_F1_MIN_SCORE = 0.5  # the threshold where no score can be preferred

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """Hits, false alarms and misses; float64 (n_images, n_classes) each.

    Attributes:
        hits: Matched pairs (TP).
        false_alarms: Predictions that match nothing (FP), those that lie in crowds left out.
        misses: True objects that nothing matches (FN), crowds left out.
        overlap: Sum of the matched pairs' IoU.
    """

    hits: Values
    false_alarms: Values
    misses: Values
    overlap: Values


def match(
    table: PairTable, min_score: float, *, iou: float = MATCH_IOU, beyond: bool = False, most: bool = False
) -> IntColumn:
    """Pairs predictions scored ``min_score`` or more with true objects, one-to-one within a class.

    Of all matchings the one with the highest total IoU over pairs with IoU >= ``iou``. Where masks of one
    side do not overlap, and ``iou`` is 0.5 or more, all three ways below pair the same.

    Args:
        table: The pairs of all images.
        min_score: The score threshold.
        iou: 0.5 or more.
        beyond: Whether a pair of exactly ``iou`` is too little, as for PQ.
        most: Of the matchings with the most pairs the one with the highest total IoU, as cellpose does.

    Returns:
        int64 (m,), rows of the table's pairs, ascending.
    """
    kept = table.det_score >= min_score
    crowd_pair = table.truth_crowd[table.pair_truth]
    enough = table.pair_overlap > iou if beyond else table.pair_overlap >= iou
    return assign(table, np.flatnonzero(enough & kept[table.pair_det] & ~crowd_pair), most=most)


def tally(table: PairTable, min_score: float, matched: IntColumn) -> Tally:
    """Counts what a matching makes of the predictions scored ``min_score`` or more, and of the true objects.

    Args:
        table: The pairs of all images.
        min_score: The score threshold.
        matched: From ``match``.
    """
    kept = table.det_score >= min_score
    hit = np.zeros(len(kept), np.bool_)
    hit[table.pair_det[matched]] = True
    found = np.zeros(len(table.truth_crowd), np.bool_)
    found[table.pair_truth[matched]] = True
    dets = (table.det_image, table.det_label)
    return Tally(
        hits=_count(table, *dets, hit),
        false_alarms=_count(table, *dets, kept & ~hit & ~in_crowd(table)),
        misses=_count(table, table.truth_image, table.truth_label, ~found & ~table.truth_crowd),
        overlap=_sum_overlap(table, matched),
    )


def in_crowd(table: PairTable) -> BoolColumn:
    """Detections (bool (d,)) that lie in one crowd of their class by half of their area or more."""
    inside = table.truth_crowd[table.pair_truth] & (table.pair_overlap >= CROWD_SHARE)
    result = np.zeros(len(table.det_image), np.bool_)
    result[table.pair_det[inside]] = True
    return result


def precision(t: Tally, times: Values) -> Values:
    """TP / (TP + FP), 0..1, higher is better; NaN without predictions. (r,) for times (r, n_images)."""
    hits, false_alarms, _ = _pooled(t, times)
    return ratio(hits, hits + false_alarms)


def recall(t: Tally, times: Values) -> Values:
    """TP / (TP + FN), 0..1, higher is better; NaN without true objects. (r,) for times (r, n_images)."""
    hits, _, misses = _pooled(t, times)
    return ratio(hits, hits + misses)


def f1(t: Tally, times: Values) -> Values:
    """2 TP / (2 TP + FP + FN), 0..1, higher is better; NaN without true objects. As ``recall``."""
    hits, false_alarms, misses = _pooled(t, times)
    return np.where(hits + misses > 0, ratio(2 * hits, 2 * hits + false_alarms + misses), np.nan)


def panoptic(t: Tally, times: Values) -> tuple[Values, Values, Values]:
    """PQ, SQ and RQ (Kirillov et al. 2019, doi:10.1109/CVPR.2019.00963, eq. 1), pooled per class.

    PQ = sum of IoU / (TP + FP/2 + FN/2) and RQ = TP / (TP + FP/2 + FN/2), mean over the classes with a true
    object or a prediction; SQ = sum of IoU / TP, mean over the classes with a match. All 0..1, higher is
    better. NaN where there is no true object at all, SQ also where nothing matches.

    Args:
        t: Counted beyond IoU 0.5.
        times: float64 (r, n_images).

    Returns:
        Three float64 (r,).
    """
    hits, false_alarms, misses = times @ t.hits, times @ t.false_alarms, times @ t.misses
    overlap = times @ t.overlap
    objects = hits + (false_alarms + misses) / 2
    has_truth = (hits + misses).sum(axis=1) > 0
    means = (
        _mean_over_classes(ratio(overlap, objects)),
        _mean_over_classes(ratio(overlap, hits)),
        _mean_over_classes(ratio(hits, objects)),
    )
    pq, sq, rq = (np.where(has_truth, mean, np.nan) for mean in means)
    return pq, sq, rq


def per_hundred(t: Tally, times: Values) -> tuple[Values, Values]:
    """Misses (FN) and spurious predictions (FP) per 100 true objects, 0 is best; NaN without true objects.

    Args:
        t: Counted at IoU 0.5.
        times: float64 (r, n_images).

    Returns:
        Two float64 (r,).
    """
    hits, false_alarms, misses = _pooled(t, times)
    return 100 * ratio(misses, hits + misses), 100 * ratio(false_alarms, hits + misses)


def cellpose_ap(t: Tally, times: Values) -> Values:
    """Cellpose's average precision: TP / (TP + FP + FN) of an image, mean over images; 0..1, 1 is best.

    As ``cellpose.metrics.average_precision`` (Stringer et al. 2021, doi:10.1038/s41592-020-01018-x) at one
    threshold; not an area under a curve. Images without truth and predictions are left out. NaN without true
    objects.

    Args:
        t: Counted with the matching ``most``.
        times: float64 (r, n_images).
    """
    hits, false_alarms, misses = (counts.sum(axis=1) for counts in (t.hits, t.false_alarms, t.misses))
    of_image = ratio(hits, hits + false_alarms + misses)
    mean = ratio(times @ np.nan_to_num(of_image), times @ (~np.isnan(of_image)).astype(np.float64))
    return np.where(times @ (hits + misses) > 0, mean, np.nan)


def best_threshold(table: PairTable) -> float:
    """The score that as a score threshold gives the best pooled F1 at IoU 0.5.

    Every score of a detection is tried, with the matching that it would have; of equally good ones the
    highest is taken, so the answer is always one of the scores. 0.5 where there is no true object or no hit.
    """
    truths = int((~table.truth_crowd).sum())
    hit_change, counted_change = _changes(table)
    order = np.argsort(-table.det_score, kind="stable")
    hits, counted = np.cumsum(hit_change[order]), np.cumsum(counted_change[order])
    scores = table.det_score[order]
    last_of_ties = np.flatnonzero(np.diff(scores, append=-np.inf) != 0)
    if truths == 0 or len(last_of_ties) == 0 or hits.max() == 0:
        return NO_F1_MIN_SCORE
    score_f1 = 2 * hits[last_of_ties] / (counted[last_of_ties] + truths)
    return float(scores[last_of_ties[np.argmax(score_f1)]])


def _changes(table: PairTable) -> tuple[IntColumn, IntColumn]:
    """What each detection adds to the hits and to the counted predictions when it joins the better ones.

    Only detections that compete for true objects change one another's matches; each such cluster is matched
    anew as its detections join, best first.
    """
    absorbed = in_crowd(table)
    hit = np.zeros(len(absorbed), np.int64)
    enough = (table.pair_overlap >= MATCH_IOU) & ~table.truth_crowd[table.pair_truth]
    counted = (~absorbed).astype(np.int64)
    lone, clusters = split(table, np.flatnonzero(enough))
    hit[table.pair_det[lone]] = counted[table.pair_det[lone]] = 1
    for pairs in clusters:
        dets = np.unique(table.pair_det[pairs])
        dets = dets[np.argsort(-table.det_score[dets], kind="stable")]
        before_hits = before_counted = 0
        for k, det in enumerate(dets):
            joined = pairs[np.isin(table.pair_det[pairs], dets[: k + 1])]
            matched = table.pair_det[solve(table, joined)]
            now_hits = len(matched)
            now_counted = now_hits + int((~absorbed[np.setdiff1d(dets[: k + 1], matched)]).sum())
            hit[det], counted[det] = now_hits - before_hits, now_counted - before_counted
            before_hits, before_counted = now_hits, now_counted
    return hit, counted


def _count(table: PairTable, image: IntColumn, label: IntColumn, which: BoolColumn) -> Values:
    cells = table.n_images * table.n_classes
    counts = np.bincount(image[which] * table.n_classes + label[which], minlength=cells)
    return counts.reshape(table.n_images, table.n_classes).astype(np.float64)


def _sum_overlap(table: PairTable, pairs: IntColumn) -> Values:
    dets = table.pair_det[pairs]
    cell = table.det_image[dets] * table.n_classes + table.det_label[dets]
    sums = np.bincount(cell, weights=table.pair_overlap[pairs], minlength=table.n_images * table.n_classes)
    return np.asarray(sums.reshape(table.n_images, table.n_classes), np.float64)


def _pooled(t: Tally, times: Values) -> tuple[Values, Values, Values]:
    """TP, FP and FN over images and classes, float64 (r,) each."""
    return times @ t.hits.sum(axis=1), times @ t.false_alarms.sum(axis=1), times @ t.misses.sum(axis=1)


def ratio(above: Values, below: Values) -> Values:
    """Above / below, NaN where ``below`` is not positive."""
    result: Values = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return result


def _mean_over_classes(values: Values) -> Values:
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(np.float64))
