"""Intervals, what cannot be computed, groups, and paired differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.metrics.bootstrap import Resampling
from labelloop.metrics.matched import METRICS
from labelloop.metrics.panel import difference, evaluate

Scene = Callable[..., Instances]
TRUE = (0, 0, 20, 10)
ELSEWHERE = (25, 20, 10, 10)
NEEDS_NO_TRUTH = {"precision_50", "precision_70", "count_bias", "count_mae", "count_ccc", "detection_ece"}
NEEDS_TRUTH = tuple(name for name in METRICS if name not in NEEDS_NO_TRUTH)


@pytest.fixture(scope="module")
def mixed(random_scenes: Callable[..., Any]) -> tuple[list[Instances], list[Instances]]:
    truth, predicted = random_scenes(3, n_images=30, most=8, n_classes=2)
    return truth, predicted


def test_every_metric_has_its_value_within_its_interval(mixed: Any) -> None:
    panel = evaluate(*mixed, n_classes=2)
    assert tuple(panel.metrics) == METRICS
    assert panel.metrics["aji"].reason == "true objects and predictions overlap one another"
    for name, estimate in panel.metrics.items():
        assert estimate.n == 30
        if name == "aji":
            continue
        assert estimate.value is not None, name
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high, name
        assert estimate.low < estimate.high or (name, estimate.value) == ("merges_per_100", 0.0), name


def test_the_same_seed_gives_the_same_panel_and_another_seed_another_interval(mixed: Any) -> None:
    panels = [evaluate(*mixed, n_classes=2, seed=seed) for seed in (1, 1, 2)]
    assert panels[0] == panels[1]
    assert panels[0].metrics["f1_50"].value == panels[2].metrics["f1_50"].value
    assert panels[0].metrics["f1_50"].low != panels[2].metrics["f1_50"].low


def test_the_interval_of_a_mean_is_the_one_of_theory(scene: Scene) -> None:
    rng = np.random.default_rng(0)
    extra = rng.integers(0, 4, 200)
    predicted = [scene([ELSEWHERE] * k, [0.9] * k) for k in extra]
    estimate = evaluate([scene()] * 200, predicted, n_classes=1, replicates=4000).metrics["count_bias"]
    half_width = 1.96 * extra.std() / np.sqrt(200)
    assert estimate.value == pytest.approx(extra.mean())
    assert estimate.low == pytest.approx(extra.mean() - half_width, rel=0.03)
    assert estimate.high == pytest.approx(extra.mean() + half_width, rel=0.03)


def test_a_panel_is_json_with_null_and_reason_for_what_cannot_be_computed(scene: Scene) -> None:
    panel = evaluate([scene()], [scene()], n_classes=1)
    written = json.loads(json.dumps(panel.as_dict(), allow_nan=False))
    assert written["metrics"]["coco_ap"]["value"] is None
    assert written["metrics"]["coco_ap"]["reason"] == "there are no true objects"
    assert written["n_images"] == 1
    assert written["max_dets"] == 100


def test_without_truth_what_needs_truth_is_null(scene: Scene) -> None:
    panel = evaluate([scene()] * 3, [scene([TRUE], [0.9])] * 3, n_classes=1)
    for name in NEEDS_TRUTH:
        assert panel.metrics[name].value is None
        assert panel.metrics[name].reason == "there are no true objects"
    assert panel.metrics["precision_50"].value == 0.0
    assert panel.metrics["count_bias"].value == 1.0


def test_without_predictions_precision_is_null_and_the_rest_is_zero(scene: Scene) -> None:
    panel = evaluate([scene([TRUE])] * 3, [scene()] * 3, n_classes=1)
    for name in ("precision_50", "precision_70"):
        assert panel.metrics[name].value is None
        assert panel.metrics[name].reason == "there are no predictions scored 0.5 or more"
    assert panel.metrics["sq"].value is None
    for name in ("coco_ap", "f1_50", "recall_50", "pq", "rq"):
        assert panel.metrics[name].value == 0.0


def test_without_images_all_is_null() -> None:
    panel = evaluate([], [], n_classes=1)
    assert {estimate.reason for estimate in panel.metrics.values()} == {"there are no images"}
    assert panel.n_images == 0
    assert panel.as_dict()["by"] == {"class": {}, "size": {}, "group": {}, "worst_group": {}}


def test_one_image_has_values_and_no_interval(scene: Scene) -> None:
    estimate = evaluate([scene([TRUE])], [scene([TRUE], [0.9])], n_classes=1).metrics["f1_50"]
    assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)
    assert estimate.reason == "no interval from 1 image"


def test_a_metric_undefined_in_many_resamples_has_no_interval(scene: Scene) -> None:
    truth = [scene([TRUE]), *[scene()] * 9]  # a third of the resamples miss the one image with truth
    estimate = evaluate(truth, [scene([TRUE], [0.9])] * 10, n_classes=1).metrics["recall_50"]
    assert estimate.value == 1.0
    assert estimate.low is None
    assert "undefined in 3" in str(estimate.reason)


def test_groups_are_drawn_whole(scene: Scene) -> None:
    good, bad = scene([TRUE], [0.9]), scene()
    truth, predicted = [scene([TRUE])] * 40, [good] * 20 + [bad] * 20
    plates = ["a"] * 20 + ["b"] * 20
    by_plate = evaluate(truth, predicted, n_classes=1, groups=plates)
    by_image = evaluate(truth, predicted, n_classes=1, groups=["a"] * 40)
    assert by_plate.n_groups == 2
    assert by_plate.metrics["recall_50"].n == 40
    assert (by_plate.metrics["recall_50"].low, by_plate.metrics["recall_50"].high) == (0.0, 1.0)
    assert by_image.n_groups == 1
    assert by_image.metrics["recall_50"].low == pytest.approx(0.35, abs=0.08)


@pytest.mark.parametrize(("n", "noted"), [(2, True), (49, True), (50, False)])
def test_intervals_from_few_images_carry_a_note(scene: Scene, n: int, noted: bool) -> None:
    predicted = [scene(), *[scene([TRUE], [0.9])] * (n - 1)]
    panel = evaluate([scene([TRUE])] * n, predicted, n_classes=1)
    assert bool(panel.notes) == noted
    assert panel.metrics["f1_50"].reliable != noted
    assert ("reliable" in panel.metrics["f1_50"].as_dict()) == noted


def test_images_without_an_object_make_no_interval_reliable(scene: Scene) -> None:
    truth = [scene([TRUE])] * 12 + [scene()] * 48
    predicted = [scene([TRUE], [0.9])] * 11 + [scene()] * 48 + [scene([ELSEWHERE], [0.9])]
    panel = evaluate(truth, predicted, n_classes=1)
    assert not panel.metrics["coco_ap"].reliable
    assert panel.metrics["count_bias"].reliable  # of which images without objects tell as much
    assert panel.notes == (
        "intervals from 12 images with objects, of 60, are too narrow, most of all those of AP",
    )


def test_an_interval_is_only_as_reliable_as_the_images_that_tell_of_its_metric(scene: Scene) -> None:
    hit = scene([(0, 0, 20, 9)], [0.9])
    truth = [scene([TRUE])] * 60
    few = [*[hit, scene([TRUE], [0.8]), scene([ELSEWHERE], [0.7])] * 2, *[scene()] * 54]
    panel = evaluate(truth, few, n_classes=1)
    shaky = {name for name, estimate in panel.metrics.items() if not estimate.reliable}
    assert panel.metrics["precision_50"].value == pytest.approx(2 / 3)
    assert panel.metrics["recall_50"].reliable
    assert panel.metrics["count_bias"].reliable
    assert shaky >= {"precision_50", "detection_ece", "sq", "area_bias", "boundary_error"}
    many = [scene([ELSEWHERE], [0.9]), *[hit] * 30, *[scene([TRUE], [0.8])] * 29]
    for a, b in ((few, many), (many, few)):  # the difference tells no more than the lesser of the two
        assert not difference(truth, a, b, n_classes=1)["precision_50"].reliable
    assert evaluate(truth, many, n_classes=1).metrics["precision_50"].reliable


def test_an_interval_without_width_is_not_called_reliable(scene: Scene) -> None:
    truth, found = [scene([TRUE])] * 60, scene([(0, 0, 20, 9)], [0.9])
    metrics = evaluate(truth, [found] * 60, n_classes=1).metrics
    for name in ("misses_per_100", "recall_50", "coco_ap", "sq", "area_bias", "detection_ece"):
        estimate = metrics[name]
        assert (estimate.low, estimate.high) == (estimate.value, estimate.value), name
        assert not estimate.reliable, name  # with none of 60 missed, one of 100 may well be
    one_missed = evaluate(truth, [scene(), *[found] * 59], n_classes=1).metrics
    assert one_missed["misses_per_100"].reliable
    assert not one_missed["merges_per_100"].reliable


def test_models_that_differ_nowhere_may_yet_differ(scene: Scene) -> None:
    truth = [scene([TRUE])] * 60
    same = [scene(), *[scene([TRUE], [0.9])] * 59]
    estimate = difference(truth, same, same, n_classes=1)["recall_50"]
    assert (estimate.value, estimate.low, estimate.high, estimate.reliable) == (0.0, 0.0, 0.0, False)


def test_one_known_group_is_drawn_whole_beside_images_without_one() -> None:
    resampling = Resampling.of(4, ["a", "a", None, None], replicates=1, seed=0)
    assert (resampling.unit_of_image.tolist(), resampling.by_group) == ([0, 0, 1, 2], True)
    assert Resampling.of(3, ["a"] * 3, replicates=1, seed=0).n_units == 3


def test_images_of_one_group_make_no_interval_reliable(scene: Scene) -> None:
    truth, found = [scene([TRUE])] * 60, [scene([TRUE], [0.9]), scene([ELSEWHERE], [0.9])] * 30
    alone, unknown = (evaluate(truth, found, n_classes=1, groups=groups) for groups in (["p1"] * 60, None))
    assert alone.metrics["f1_50"].low == unknown.metrics["f1_50"].low is not None
    assert not any(estimate.reliable for estimate in alone.metrics.values() if estimate.low is not None)
    assert alone.notes == ("all images are of one group: intervals say nothing about others",)
    assert not difference(truth, found, found[1:] + found[:1], n_classes=1, groups=["p1"] * 60)["sq"].reliable
    assert unknown.metrics["f1_50"].reliable
    assert (unknown.notes, unknown.n_groups) == ((), None)


@pytest.mark.parametrize("groups", [["p1"] * 12, ["p1"], None])
def test_few_images_of_one_group_carry_both_notes(scene: Scene, groups: list[str] | None) -> None:
    n = len(groups or "ab")
    notes = evaluate([scene([TRUE])] * n, [scene([TRUE], [0.9])] * n, n_classes=1, groups=groups).notes
    assert [note.split(" ")[0] for note in notes] == {12: ["intervals", "all"], 2: ["intervals"], 1: []}[n]


def test_an_image_without_a_group_is_its_own() -> None:
    resampling = Resampling.of(5, ["a", None, "b", None, "a"], replicates=50, seed=0)
    assert resampling.unit_of_image.tolist() == [0, 1, 2, 3, 0]
    times = np.concatenate(list(resampling.draws()))
    assert times.shape == (50, 5)
    assert (times[:, 0] == times[:, 4]).all()
    assert (times[:, :4].sum(axis=1) == 4).all()


def test_scores_that_are_not_there_are_not_measured(scene: Scene) -> None:
    truth = [scene([TRUE])] * 2
    panel = evaluate(truth, [scene([TRUE, ELSEWHERE]), scene()], n_classes=1)
    assert panel.metrics["precision_50"].value == 0.5
    assert panel.metrics["coco_ap"].value is not None
    assert panel.metrics["detection_ece"].value is None
    assert panel.metrics["detection_ece"].reason == "the predictions have no scores"
    assert panel.by is not None
    assert panel.by.of_size["small"]["detection_ece"].reason == "the predictions have no scores"
    assert panel.notes[-1] == (
        "the predictions have no scores and count as 1: coco_ap* ranks nothing and depends on their order"
    )
    pair = (scene([TRUE], [0.9]), scene([TRUE]))
    assert difference(truth, [pair[0]] * 2, [pair[1]] * 2, n_classes=1)["detection_ece"].reason == (
        "the predictions have no scores"
    )


def test_no_predictions_lack_no_scores(scene: Scene) -> None:
    panel = evaluate([scene([TRUE])], [scene()], n_classes=1)
    assert panel.metrics["detection_ece"].reason == "there are no predictions"
    assert not any("scores" in note for note in panel.notes)


def test_a_model_does_not_differ_from_itself(mixed: Any) -> None:
    truth, predicted = mixed
    for name, estimate in difference(truth, predicted, predicted, n_classes=2).items():
        if name == "aji":
            assert estimate.reason == "true objects and predictions overlap one another"
            continue
        assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)


def test_a_difference_is_a_minus_b_and_turns_its_sign(mixed: Any) -> None:
    truth, better = mixed
    worse = [p.select(np.arange(len(p)) % 2 == 0) for p in better]
    forth = difference(truth, better, worse, n_classes=2, seed=4)
    back = difference(truth, worse, better, n_classes=2, seed=4)
    a, b = evaluate(truth, better, n_classes=2), evaluate(truth, worse, n_classes=2)
    for name, estimate in forth.items():
        if name == "aji":
            continue
        assert estimate.value == pytest.approx(a.metrics[name].value - b.metrics[name].value)
        assert back[name].value == pytest.approx(-estimate.value)
        assert back[name].low == pytest.approx(-estimate.high)


def test_a_paired_interval_is_narrower_than_two_separate_ones_suggest(mixed: Any) -> None:
    truth, predicted = mixed
    slightly_worse = [p.select(np.arange(len(p)) != 0) if i == 0 else p for i, p in enumerate(predicted)]
    paired = difference(truth, predicted, slightly_worse, n_classes=2)["recall_50"]
    alone = evaluate(truth, predicted, n_classes=2).metrics["recall_50"]
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)


def test_a_difference_names_the_reason_where_one_side_is_undefined(scene: Scene) -> None:
    truth = [scene([TRUE])] * 3
    differences = difference(truth, [scene([TRUE], [0.9])] * 3, [scene([TRUE], [0.1])] * 3, n_classes=1)
    assert differences["precision_50"].value is None
    assert differences["precision_50"].reason == "there are no predictions scored 0.5 or more"
    assert differences["recall_50"].value == 1.0


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        pytest.param([], [[TRUE]], "truth of 0 images", id="lengths"),
        pytest.param([[TRUE]], [[TRUE]], "n_classes is 0", id="labels"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    scene: Scene, truth: list[Any], predicted: list[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate([scene(t) for t in truth], [scene(p) for p in predicted], n_classes=0)


def test_a_score_that_is_not_finite_is_refused(scene: Scene) -> None:
    with pytest.raises(ValueError, match="finite"):
        evaluate([scene([TRUE])], [scene([TRUE], [float("nan")])], n_classes=1)
