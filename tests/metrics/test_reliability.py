"""The expected calibration error of scores whose hits are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.metrics.matched import MatchedModel
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.panel import evaluate

Scene = Callable[..., Instances]
TRUE, ELSEWHERE = (0, 0, 10, 10), (25, 25, 8, 8)


def error(truth: list[Instances], predicted: list[Instances]) -> float | None:
    return evaluate(truth, predicted, n_classes=1, replicates=0).metrics["detection_ece"].value


def scored(scene: Scene, scores: np.ndarray, hits: np.ndarray) -> tuple[list[Instances], list[Instances]]:
    """One image for each detection."""
    found = [scene([TRUE if hit else ELSEWHERE], [s]) for s, hit in zip(scores, hits, strict=True)]
    return [scene([TRUE])] * len(scores), found


def test_equal_scores_share_a_bin_whatever_the_order(scene: Scene) -> None:
    scores, hits = np.full(40, 0.75), np.arange(40) < 30
    for order in (np.arange(40), np.random.default_rng(0).permutation(40)):
        assert error(*scored(scene, scores[order], hits[order])) == pytest.approx(0.0, abs=1e-7)


def test_bins_are_equally_full_and_the_gap_is_weighed_by_detections(scene: Scene) -> None:
    scores = np.linspace(0.02, 0.98, 45).astype(np.float32)
    hits = np.random.default_rng(1).random(45) < 0.5
    gaps = [abs(s.mean() - h.mean()) for s, h in zip(scores.reshape(15, 3), hits.reshape(15, 3), strict=True)]
    assert error(*scored(scene, scores, hits)) == pytest.approx(np.mean(gaps), abs=1e-6)


def test_all_detections_count_below_the_working_threshold_too(scene: Scene) -> None:
    assert error([scene([TRUE])], [scene([TRUE], [0.2])]) == pytest.approx(0.8)


def test_what_lies_in_a_crowd_does_not_count(scene: Scene) -> None:
    truth = scene([TRUE, (20, 20, 20, 20)], crowd=[False, True])
    assert error([truth], [scene([TRUE, ELSEWHERE], [1.0, 0.9])]) == 0.0


def test_of_two_predictions_of_one_object_one_is_a_hit(scene: Scene) -> None:
    assert error([scene([TRUE])], [scene([TRUE, TRUE], [0.5, 0.5])]) == pytest.approx(0.0)


def test_without_predictions_it_is_null(scene: Scene) -> None:
    estimate = evaluate([scene([TRUE])], [scene()], n_classes=1).metrics["detection_ece"]
    assert (estimate.value, estimate.reason) == (None, "there are no predictions")


def test_the_interval_reaches_below_by_the_noise_that_resampling_adds(scene: Scene) -> None:
    rng = np.random.default_rng(2)
    scores = rng.random(200)
    truth, predicted = scored(scene, scores, rng.random(200) < scores)  # calibrated: the true error is 0
    estimate = evaluate(truth, predicted, n_classes=1).metrics["detection_ece"]
    model = MatchedModel.of(PairTable.build(truth, predicted, n_classes=1), 0.5)
    draws = rng.multinomial(200, np.full(200, 1 / 200), 500).astype(np.int32)
    assert model.values(draws)["detection_ece"].mean() > estimate.value
    assert 0 <= estimate.low < estimate.value - 0.02
    assert estimate.value <= estimate.high <= 1


@pytest.mark.parametrize(
    ("score", "undefined"), [(1.0000001, False), (0.0, False), (1.5, True), (-0.1, True), (89.0, True)]
)
def test_scores_that_are_no_probabilities_have_no_calibration_error(
    scene: Scene, score: float, undefined: bool
) -> None:
    estimate = evaluate([scene([TRUE])] * 3, [scene([TRUE], [score])] * 3, n_classes=1).metrics[
        "detection_ece"
    ]
    assert (estimate.value is None) == undefined
    assert estimate.reason == ("scores are not between 0 and 1" if undefined else None)
