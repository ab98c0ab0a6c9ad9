"""``--time``: the rest of a run, planned again when its teacher has shown what a step costs.

A few steps at the start say little of the half hour after them on a machine that others use too, or that
slows down as it gets warm. So the student gets the time that the teacher has left.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from labelloop.distill.recipe import stored_recipe
from labelloop.distill.schedule import Schedule, Scheduling
from labelloop.distill.time_plan import Costs, TimePlan
from labelloop.distill.trainer import Trainer
from labelloop.project.project import Project, RunRecord
from labelloop.runs.files import write_json

_DECISIVE = (
    "model", "recipe", "train_images", "val_images", "folds", "pool_ranges", "label_revisions", "stats",
)  # fmt: skip


def rest_planned(
    project: Project, record: RunRecord, trainer: Trainer, ends_at: float | None
) -> tuple[RunRecord, Trainer, dict[str, float]]:
    """Trains the teacher of a timed run, and plans all that follows by what it took.

    The new schedule is in the run's configuration before the student's first step, so that a run that is
    interrupted goes on as it was planned last.

    Args:
        project: Holds the run.
        record: The run; guided, without folds.
        trainer: Of the run, in each of its processes.
        ends_at: When the run should end, on ``time.monotonic``'s clock; None where that is not known or not
            asked for, and in the processes that do not lead.

    Returns:
        Run and trainer with the new schedule, and the seconds that stages took. All as it was, and nothing
        trained, without an end.
    """
    team = trainer.team
    if team.tell(ends_at is None):
        return record, trainer, {}
    begun = time.monotonic()
    trainer.train_teacher()
    taken_s = time.monotonic() - begun
    seconds = {"teacher": taken_s, "waiting for data": trainer.waited_s}
    schedule = trainer.schedule
    if ends_at is not None:
        schedule = _fitted(record.config, trainer, taken_s, ends_at - time.monotonic())
    schedule = team.tell(schedule)
    if ends_at is not None and schedule != trainer.schedule:
        record = replace(record, config={**record.config, "schedule": asdict(schedule)})
        write_json(trainer.files.config, record.config)
        project.save_run(record)
        trainer.progress.note(
            f"{schedule.teacher}+{schedule.student} iterations fit now;"
            f" {trainer.schedule.student} were planned for the student"
        )
    return record, replace(trainer, schedule=schedule), seconds


def timed_alike(project: Project, config: Mapping[str, Any], iterations: int) -> RunRecord | None:
    """The newest finished run that was given a time, has so many iterations, and is otherwise the same.

    Its teacher's share depends on what a step cost then; its number of iterations alone does not tell it.

    Args:
        project: Whose runs.
        config: What was decided of a new run, which is guided.
        iterations: Of teacher and student together.
    """
    wanted = _decided(json.loads(json.dumps(config)))  # as the ledger gives it back
    for run in reversed(project.finished_runs(deleted=True)):
        if run.config.get("costs") and _decided(run.config) == wanted:
            if Schedule(**run.config["schedule"]).iterations == iterations:
                return run
    return None


def _decided(config: Mapping[str, Any]) -> dict[str, Any]:
    """All but the length that the weights of a run depend on, on one machine."""
    asked = {name: config["request"].get(name) for name in ("method", "seed")}
    return asked | {name: config.get(name) for name in _DECISIVE}


def _fitted(config: Mapping[str, Any], trainer: Trainer, taken_s: float, left_s: float) -> Schedule:
    costs, teacher = Costs(**config["costs"]), trainer.schedule.teacher
    plan = TimePlan(
        scheduling=Scheduling(
            recipe=stored_recipe(config["recipe"]),
            n_labels=len(config["train_images"]),
            pool=len(trainer.pool),
        ),
        costs=costs.at_pace(taken_s / (teacher * costs.supervised_step)),
        processes=trainer.team.size,
    )
    return plan.refit_student(teacher, left_s)
