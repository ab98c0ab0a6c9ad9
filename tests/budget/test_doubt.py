from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.budget.doubt import image_doubt, turn_round
from labelloop.instances import Instances


def discs(*circles: tuple[float, float, float], scores: list[float]) -> Instances:
    y, x = np.mgrid[:64, :80]
    masks = np.array([(y - cy) ** 2 + (x - cx) ** 2 < r * r for cy, cx, r in circles]).reshape(-1, 64, 80)
    return Instances.from_dense(masks, scores=scores, size_hw=(64, 80))


@given(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000))
def test_turning_round_twice_changes_nothing_and_once_turns_every_mask(
    n: int, h: int, w: int, seed: int
) -> None:
    masks = np.random.default_rng(seed).random((n, h, w)) < 0.5
    instances = Instances.from_dense(masks, scores=[0.5] * n, size_hw=(h, w))
    turned = turn_round(instances)
    np.testing.assert_array_equal(turned.to_dense(), masks[:, ::-1, ::-1])
    assert turn_round(turned) == instances


def test_looks_that_agree_leave_only_the_doubt_of_the_scores() -> None:
    seen = discs((20, 20, 10), (40, 60, 9), scores=[0.9, 0.2])
    doubt = image_doubt(seen, [seen, seen])
    assert doubt.agreement.tolist() == [1, 1]
    assert doubt.shown(0.5) == 1
    assert doubt.total(0.5) == pytest.approx(0.1 + 0.2)


def test_an_object_that_no_other_look_sees_is_doubted_whole() -> None:
    seen = discs((20, 20, 10), scores=[0.9])
    assert image_doubt(seen, [discs(scores=[])]).total(0.5) == pytest.approx(1.0)


def test_an_object_that_only_another_look_sees_adds_its_share() -> None:
    seen = discs((20, 20, 10), scores=[0.9])
    other = discs((20, 20, 10), (45, 60, 9), scores=[0.9, 0.8])
    assert image_doubt(seen, [other]).total(0.5) == pytest.approx(0.1 + 0.8)
    assert image_doubt(seen, [other, seen]).total(0.5) == pytest.approx(0.1 + 0.8 / 2)


def test_masks_that_differ_between_looks_raise_doubt() -> None:
    seen = discs((30, 30, 12), scores=[1.0])
    near, far = discs((30, 31, 12), scores=[1.0]), discs((30, 38, 12), scores=[1.0])
    assert 0 < image_doubt(seen, [near]).total(0.5) < image_doubt(seen, [far]).total(0.5)


def test_an_image_in_which_nothing_is_seen_has_no_doubt() -> None:
    nothing = discs(scores=[])
    assert image_doubt(nothing, [nothing]).total(0.5) == 0
