import dataclasses
import functools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.distill.recipe import Recipe
from labelloop.distill.schedule import (
    SHORTEST_STUDENT,
    Schedule,
    guided_schedule,
    supervised_schedule,
    with_student,
)
from labelloop.distill.timing import (
    MARGIN,
    Costs,
    enough_seconds,
    fit_iterations,
    planned_seconds,
    refit_student,
)
from labelloop.errors import UsageError

RECIPE = Recipe(supervised_steps=((15, 400),))
COSTS = Costs(supervised_step=0.5, single_step=0.25, prediction=0.07, evaluation=0.7)


def guided(iterations: int) -> Schedule:
    return guided_schedule(RECIPE, iterations=iterations, n_labels=15, pool=200)


def fits(iterations: int, seconds: float) -> bool:
    return planned_seconds(RECIPE, guided(iterations), COSTS, supervised=False) <= seconds * MARGIN


@given(seconds=st.floats(20.0, 1500.0))
def test_no_longer_run_would_end_in_time(seconds):
    fitted = fit_iterations(RECIPE, guided, COSTS, n_labels=15, seconds=seconds, supervised=False)
    assert fits(fitted, seconds)
    assert not any(fits(longer, seconds) for longer in range(fitted + 1, 4000))


def test_time_goes_to_the_student_rather_than_to_a_baseline_apart():
    steps_of_two = 540  # seconds of them: enough for the best teacher and some student, not for all three
    seconds = steps_of_two * COSTS.supervised_step / MARGIN + 200 * 8 * COSTS.prediction
    schedule = guided(fit_iterations(RECIPE, guided, COSTS, n_labels=15, seconds=seconds, supervised=False))
    assert not schedule.apart
    assert schedule.student >= 100


@given(seconds=st.floats(1.0, 900.0), pace=st.floats(0.3, 4.0), teacher=st.sampled_from([60, 399, 400]))
def test_the_student_gets_the_time_that_is_left_and_the_baseline_as_many_steps(seconds, pace, teacher):
    costs = COSTS.at_pace(pace)

    def rest(student: int) -> float:
        schedule = with_student(RECIPE, teacher=teacher, student=student, n_labels=15, pool=200)
        whole = planned_seconds(RECIPE, schedule, costs, supervised=False)
        return whole - teacher * costs.supervised_step

    fitted = refit_student(RECIPE, teacher, costs, n_labels=15, pool=200, seconds=seconds)
    assert (fitted.teacher, fitted.supervised) == (teacher, max(min(400, fitted.iterations), teacher))
    assert fitted.student == SHORTEST_STUDENT or rest(fitted.student) <= seconds * MARGIN
    assert rest(fitted.student + 1) > seconds * MARGIN


@pytest.mark.parametrize("supervised", [False, True])
def test_the_time_that_is_said_to_be_enough_holds_the_best_schedule_and_hardly_more(supervised):
    def schedule(iterations: int) -> Schedule:
        if supervised:
            return supervised_schedule(RECIPE, iterations=iterations, n_labels=15)
        return guided(iterations)

    enough = enough_seconds(RECIPE, schedule, COSTS, n_labels=15, supervised=supervised)
    fit = functools.partial(fit_iterations, RECIPE, schedule, COSTS, n_labels=15, supervised=supervised)
    assert schedule(fit(seconds=enough + 0.01)).teacher == 400
    assert schedule(fit(seconds=enough - 1)).teacher < 400


def test_a_time_that_holds_no_run_says_so():
    with pytest.raises(UsageError, match="too short"):
        fit_iterations(RECIPE, guided, COSTS, n_labels=15, seconds=1.0, supervised=False)


@given(iterations=st.integers(4, 3000), processes=st.integers(2, 16))
def test_processes_share_the_images_of_a_step_but_not_its_cost(iterations, processes):
    recipe = dataclasses.replace(RECIPE, labelled_batch=16, unlabelled_batch=16, supervised_batch=16)
    schedule = guided_schedule(recipe, iterations=iterations, n_labels=15, pool=200)
    alone = planned_seconds(recipe, schedule, COSTS, supervised=False)
    # A step of the teacher is measured as all share it; of the student's it is one image that is measured.
    step = math.ceil(16 / processes) / 16 * COSTS.supervised_step
    measured = dataclasses.replace(COSTS, supervised_step=step, start=7.0)
    shared = planned_seconds(recipe, schedule, measured, supervised=False, processes=processes) - 7.0
    assert alone / processes - 1e-6 <= shared <= alone * math.ceil(16 / processes) / 16 + 1e-6
