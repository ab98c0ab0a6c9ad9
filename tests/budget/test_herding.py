from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.budget.herding import LARGEST_POOL, counted, herd


def near(rng: np.random.Generator, centre: np.ndarray, n: int, spread: float = 0.05) -> np.ndarray:
    vectors = centre + rng.normal(size=(n, len(centre))) * spread
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def unit(rng: np.random.Generator, n: int) -> np.ndarray:
    return near(rng, np.zeros(8), n, 1.0)


NOTHING = np.zeros((0, 8), np.float32)
EYE = np.eye(8, dtype=np.float32)


def order(vectors: np.ndarray, n: int, **given: np.ndarray) -> list[int]:
    fields = {
        "known": NOTHING,
        "picked": NOTHING,
        "doubt": np.ones(len(vectors)),
        "minutes": np.ones(len(vectors)),
        **given,
    }
    return herd(vectors, rng=np.random.default_rng(0), wanted=n, **fields)[:n]


def test_the_largest_kind_comes_first_then_the_others_and_none_twice_before_all_are_there() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1, 2], [30, 20, 10])
    vectors = np.concatenate([near(rng, EYE[k], n) for k, n in ((0, 30), (1, 20), (2, 10))])
    assert kinds[order(vectors, 3)].tolist() == [0, 1, 2]


def test_a_kind_that_has_labels_comes_last() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat([0, 1, 2], [30, 20, 10])
    vectors = np.concatenate([near(rng, EYE[k], n) for k, n in ((0, 30), (1, 20), (2, 10))])
    known = near(rng, EYE[0], 2)
    assert kinds[order(vectors, 2, known=known)].tolist() == [1, 2]


def test_of_two_kinds_alike_but_in_their_minutes_the_cheaper_comes_first() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([near(rng, EYE[0], 20), near(rng, EYE[1], 20)])
    for cheap in (0, 1):
        minutes = np.where(np.arange(40) // 20 == cheap, 1.0, 3.0)
        assert order(vectors, 1, minutes=minutes)[0] // 20 == cheap


def test_of_two_kinds_alike_but_in_doubt_the_doubted_comes_first() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([near(rng, EYE[0], 20), near(rng, EYE[1], 20)])
    for doubted in (0, 1):
        doubt = np.where(np.arange(40) // 20 == doubted, 2.0, 1.0)
        assert order(vectors, 1, doubt=doubt, known=near(rng, EYE[5], 5))[0] // 20 == doubted


def test_a_kind_that_has_labels_and_is_doubted_all_the_same_is_asked_about_again() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([near(rng, EYE[0], 20), near(rng, EYE[1], 20)])
    known = np.concatenate([near(rng, EYE[0], 20), near(rng, EYE[1], 20)])
    doubt = np.repeat([9.0, 1.0], 20)
    assert sum(i < 20 for i in order(vectors, 6, doubt=doubt, known=known)) > 3


def test_what_is_asked_about_anyhow_is_not_asked_about_twice() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([near(rng, EYE[0], 30), near(rng, EYE[1], 20)])
    assert order(vectors, 1, picked=near(rng, EYE[0], 1))[0] >= 30


def test_one_odd_image_does_not_come_before_a_kind_however_much_it_is_doubted_while_labels_are_few() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([near(rng, EYE[0], 30), EYE[1][None]])
    doubt = np.repeat([1.0, 400.0], [30, 1])
    few, many = (order(vectors, 1, doubt=doubt, known=near(rng, EYE[5], n))[0] for n in (1, 500))
    assert few < 30
    assert many == 30


@given(st.integers(1, 30), st.integers(0, 4), st.integers(0, 3), st.integers(0, 10**6))
def test_gains_that_are_not_computed_again_change_nothing(
    n: int, n_known: int, n_picked: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors, known, picked = unit(rng, n), unit(rng, n_known), unit(rng, n_picked)
    doubt, minutes = rng.uniform(0.1, 2, n), rng.uniform(0.5, 3, n)

    def squared(others: np.ndarray) -> np.ndarray:
        return np.clip(2 - 2 * (vectors @ others.T), 0, None).astype(np.float64)

    radius = float(np.median(squared(known).min(axis=1) if n_known else squared(vectors))) or 1e-6
    like = np.exp(-squared(vectors) / radius)
    unlike = 1 - np.exp(-squared(known) / radius).max(axis=1) if n_known else np.ones(n)
    covered = np.exp(-squared(picked) / radius).max(axis=1) if n_picked else np.zeros(n)
    weights = counted(doubt, unlike, n_known)
    found = herd(vectors, known, picked, doubt, minutes, rng, wanted=n)
    assert sorted(found) == list(range(n))
    for index in found:
        gains = np.maximum(like - covered, 0) @ weights / minutes
        assert gains[index] == pytest.approx(gains.max(), abs=1e-4 * max(1.0, gains.max()))
        covered = np.maximum(covered, like[index])
        minutes[index] = np.inf


@given(st.integers(3, 9), st.integers(1, 3), st.integers(0, 10**6))
def test_what_is_covered_comes_close_to_the_best_choice(n: int, k: int, seed: int) -> None:
    """At least 1 - 1/e of it, as of any submodular function (Nemhauser et al. 1978)."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng, n)
    squared = np.clip(2 - 2 * (vectors @ vectors.T), 0, None)
    like = np.exp(-squared / (float(np.median(squared)) or 1e-6))
    best = max(like[list(some)].max(axis=0).sum() for some in combinations(range(n), k))
    assert like[order(vectors, k)].max(axis=0).sum() >= (1 - 1 / np.e) * best - 1e-4


def test_doubt_is_believed_as_labels_come_in() -> None:
    doubt, unlike = np.array([1.0, 2.0, 6.0]), np.array([0.2, 0.2, 0.8])
    assert counted(doubt, unlike, 0) == pytest.approx([0.5, 0.5, 2])
    assert counted(doubt, unlike, 20) == pytest.approx([(1 / 3 + 0.5) / 2, (2 / 3 + 0.5) / 2, 2])
    assert counted(doubt, unlike, 10**9) == pytest.approx(doubt / 3)
    assert counted(np.zeros(3), np.zeros(3), 50).tolist() == [1, 1, 1]
    assert counted(np.zeros(0), np.zeros(0), 50).tolist() == []


def test_of_a_large_pool_a_part_stands_for_all() -> None:
    vectors = unit(np.random.default_rng(0), LARGEST_POOL + 500)
    found = order(vectors, 40)
    assert len(set(found)) == 40
    assert found == order(vectors, 40)
    assert max(found) > LARGEST_POOL  # it is drawn, not the first ones


def test_images_that_cannot_be_told_apart_are_each_asked_once() -> None:
    vectors = np.repeat(EYE[:1], 5, axis=0)
    assert sorted(order(vectors, 9)) == [0, 1, 2, 3, 4]
    assert order(NOTHING, 3) == []
