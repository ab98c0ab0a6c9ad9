"""What a run is decided to be before its first step: everything that is written into its configuration."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import timm
import torch
import torchvision

import labelloop
from labelloop.data.folds import cut_folds
from labelloop.data.label_draw import LabelDraw
from labelloop.data.pool import data_stats
from labelloop.data.view_settings import GeometryConfig
from labelloop.distill.asked_labels import AskedLabels
from labelloop.distill.assembly import id_ranges, pool_parts
from labelloop.distill.measuring import Asked, measured_costs
from labelloop.distill.pacing import timed_alike
from labelloop.distill.recipe import benchmark_table, find_recipe, stored_recipe
from labelloop.distill.request import TrainRequest
from labelloop.distill.schedule import Schedule, Scheduling
from labelloop.distill.time_plan import Costs, TimePlan
from labelloop.errors import TrainingError
from labelloop.instances import Instances
from labelloop.models.catalog import training_view_px
from labelloop.models.data_stats import DataStats
from labelloop.plurals import plural
from labelloop.progress import Progress
from labelloop.project.project import Project
from labelloop.runs.loading import choose_device
from labelloop.team import Team

POOR_SHARE = 0.25  # of the best supervised steps, below which a person is told; a choice, not a result


def _require_objects(rest: Sequence[Instances], n_folds: int) -> None:
    """Raises a TrainingError where a fold holds every object, so that nothing could be learnt without it."""
    if not any(labels.holds_objects for labels in rest):
        raise TrainingError(
            "one fold holds all objects of the labelled images",
            value=f"{n_folds} folds, {plural(len(rest), 'other image')} without an object",
            way_out="Label more images that have objects, ask for more --folds, or leave --folds out.",
        )


def decide(
    project: Project, request: TrainRequest, draw: LabelDraw, asked: AskedLabels, processes: int
) -> dict[str, Any]:
    """Everything but the lengths, as it is written into the run.

    Args:
        project: Whose images and labels.
        request: What is asked for, its model and recipe by their canonical names.
        draw: Which images are learnt, validate, and are the pool.
        asked: What the draw was made from.
        processes: That share the run.

    Raises:
        TrainingError: One fold holds all objects.
        UsageError: There is no such recipe or device.
    """
    labels = project.labels([i.id for i in draw.train])
    classes = project.config.classes
    recipe = find_recipe(request.recipe)
    recipe = replace(recipe, accumulate=request.accumulate or recipe.accumulate)
    learnt = [labels[i.id] for i in draw.train]

    def stats_of(geometry: GeometryConfig | None) -> DataStats:
        return replace(
            data_stats(learnt, classes, geometry=geometry),
            input_scale=recipe.input_scale,
            intensity_percentile=recipe.intensity_percentile,
        )

    benchmark = None if request.recipe is None else benchmark_table(request.recipe)
    crop_px = recipe.view_px or training_view_px(request.model, stats_of(None))
    recipe = replace(recipe, geometry=replace(recipe.geometry, crop_px=crop_px))
    stats = stats_of(recipe.geometry)
    revisions = project.newest_label_revisions([i.id for i in (*draw.train, *draw.val)])
    folds = cut_folds(draw.train, request.folds, seed=request.seed) if request.folds else []
    for fold in folds:
        held = {image.id for image in fold}
        _require_objects([labels[i.id] for i in draw.train if i.id not in held], len(folds))
    return {
        "labelloop": labelloop.__version__,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
        },
        "request": dataclasses.asdict(request),
        "model": request.model,
        "device": str(choose_device(request.device)),
        "labels": {
            "requested": request.labels,
            "used": len(draw.train) + len(draw.val),
            "pool": len(draw.train) + len(draw.val) + len(draw.pool),
            "budget": asked.budget,
            **asked.facts,
        },
        "train_images": [i.id for i in draw.train],
        "val_images": [i.id for i in draw.val],
        "folds": [[image.id for image in fold] for fold in folds],
        "pool_images": len(draw.pool),
        "pool_ranges": id_ranges(i.id for i in draw.pool),
        "label_revisions": {str(i): r for i, r in revisions.items()},
        "stats": dataclasses.asdict(stats),
        "recipe": recipe.as_dict(),
        "protocol": None if benchmark is None else benchmark[1]["protocol"],
        "parts": recipe.accumulate * processes,
    }


def _as_timed(project: Project, config: dict[str, Any], planned: Schedule, progress: Progress) -> Schedule:
    """The steps of the timed run that this one repeats, if there is one, else those that were planned."""
    timed = timed_alike(project, config, planned.iterations)
    if timed is None:
        return planned
    schedule = Schedule(**timed.config["schedule"])
    if schedule != planned:
        progress.note(
            f"note: these are the {schedule.length} iterations of {timed.name}, a run that was given a time;"
            f" --iterations {planned.length} divides them as the recipe does"
        )
    return schedule


def plan_lengths(
    project: Project,
    request: TrainRequest,
    config: dict[str, Any],
    draw: LabelDraw,
    progress: Progress,
    started_at: float,
    processes: int,
    team: Team,
) -> tuple[Schedule, Costs | None]:
    """The steps of the run's stages, and what they cost where a time was given, which is measured then.

    Args:
        project: Whose images and labels.
        request: What is asked for.
        config: What ``decide`` decided.
        draw: As it got it.
        progress: Is told how much fits into the time, and where that is too little.
        started_at: When the command began, by ``time.monotonic``.
        processes: That share the run.
        team: Those that a launcher has started already.

    Raises:
        TrainingError: The time is too short for a run.
    """
    recipe = stored_recipe(config["recipe"])
    scheduling = Scheduling(
        recipe=recipe,
        n_labels=len(draw.train),
        pool=len(pool_parts(draw.pool, draw.train, recipe)),
        supervised=request.method == "supervised",
        teacher=request.teacher_iterations,
    )
    if request.time_s is None:
        team.tell(None)  # nothing to measure
        planned = scheduling.of(request.iterations)
        if not scheduling.supervised and request.iterations is not None and scheduling.teacher is None:
            planned = _as_timed(project, config, planned, progress)
        return planned, None
    asked = Asked(config=config, schedule=scheduling.of(None))
    costs = measured_costs(project, asked, progress, processes=processes, team=team)
    plan = TimePlan(scheduling=scheduling, costs=costs, processes=processes)
    spent, trainings = time.monotonic() - started_at, 1 + len(config["folds"])
    iterations = plan.fit(request.time_s - spent, trainings=trainings, spent=spent)
    times = f", {trainings} times" if trainings > 1 else ""
    progress.note(f"{plural(iterations, 'iteration')}{times} fit into {request.time_s / 60:.1f} minutes")
    planned, best = scheduling.of(iterations), scheduling.best_supervised
    if planned.teacher < POOR_SHARE * best:
        minutes = math.ceil((spent + trainings * plan.enough_seconds()) / 60)
        progress.note(
            f"note: {plural(planned.teacher, 'step')} on labels instead of {best} make poor models;"
            f" --time {minutes}m would be enough for all of them"
        )
    return planned, costs
