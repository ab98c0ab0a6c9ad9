"""Calibrated scores, and thresholds that keep a precision, where the truth is drawn by the test."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.metrics.calibration import Calibration, precision_bound, threshold_for_precision

Scene = Callable[..., Instances]
SIDE = 60
RIGHT = [(10 * i, 0, 8, 8) for i in range(6)]
WRONG = [(10 * i, 40, 8, 8) for i in range(6)]


def drawn(scene: Scene, rng: np.random.Generator, n_images: int, chance: Callable[[np.ndarray], np.ndarray]):
    """Images of six true objects and six predictions each, right with the chance that their score has."""
    truth, predicted = [], []
    for _ in range(n_images):
        scores = rng.uniform(0.05, 1, 6)
        right = rng.random(6) < chance(scores)
        boxes = [RIGHT[i] if right[i] else WRONG[i] for i in range(6)]
        truth.append(scene(RIGHT, size_hw=(SIDE, SIDE)))
        predicted.append(scene(boxes, scores, size_hw=(SIDE, SIDE)))
    return truth, predicted


def scored(scene: Scene, scores: list[float]) -> Instances:
    return scene([(0, 0, 8, 8)] * len(scores), scores, size_hw=(SIDE, SIDE))


@pytest.mark.parametrize(
    "chance",
    [lambda s: s**3, lambda s: 0.2 + 0.6 * s, lambda s: 0.2 + np.maximum(s - 0.7, 0) * 2],
    ids=["overconfident", "timid", "flat, then steep"],
)
def test_probabilities_are_the_chances_that_objects_were_drawn_with(scene: Scene, chance: Callable) -> None:
    truth, predicted = drawn(scene, np.random.default_rng(0), 300, chance)
    calibration = Calibration.fit(truth, predicted, n_classes=1)
    at = np.array([0.15, 0.4, 0.6, 0.8, 0.95])
    found = calibration.probability(scored(scene, at.tolist()))
    assert found == pytest.approx(chance(at), abs=0.08)
    assert (calibration.n_images, calibration.n_objects) == (300, 1800)


def test_without_objects_the_probability_is_the_score(scene: Scene) -> None:
    empty = scene(size_hw=(SIDE, SIDE))
    calibration = Calibration.fit([empty], [empty], n_classes=1)
    assert calibration.probability(scored(scene, [0.1, 0.5, 0.9])) == pytest.approx([0.1, 0.5, 0.9], abs=1e-6)


def test_few_objects_move_the_probability_less_than_many(scene: Scene) -> None:
    moves = []
    for count in (2, 200):
        truth, predicted = drawn(scene, np.random.default_rng(0), count, lambda s: 0.2 * s)
        calibration = Calibration.fit(truth, predicted, n_classes=1)
        moves.append(0.8 - calibration.probability(scored(scene, [0.8]))[0])
    assert 0 < moves[0] < moves[1]


@given(seed=st.integers(0, 2**31), falling=st.booleans())
def test_no_curve_falls_even_where_high_scores_are_wrong(seed: int, falling: bool, scene: Scene) -> None:
    truth, predicted = drawn(scene, np.random.default_rng(seed), 4, lambda s: 1 - s if falling else s)
    calibration = Calibration.fit(truth, predicted, n_classes=1)
    found = calibration.probability(scored(scene, np.linspace(0, 1, 50).tolist()))
    assert (np.diff(found) >= -1e-12).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_a_duplicate_is_wrong_and_what_lies_in_a_crowd_is_not_counted(scene: Scene) -> None:
    size = (SIDE, SIDE)
    truth = [scene([RIGHT[0], (0, 30, 60, 30)], crowd=[False, True], size_hw=size)] * 60
    predicted = [scene([RIGHT[0], RIGHT[0], (5, 35, 8, 8)], [0.9, 0.3, 0.6], size_hw=size)] * 60
    calibration = Calibration.fit(truth, predicted, n_classes=1)
    assert calibration.n_objects == 120
    low, high = calibration.probability(scored(scene, [0.3, 0.9]))
    assert low < 0.1
    assert high > 0.9


def test_a_calibration_comes_back_from_json(scene: Scene) -> None:
    truth, predicted = drawn(scene, np.random.default_rng(0), 20, lambda s: s**2)
    calibration = Calibration.fit(truth, predicted, n_classes=1)
    assert Calibration.from_dict(json.loads(json.dumps(calibration.as_dict()))) == calibration


def test_a_calibration_of_another_kind_or_with_a_falling_curve_is_refused(scene: Scene) -> None:
    good = Calibration.fit([scene()], [scene()], n_classes=1).as_dict()
    for broken in ({"kind": "isotonic"}, {"knots": [0.1]}, {"coefficients": [0, -1, 1, 0, 0, 0]}):
        with pytest.raises(ValueError, match="not a calibration"):
            Calibration.from_dict(good | broken)


def test_the_threshold_is_where_wrong_predictions_begin(scene: Scene) -> None:
    size = (SIDE, SIDE)
    truth = [scene(RIGHT, size_hw=size)] * 40
    predicted = [scene(RIGHT[:4] + WRONG[:4], [0.9, 0.85, 0.8, 0.75, 0.5, 0.4, 0.3, 0.2], size_hw=size)] * 40
    threshold = threshold_for_precision(truth, predicted, 0.9, n_classes=1)
    assert threshold is not None
    assert threshold == pytest.approx(0.75)
    assert min(len(p.above(threshold)) for p in predicted) == 4


def test_no_threshold_where_objects_are_too_few_or_too_often_wrong(scene: Scene) -> None:
    size = (SIDE, SIDE)
    few = [scene(RIGHT, size_hw=size)] * 5, [scene(RIGHT, [0.9] * 6, size_hw=size)] * 5
    wrong = [scene(RIGHT, size_hw=size)] * 50, [scene(RIGHT[:3] + WRONG[:3], [0.9] * 6, size_hw=size)] * 50
    nothing = [scene(size_hw=size)] * 50, [scene(size_hw=size)] * 50
    for truth, predicted in (few, wrong, nothing):
        assert threshold_for_precision(truth, predicted, 0.9, n_classes=1) is None
    assert threshold_for_precision(*few, 0.75, n_classes=1) == pytest.approx(0.9)


def test_images_of_one_group_say_less_than_as_many_of_their_own(scene: Scene) -> None:
    """Whole groups are wrong together: precision 0.95, but of four draws."""
    size, truth, predicted, groups = (SIDE, SIDE), [], [], []
    for image in range(40):
        bad = image < 2
        truth.append(scene(RIGHT, size_hw=size))
        predicted.append(scene(WRONG if bad else RIGHT, [0.9] * 6, size_hw=size))
        groups.append(f"g{image // 10}")
    assert threshold_for_precision(truth, predicted, 0.8, n_classes=1) is not None
    assert threshold_for_precision(truth, predicted, 0.8, n_classes=1, groups=groups) is None


@pytest.mark.parametrize("wrong", [{"target": 1.0}, {"target": 0.0}, {"target": 0.9, "confidence": 1.0}])
def test_targets_and_confidences_outside_0_and_1_are_refused(scene: Scene, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold_for_precision([scene()], [scene()], n_classes=1, **wrong)


def test_the_bound_of_independent_objects_is_clopper_and_pearsons() -> None:
    ones, hits = np.ones(300), np.r_[np.ones(280), np.zeros(20)]
    bound = precision_bound(hits, ones, 0.95)
    assert bound == pytest.approx(0.9038, abs=0.002)  # R: binom.test(280, 300, alternative = "greater")
    assert precision_bound(np.full(59, 1.0), np.full(59, 1.0), 0.95) == pytest.approx(0.05 ** (1 / 59))


def test_the_bound_holds_as_often_as_it_says_where_objects_of_an_image_are_alike() -> None:
    rng, held, independent = np.random.default_rng(0), [], []
    for _ in range(400):
        counted = rng.integers(5, 30, 30)
        hits = rng.binomial(counted, rng.beta(9, 1, 30))  # 0.9 on average, differing from image to image
        held.append(precision_bound(hits, counted, 0.9) <= 0.9)
        objects = np.repeat([1.0, 0.0], [hits.sum(), counted.sum() - hits.sum()])
        independent.append(precision_bound(objects, np.ones(len(objects)), 0.9) <= 0.9)
    assert 0.86 <= np.mean(held) <= 0.97
    assert np.mean(independent) < np.mean(held) - 0.05


def test_there_is_no_bound_from_one_image_or_without_hits() -> None:
    assert precision_bound(np.array([50]), np.array([50]), 0.9) == 0
    assert precision_bound(np.array([0, 0]), np.array([5, 5]), 0.9) == 0
    assert precision_bound(np.array([]), np.array([]), 0.9) == 0
