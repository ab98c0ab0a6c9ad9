"""Precision, recall, F1, PQ and counts of scenes whose overlaps are known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.metrics.matching import assign
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.panel import Panel, best_f1_score_threshold, evaluate
from labelloop.metrics.working_point import f1, match, tally

Scene = Callable[..., Instances]
TRUE = (0, 0, 20, 10)  # 200 px


def values(panel: Panel) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in panel.metrics.items()}


@pytest.mark.parametrize(
    ("height", "hit", "panoptic_hit"),
    [
        pytest.param(9, False, False, id="IoU 0.45"),
        pytest.param(10, True, False, id="IoU 0.50 exactly: a hit, but not for PQ"),
        pytest.param(11, True, True, id="IoU 0.55"),
    ],
)
def test_a_hit_needs_half_of_the_union_and_pq_more(
    scene: Scene, height: int, hit: bool, panoptic_hit: bool
) -> None:
    found = values(evaluate([scene([TRUE])], [scene([(0, 0, height, 10)], [0.9])], n_classes=1))
    assert found["f1_50"] == found["precision_50"] == found["recall_50"] == float(hit)
    assert found["rq"] == float(panoptic_hit)
    assert found["pq"] == pytest.approx(height / 20 if panoptic_hit else 0.0)
    assert found["sq"] == (pytest.approx(height / 20) if panoptic_hit else None)


def test_discs_have_the_iou_of_geometry() -> None:
    y, x = np.mgrid[:300, :300] + 0.5
    radius, shift = 100.0, 40.0
    discs = [(y - 150) ** 2 + (x - 100 - dx) ** 2 < radius**2 for dx in (0.0, shift)]
    lens = 2 * radius**2 * np.arccos(shift / 2 / radius) - shift / 2 * np.sqrt(4 * radius**2 - shift**2)
    truth, predicted = (Instances.from_dense(disc[None]) for disc in discs)
    found = values(evaluate([truth], [predicted], n_classes=1))
    assert found["sq"] == pytest.approx(lens / (2 * np.pi * radius**2 - lens), abs=0.002)


def test_the_formulas_are_applied_to_counts_pooled_over_images(scene: Scene) -> None:
    far = [(30, c, 5, 5) for c in (0, 8, 16)]
    truth = [scene([TRUE, *far]), scene([TRUE]), scene()]
    predicted = [scene([TRUE], [0.9]), scene([TRUE, far[0]], [0.9, 0.8]), scene([far[1]], [0.7])]
    found = values(evaluate(truth, predicted, n_classes=1))  # 2 hits, 2 false alarms, 3 misses
    assert found["precision_50"] == 2 / 4
    assert found["recall_50"] == 2 / 5
    assert found["f1_50"] == found["rq"] == found["pq"] == pytest.approx(4 / 9)
    assert found["count_bias"] == pytest.approx((-3 + 1 + 1) / 3)
    assert found["count_mae"] == pytest.approx(5 / 3)


def test_pq_is_the_mean_over_classes_and_f1_is_pooled(scene: Scene) -> None:
    truth = [scene([(0, 0, 9, 9), (0, 10, 9, 9), (0, 20, 9, 9), (20, 0, 9, 9)], labels=[0, 0, 0, 1])]
    predicted = [scene([(0, 0, 9, 9), (0, 10, 9, 9), (0, 20, 9, 9)], [0.9] * 3, labels=[0, 0, 0])]
    found = values(evaluate(truth, predicted, n_classes=3))
    assert found["pq"] == found["rq"] == 0.5
    assert found["sq"] == 1.0
    assert found["f1_50"] == pytest.approx(6 / 7)


def test_only_predictions_at_the_working_threshold_or_above_count(scene: Scene) -> None:
    predicted = [scene([TRUE, (30, 0, 5, 5)], [0.3, 0.299])]
    panel = evaluate([scene([TRUE])], predicted, n_classes=1, min_score=0.3)
    assert values(panel)["precision_50"] == 1.0
    assert panel.min_score == 0.3
    assert values(evaluate([scene([TRUE])], predicted, n_classes=1))["recall_50"] == 0.0


def test_predictions_without_scores_count_as_sure(scene: Scene) -> None:
    assert values(evaluate([scene([TRUE])], [scene([TRUE])], n_classes=1, min_score=1.0))["f1_50"] == 1.0


def test_classes_do_not_match_one_another(scene: Scene) -> None:
    found = values(evaluate([scene([TRUE], labels=[0])], [scene([TRUE], [1.0], labels=[1])], n_classes=2))
    assert found["f1_50"] == found["coco_ap"] == found["pq"] == 0.0


def test_crowds_and_what_lies_in_them_are_neither_hits_nor_misses(scene: Scene) -> None:
    truth = [scene([TRUE, (20, 0, 20, 40)], crowd=[False, True])]
    inside, half, mostly_outside = (25, 0, 5, 5), (15, 20, 10, 5), (14, 30, 10, 5)
    without = values(evaluate(truth, [scene([TRUE, inside, half], [0.9] * 3)], n_classes=1))
    assert without["f1_50"] == without["precision_50"] == without["recall_50"] == without["pq"] == 1.0
    assert without["count_bias"] == without["count_mae"] == 0.0
    outside = values(evaluate(truth, [scene([TRUE, mostly_outside], [0.9] * 2)], n_classes=1))
    assert outside["precision_50"] == 0.5
    assert outside["count_bias"] == 1.0


def test_overlapping_objects_are_all_found(scene: Scene) -> None:
    overlapping = [(0, 0, 20, 10), (6, 0, 20, 10), (12, 0, 20, 10)]
    found = values(evaluate([scene(overlapping)], [scene(overlapping, [0.9] * 3)], n_classes=1))
    assert found["f1_50"] == found["pq"] == found["coco_ap"] == 1.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_matching_has_the_highest_total_iou(random_scenes: Callable[..., Any], seed: int) -> None:
    truth, predicted = random_scenes(seed, n_images=1, most=4, n_classes=1, crowds=False)
    table = PairTable.build(truth, predicted, n_classes=1)
    usable = np.flatnonzero(table.pair_overlap >= 0.5)
    matched = assign(table, usable)
    assert len(set(table.pair_det[matched])) == len(set(table.pair_truth[matched])) == len(matched)
    iou = np.zeros((len(predicted[0]) + 4, len(truth[0])))
    iou[table.pair_det[usable], table.pair_truth[usable]] = table.pair_overlap[usable]
    candidates = sorted(set(table.pair_det[usable])) + list(range(len(predicted[0]), len(iou)))
    if len(candidates) > 8:
        return
    columns = range(len(truth[0]))
    best = max(iou[list(rows), columns].sum() for rows in permutations(candidates, len(columns)))
    assert table.pair_overlap[matched].sum() == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), crowds=st.booleans())
def test_the_best_threshold_has_the_best_f1_of_all_scores(
    random_scenes: Callable[..., Any], seed: int, crowds: bool
) -> None:
    truth, predicted = random_scenes(seed, n_images=3, most=6, n_classes=2, crowds=crowds)
    best = best_f1_score_threshold(truth, predicted, n_classes=2)

    table = PairTable.build(truth, predicted, n_classes=2, outlines=False)

    def f1_at(score: float) -> float:
        counts = tally(table, score, match(table, score))
        return float(np.nan_to_num(f1(counts, np.ones((1, 3)))[0]))

    tried = {float(s): f1_at(float(s)) for p in predicted for s in p.scores}
    top = max(tried.values(), default=0.0)
    if top == 0:
        assert best == 0.5
    else:
        assert best == max(s for s, f1 in tried.items() if f1 == pytest.approx(top))
