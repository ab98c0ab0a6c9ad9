"""Runs that were given a time, and whose student gets what the teacher has left of it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch

from labelloop.distill import timing
from labelloop.distill.assembly import trainer_of
from labelloop.distill.pacing import rest_planned
from labelloop.distill.schedule import SHORTEST_STUDENT, Schedule, guided_schedule, with_student
from labelloop.distill.train import TrainRequest, train
from labelloop.durations import parse_iterations
from labelloop.errors import UsageError
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_labels
from labelloop.runs.files import write_json

CORE_NET = str(Path(__file__).parents[2] / "examples" / "extending" / "core_net.py")


@pytest.fixture
def begun(project, tmp_path, interrupted):
    """A run of which the lengths are known and no step has been made, and its trainer."""
    recipe = tmp_path / "quick.toml"
    recipe.write_text("supervised_steps = [[1, 20]]\n")
    request = TrainRequest(model=CORE_NET, recipe=str(recipe), time_s=6000.0, name="timed")
    interrupted(project, request, "teacher")
    record = project.run("timed")
    schedule = Schedule(**record.config["schedule"])
    return record, trainer_of(project, record.config, schedule, "timed", Silent(), parts=1)


def test_a_run_whose_time_is_over_gets_the_shortest_student_and_goes_on_so(project, begun):
    record, trainer = begun
    _, replanned, seconds = rest_planned(project, record, trainer, time.monotonic() - 1)
    schedule = replanned.schedule
    assert schedule.student == SHORTEST_STUDENT
    assert (schedule.teacher, schedule.supervised) == (trainer.schedule.teacher, trainer.schedule.supervised)
    assert seconds["teacher"] > 0
    assert replanned.files.weights("supervised").exists()
    config = json.loads(replanned.files.config.read_text())
    assert Schedule(**config["schedule"]) == schedule
    assert project.run("timed").config == config
    result = train(project, TrainRequest(resume=True, name="timed"))
    assert result["iterations"] == schedule.iterations
    assert result["schedule"] == config["schedule"]


@pytest.mark.parametrize("told", ["length", "iterations"])
def test_a_run_that_was_given_a_time_is_repeated_bit_for_bit_by_what_it_tells(project, begun, tmp_path, told):
    record, trainer = begun
    rest_planned(project, record, trainer, time.monotonic() - 1)
    timed = train(project, TrainRequest(resume=True, name="timed"))
    iterations, teacher_iterations = parse_iterations(str(timed[told]))
    assert iterations == timed["iterations"]
    recipes = guided_schedule(trainer.recipe, iterations=iterations, n_labels=3, pool=len(trainer.pool))
    assert (timed["length"], recipes.length) == ("20+3", "12+11")
    request = TrainRequest(
        model=CORE_NET,
        recipe=str(tmp_path / "quick.toml"),
        iterations=iterations,
        teacher_iterations=teacher_iterations,
        name="counted",
    )
    assert train(project, request)["schedule"] == timed["schedule"]
    for which in ("supervised", "guided"):
        first, second = (
            torch.load(project.runs_dir / run / f"{which}.pt", weights_only=True)["model"]
            for run in ("timed", "counted")
        )
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("differs", ["seed", "labels"])
def test_a_number_of_iterations_is_divided_as_the_recipe_does_where_the_timed_run_was_another(
    project, begun, tmp_path, interrupted, differs
):
    record, trainer = begun
    rest_planned(project, record, trainer, time.monotonic() - 1)
    timed = train(project, TrainRequest(resume=True, name="timed"))
    if differs == "labels":  # the same images, and another revision of one's labels
        labels = json.loads((tmp_path / "labelled.json").read_text())
        del labels["annotations"][0]
        (tmp_path / "labelled.json").write_text(json.dumps(labels))
        source = LabelSource(path=str(tmp_path / "labelled.json"), images=str(tmp_path / "labelled"))
        assert add_labels(project, source).revised == 1
    request = TrainRequest(
        model=CORE_NET,
        recipe=str(tmp_path / "quick.toml"),
        iterations=timed["iterations"],
        seed=differs == "seed",
        name="other",
    )
    interrupted(project, request, "teacher")
    schedule = Schedule(**project.run("other").config["schedule"])
    assert (timed["length"], schedule.length) == ("20+3", "12+11")


def test_labelled_images_count_in_a_schedule_where_they_are_in_the_pool(project, tmp_path, interrupted):
    recipe = tmp_path / "both.toml"
    recipe.write_text("supervised_steps = [[1, 4]]\npool_includes_labelled = true\nlooks_per_label = 1\n")
    request = TrainRequest(model=CORE_NET, recipe=str(recipe), iterations=40, name="both")
    interrupted(project, request, "teacher")
    config = project.run("both").config
    schedule = Schedule(**config["schedule"])
    trainer = trainer_of(project, config, schedule, "both", Silent(), parts=1)
    assert schedule.cached_images == len(trainer.pool) == 3 + 4
    pool = len(trainer.pool)  # by which a timed run is planned again
    of_timed = with_student(
        trainer.recipe, teacher=schedule.teacher, student=schedule.student, n_labels=3, pool=pool
    )
    assert of_timed == schedule


def test_a_timed_run_of_before_there_were_folds_goes_on(project, begun, interrupted):
    record, trainer = begun
    config = {key: value for key, value in record.config.items() if key != "folds"}
    project.save_run(dataclasses.replace(record, config=config))
    write_json(trainer.files.config, config)
    interrupted(project, TrainRequest(resume=True, name="timed"), "teacher")


def test_a_teachers_iterations_leave_some_for_the_student(project):
    with pytest.raises(UsageError, match="3 or more for the student") as caught:
        train(project, TrainRequest(model=CORE_NET, iterations=12, teacher_iterations=11))
    assert caught.value.value == "11+1"


def test_a_student_gets_more_steps_where_more_time_is_left(project, begun):
    record, trainer = begun
    _, replanned, _ = rest_planned(project, record, trainer, time.monotonic() + 1_000_000)
    assert replanned.schedule.student > trainer.schedule.student


def test_without_an_end_nothing_is_trained_or_planned(project, begun):
    record, trainer = begun
    assert rest_planned(project, record, trainer, None) == (record, trainer, {})
    assert not trainer.files.weights("supervised").exists()


def test_a_run_of_so_many_iterations_keeps_them(project):
    result = train(project, TrainRequest(model=CORE_NET, iterations=12, name="counted"))
    assert result["iterations"] == 12


def test_a_student_that_keeps_its_backbone_is_timed_without_its_gradients(
    project, tmp_path, interrupted, monkeypatch
):
    recipe = tmp_path / "kept.toml"
    recipe.write_text("student_backbone_lr_factor = 0.0\n")
    interrupted(project, TrainRequest(recipe=str(recipe), iterations=6, name="kept"), "teacher")
    config = project.run("kept").config
    trainer = trainer_of(project, config, Schedule(**config["schedule"]), "kept", Silent(), parts=1)
    learnt = []

    def step(number, batches, plan, learner, fabric, team):
        named = learner.student.module().named_parameters()
        learnt.append(any(p.requires_grad for name, p in named if ".body." in name))

    monkeypatch.setattr(timing, "train_step", step)
    timing.measure_costs(trainer, (), Silent())
    assert learnt == [True, False] * timing.TIMED_STEPS
