"""Several seeds: means, spread, and intervals over seeds and images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.metrics.panel import evaluate
from labelloop.metrics.seeds import SeededRuns, difference_of_seeds, evaluate_seeds

Scene = Callable[..., Instances]
TRUE, ELSEWHERE = (0, 0, 10, 10), (25, 20, 10, 10)


@pytest.fixture
def truth(scene: Scene) -> list[Instances]:
    return [scene([TRUE])] * 60


def runs(scene: Scene, hits_of_seed: list[int]) -> SeededRuns:
    """Runs that find the object in so many of the first of 60 images."""
    hit, none = scene([TRUE], [0.9]), scene()
    return SeededRuns(
        predicted=[[hit] * hits + [none] * (60 - hits) for hits in hits_of_seed],
        min_scores=[0.5] * len(hits_of_seed),
    )


def test_the_value_is_the_mean_over_seeds_with_their_spread(scene: Scene, truth: list[Instances]) -> None:
    found = evaluate_seeds(truth, runs(scene, [30, 36, 42]), n_classes=1)["recall_50"]
    assert found.mean.value == pytest.approx(0.6)
    assert found.of_seed == (0.5, 0.6, 0.7)
    assert found.seed_sd == pytest.approx(0.1)
    written = found.as_dict()
    assert (written["value"], written["n"]) == (found.mean.value, 60)
    assert written["of_seed"] == [0.5, 0.6, 0.7]


def test_equal_seeds_add_nothing_to_the_interval_of_one(scene: Scene, truth: list[Instances]) -> None:
    one = evaluate(truth, runs(scene, [36]).predicted[0], n_classes=1).metrics["recall_50"]
    several = evaluate_seeds(truth, runs(scene, [36] * 4), n_classes=1)["recall_50"].mean
    assert (several.low, several.high) == (one.low, one.high)


def test_seeds_that_differ_widen_the_interval_as_theory_says(scene: Scene, truth: list[Instances]) -> None:
    """Where images do not matter, the spread of the mean of S seeds is their deviation / sqrt(S)."""
    levels = [0, 1, 2, 3, 4, 5]
    extra = [scene([ELSEWHERE] * k, [0.9] * k) for k in levels]
    several = SeededRuns(predicted=[[image] * 60 for image in extra], min_scores=[0.5] * len(levels))
    estimate = evaluate_seeds(truth, several, n_classes=1, replicates=8000)["count_mae"].mean
    of_seed = np.array([abs(k - 1) for k in levels])
    half = 2.02 * of_seed.std(ddof=1) / np.sqrt(len(levels))  # 2.02: percentiles for 60 images
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.1)


@pytest.mark.parametrize(("n_seeds", "reliable"), [(1, False), (4, False), (5, True)])
def test_an_interval_over_few_seeds_is_not_called_reliable(
    scene: Scene, truth: list[Instances], n_seeds: int, reliable: bool
) -> None:
    found = evaluate_seeds(truth, runs(scene, [36] * n_seeds), n_classes=1)["recall_50"].mean
    assert found.reliable == reliable


def test_seeds_are_only_as_reliable_as_the_one_that_tells_least(scene: Scene, truth: list[Instances]) -> None:
    hit, wrong = scene([TRUE], [0.9]), scene([ELSEWHERE], [0.9])
    few, many = [wrong, hit, *[scene()] * 58], [wrong, *[hit] * 59]
    several = SeededRuns(predicted=[many] * 5 + [few], min_scores=[0.5] * 6)
    sure = SeededRuns(predicted=[many] * 6, min_scores=[0.5] * 6)
    assert evaluate_seeds(truth, sure, n_classes=1)["precision_50"].mean.reliable
    assert not evaluate_seeds(truth, several, n_classes=1)["precision_50"].mean.reliable


def test_a_difference_is_paired_by_seed_and_image(scene: Scene, truth: list[Instances]) -> None:
    a, b = runs(scene, [20, 35, 50]), runs(scene, [14, 29, 44])
    found = difference_of_seeds(truth, a, b, n_classes=1)["recall_50"]
    assert found.mean.value == pytest.approx(0.1)
    assert found.of_seed == pytest.approx((0.1, 0.1, 0.1))
    assert found.seed_sd == pytest.approx(0.0, abs=1e-12)
    assert 0 < found.mean.low < 0.1 < found.mean.high < 0.25


def test_a_model_does_not_differ_from_itself(scene: Scene, truth: list[Instances]) -> None:
    same = runs(scene, [20, 40])
    for name, found in difference_of_seeds(truth, same, same, n_classes=1).items():
        assert found.mean.value in (0.0, None), name


def test_a_metric_undefined_for_one_seed_is_null_with_its_reason(
    scene: Scene, truth: list[Instances]
) -> None:
    found = evaluate_seeds(truth, runs(scene, [30, 0]), n_classes=1)["precision_50"]
    assert found.mean.value is None
    assert found.mean.reason == "there are no predictions scored 0.5 or more"
    assert found.as_dict()["of_seed"] == [1.0, None]
    assert found.seed_sd is None


@pytest.mark.parametrize(
    ("n_runs", "n_thresholds"), [pytest.param(0, 0, id="none"), pytest.param(2, 1, id="thresholds")]
)
def test_runs_without_thresholds_are_refused(
    scene: Scene, truth: list[Instances], n_runs: int, n_thresholds: int
) -> None:
    wrong = SeededRuns(predicted=[[scene()] * 60] * n_runs, min_scores=[0.5] * n_thresholds)
    with pytest.raises(ValueError, match=f"{n_runs} runs with {n_thresholds} thresholds"):
        evaluate_seeds(truth, wrong, n_classes=1)


def test_sides_with_other_numbers_of_runs_are_refused(scene: Scene, truth: list[Instances]) -> None:
    with pytest.raises(ValueError, match="2 runs on one side, 1 on the other"):
        difference_of_seeds(truth, runs(scene, [20, 40]), runs(scene, [20]), n_classes=1)
