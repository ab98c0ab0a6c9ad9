"""Forecasts from points of known curves: the answer, and when there is none."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from labelloop.forecast.answers import (
    CANNOT_TELL,
    EXPECTED,
    OUT_OF_REACH,
    REACHABLE,
    REACHED,
    Level,
    Question,
)
from labelloop.forecast.checks import held_out_misses, widening
from labelloop.forecast.curve_points import MeasuredPoint
from labelloop.forecast.curves import CurvePoint
from labelloop.forecast.forecast import forecast
from labelloop.forecast.forecast_project import in_words, learnt_notes, pool_notes
from labelloop.forecast.learnt import Learnt
from labelloop.metrics.estimate import Estimate

SIZES = (4, 8, 16, 32)
COST = Estimate(value=3.0, low=2.5, high=3.6, n=20)


def growing(n):
    """Reaches 0.762 with 32, 0.8 with 45 and 0.833 with 64 images."""
    return 0.95 - 1.2 * np.asarray(n, float) ** -0.55


def points_on(truth, sizes=SIZES, *, seeds=3, noise=0.01):
    rng = np.random.default_rng(5)
    return [
        CurvePoint(
            n_images=n, value=float(truth(n)) + noise * float(rng.standard_normal()) * 2 / math.sqrt(n)
        )
        for _ in range(seeds)
        for n in sizes
    ]


def question(**facts):
    return Question(**{"metric": "coco_ap50", "labelled": 32, **facts})


@pytest.fixture(scope="module")
def points():
    return points_on(growing)


def test_the_labels_until_a_target_are_found(points):
    answer = forecast(points, question(target=float(growing(64))))
    assert answer.verdict == REACHABLE
    assert answer.images.low <= 32
    assert answer.images.high is None or answer.images.high >= 32
    assert 32 + answer.images.value == pytest.approx(64, rel=0.5)


def test_minutes_are_images_times_what_one_costs_and_as_uncertain_as_both(points):
    answer = forecast(points, question(target=0.8, minutes_per_image=COST))
    assert answer.minutes.value == pytest.approx(3 * answer.images.value)
    assert answer.minutes.low < 3 * answer.images.low
    exact = Estimate(value=3.0, low=3.0, high=3.0, n=20)
    sure = forecast(points, question(target=0.8, minutes_per_image=exact))
    assert sure.minutes.low == pytest.approx(3 * sure.images.low, rel=0.01)


def test_minutes_are_null_with_the_reason_where_nobody_knows_the_cost(points):
    unknown = Estimate(value=None, low=None, high=None, n=1, reason="nobody was timed")
    answer = forecast(points, question(target=0.8, minutes_per_image=unknown))
    assert answer.images.value is not None
    assert answer.minutes.as_dict() == {
        "value": None,
        "low": None,
        "high": None,
        "reason": "nobody was timed",
    }


def test_a_target_that_the_labels_reach_already_needs_none(points):
    answer = forecast(points, question(target=0.5, minutes_per_image=COST))
    assert answer.verdict == REACHED
    assert answer.images.as_dict() == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert answer.minutes.value == 0


def test_a_target_above_the_plateau_is_out_of_reach():
    flat = points_on(lambda n: 0.6 - 0.5 * np.exp(-0.3 * n), noise=0.002)
    answer = forecast(flat, question(target=0.9))
    assert answer.verdict == OUT_OF_REACH
    assert answer.images.value is None
    assert "256" in answer.images.reason


def test_nothing_is_told_where_points_are_all_noise():
    rng = np.random.default_rng(3)
    noise = [
        CurvePoint(n_images=n, value=float(rng.uniform(0.3, 0.7)), seed=s) for s in range(3) for n in SIZES
    ]
    answer = forecast(noise, question(target=0.8, minutes_per_image=COST))
    assert answer.verdict == CANNOT_TELL
    assert answer.images.value is None
    assert answer.minutes.value is None
    assert answer.reason


def test_no_number_of_labels_is_told_where_half_as_many_may_do():
    answer = forecast(points_on(growing, noise=0.1), question(target=float(growing(50))))
    assert (answer.verdict, answer.images.value) == (CANNOT_TELL, None)
    assert 32 + answer.images.low <= 50
    assert "some reach it with 44 labelled images, half of them do not with 88" in answer.reason


def test_nothing_is_told_where_the_metric_falls():
    falling = [
        CurvePoint(n_images=n, value=0.9 - 0.01 * n + 0.001 * s, seed=s) for s in range(3) for n in SIZES
    ]
    answer = forecast(falling, question(target=0.8))
    assert answer.verdict == CANNOT_TELL
    assert "falls" in answer.reason


@pytest.mark.parametrize("sizes", [(), (4,), (4, 8), (4, 5, 6)])
def test_nothing_is_told_from_fewer_sizes_than_a_curve_and_its_check_need(sizes):
    answer = forecast(points_on(growing, sizes), question(target=0.8))
    assert answer.verdict == CANNOT_TELL
    assert "4 sizes of subsets, 3 to fit it and a larger one to check it" in answer.reason
    assert answer.reason.endswith(f"give {len(sizes)}")
    assert answer.band is None


def test_a_metric_that_the_labels_do_not_allow_says_so_instead_of_asking_for_more_labels():
    nothing = {"aji": {"value": None, "reason": "masks overlap", "n": 9}, "pq": {"value": 0.5, "n": 9}}
    measured = [MeasuredPoint(n_images=n, seed=0, split="val", metrics=nothing) for n in SIZES]
    assert [point.of_metric("aji") for point in measured] == [None] * 4
    why = measured[0].undefined("aji")
    answer = forecast([], question(metric="aji", target=0.7), no_points=why)
    assert (answer.verdict, answer.reason) == (CANNOT_TELL, "aji has no value: masks overlap")
    assert measured[0].undefined("pq") is None


def test_minutes_buy_images_and_those_the_metric(points):
    answer = forecast(points, question(minutes=96, minutes_per_image=COST))
    assert answer.verdict == EXPECTED
    assert answer.images.value == 32
    assert answer.images.low < 32 < answer.images.high
    assert answer.minutes.value == 96
    assert answer.expected.low <= growing(64) <= answer.expected.high
    assert answer.expected.value == pytest.approx(float(growing(64)), abs=0.03)


def test_minutes_say_the_metric_now_and_the_gain_with_its_interval(points):
    answer = forecast(points, question(minutes=96, minutes_per_image=COST))
    assert answer.now.low <= growing(32) <= answer.now.high
    assert answer.gain.value == pytest.approx(answer.expected.value - answer.now.value)
    assert 0.01 < answer.gain.low < growing(64) - growing(32) < answer.gain.high
    assert answer.told_from_zero is True
    [line] = in_words(answer)
    assert f"{answer.now.value:.3f} now -> {answer.expected.value:.3f} (80 %" in line
    assert f"a gain of {answer.gain.value:+.3f} (80 %: +" in line
    document = answer.as_dict()
    assert document["gain"]["value"] == answer.gain.value
    assert document["now"]["value"] == answer.now.value


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(lambda n: 0.8, id="flat"),
        pytest.param(lambda n: 0.8 - 0.5 * np.exp(-n / 5), id="saturated"),
    ],
)
def test_more_minutes_that_buy_nothing_are_said_to_buy_nothing(truth):
    answer = forecast(points_on(truth, noise=0.003), question(minutes=60, minutes_per_image=COST))
    assert answer.told_from_zero is False
    assert answer.gain.low < 0.0005
    assert "no gain that can be told from zero" in in_words(answer)[-1]


@pytest.mark.parametrize("levels", [(), (Level(run="best", n_images=32, value=0.6, se=0.03),)])
def test_the_sentence_about_zero_agrees_with_the_interval_of_the_gain(levels):
    answer = forecast(points_on(lambda n: 0.5, noise=0.003), question(), levels=levels)
    assert answer.told_from_zero is False
    assert answer.gain.low <= 0
    assert answer.gain.high > 0
    assert "a gain of +" in in_words(answer)[0]
    assert "(80 %: +0.000 to +" in in_words(answer)[0].rpartition("a gain of")[2]


@pytest.mark.parametrize("asked", [{"minutes": 96}, {}, {"target": 0.5}])
@pytest.mark.parametrize("levels", [(), (Level(run="best", n_images=32, value=0.6, se=0.03),)])
@pytest.mark.parametrize("truth", [lambda n: 0.0, lambda n: 0.001 * n])
def test_short_trainings_that_find_hardly_anything_tell_nothing(truth, levels, asked):
    few = [CurvePoint(n_images=n, value=truth(n), se=0.0, seed=s) for s in range(2) for n in SIZES]
    answer = forecast(few, question(minutes_per_image=COST, **asked), levels=levels)
    assert (answer.verdict, answer.told_from_zero, answer.gain) == (CANNOT_TELL, None, None)
    assert f"hardly find anything yet: coco_ap50 {truth(32):.3f} with 32 labels" in answer.reason
    assert "label more images" in answer.reason


def test_a_metric_that_is_low_and_grows_is_forecast():
    answer = forecast(points_on(lambda n: 0.02 * np.log2(n), noise=0.003), question())
    assert answer.verdict == EXPECTED
    assert answer.told_from_zero is True


def test_minutes_that_are_not_enough_for_an_image_do_not_say_that_images_bring_nothing(points):
    answer = forecast(points, question(minutes=1, minutes_per_image=COST))
    assert answer.images.value == 0
    assert answer.told_from_zero is None


@pytest.mark.parametrize("asked", [{"minutes": 96}, {}, {"target": 0.8}])
def test_no_question_is_answered_where_chance_hides_whether_labels_help(asked):
    rng = np.random.default_rng(1)
    noise = [
        CurvePoint(n_images=n, value=float(rng.uniform(0.3, 0.7)), seed=s) for s in range(2) for n in SIZES
    ]
    answer = forecast(noise, question(minutes_per_image=COST, **asked))
    assert answer.verdict == CANNOT_TELL
    assert "differ by chance" in answer.reason
    assert answer.gain is None


@pytest.mark.parametrize(
    ("left", "note"), [(3, "Only 3 unlabelled images are left"), (0, "No unlabelled"), (32, "")]
)
def test_more_images_than_are_left_in_the_pool_are_counted_on_with_a_note(points, left, note):
    answer = forecast(points, question(minutes=96, minutes_per_image=COST, unlabelled=left))
    assert answer.as_dict()["unlabelled"] == left
    assert " ".join(pool_notes(answer)).startswith(note)
    assert bool(pool_notes(answer)) == bool(note)


def test_minutes_without_the_cost_of_an_image_cannot_tell(points):
    answer = forecast(points, question(minutes=60))
    assert answer.verdict == CANNOT_TELL
    assert answer.expected.value is None
    assert "costs" in answer.expected.reason


def test_without_target_and_minutes_twice_the_labels_are_looked_at(points):
    answer = forecast(points, question())
    assert answer.images.value == 32
    assert answer.expected.low <= growing(64) <= answer.expected.high


def test_target_and_minutes_are_answered_together(points):
    both = forecast(points, question(target=0.8, minutes=96, minutes_per_image=COST))
    assert both.images == forecast(points, question(target=0.8, minutes_per_image=COST)).images
    assert both.expected == forecast(points, question(minutes=96, minutes_per_image=COST)).expected


def test_far_beyond_the_largest_subset_nothing_is_expected(points):
    answer = forecast(points, question(minutes=3000, minutes_per_image=COST))
    assert answer.expected.value is None
    assert "8 times" in answer.expected.reason


def test_a_run_lifts_the_curve_so_that_less_is_needed(points):
    plain = forecast(points, question(target=0.85))
    run = Level(run="best", n_images=32, value=0.83, se=0.01)
    lifted = forecast(points, question(target=0.85), levels=[run])
    assert lifted.images.value < plain.images.value
    at_now = np.interp(32, lifted.band.sizes, lifted.band.middle)
    assert at_now == pytest.approx(0.83, abs=0.01)
    assert lifted.as_dict()["level"] == "best"
    assert lifted.as_dict()["past_runs"] == []


def test_an_uncertain_run_makes_the_forecast_less_certain(points):
    def width(se):
        level = Level(run="best", n_images=32, value=0.83, se=se)
        expected = forecast(points, question(), levels=[level]).expected
        return expected.high - expected.low

    assert width(0.04) > 1.5 * width(0.005)


ASIDE = Learnt(share=0.2)


def test_now_is_the_run_that_learnt_what_is_left_of_the_labels(points):
    run = Level(run="best", n_images=32, value=0.7, se=0.01)
    answer = forecast(points, question(labelled=40, learnt=ASIDE), levels=[run])
    assert answer.now.value == pytest.approx(0.7, abs=0.004)
    assert answer.as_dict()["learnt"] == 32
    assert "of 40 it learns 32" in learnt_notes(answer)[0]


def test_labels_that_are_set_aside_are_counted_in_those_that_a_target_needs_and_in_their_minutes(points):
    asked = {"target": 0.8, "minutes_per_image": COST}
    all_learnt = forecast(points, question(**asked))
    aside = forecast(points, question(labelled=40, learnt=ASIDE, **asked))
    for end in ("value", "low"):
        learnt = 32 + getattr(all_learnt.images, end)
        assert ASIDE.of(40 + getattr(aside.images, end)) == pytest.approx(learnt, abs=1)
    assert aside.minutes.value == pytest.approx(3 * aside.images.value)


def test_minutes_that_only_buy_what_is_set_aside_are_not_said_to_buy_nothing(points):
    answer = forecast(
        points, question(labelled=18, learnt=ASIDE, minutes=12, minutes_per_image=COST)
    )  # 4 images, of 22 17 are learnt
    assert answer.gain.value < 0
    assert answer.told_from_zero is None
    assert "of 22 it learns 17" in learnt_notes(answer)[0]


def runs_on(errors, sizes=(8, 16, 32), *, se=0.02):
    return [
        Level(run=f"round-{i}", n_images=n, value=1 - float(errors(n)), se=se, measured="the same")
        for i, n in enumerate(sizes)
    ]


@pytest.mark.parametrize("steepness", [0.15, 0.6])
def test_runs_of_past_rounds_tell_how_fast_a_full_run_gains(points, steepness):
    def gain_of_twice_the_labels(levels):
        band = forecast(points, question(), levels=levels).band
        now, later = np.interp([32, 64], band.sizes, band.middle)
        return later - now

    runs = runs_on(lambda n: 0.3 * (n / 8) ** -steepness)
    truth = 0.3 * (4**-steepness - 8**-steepness)
    newest, all_of_them = gain_of_twice_the_labels(runs[-1:]), gain_of_twice_the_labels(runs)
    assert abs(all_of_them - truth) < 0.5 * abs(newest - truth)


def test_past_rounds_that_agree_with_the_short_trainings_make_the_forecast_more_certain():
    noisy = points_on(growing, noise=0.06)
    runs = runs_on(lambda n: 0.6 * (1 - growing(n)))
    one, all_of_them = (forecast(noisy, question(), levels=each) for each in (runs[-1:], runs))
    assert all_of_them.expected.high - all_of_them.expected.low < one.expected.high - one.expected.low
    assert all_of_them.expected.value == pytest.approx(1 - 0.6 * (1 - float(growing(64))), abs=0.02)
    past = all_of_them.as_dict()["past_runs"]
    assert [run["n_images"] for run in past] == [8, 16]


def test_past_rounds_that_lie_on_no_such_curve_leave_no_answer(points):
    zigzag = [
        Level(run=f"round-{i}", n_images=n, value=v, se=0.005, measured="the same")
        for i, (n, v) in enumerate([(8, 0.9), (16, 0.6), (32, 0.9), (40, 0.5)])
    ]
    answer = forecast(points, question(), levels=zigzag)
    assert answer.verdict == CANNOT_TELL
    assert "round-0, round-1, round-2, round-3 lie on no curve" in answer.reason


def test_intervals_are_widened_where_small_subsets_did_not_foresee_the_large_ones(points):
    def kinked(n):
        return growing(n) if n <= 16 else growing(16) - 0.02

    assert widening(held_out_misses(points)) < 1.3
    assert widening(held_out_misses(points_on(kinked, (4, 6, 9, 13, 16, 32, 48), noise=0.003))) > 1.5


def test_nothing_is_told_where_no_larger_subset_could_check_the_curves():
    dip = {4: 0.6, 8: 0.57, 16: 0.55, 32: 0.64}
    unchecked = [CurvePoint(n_images=n, value=dip[n] + 0.001 * s, seed=s) for s in range(2) for n in SIZES]
    assert held_out_misses(unchecked) == []
    assert "falls" in forecast(unchecked, question()).reason


def test_the_answer_is_json_with_the_fields_of_the_contract(points):
    facts = question(target=0.8, minutes=60, minutes_per_image=COST)
    document = json.loads(json.dumps(forecast(points, facts).as_dict(), allow_nan=False))
    assert {"metric", "target", "images", "minutes", "verdict", "reason", "expected"} <= set(document)
    assert {"value", "low", "high"} <= set(document["images"]) & set(document["minutes"])
    assert document["target"] == 0.8
    assert document["expected"] is not None
    assert forecast(points, dataclasses.replace(facts, minutes=None)).as_dict()["expected"] is None
