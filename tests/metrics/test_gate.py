"""Promotion: what the images show, what is used where they cannot tell, and how often chance deceives."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.metrics.gate import decide
from labelloop.metrics.panel import evaluate

Scene = Callable[..., Instances]
OBJECTS = [(10 * i, 10 * j, 8, 8) for i in range(4) for j in range(3)]


def seen(scene: Scene, rng: np.random.Generator, recall: float) -> Instances:
    """True objects, each found with this chance (which varies from image to image), and random scores."""
    here = np.clip(recall + rng.normal(0, 0.05), 0, 1)
    found = [box for box in OBJECTS if rng.random() < here]
    return scene(found, rng.uniform(0.3, 1, len(found)))


def sides(scene: Scene, seed: int, n: int, new: float, old: float):
    rng = np.random.default_rng(seed)
    truth = [scene(OBJECTS)] * n
    return truth, [seen(scene, rng, new) for _ in range(n)], [seen(scene, rng, old) for _ in range(n)]


def test_a_clearly_better_model_is_promoted_and_a_clearly_worse_one_is_not(scene: Scene) -> None:
    truth, good, bad = sides(scene, 0, 12, 0.95, 0.5)
    up, down = decide(truth, good, bad, n_classes=1), decide(truth, bad, good, n_classes=1)
    assert (up.promote, up.verdict) == (True, "better")
    assert (down.promote, down.verdict) == (False, "worse")
    assert "new model is better" in up.reason
    assert "12 images" in up.reason


def test_where_images_cannot_tell_the_better_of_the_two_on_them_is_used(scene: Scene) -> None:
    truth, a, b = sides(scene, 1, 6, 0.8, 0.8)
    first, second = decide(truth, a, b, n_classes=1), decide(truth, b, a, n_classes=1)
    assert (first.verdict, second.verdict) == ("undecided", "undecided")
    assert first.difference.value == -second.difference.value
    assert first.promote == (first.difference.value > 0) != second.promote
    for decision in (first, second):
        used = "new" if decision.promote else "old"
        assert "6 images cannot tell which model is better" in decision.reason
        assert f"the better of the two on them is used, the {used} one" in decision.reason


def test_the_difference_is_that_of_the_panel_and_turns_its_sign(scene: Scene) -> None:
    truth, a, b = sides(scene, 2, 10, 0.9, 0.7)
    forth, back = decide(truth, a, b, n_classes=1).difference, decide(truth, b, a, n_classes=1).difference
    ap = [evaluate(truth, p, n_classes=1, replicates=2).metrics["coco_ap"].value for p in (a, b)]
    assert forth.value == pytest.approx(ap[0] - ap[1])
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.n == 10


def test_where_predictions_are_the_same_the_new_model_is_used_and_that_is_said(scene: Scene) -> None:
    truth, a, _ = sides(scene, 3, 8, 0.8, 0.8)
    decision = decide(truth, a, a, n_classes=1)
    assert (decision.difference.value, decision.difference.low, decision.difference.high) == (0, 0, 0)
    assert (decision.promote, decision.verdict) == (True, "undecided")
    assert "the new one is used, as they differ by nothing on them" in decision.reason


def test_two_images_that_happen_to_agree_decide_nothing(scene: Scene) -> None:
    truth, new, old = [scene([OBJECTS[0]])] * 2, [scene([OBJECTS[0]], [0.9])] * 2, [scene()] * 2
    decision = decide(truth, new, old, n_classes=1)
    assert (decision.difference.value, decision.difference.low) == (1.0, None)
    assert "all 2 images show the same difference" in decision.reason


def test_the_order_of_images_does_not_matter(scene: Scene) -> None:
    truth, a, b = sides(scene, 4, 9, 0.9, 0.7)
    turned = [side[::-1] for side in (truth, a, b)]
    first, second = decide(truth, a, b, n_classes=1), decide(*turned, n_classes=1)
    assert first.difference.low == pytest.approx(second.difference.low)


def test_images_of_a_group_count_as_one(scene: Scene) -> None:
    truth, good, bad = sides(scene, 0, 12, 0.95, 0.5)
    grouped = decide(truth, good, bad, n_classes=1, groups=["a"] * 6 + ["b"] * 6)
    alone = decide(truth, good, bad, n_classes=1)
    assert "2 groups" in grouped.reason
    assert grouped.difference.high - grouped.difference.low > alone.difference.high - alone.difference.low


@pytest.mark.parametrize("better", [True, False])
def test_without_an_interval_the_better_of_the_two_is_used(scene: Scene, *, better: bool) -> None:
    empty, full = scene(), scene(OBJECTS)
    found = scene(OBJECTS, [0.9] * len(OBJECTS))
    cases = {
        "1 image": ([full], [found], [empty]),
        "holds all true objects": ([full, empty], [found, empty], [empty, empty]),
    }
    for said, (truth, good, poor) in cases.items():
        decision = decide(truth, *((good, poor) if better else (poor, good)), n_classes=1)
        assert (decision.promote, decision.verdict) == (better, "undecided")
        assert said in decision.reason
        assert f"is used, the {'new' if better else 'old'} one" in decision.reason
        json.dumps(decision.as_dict(), allow_nan=False)


def test_where_nothing_can_be_measured_the_new_model_is_used_and_that_is_said(scene: Scene) -> None:
    found = scene(OBJECTS, [0.9] * len(OBJECTS))
    for truth, new, old in (([scene()] * 3, [found] * 3, [scene()] * 3), ([], [], [])):
        decision = decide(truth, new, old, n_classes=1)
        assert (decision.promote, decision.difference.value) == (True, None)
        assert decision.reason.endswith("there are no true objects; the new one is used")
        json.dumps(decision.as_dict(), allow_nan=False)


def test_equal_models_are_called_better_seldom_and_a_large_gain_often(scene: Scene) -> None:
    """Of 60 pairs from 8 images each; 5 % is the promise, chance leaves room to 15 %."""
    equal = [decide(*sides(scene, seed, 8, 0.8, 0.8), n_classes=1).verdict for seed in range(60)]
    gain = [decide(*sides(scene, seed, 8, 0.95, 0.7), n_classes=1).verdict for seed in range(60)]
    assert equal.count("better") <= 9
    assert equal.count("worse") <= 9
    assert gain.count("better") >= 54


def test_a_worse_model_is_seldom_promoted_where_images_are_too_few_to_show_it(scene: Scene) -> None:
    """Of 40 pairs from 8 images each, which call it worse in less than half of the cases."""
    decisions = [decide(*sides(scene, seed, 8, 0.72, 0.8), n_classes=1) for seed in range(40)]
    assert [decision.verdict for decision in decisions].count("worse") < 20
    assert [decision.promote for decision in decisions].count(True) <= 6
