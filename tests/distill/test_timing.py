import dataclasses
import functools
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.data.parts import parts_of, whole
from labelloop.data.view_settings import GeometryConfig
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
    px_per_view,
    read_px_per_part,
    refit_student,
)
from labelloop.errors import TrainingError
from labelloop.project.project import ImageRecord

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
    with pytest.raises(TrainingError, match="too short") as caught:
        fit_iterations(RECIPE, guided, COSTS, n_labels=15, seconds=1.0, supervised=False)
    assert caught.value.value == "1 s are left, a step takes 0.5 s and measuring the models 1 s"


@pytest.mark.parametrize("supervised", [False, True])
@pytest.mark.parametrize("trainings", [1, 6])
def test_a_time_that_holds_no_run_names_what_takes_it_and_one_that_does(supervised, trainings):
    """Of two models each takes 150 s to measure in two processes, a step half a second."""
    costs = dataclasses.replace(COSTS, evaluation=300.0)
    schedule = functools.partial(supervised_schedule, RECIPE, n_labels=15) if supervised else guided

    def fit(seconds: float) -> int:
        plan = functools.partial(fit_iterations, RECIPE, lambda n: schedule(iterations=n), costs)
        return plan(
            n_labels=15, seconds=seconds, supervised=supervised, processes=2, spent=40.0, trainings=trainings
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
    costs = dataclasses.replace(COSTS, evaluation=0.01)
    with pytest.raises(TrainingError) as caught:
        fit_iterations(RECIPE, guided, costs, n_labels=15, seconds=1.0, supervised=False)
    assert caught.value.value == "1 s are left, a step takes 0.5 s"


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


def images_of_sides(*sides: int) -> list[ImageRecord]:
    return [
        ImageRecord(i, Path(), "", (side, side), "train", None, 0, -1, None, "0")
        for i, side in enumerate(sides, 1)
    ]


def test_views_cost_the_same_of_whatever_size_the_parts_are_that_they_are_cut_from():
    config = GeometryConfig(crop_px=256, zoom=(0.5, 2.0))
    small, large = ([whole(image) for image in images_of_sides(side, side)] for side in (512, 1024))
    assert px_per_view(small, config) == px_per_view(large, config) == pytest.approx(256**2, rel=0.01)
    tiny = [whole(image) for image in images_of_sides(64)]
    assert 64**2 < px_per_view(tiny, config) < 128**2  # all of the image, by the zoom


@pytest.mark.parametrize(("cached", "labels"), [(0, "cached"), (100, "online")])
def test_a_step_that_is_labelled_online_costs_a_view_and_not_an_image_of_the_pool(cached, labels):
    recipe = dataclasses.replace(RECIPE, cached_images=cached, distillation_labels=labels)

    def seconds(students: int, prediction: float) -> float:
        costs = dataclasses.replace(COSTS, prediction=prediction, online=0.02)
        schedule = with_student(recipe, teacher=400, student=students, n_labels=15, pool=100)
        return planned_seconds(recipe, schedule, costs.at_pace(1.0), supervised=False)

    of_small, of_large = (seconds(4000, image) - seconds(3000, image) for image in (0.07, 0.28))
    assert of_small == pytest.approx(of_large)
    online = 900 if cached == 0 else 500
    assert of_small == pytest.approx(1000 * 2 * COSTS.single_step + online * 0.02)


def test_a_run_that_was_measured_by_an_older_version_is_planned_as_it_was():
    recipe = dataclasses.replace(RECIPE, cached_images=0)
    schedule = guided_schedule(recipe, iterations=1000, n_labels=15, pool=100)
    of_image = dataclasses.replace(COSTS, online=COSTS.prediction)
    for costs in (COSTS, COSTS.at_pace(2.0)):
        factor = costs.prediction / COSTS.prediction
        planned = planned_seconds(recipe, schedule, costs, supervised=False)
        assert planned == planned_seconds(recipe, schedule, of_image.at_pace(factor), supervised=False)


def test_the_reading_of_a_field_is_shared_by_its_parts_that_are_labelled():
    images = images_of_sides(1000, 100, 100)
    parts = parts_of(images, side_px=100)
    assert read_px_per_part(parts) == (1000**2 + 2 * 100**2) / 102
    assert read_px_per_part(parts[:5]) == 1000**2 / 5
    assert read_px_per_part(parts[-2:]) == 100**2  # of images that are one part it is their own
