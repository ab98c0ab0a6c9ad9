from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.budget.strategies import (
    EMPTY_ARM,
    FILL_ARM,
    RANDOM_ARM,
    STRATEGIES,
    Budget,
    Pool,
    Strategy,
    choose,
    passed_over,
)


def unit(rng: np.random.Generator, n: int, around: npt.NDArray[np.float64] | None = None) -> np.ndarray:
    vectors = rng.normal(size=(n, 8)) * (1 if around is None else 0.15) + (0 if around is None else around)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def almost_alike(rng: np.random.Generator, vectors: np.ndarray) -> np.ndarray:
    """The same a moment later: vectors that were alike are near-duplicates."""
    moved = vectors + rng.normal(size=vectors.shape) * 0.005
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def pool(n: int = 60, *, seed: int = 0, **changes: object) -> Pool:
    rng = np.random.default_rng(seed)
    fields: dict[str, object] = {
        "minutes": rng.uniform(0.5, 3, n),
        "shown": rng.integers(1, 20, n),
        "doubt": rng.uniform(0, 5, n),
        "vectors": unit(rng, n),
        "known": unit(rng, 4),
        "groups": np.zeros(n, np.int64),
        "images": np.arange(n),
        "asked": np.zeros(n, np.int64),
    }
    merged = {**fields, **changes}
    known_groups = np.zeros(len(merged["known"]), np.int64)  # type: ignore[arg-type]
    return Pool(**{"known_groups": known_groups, **merged})  # type: ignore[arg-type]


def picked(a_pool: Pool, budget: Budget, strategy: Strategy = "auto", seed: int = 0) -> list[int]:
    return [pick.index for pick in choose(a_pool, budget, strategy, np.random.default_rng(seed))]


@given(
    st.integers(0, 50),
    st.sampled_from(STRATEGIES),
    st.integers(0, 5),
    st.one_of(st.builds(Budget, tasks=st.integers(1, 60)), st.builds(Budget, minutes=st.floats(0.1, 100))),
)
def test_a_budget_is_kept_and_no_image_is_asked_twice(
    n: int, strategy: Strategy, seed: int, budget: Budget
) -> None:
    a_pool = pool(n, seed=seed)
    chosen = picked(a_pool, budget, strategy, seed)
    assert len(set(chosen)) == len(chosen)
    assert bool(chosen) == (n > 0)
    cost = np.ones(n) if budget.tasks else a_pool.minutes
    if len(chosen) > 1:
        assert cost[chosen].sum() <= (budget.tasks or budget.minutes or 0) + 1e-6


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_state_and_seed_give_the_same_choice(strategy: Strategy) -> None:
    first, again, other = (picked(pool(), Budget(tasks=12), strategy, seed) for seed in (1, 1, 2))
    assert first == again
    if strategy != "uncertainty":
        assert first != other


@given(st.integers(2, 40), st.integers(0, 200))
def test_a_quarter_of_the_tasks_of_auto_is_drawn_at_random(tasks: int, seed: int) -> None:
    arms = Counter(
        pick.arm for pick in choose(pool(200), Budget(tasks=tasks), "auto", np.random.default_rng(seed))
    )
    assert abs(arms[RANDOM_ARM] - 0.25 * tasks) <= 0.5
    assert arms[RANDOM_ARM] >= 1


def test_the_random_arm_of_auto_is_drawn_from_the_whole_pool() -> None:
    doubt = np.zeros(40)
    doubt[:10] = 100.0
    drawn: Counter[int] = Counter()
    for seed in range(200):
        picks = choose(pool(40, doubt=doubt), Budget(tasks=8), "auto", np.random.default_rng(seed))
        drawn.update(pick.index for pick in picks if pick.arm == RANDOM_ARM)
    assert 0.15 < sum(drawn[i] for i in range(10)) / drawn.total() < 0.35  # a quarter of the pool


@pytest.mark.parametrize("strategy", ["auto", "random", "foreground-random"])
def test_a_random_draw_in_minutes_does_not_favour_what_is_cheap(strategy: Strategy) -> None:
    minutes = 0.25 + np.random.default_rng(0).gamma(1.0, 1.5, 600)  # 15 s, then so much for each correction
    a_pool = pool(600, minutes=minutes)
    drawn = [
        pick.index
        for seed in range(100)
        for pick in choose(a_pool, Budget(minutes=30), strategy, np.random.default_rng(seed))
        if pick.arm in (RANDOM_ARM, "foreground-random")
    ]
    worked, all_worked = minutes[drawn] - 0.25, minutes - 0.25
    assert worked.sum() / minutes[drawn].sum() == pytest.approx(all_worked.sum() / minutes.sum(), rel=0.03)


def test_auto_has_a_random_arm_even_where_a_budget_is_worth_three_images() -> None:
    a_pool = pool(60, minutes=np.full(60, 3.0))
    arms = [
        Counter(pick.arm for pick in choose(a_pool, Budget(minutes=10), "auto", np.random.default_rng(seed)))
        for seed in range(40)
    ]
    assert all(sum(each.values()) == 3 for each in arms)
    assert sum(each[RANDOM_ARM] for each in arms) / 40 == pytest.approx(2.5 / 3, abs=0.15)


def test_what_fills_the_budget_of_auto_has_an_arm_of_its_own() -> None:
    """Where the most doubted images are near-duplicates, the rest is drawn from what the clever arm left."""
    rng = np.random.default_rng(0)
    vectors = np.concatenate([almost_alike(rng, np.repeat(unit(rng, 1), 80, axis=0)), unit(rng, 40)])
    doubt = np.repeat([9.0, 0.1], [80, 40])
    a_pool = pool(120, vectors=vectors, doubt=doubt, minutes=np.ones(120))
    picks = choose(a_pool, Budget(tasks=20), "auto", np.random.default_rng(0))
    arms = Counter(pick.arm for pick in picks)
    assert arms[RANDOM_ARM] == 5
    assert arms[FILL_ARM] > 10
    assert arms.total() == 20
    assert {pick.why for pick in picks if pick.arm == FILL_ARM} == {
        "drawn from what was left, to fill the budget"
    }


def test_the_random_arm_doubts_as_much_as_the_pool_where_much_is_filled_up() -> None:
    drawn, whole = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        doubt, vectors = rng.gamma(2, 2, 50), almost_alike(rng, np.tile(unit(rng, 25), (2, 1)))
        picks = choose(pool(50, doubt=doubt, vectors=vectors), Budget(tasks=40), "auto", rng)
        drawn += [doubt[pick.index] for pick in picks if pick.arm == RANDOM_ARM]
        whole.append(doubt.mean())
    assert np.mean(drawn) == pytest.approx(np.mean(whole), abs=0.2)


def test_auto_asks_where_doubt_per_minute_is_high() -> None:
    minutes, doubt = np.full(100, 2.0), np.full(100, 0.05)
    doubt[:20] = 8.0  # worth it
    doubt[20:40], minutes[20:40] = 8.0, 400.0  # as doubtful, but far too long
    a_pool = pool(100, minutes=minutes, doubt=doubt)
    picks = choose(a_pool, Budget(tasks=16), "auto", np.random.default_rng(0))
    chosen = [pick.index for pick in picks if pick.arm == "auto"]
    assert len(chosen) >= 10
    assert np.mean([i < 20 for i in chosen]) >= 0.75


def test_auto_varies_what_it_asks() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([unit(rng, 30, around=axis) for axis in np.eye(8)[:4]])
    doubt = np.repeat([4.0, 3.9, 3.8, 3.7], 30)
    picks = choose(pool(120, vectors=vectors, doubt=doubt), Budget(tasks=16), "auto", rng)
    kinds = {pick.index // 30 for pick in picks if pick.arm == "auto"}
    assert kinds == {0, 1, 2, 3}


def test_auto_does_not_ask_twice_about_near_duplicates() -> None:
    rng = np.random.default_rng(0)
    one = unit(rng, 1)
    vectors = np.concatenate([np.repeat(one, 30, axis=0), unit(rng, 30)])
    doubt = np.concatenate([np.full(30, 9.0), np.full(30, 1.0)])
    picks = choose(pool(60, vectors=vectors, doubt=doubt), Budget(tasks=20), "auto", rng)
    assert sum(pick.index < 30 for pick in picks if pick.arm == "auto") <= 1


def test_auto_leaves_budget_unspent_rather_than_fill_it_with_near_duplicates() -> None:
    rng = np.random.default_rng(0)
    vectors = almost_alike(rng, np.repeat(unit(rng, 4), 15, axis=0))
    a_pool, budget = pool(60, vectors=vectors), Budget(tasks=40)
    picks = choose(a_pool, budget, "auto", np.random.default_rng(0))
    kinds = [pick.index // 15 for pick in picks if pick.arm != RANDOM_ARM]
    assert len(set(kinds)) == len(kinds) <= 4
    assert passed_over(a_pool, budget, picks) == 60 - len(picks)


def test_auto_asks_about_one_image_where_all_look_like_something_known() -> None:
    known = unit(np.random.default_rng(0), 1)
    a_pool = pool(9, vectors=np.repeat(known, 9, axis=0), known=known)
    rounds = [choose(a_pool, Budget(tasks=1), "auto", np.random.default_rng(seed)) for seed in range(20)]
    assert {len(picks) for picks in rounds} == {1}


def test_auto_keeps_a_few_images_without_objects() -> None:
    shown = np.concatenate([np.zeros(100, np.int64), np.full(100, 5)])
    doubt = np.where(shown == 0, 0.0, 3.0)
    picks = choose(pool(200, shown=shown, doubt=doubt), Budget(tasks=40), "auto", np.random.default_rng(0))
    empty = [pick for pick in picks if pick.arm == EMPTY_ARM]
    assert len(empty) == 2
    assert all(shown[pick.index] == 0 for pick in empty)


@pytest.mark.parametrize(
    ("tasks", "drawn", "empty"), [(1, 0, 0), (2, 1, 0), (5, 1, 0), (6, 2, 0), (19, 5, 0), (20, 5, 1)]
)
def test_of_few_tasks_the_shares_of_auto_are_rounded(tasks: int, drawn: int, empty: int) -> None:
    shown = np.repeat([0, 5], 100)
    picks = choose(pool(200, shown=shown), Budget(tasks=tasks), "auto", np.random.default_rng(0))
    arms = Counter(pick.arm for pick in picks)
    assert (arms[RANDOM_ARM], arms[EMPTY_ARM]) == (drawn, empty)


def test_images_without_objects_are_not_asked_about_twice_either() -> None:
    vectors = unit(np.random.default_rng(0), 200)
    vectors[:100] = vectors[0]
    shown = np.concatenate([np.zeros(100, np.int64), np.full(100, 5)])
    a_pool = pool(200, shown=shown, vectors=vectors)
    for seed in range(5):
        picks = choose(a_pool, Budget(tasks=40), "auto", np.random.default_rng(seed))
        assert sum(pick.arm == EMPTY_ARM for pick in picks) <= 1


def test_without_a_model_auto_asks_about_each_group() -> None:
    groups = np.repeat([0, 1, 2], [40, 15, 5])
    picks = choose(pool(60, doubt=None, groups=groups), Budget(tasks=16), "auto", np.random.default_rng(3))
    assert {int(groups[pick.index]) for pick in picks if pick.arm == "diversity"} == {0, 1, 2}


def test_without_a_model_auto_asks_first_about_groups_that_nothing_is_known_of() -> None:
    known = unit(np.random.default_rng(1), 12)
    groups, known_groups = np.repeat(np.arange(8), [20] * 4 + [10] * 4), np.repeat(np.arange(4), 3)
    a_pool = pool(120, doubt=None, groups=groups, known=known, known_groups=known_groups)
    for seed in range(10):
        picks = choose(a_pool, Budget(tasks=6), "auto", np.random.default_rng(seed))
        assert {int(groups[pick.index]) for pick in picks if pick.arm == "diversity"} <= {4, 5, 6, 7}
        assert {4, 5, 6, 7} <= {int(groups[pick.index]) for pick in picks}


def test_known_images_of_another_group_do_not_cover_what_looks_like_them() -> None:
    rng = np.random.default_rng(0)
    usual, rare = np.eye(8)[:2]
    vectors = np.concatenate([unit(rng, 12, around=usual), unit(rng, 4, around=rare)])
    known, known_groups = unit(rng, 8, around=usual), np.ones(8, np.int64)
    a_pool = pool(16, doubt=None, vectors=vectors, known=known, known_groups=known_groups)
    assert all(picked(a_pool, Budget(tasks=1), seed=seed)[0] < 12 for seed in range(20))


def test_of_many_groups_auto_asks_about_each_once_and_about_others_with_another_seed() -> None:
    groups = np.repeat(np.arange(100), 3)
    asked = []
    for seed in (0, 0, 1):
        picks = choose(
            pool(300, doubt=None, groups=groups), Budget(tasks=8), "auto", np.random.default_rng(seed)
        )
        asked.append([int(groups[pick.index]) for pick in picks if pick.arm == "diversity"])
    assert {len(set(each)) for each in asked} == {6}
    assert asked[0] == asked[1] != asked[2]


def test_diversity_covers_kinds_of_images_that_have_no_labels_yet() -> None:
    rng = np.random.default_rng(0)
    kinds = [unit(rng, 25, around=axis) for axis in np.eye(8)[:5]]
    a_pool = pool(125, vectors=np.concatenate(kinds), known=unit(rng, 4, around=np.eye(8)[0]))
    assert {i // 25 for i in picked(a_pool, Budget(tasks=4), "diversity")} == {1, 2, 3, 4}


def test_uncertainty_asks_the_most_doubted_first_and_not_the_most_crowded() -> None:
    doubt = np.array([6.0, 5.0, 1.0])
    shown = np.array([60, 5, 5])
    assert picked(pool(3, doubt=doubt, shown=shown), Budget(tasks=1), "uncertainty") == [1]


def test_two_thirds_of_foreground_random_show_an_object() -> None:
    shown = np.concatenate([np.zeros(900, np.int64), np.full(100, 5)])
    chosen = picked(pool(1000, shown=shown), Budget(tasks=30), "foreground-random")
    assert 20 <= (shown[chosen] > 0).sum() <= 26


def test_every_choice_says_why() -> None:
    for strategy in STRATEGIES:
        picks = choose(pool(), Budget(tasks=20), strategy, np.random.default_rng(0))
        assert all(pick.why for pick in picks)


@pytest.mark.parametrize("wrong", [{}, {"tasks": 3, "minutes": 2.0}, {"tasks": 0}, {"minutes": -1.0}])
def test_a_budget_is_one_positive_number(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a budget"):
        Budget(**wrong)  # type: ignore[arg-type]


def fields(tiles: list[int], *, asked: list[int] | None = None, **changes: object) -> Pool:
    """Fields that are cut into so many tiles; of some of them tiles were asked about before."""
    n = sum(tiles)
    before = [0] * len(tiles) if asked is None else asked
    return pool(n, images=np.repeat(np.arange(len(tiles)), tiles), asked=np.repeat(before, tiles), **changes)


def test_at_random_a_field_of_many_tiles_is_as_likely_as_an_image_of_one() -> None:
    a_pool = fields([1] * 9 + [30])
    drawn = Counter(
        int(a_pool.images[picked(a_pool, Budget(tasks=1), "random", seed)[0]]) for seed in range(1000)
    )
    assert drawn[9] / 1000 == pytest.approx(0.1, abs=0.03)
    tiles = {picked(a_pool, Budget(tasks=10), "random", seed)[0] for seed in range(1000)}
    assert len(tiles & set(range(9, 39))) > 20


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_field_is_asked_about_once_before_one_is_asked_about_again(strategy: Strategy) -> None:
    a_pool = fields([1, 9, 4, 9, 1, 1])
    images = a_pool.images[picked(a_pool, Budget(tasks=6), strategy)]
    assert sorted(images.tolist()) == [0, 1, 2, 3, 4, 5]
    later = a_pool.images[picked(a_pool, Budget(tasks=9), strategy)]
    assert sorted(Counter(later.tolist()).values()) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fields_that_were_asked_about_come_after_those_that_were_not(strategy: Strategy) -> None:
    doubt = np.array([100.0] * 8 + [0.1] * 12)
    a_pool = fields([4, 4, 4, 4, 4], asked=[5, 1, 0, 0, 0], doubt=doubt)
    images = a_pool.images[picked(a_pool, Budget(tasks=7), strategy)]
    assert sorted(images[:3].tolist()) == [2, 3, 4]
    assert sorted(images[3:].tolist()) == [1, 2, 3, 4]
