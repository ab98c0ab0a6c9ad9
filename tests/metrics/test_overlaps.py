"""Merged and split objects, the aggregated Jaccard index, misses and spurious predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.metrics.panel import Panel, evaluate

Scene = Callable[..., Instances]
LEFT, RIGHT, FAR = (0, 0, 10, 10), (0, 10, 10, 10), (30, 0, 5, 5)
OUTER, INNER = (0, 0, 20, 20), (5, 5, 10, 10)
INNER_TWO = [(2, 1, 8, 8), (2, 11, 8, 8)]
HALF_OVERLAPPING = [(0, 0, 10, 20), (0, 10, 10, 20)]


def values(panel: Panel) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in panel.metrics.items()}


def test_a_prediction_over_two_objects_is_a_merge(scene: Scene) -> None:
    truth = [scene([LEFT, RIGHT, FAR]), scene([FAR])]
    found = values(evaluate(truth, [scene([(0, 0, 10, 20), FAR], [0.9] * 2), scene()], n_classes=1))
    assert found["merges_per_100"] == 100 / 4
    assert found["splits_per_100"] == 0.0


@pytest.mark.parametrize(
    ("width", "merges"), [pytest.param(14, 0.0, id="less than half"), pytest.param(15, 50.0, id="half")]
)
def test_a_merge_covers_half_of_each(scene: Scene, width: int, merges: float) -> None:
    found = values(evaluate([scene([LEFT, RIGHT])], [scene([(0, 0, 10, width)], [0.9])], n_classes=1))
    assert found["merges_per_100"] == merges


@pytest.mark.parametrize(
    ("beyond", "splits"), [pytest.param(5, 50.0, id="half inside"), pytest.param(6, 0.0, id="less")]
)
def test_an_object_with_two_predictions_inside_is_a_split(scene: Scene, beyond: int, splits: float) -> None:
    halves = [(0, 0, 5, 10), (5, 0, 5 + beyond, 10)]
    found = values(evaluate([scene([LEFT, FAR])], [scene(halves, [0.9] * 2)], n_classes=1))
    assert found["splits_per_100"] == splits
    assert found["merges_per_100"] == 0.0


@pytest.mark.parametrize(
    ("truth", "predicted", "merges"),
    [
        pytest.param([OUTER, INNER], [OUTER], 0, id="the outer one"),
        pytest.param([OUTER, INNER], [INNER], 0, id="the inner one"),
        pytest.param([OUTER, INNER], [(0, 0, 21, 21)], 0, id="the outer one, too large"),
        pytest.param([OUTER, INNER], [(0, 0, 17, 17)], 0, id="the outer one, too small"),
        pytest.param([OUTER, INNER], [(0, 0, 20, 11)], 0, id="half of the outer one"),
        pytest.param([OUTER, INNER], [OUTER, OUTER], 0, id="the outer one twice"),
        pytest.param([OUTER, INNER, INNER], [INNER, INNER], 0, id="annotated twice"),
        pytest.param([OUTER, INNER, (0, 20, 20, 15)], [(0, 0, 20, 35)], 1, id="with a neighbour"),
        pytest.param([OUTER, *INNER_TWO], [(2, 1, 8, 18)], 1, id="the two inner ones"),
        pytest.param(HALF_OVERLAPPING, HALF_OVERLAPPING, 0, id="both of two"),
        pytest.param(HALF_OVERLAPPING, HALF_OVERLAPPING[:1], 0, id="one of two"),
        pytest.param(HALF_OVERLAPPING, [(0, 0, 10, 22)], 0, id="one of two, too large"),
        pytest.param(HALF_OVERLAPPING, [(0, 0, 10, 30)], 1, id="two as one"),
        pytest.param([*HALF_OVERLAPPING, (0, 20, 10, 20)], [(0, 0, 10, 40)], 1, id="three as one"),
    ],
)
def test_what_true_objects_share_merges_nothing(
    scene: Scene, truth: list, predicted: list, merges: int
) -> None:
    panel = evaluate([scene(truth)], [scene(predicted, [0.9] * len(predicted))], n_classes=1)
    assert values(panel)["merges_per_100"] == pytest.approx(100 * merges / len(truth))


UPPER, LOWER = (0, 0, 10, 20), (10, 0, 10, 20)  # halves of the outer one


@pytest.mark.parametrize(
    ("truth", "predicted", "splits"),
    [
        pytest.param([OUTER, INNER], [OUTER, INNER], 0, id="both"),
        pytest.param([OUTER, INNER], [OUTER, (6, 6, 6, 6)], 0, id="the inner one too small"),
        pytest.param([OUTER, INNER, INNER], [OUTER, INNER, INNER], 0, id="annotated twice"),
        pytest.param([OUTER, *INNER_TWO], INNER_TWO, 0, id="the two inner ones"),
        pytest.param([OUTER, INNER], [UPPER, LOWER, INNER], 1, id="the outer one"),
        pytest.param([OUTER, INNER], [OUTER, (5, 5, 5, 10), (10, 5, 5, 10)], 1, id="the inner one"),
        pytest.param([OUTER, INNER], [OUTER, (0, 0, 4, 20)], 1, id="a piece beside the inner one"),
        pytest.param(HALF_OVERLAPPING, HALF_OVERLAPPING, 0, id="both of two"),
        pytest.param(HALF_OVERLAPPING, [(0, 0, 10, 9), (0, 11, 10, 19)], 0, id="both, one too small"),
    ],
)
def test_what_true_objects_share_splits_nothing(
    scene: Scene, truth: list, predicted: list, splits: int
) -> None:
    panel = evaluate([scene(truth)], [scene(predicted, [0.9] * len(predicted))], n_classes=1)
    assert values(panel)["splits_per_100"] == pytest.approx(100 * splits / len(truth))


def by_the_letter(truth: list[Instances], predicted: list[Instances]) -> tuple[int, int]:
    """Merges and splits among the objects of each class, pixel by pixel; overlap is not looked at."""
    merges = splits = 0
    for true, found in zip(truth, predicted, strict=True):
        for label in np.unique(true.labels):
            sides = [i.select(i.labels == label).to_dense().reshape(-1, 24 * 24) for i in (true, found)]
            common = sides[1].astype(int) @ sides[0].T.astype(int)  # predictions x true objects
            merges += int(((2 * common >= sides[0].sum(axis=1)).sum(axis=1) >= 2).sum())
            splits += int(((2 * common >= sides[1].sum(axis=1)[:, None]).sum(axis=0) >= 2).sum())
    return merges, splits


def counted(truth: list[Instances], predicted: list[Instances]) -> tuple[int, int]:
    found = values(evaluate(truth, predicted, n_classes=2, min_score=0, replicates=0, parts=False))
    objects = sum(map(len, truth))
    return round(found["merges_per_100"] * objects / 100), round(found["splits_per_100"] * objects / 100)


def apart(truth: Instances) -> Instances:
    """The same objects, where each pixel is of the first one that has it; those without any are gone."""
    masks = truth.to_dense().astype(bool)
    masks &= np.cumsum(masks, axis=0) == 1
    kept = masks.any(axis=(1, 2))
    return Instances.from_dense(masks[kept], truth.labels[kept], size_hw=truth.size_hw)


@given(seed=st.integers(0, 10_000))
def test_where_true_objects_lie_apart_merges_and_splits_are_counted_by_the_letter(
    random_scenes: Callable[..., Any], seed: int
) -> None:
    truth, predicted = random_scenes(seed, crowds=False)
    truth = [apart(each) for each in truth]
    if any(len(each) for each in truth):
        assert counted(truth, predicted) == by_the_letter(truth, predicted)


@given(seed=st.integers(0, 10_000))
def test_the_truth_merges_and_splits_nothing_however_it_overlaps(
    random_scenes: Callable[..., Any], seed: int
) -> None:
    truth, predicted = random_scenes(seed, most=14, crowds=False)
    if any(len(each) for each in truth):
        assert counted(truth, [each.select(np.arange(len(each))[::-1]) for each in truth]) == (0, 0)
        by_letter = by_the_letter(truth, predicted)
        assert all(a <= b for a, b in zip(counted(truth, predicted), by_letter, strict=True))


def test_unsure_predictions_crowds_and_other_classes_neither_merge_nor_split(scene: Scene) -> None:
    wide, halves = (0, 0, 10, 20), [(0, 0, 5, 10), (5, 0, 5, 10)]
    crowded = scene([LEFT, RIGHT, FAR], crowd=[True, False, False])
    labelled = scene([LEFT, RIGHT, FAR], labels=[1, 1, 0])
    for truth, predicted in (
        (scene([LEFT, RIGHT, FAR]), scene([wide, *halves], [0.4, 0.4, 0.9])),
        (crowded, scene([wide, *halves], [0.9] * 3)),
        (labelled, scene([wide, *halves], [0.9] * 3)),
    ):
        found = values(evaluate([truth], [predicted], n_classes=2))
        assert (found["merges_per_100"], found["splits_per_100"]) == (0.0, 0.0)


def test_misses_and_spurious_predictions_are_per_100_true_objects(scene: Scene) -> None:
    truth = [scene([LEFT, RIGHT]), scene([FAR, LEFT])]
    found = values(evaluate(truth, [scene([LEFT, FAR], [0.9] * 2), scene([FAR], [0.9])], n_classes=1))
    assert found["misses_per_100"] == 50.0
    assert found["spurious_per_100"] == 25.0


def test_the_aggregated_jaccard_index_adds_pixels_over_images(scene: Scene) -> None:
    truth = [scene([LEFT, RIGHT]), scene([FAR])]
    predicted = [scene([(0, 0, 10, 9), (30, 30, 4, 4)], [0.9] * 2), scene()]
    # 90 in common; 100 together, 100 and 25 px of what was missed, 16 px spurious
    found = values(evaluate(truth, predicted, n_classes=1))
    assert found["aji"] == pytest.approx(90 / (100 + 100 + 25 + 16))


def test_one_prediction_may_be_joined_with_two_objects(scene: Scene) -> None:
    found = values(evaluate([scene([LEFT, RIGHT])], [scene([(0, 0, 10, 20)], [0.9])], n_classes=1))
    assert found["aji"] == pytest.approx((100 + 100) / (200 + 200))


@pytest.mark.parametrize(
    ("truth", "predicted", "scores", "reason"),
    [
        pytest.param([LEFT, (5, 0, 10, 10)], [LEFT], [0.9], "true objects overlap one another", id="truth"),
        pytest.param(
            [LEFT], [LEFT, (5, 0, 10, 10)], [0.9] * 2, "predictions overlap one another", id="found"
        ),
        pytest.param([LEFT], [LEFT, (5, 0, 10, 10)], [0.9, 0.4], None, id="only unsure ones overlap"),
    ],
)
def test_the_aggregated_jaccard_index_is_null_where_masks_overlap(
    scene: Scene, truth: list, predicted: list, scores: list[float], reason: str | None
) -> None:
    estimate = evaluate([scene(truth)], [scene(predicted, scores)], n_classes=1).metrics["aji"]
    assert (estimate.value is None) == (reason is not None)
    assert reason is None or estimate.reason == reason


def test_cellposes_average_precision_is_a_mean_over_images_with_objects(scene: Scene) -> None:
    truth = [scene([LEFT, RIGHT]), scene(), scene(), scene([FAR])]
    predicted = [scene([LEFT], [0.9]), scene(), scene([FAR], [0.9]), scene([FAR], [0.9])]
    found = values(evaluate(truth, predicted, n_classes=1))
    assert found["cellpose_ap50"] == pytest.approx((1 / 2 + 0 + 1) / 3)


def test_cellposes_matching_takes_more_pairs_before_more_overlap(scene: Scene) -> None:
    nested = [(0, 0, height, 10) for height in (18, 10, 6, 4)]
    # equal masks twice, or neighbours in the row three times: IoU 1 + 1, or 0.56 + 0.6 + 0.67
    found = values(evaluate([scene(nested[1:])], [scene(nested[:3], [0.9] * 3)], n_classes=1))
    assert found["cellpose_ap50"] == 1.0
    assert found["f1_50"] == pytest.approx(4 / 6)


def test_hits_at_a_stricter_iou_are_fewer(scene: Scene) -> None:
    found = values(evaluate([scene([LEFT, RIGHT])], [scene([LEFT, (0, 10, 6, 10)], [0.9] * 2)], n_classes=1))
    assert (found["f1_50"], found["f1_70"]) == (1.0, 0.5)
    assert (found["precision_70"], found["recall_70"]) == (0.5, 0.5)
    assert (found["cellpose_ap50"], found["cellpose_ap75"]) == (1.0, pytest.approx(1 / 3))
