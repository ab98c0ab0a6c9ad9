import functools
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.distill.recipe import Recipe
from labelloop.distill.schedule import SHORTEST_STUDENT, Schedule, Scheduling
from labelloop.distill.time_plan import MARGIN, Costs, TimePlan
from labelloop.errors import TrainingError

RECIPE = Recipe(supervised_steps=((15, 400),))
COSTS = Costs(supervised_step=0.5, single_step=0.25, prediction=0.07, evaluation=0.7)


def plan(
    *,
    costs: Costs = COSTS,
    recipe: Recipe = RECIPE,
    pool: int = 200,
    processes: int = 1,
    supervised: bool = False,
) -> TimePlan:
    scheduling = Scheduling(recipe=recipe, n_labels=15, pool=pool, supervised=supervised)
    return TimePlan(scheduling=scheduling, costs=costs, processes=processes)


def guided(iterations: int) -> Schedule:
    return plan().scheduling.of(iterations)


def fits(iterations: int, seconds: float) -> bool:
    return plan().seconds(guided(iterations)) <= seconds * MARGIN


@given(seconds=st.floats(20.0, 1500.0))
def test_no_longer_run_would_end_in_time(seconds):
    fitted = plan().fit(seconds)
    assert fits(fitted, seconds)
    assert not any(fits(longer, seconds) for longer in range(fitted + 1, 4000))


def test_time_goes_to_the_student_rather_than_to_a_baseline_apart():
    steps_of_two = 540  # seconds of them: enough for the best teacher and some student, not for all three
    seconds = steps_of_two * COSTS.supervised_step / MARGIN + 200 * 8 * COSTS.prediction
    schedule = guided(plan().fit(seconds))
    assert not schedule.apart
    assert schedule.student >= 100


@given(seconds=st.floats(1.0, 900.0), pace=st.floats(0.3, 4.0), teacher=st.sampled_from([60, 399, 400]))
def test_the_student_gets_the_time_that_is_left_and_the_baseline_as_many_steps(seconds, pace, teacher):
    paced = plan(costs=COSTS.at_pace(pace))

    def rest(student: int) -> float:
        whole = paced.seconds(paced.scheduling.with_student(teacher, student))
        return whole - teacher * paced.costs.supervised_step

    fitted = paced.refit_student(teacher, seconds)
    assert (fitted.teacher, fitted.supervised) == (teacher, max(min(400, fitted.iterations), teacher))
    assert fitted.student == SHORTEST_STUDENT or rest(fitted.student) <= seconds * MARGIN
    assert rest(fitted.student + 1) > seconds * MARGIN


@pytest.mark.parametrize("supervised", [False, True])
def test_the_time_that_is_said_to_be_enough_holds_the_best_schedule_and_hardly_more(supervised):
    timed = plan(supervised=supervised)
    enough = timed.enough_seconds()
    assert timed.scheduling.of(timed.fit(enough + 0.01)).teacher == 400
    assert timed.scheduling.of(timed.fit(enough - 1)).teacher < 400


def test_a_time_that_holds_no_run_says_so():
    with pytest.raises(TrainingError, match="too short") as caught:
        plan().fit(1.0)
    assert caught.value.value == "1 s are left, a step takes 0.5 s and measuring the models 1 s"


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("trainings", [1, 6])
def test_a_time_that_holds_no_run_names_what_takes_it_and_one_that_does(supervised, trainings):
    """Of two models each takes 150 s to measure in two processes, a step half a second."""
    costs = replace(COSTS, evaluation=300.0)
    fit = functools.partial(
        plan(costs=costs, processes=2, supervised=supervised).fit, trainings=trainings, spent=40.0
    )
    with pytest.raises(TrainingError, match="too short") as caught:
        fit(100.0)
    each = f" for each of {trainings} trainings" if trainings > 1 else ""
    measuring = 150 if supervised else 300
    assert caught.value.value == (
        f"{100 / trainings:.0f} s are left{each}, a step takes 0.5 s and measuring the models {measuring} s"
    )
    (minutes,) = re.fullmatch(r"Give --time (\d+)m or more\.", caught.value.way_out).groups()
    assert fit(int(minutes) * 60 - 40.0) >= 1
    with pytest.raises(TrainingError, match="too short"):
        fit((int(minutes) - 1) * 60 - 40.0)


def test_measuring_that_takes_hardly_any_time_is_not_named():
    costs = replace(COSTS, evaluation=0.01)
    with pytest.raises(TrainingError) as caught:
        plan(costs=costs).fit(1.0)
    assert caught.value.value == "1 s are left, a step takes 0.5 s"


@given(iterations=st.integers(4, 3000), processes=st.integers(2, 16))
def test_processes_share_the_images_of_a_step_but_not_its_cost(iterations, processes):
    recipe = replace(RECIPE, labelled_batch=16, unlabelled_batch=16, supervised_batch=16)
    alone = plan(recipe=recipe)
    schedule = alone.scheduling.of(iterations)
    # A step of the teacher is measured as all share it; of the student's it is one image that is measured.
    step = math.ceil(16 / processes) / 16 * COSTS.supervised_step
    measured = replace(COSTS, supervised_step=step, start=7.0)
    shared = plan(recipe=recipe, costs=measured, processes=processes).seconds(schedule) - 7.0
    seconds = alone.seconds(schedule)
    assert seconds / processes - 1e-6 <= shared <= seconds * math.ceil(16 / processes) / 16 + 1e-6


@pytest.mark.parametrize(("cached", "labels"), [(0, "cached"), (100, "online")])
def test_a_step_that_is_labelled_online_costs_a_view_and_not_an_image_of_the_pool(cached, labels):
    recipe = replace(RECIPE, cached_images=cached, distillation_labels=labels)

    def seconds(students: int, prediction: float) -> float:
        costs = replace(COSTS, prediction=prediction, online=0.02)
        timed = plan(recipe=recipe, costs=costs.at_pace(1.0), pool=100)
        return timed.seconds(timed.scheduling.with_student(400, students))

    of_small, of_large = (seconds(4000, image) - seconds(3000, image) for image in (0.07, 0.28))
    assert of_small == pytest.approx(of_large)
    online = 900 if cached == 0 else 500
    assert of_small == pytest.approx(1000 * 2 * COSTS.single_step + online * 0.02)


def test_a_run_that_was_measured_by_an_older_version_is_planned_as_it_was():
    recipe = replace(RECIPE, cached_images=0)
    of_image = replace(COSTS, online=COSTS.prediction)
    for costs in (COSTS, COSTS.at_pace(2.0)):
        factor = costs.prediction / COSTS.prediction
        timed = plan(recipe=recipe, costs=costs, pool=100)
        schedule = timed.scheduling.of(1000)
        assert timed.seconds(schedule) == replace(timed, costs=of_image.at_pace(factor)).seconds(schedule)
