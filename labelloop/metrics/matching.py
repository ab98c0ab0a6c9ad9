"""Which prediction is which true object: COCO's greedy matching and linear assignment.

Most predictions touch one true object and are its only candidate; only the pairs that compete are walked one
by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from labelloop.metrics.pairs import BoolColumn, IntColumn, PairTable

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # pycocotools' numbers to the last bit


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoMatches:
    """What COCO's matching says of each detection at each of the ten IoU thresholds.

    Attributes:
        hit: bool (10, d), matched to a true object.
        ignored: bool (10, d), matched to a crowd or another ignored object: neither hit nor false alarm.
    """

    hit: BoolColumn
    ignored: BoolColumn


def coco_match(table: PairTable, truth_ignored: BoolColumn | None = None) -> CocoMatches:
    """Greedy matching in the order of scores, as pycocotools' ``evaluateImg``.

    At each threshold a detection takes the free true object of its class with the highest IoU >= threshold
    (the later one where two are equal), else so the best of the ignored ones: a crowd in which that share of
    it lies, or an object that is free. Equal scores keep the order in which they were given.

    Args:
        table: The pairs of all images.
        truth_ignored: bool (t,), true objects that do not count, beside the crowds; none if None.
    """
    n_dets = len(table.det_image)
    hit = np.zeros((len(IOU_THRESHOLDS), n_dets), np.bool_)
    ignored = np.zeros_like(hit)
    unwanted = table.truth_crowd if truth_ignored is None else table.truth_crowd | truth_ignored
    near = np.flatnonzero(table.pair_overlap >= IOU_THRESHOLDS[0])
    det, truth, overlap = table.pair_det[near], table.pair_truth[near], table.pair_overlap[near]
    lone_truth = np.bincount(truth, minlength=len(table.truth_image))[truth] == 1
    alone = (np.bincount(det, minlength=n_dets)[det] == 1) & (lone_truth | table.truth_crowd[truth])
    passes = overlap >= IOU_THRESHOLDS[:, None]
    for column, of in ((hit, alone & ~unwanted[truth]), (ignored, alone & unwanted[truth])):
        column[:, det[of]] = passes[:, of]
    rest = near[~alone]
    best_first = np.lexsort((table.pair_det[rest], -table.det_score[table.pair_det[rest]]))
    _match_greedily(table, rest[best_first], unwanted, hit, ignored)
    return CocoMatches(hit=hit, ignored=ignored)


def _match_greedily(
    table: PairTable, pairs: IntColumn, unwanted: BoolColumn, hit: BoolColumn, ignored: BoolColumn
) -> None:
    """Walks competing pairs, best detection first, and fills its columns of ``hit`` and ``ignored``.

    A set of thresholds is an integer with a bit for each.
    """
    truths = table.pair_truth[pairs]
    overlap = table.pair_overlap[pairs]
    rows = map(
        _Candidate._make,
        zip(
            (~unwanted[truths]).tolist(),
            overlap.tolist(),
            truths.tolist(),
            np.searchsorted(IOU_THRESHOLDS, overlap, side="right").tolist(),
            table.truth_crowd[truths].tolist(),
            table.pair_det[pairs].tolist(),
            strict=True,
        ),
    )
    taken: dict[int, int] = {}
    for det, candidates in groupby(rows, key=attrgetter("det")):
        hit_bits, ignored_bits = _take_best(list(candidates), taken)
        for t in range(len(IOU_THRESHOLDS)):
            hit[t, det] = hit_bits >> t & 1
            ignored[t, det] = ignored_bits >> t & 1


class _Candidate(NamedTuple):
    """A true object that a detection may take; the greater tuple is the better one.

    ``passed`` is how many of the thresholds the pair reaches.
    """

    wanted: bool
    overlap: float
    truth: int
    passed: int
    crowd: bool
    det: int


def _take_best(candidates: list[_Candidate], taken: dict[int, int]) -> tuple[int, int]:
    """One detection's choice at every threshold, hits and ignored ones; marks what it takes.

    Each candidate, best first, serves the thresholds that it reaches, that it is free at and that no better
    candidate has served. A crowd is always free.
    """
    hit_bits = ignored_bits = 0
    for candidate in sorted(candidates, reverse=True):
        used = 0 if candidate.crowd else taken.get(candidate.truth, 0)
        serves = ((1 << candidate.passed) - 1) & ~(used | hit_bits | ignored_bits)
        taken[candidate.truth] = used | serves
        if candidate.wanted:
            hit_bits |= serves
        else:
            ignored_bits |= serves
    return hit_bits, ignored_bits


def assign(table: PairTable, pairs: IntColumn, *, most: bool = False) -> IntColumn:
    """One-to-one matching that maximises the total overlap over these pairs.

    Args:
        table: The pairs of all images.
        pairs: int64 (k,), the rows of ``table`` that may be matched.
        most: Whether more pairs come before more overlap.

    Returns:
        int64 (m,), the rows that are matched, ascending.
    """
    lone, clusters = split(table, pairs)
    chosen = [lone, *(solve(table, cluster, most=most) for cluster in clusters)]
    return np.sort(np.concatenate(chosen))


def solve(table: PairTable, pairs: IntColumn, *, most: bool = False) -> IntColumn:
    """``assign`` by the Hungarian method on these pairs as a dense matrix; for the pairs of one cluster."""
    dets, row = np.unique(table.pair_det[pairs], return_inverse=True)
    truths, column = np.unique(table.pair_truth[pairs], return_inverse=True)
    gain = np.zeros((len(dets), len(truths)))
    which = np.full(gain.shape, -1)
    gain[row, column] = table.pair_overlap[pairs] + (min(gain.shape) if most else 0)
    which[row, column] = pairs
    matched: IntColumn = which[linear_sum_assignment(gain, maximize=True)]
    return matched[matched >= 0]


def split(table: PairTable, pairs: IntColumn) -> tuple[IntColumn, list[IntColumn]]:
    """Pairs without competition, and the others in clusters that share no object with one another.

    Args:
        table: The pairs of all images.
        pairs: int64 (k,), rows of ``table``.
    """
    n_dets, n_truths = len(table.det_image), len(table.truth_image)
    det, truth = table.pair_det[pairs], table.pair_truth[pairs]
    alone = np.bincount(det, minlength=n_dets)[det] == 1
    alone &= np.bincount(truth, minlength=n_truths)[truth] == 1
    rest, det, truth = pairs[~alone], det[~alone], truth[~alone]
    if len(rest) == 0:
        return pairs, []
    edges = coo_array(
        (np.ones(len(rest), np.bool_), (det, n_dets + truth)), shape=(n_dets + n_truths, n_dets + n_truths)
    )
    _, component = connected_components(edges, directed=False)
    order = np.argsort(component[det], kind="stable")
    ends = np.flatnonzero(np.diff(component[det[order]])) + 1
    return pairs[alone], np.split(rest[order], ends)
