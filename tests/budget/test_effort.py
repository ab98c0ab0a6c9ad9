from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.budget.effort import ACTIONS, OWN_FACTOR_FROM, EffortModel, Minutes, TimedTask, together
from labelloop.budget.work import Work, mean_outline_px
from labelloop.instances import Instances
from labelloop.review.edits import EDIT_KINDS, KeyedInstances, find_edits
from labelloop.simulation.annotator import PRESETS, annotate
from labelloop.simulation.annotator_time import Reported, reported_seconds
from labelloop.simulation.sloppy_outlines import jittered

PERSON = {"fixed": 25.0, "look": 3.0, "moved": 14.0, "deleted": 4.0, "added": 33.0, "reshaped": 20.0}


def random_work(rng: np.random.Generator) -> Work:
    objects = int(rng.integers(3, 25))
    kinds = {kind: float(rng.poisson(0.1 * objects)) for kind in EDIT_KINDS if kind != "relabelled"}
    return Work(objects=objects, edits=kinds)


def seconds_of(work: Work, person: Mapping[str, float] = PERSON) -> float:
    reshaped = work.edits["split"] + work.edits["merged"]
    by_kind = sum(person[kind] * work.edits[kind] for kind in ("moved", "deleted", "added"))
    return person["fixed"] + person["look"] * work.objects + by_kind + person["reshaped"] * reshaped


def timed(seed: int, n: int, *, scatter: float = 0.0, factor: float = 1.0, who: str = "a") -> list[TimedTask]:
    rng = np.random.default_rng(seed)
    works = [random_work(rng) for _ in range(n)]
    return [
        TimedTask(who=who, seconds=factor * seconds_of(work) * float(rng.lognormal(0, scatter)), work=work)
        for work in works
    ]


def relative_errors(model: EffortModel, seed: int = 99, who: str | None = None) -> list[float]:
    rng = np.random.default_rng(seed)
    works = [random_work(rng) for _ in range(40)]
    return [model.predict(work, who).value * 60 / seconds_of(work) - 1 for work in works]


def test_before_anybody_was_timed_an_object_drawn_costs_what_the_literature_says() -> None:
    model = EffortModel.prior()
    nothing, drawn = Work(objects=0), Work(objects=0, edits={"added": 1})
    assert 10 < model.predict(nothing).value * 60 < 20
    assert 8.4 < (model.predict(drawn).value - model.predict(nothing).value) * 60 < 80
    assert model.predict(drawn).high > 2 * model.predict(drawn).low


def test_an_accepted_object_costs_the_look_alone() -> None:
    model = EffortModel.prior()
    assert model.predict(Work(objects=5, edits={"accepted": 5})) == model.predict(Work(objects=5))


def test_twenty_tasks_teach_what_each_action_takes() -> None:
    assert np.abs(relative_errors(EffortModel.fit(timed(0, 20)))).mean() < 0.05
    assert np.abs(relative_errors(EffortModel.prior())).mean() > 0.3


def test_long_outlines_take_longer_once_they_were_seen_to() -> None:
    rng = np.random.default_rng(11)
    tasks = []
    for _ in range(30):
        added, outline_px = float(rng.integers(0, 6)), float(rng.uniform(30, 400))
        work = Work(objects=8, edits={"added": added}, outline_px=outline_px)
        tasks.append(TimedTask(who="a", seconds=20 + 8 * 2 + added * (5 + 0.2 * outline_px), work=work))
    model = EffortModel.fit(tasks)
    short, long = (
        model.predict(Work(objects=8, edits={"added": 5.0}, outline_px=px)).value * 60 for px in (40.0, 350.0)
    )
    assert short == pytest.approx(36 + 5 * 13, rel=0.1)
    assert long == pytest.approx(36 + 5 * 75, rel=0.1)


def test_an_outline_that_is_not_known_is_as_long_as_those_of_the_tasks_that_were_timed() -> None:
    tasks = [
        TimedTask(who="a", seconds=60, work=Work(objects=4, edits={"added": 1}, outline_px=px))
        for px in (50.0, 250.0)
    ]
    model = EffortModel.fit(tasks)
    unknown, known = (
        Work(objects=4, edits={"added": 2}),
        Work(objects=4, edits={"added": 2}, outline_px=150.0),
    )
    assert model.predict(unknown) == model.predict(known)


@pytest.mark.parametrize("n_timed", [0, 40])
def test_predictions_of_tasks_add_up_to_what_the_model_says_of_all_of_them(n_timed: int) -> None:
    model, rng = EffortModel.fit(timed(2, n_timed, scatter=0.3)), np.random.default_rng(3)
    works = [replace(random_work(rng), spread=0.3) for _ in range(30)]
    each = [Minutes(**model.predict(work).as_dict()) for work in works]  # as the ledger keeps them
    added, whole = together(each), model.total(works)
    assert added.value == pytest.approx(whole.value, rel=1e-3)
    assert added.low == pytest.approx(whole.low, rel=0.02)
    assert added.high == pytest.approx(whole.high, rel=0.02)
    assert added.high < 0.95 * sum(minutes.high for minutes in each)
    assert together([each[0]]).high == pytest.approx(each[0].high)
    assert together([]) == model.total([])


def test_the_mean_outline_of_discs_is_that_of_their_circles() -> None:
    discs = some_discs(np.random.default_rng(0), n=1)
    assert mean_outline_px(discs) == pytest.approx(2 * math.sqrt(math.pi * discs.areas[0]))
    assert mean_outline_px(Instances(size_hw=(9, 9))) is None


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_one_task_moves_the_model_towards_what_was_seen_but_not_all_the_way(factor: float) -> None:
    work = Work(objects=10, edits={"added": 2, "deleted": 2})
    before = EffortModel.prior().predict(work).value
    seen = TimedTask(who="a", seconds=60 * factor * before, work=work)
    after = EffortModel.fit([seen]).predict(work).value
    moved = math.log(after / before) / math.log(factor)
    assert 0.2 < moved < 0.9


@settings(max_examples=40)
@given(
    seconds=st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=25),
    counts=st.lists(st.integers(0, 50), min_size=25, max_size=25),
)
def test_no_times_whatever_make_an_action_take_less_than_nothing(
    seconds: list[float], counts: list[int]
) -> None:
    tasks = [
        TimedTask(who="a", seconds=s, work=Work(objects=c, edits={"moved": c / 2, "added": c / 3}))
        for s, c in zip(seconds, counts, strict=False)
    ]
    model = EffortModel.fit(tasks)
    assert set(model.seconds) == set(ACTIONS)
    assert all(s > 0 and math.isfinite(s) for s in model.seconds.values())
    minutes = model.predict(tasks[0].work)
    assert 0 < minutes.low < minutes.value < minutes.high < math.inf


def test_tabs_left_open_for_hours_change_next_to_nothing() -> None:
    tasks = timed(1, 20, scatter=0.15)
    idle = [
        TimedTask(who=t.who, seconds=t.seconds + (4000.0 if i in (3, 11) else 0.0), work=t.work)
        for i, t in enumerate(tasks)
    ]
    plain, robust = relative_errors(EffortModel.fit(tasks)), relative_errors(EffortModel.fit(idle))
    assert np.abs(np.subtract(plain, robust)).max() < 0.1


def test_where_the_server_says_that_no_time_was_counted_twice_long_times_are_hard_work() -> None:
    tasks = timed(2, 40, scatter=0.12)
    hard = [replace(task, seconds=1.9 * task.seconds) if i % 3 == 0 else task for i, task in enumerate(tasks)]
    sure = [replace(task, maybe_twice=False) for task in hard]
    assert EffortModel.fit(sure).found.twice_shares[0] < 0.3
    assert (
        np.mean(relative_errors(EffortModel.fit(sure)))
        > np.mean(relative_errors(EffortModel.fit(hard))) + 0.1
    )


def test_drafts_say_which_times_may_have_been_counted_twice() -> None:
    """Half of the times twice, of few tasks, is too much to tell by the times alone."""
    tasks = timed(5, 12, scatter=0.25)
    twice = [replace(task, seconds=1.9 * task.seconds) if i % 2 else task for i, task in enumerate(tasks)]
    told = [replace(task, maybe_twice=bool(i % 2)) for i, task in enumerate(twice)]
    blind, seeing = (np.abs(relative_errors(EffortModel.fit(each))).mean() for each in (twice, told))
    assert seeing < 0.15
    assert seeing < blind


@pytest.mark.parametrize("times", [1.8, 2.0])
def test_where_all_times_are_doubled_as_is_known_to_happen_work_is_not_taken_for_slow(times: float) -> None:
    tasks = timed(5, 20, scatter=0.15)
    doubled = [replace(task, seconds=times * task.seconds, maybe_twice=True) for task in tasks]
    model = EffortModel.fit(doubled)
    assert np.abs(relative_errors(model)).mean() < 0.2
    assert model.worked_seconds(doubled) == pytest.approx(
        [times * task.seconds / 2 for task in tasks], rel=0.05
    )
    unknown = EffortModel.fit([replace(task, maybe_twice=None) for task in doubled])
    assert np.mean(relative_errors(unknown)) > 0.5


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_times_that_may_be_doubled_and_are_not_count_whole_beside_some_that_cannot_be(share: float) -> None:
    tasks = timed(5, 20, scatter=0.15)
    told = [replace(task, maybe_twice=i < share * len(tasks)) for i, task in enumerate(tasks)]
    assert np.abs(relative_errors(EffortModel.fit(told))).mean() < 0.15


def test_worked_time_of_a_tab_left_open_is_what_its_work_takes() -> None:
    tasks = timed(1, 20, scatter=0.15)
    idle = [replace(t, seconds=t.seconds + 4000.0) if i in (3, 11) else t for i, t in enumerate(tasks)]
    worked = EffortModel.fit(idle).worked_seconds(idle)
    assert worked[[3, 11]] == pytest.approx([tasks[3].seconds, tasks[11].seconds], rel=0.4)
    assert np.median(worked / [task.seconds for task in tasks]) == pytest.approx(1, abs=0.05)


def test_outlines_that_were_drawn_count_and_not_those_of_the_other_objects() -> None:
    rng = np.random.default_rng(4)
    tasks = []
    for _ in range(30):
        added, moved = rng.uniform(20, 400, rng.integers(0, 5)), rng.uniform(0, 60, rng.integers(0, 5))
        work = Work(
            objects=8,
            edits={"added": float(len(added)), "moved": float(len(moved))},
            outline_px=100.0,
            drawn_px=float(added.sum()),
            corrected_px=float(moved.sum()),
        )
        seconds = 36 + 6 * len(added) + 0.2 * added.sum() + 4 * len(moved) + 0.5 * moved.sum()
        tasks.append(TimedTask(who="a", seconds=float(seconds), work=work))
    model = EffortModel.fit(tasks)
    errors = [model.predict(task.work).value * 60 / task.seconds - 1 for task in tasks]
    assert np.abs(errors).mean() < 0.06
    assert model.outlines.drawn_ratio == pytest.approx(2.1, abs=0.5)  # of 100 px, which the objects have


def test_times_counted_twice_are_told_from_slow_work() -> None:
    tasks = timed(2, 40, scatter=0.12)
    doubled = [
        TimedTask(who=t.who, seconds=t.seconds * (2 if i % 10 in (1, 4, 8) else 1), work=t.work)
        for i, t in enumerate(tasks)
    ]
    model = EffortModel.fit(doubled)
    assert model.found.twice_shares[0] > 0.2 > 0.1 > EffortModel.fit(tasks).found.twice_shares[0]
    assert np.abs(relative_errors(model)).mean() < 0.1


def test_who_did_enough_tasks_is_predicted_at_their_own_pace_and_others_are_not() -> None:
    tasks = [*timed(3, 15, who="quick"), *timed(4, 15, who="slow", factor=2)]
    few = timed(5, OWN_FACTOR_FROM - 1, who="new", factor=2)
    model = EffortModel.fit([*tasks, *few])
    assert model.people == ("quick", "slow")
    assert np.abs(relative_errors(model, who="quick")).mean() < 0.15
    assert np.mean(relative_errors(model, who="slow")) == pytest.approx(1, abs=0.2)  # twice as long
    assert 1.5 < model.factors["slow"] / model.factors["quick"] < 2.1
    work = tasks[0].work
    anyone, known, new = model.predict(work), model.predict(work, "quick"), model.predict(work, "new")
    assert model.predict(work, "quick").value < anyone.value < model.predict(work, "slow").value
    assert known.high / known.low < new.high / new.low


def test_a_lone_slow_person_is_what_is_expected_of_whoever_comes() -> None:
    model = EffortModel.fit(timed(6, 20, factor=2))
    assert np.mean(relative_errors(model)) == pytest.approx(1, abs=0.1)
    assert model.people == ("a",)


def test_the_interval_of_a_sum_is_narrower_than_the_sum_of_intervals_and_wider_than_if_all_was_chance() -> (
    None
):
    model = EffortModel.fit(timed(7, 12, scatter=0.2))
    works = [task.work for task in timed(8, 30)]
    one_by_one = [model.predict(work) for work in works]
    total = model.total(works)
    assert total.value == pytest.approx(sum(minutes.value for minutes in one_by_one))
    assert sum(m.low for m in one_by_one) < total.low < total.value < total.high
    assert total.high < sum(m.high for m in one_by_one)
    independent = math.sqrt(sum((m.high - m.low) ** 2 for m in one_by_one))
    assert total.high - total.low > independent


def test_nothing_takes_no_time() -> None:
    minutes = EffortModel.prior().total([])
    assert (minutes.low, minutes.value, minutes.high) == (0, 0, 0)


def test_expected_edits_are_less_sure_than_counted_ones() -> None:
    model = EffortModel.fit(timed(9, 40, scatter=0.1))
    counted = Work(objects=10, edits={"added": 2.0, "moved": 3.0})
    expected = Work(objects=10, edits=counted.edits, spread=0.2)
    sure, unsure = model.predict(counted), model.predict(expected)
    assert unsure.value == pytest.approx(sure.value)
    assert unsure.high / unsure.low > 1.2 * sure.high / sure.low
    many_sure, many_unsure = model.total([counted] * 50), model.total([expected] * 50)
    assert many_unsure.high / many_unsure.low > 1.1 * many_sure.high / many_sure.low


def test_eighty_percent_intervals_hold_about_eight_times_in_ten() -> None:
    held = []
    for seed in range(20):
        model = EffortModel.fit(timed(100 + seed, 20, scatter=0.25))
        fresh = timed(200 + seed, 20, scatter=0.25)
        for task in fresh:
            minutes = model.predict(task.work)
            held.append(minutes.low * 60 <= task.seconds <= minutes.high * 60)
    assert 0.72 < np.mean(held) < 0.9


def test_a_part_of_the_work_keeps_how_sure_it_is() -> None:
    part = Work(objects=8, edits={"added": 2.0}, spread=0.3, outline_px=50.0).part(0.25)
    assert part == Work(objects=2, edits={"added": 0.5}, spread=0.3, outline_px=50.0)


@pytest.mark.parametrize(
    ("objects", "edits"), [(-1, {}), (math.nan, {}), (1, {"added": -0.1}), (1, {"eaten": 1.0})]
)
def test_impossible_work_is_refused(objects: float, edits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"work is finite|unknown kinds"):
        Work(objects=objects, edits=edits)


@pytest.mark.parametrize("seconds", [0.0, -3.0, math.nan, math.inf])
def test_impossible_times_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        TimedTask(who="a", seconds=seconds, work=Work(objects=1))


def timed_once(work: Work, reported: Reported) -> TimedTask:
    return TimedTask(who="a", seconds=reported.seconds, work=work, maybe_twice=reported.maybe_twice)


@pytest.mark.parametrize(("idle_share", "doubled_share"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3)])
def test_after_twenty_tasks_of_a_simulated_person_minutes_are_predicted(
    idle_share: float, doubled_share: float
) -> None:
    errors = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        done = [simulated_task(rng) for _ in range(40)]
        tasks = [
            timed_once(
                work, reported_seconds(active, rng, idle_share=idle_share, doubled_share=doubled_share)
            )
            for work, active in done[:20]
        ]
        model = EffortModel.fit(tasks)
        errors += [abs(model.predict(work).value * 60 / active - 1) for work, active in done[20:]]
    assert np.mean(errors) <= 0.25


def simulated_task(rng: np.random.Generator) -> tuple[Work, float]:
    """Counted work and worked seconds: boundaries are off, and a fifth of the objects is missing."""
    truth = some_discs(rng, n=int(rng.integers(8, 25)))
    seen = jittered(truth.select(rng.random(len(truth)) < 0.8), 0.15, rng)
    shown = KeyedInstances(keys=tuple(f"o{i}" for i in range(len(seen))), instances=seen)
    done = annotate(shown, truth, rng=rng, config=PRESETS["slow"])
    counts: dict[str, float] = {}
    for edit in find_edits(shown, done.returned, untouched=done.untouched):
        counts[edit.kind] = counts.get(edit.kind, 0) + 1
    return Work(objects=len(seen), edits=counts, outline_px=mean_outline_px(seen)), done.active_seconds


def some_discs(rng: np.random.Generator, n: int, side: int = 160) -> Instances:
    rows, columns = np.mgrid[:side, :side]
    centres, radii = rng.uniform(0, side, (n, 2)), rng.uniform(8, 20, n)
    masks = [(rows - y) ** 2 + (columns - x) ** 2 <= r**2 for (y, x), r in zip(centres, radii, strict=True)]
    return Instances.from_dense(np.array(masks))
