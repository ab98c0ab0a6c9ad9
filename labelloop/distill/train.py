"""``train``: from a project and a request to a promoted model."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

import labelloop
from labelloop.data.folds import cut_folds
from labelloop.data.pool import LabelDraw, data_stats, draw_labels
from labelloop.distill.asked_labels import AskedLabels, asked_labels
from labelloop.distill.assembly import id_ranges, pool_parts
from labelloop.distill.checkpoint import RunFiles, write_json
from labelloop.distill.execution import execute
from labelloop.distill.files_there import pool_there, require_files
from labelloop.distill.interrupts import interrupts_say, stops_interrupt
from labelloop.distill.measuring import Asked, help_measure, measured_costs
from labelloop.distill.naming import check_name, claimed, make_run_folder, name_taken, run_stem, run_to_resume
from labelloop.distill.recipe import canonical_recipe, find_recipe, stored_recipe
from labelloop.distill.runs import choose_device
from labelloop.distill.schedule import (
    SHORTEST_STUDENT,
    Schedule,
    best_supervised_steps,
    guided_schedule,
    supervised_schedule,
    with_student,
)
from labelloop.distill.timing import POOR_SHARE, Costs, enough_seconds, fit_iterations
from labelloop.errors import OutputError, TrainingError, UsageError
from labelloop.instances import Instances
from labelloop.models.catalog import canonical_name, training_view_px
from labelloop.processes import Place, outside_place, placed, started
from labelloop.progress import Progress, Silent
from labelloop.project.project import Project, RunRecord
from labelloop.recipes.catalog import find_benchmark
from labelloop.team import ALONE, Team


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What was asked for.

    Attributes:
        labels: Share of the pool (``5%``), number of images (``15``), ``all``, or a list of the images:
            ``FILE`` or ``FILE@5%``.
        model: A name of ``list_models``.
        method: guided or supervised.
        time_s: Seconds for the whole run; None to go by ``iterations`` or the recipe.
        iterations: Steps of teacher and student together.
        teacher_iterations: Of these the teacher's, as a run that was given a time tells them; None as the
            recipe divides.
        recipe: A recipe's name; None for the default.
        seed: Of everything random.
        folds: Parts without which the run is made again to see how good it is, 2 or more; 0 for none.
        device: auto, cpu or cuda.
        devices: Processes that share the work on this machine, a GPU or a part of the cores each; 1 where a
            launcher has started several already.
        name: The run's name; None to make one up.
        resume: Go on with an unfinished run: the named one, or the newest.
    """

    labels: str = "all"
    model: str = "mask-rcnn-lite"
    method: str = "guided"
    time_s: float | None = None
    iterations: int | None = None
    teacher_iterations: int | None = None
    recipe: str | None = None
    seed: int = 0
    folds: int = 0
    device: str = "auto"
    devices: int = 1
    name: str | None = None
    resume: bool = False


def train(project: Project, request: TrainRequest, progress: Progress | None = None) -> dict[str, Any]:
    """Trains, measures, promotes.

    Whatever interrupts it, ``resume`` goes on from the last checkpoint and ends with the same result. Under a
    launcher such as torchrun every process calls this, and only the first one comes back from it.

    Args:
        project: Where images and labels come from and the run goes.
        request: What is asked for.
        progress: Told of every stage and step.

    Returns:
        The object that ``train --json`` prints.

    Raises:
        UsageError: The request contradicts itself.
        TrainingError: There is nothing to learn from, or training cannot go on.
    """
    progress = progress or Silent()
    started_at = time.monotonic()
    place = outside_place(os.environ)
    _check(request, place)
    model, recipe = canonical_name(request.model), request.recipe and canonical_recipe(request.recipe)
    request = replace(request, model=model, recipe=recipe)
    with stops_interrupt():
        if place is None:
            return _train(project, request, progress, started_at, ALONE)
        with placed(place, device_type=choose_device(request.device).type) as team:
            shown = progress if team.leads else Silent()
            return _train(project, request, shown, started_at, team)


def _train(
    project: Project, request: TrainRequest, progress: Progress, started_at: float, team: Team
) -> dict[str, Any]:
    """In every process that a launcher has started, or in one that may start others."""
    processes = max(team.size, request.devices)
    with interrupts_say("Nothing was started yet; run the same command again."):
        begun = None
        if not team.leads:
            help_measure(project, team)
        elif request.resume:
            begun = _resumed(project, request, processes)
            team.tell(None)  # nothing to measure
        else:
            begun = _new_run(project, request, progress, started_at, processes, team)
        record = team.tell(begun)
    assert record is not None  # the leader's
    if record.state == "finished" and record.result is not None:
        progress.note(f"run {record.name} has finished already")
        return record.result
    go_on = f"{project.program(Path.cwd())} train --resume --name {shlex.quote(record.name)}"
    go_on += f" --devices {request.devices} goes on." if request.devices > 1 else " goes on."
    folder, device_type = project.runs_dir / record.name, torch.device(record.config["device"]).type
    with ExitStack() as stack:
        stack.enter_context(interrupts_say(go_on))
        if team.leads:
            stack.enter_context(claimed(folder))
        if processes > team.size:
            team = stack.enter_context(
                started(
                    ["-m", "labelloop.distill.taking_part", str(project.root), device_type, record.name],
                    size=processes,
                    device_type=device_type,
                    logs=folder,
                    way_out=go_on,
                )
            )
        ends_at = None if request.resume or request.time_s is None else started_at + request.time_s
        return execute(project, record, progress, team, ends_at=ends_at if team.leads else None)


def _check(request: TrainRequest, place: Place | None) -> None:
    if request.time_s is not None and request.iterations is not None:
        raise UsageError("--time and --iterations exclude each other", way_out="Give one of them.")
    if place is not None and request.devices not in (1, place.size):
        raise UsageError(
            f"a launcher has started {place.size} processes",
            value=f"--devices {request.devices}",
            way_out="Leave --devices out.",
        )
    if request.name is not None:
        check_name(request.name)
    if request.folds == 1 or request.folds < 0:
        raise UsageError(
            "labels are cut into 2 folds or more",
            value=f"--folds {request.folds}",
            way_out="Give 2 or more, or leave --folds out.",
        )
    if request.iterations is not None and request.iterations < 4 and request.method == "guided":
        raise UsageError(
            "a guided run needs at least 4 iterations", value=request.iterations, way_out="Give more."
        )
    if request.teacher_iterations is not None:
        student = (request.iterations or 0) - request.teacher_iterations
        if request.method != "guided" or student < SHORTEST_STUDENT:
            raise UsageError(
                f"a teacher's iterations are for guided runs with {SHORTEST_STUDENT} or more of the student",
                value=f"{request.teacher_iterations}+{student}",
                way_out="Give one number.",
            )


def _resumed(project: Project, request: TrainRequest, processes: int) -> RunRecord:
    record = run_to_resume(project, request)
    if record.state != "finished":
        _require_work(record.config, processes)
    return record


def _require_work(config: Mapping[str, Any], processes: int) -> None:
    """Raises a UsageError where a process would have no image, or no GPU, of its own."""
    recipe = stored_recipe(config["recipe"])
    batches = [recipe.supervised_batch]
    if config["request"]["method"] == "guided":
        batches.append(recipe.labelled_batch + recipe.unlabelled_batch)
    if processes > min(batches):
        raise UsageError(
            "there are more processes than images in a step",
            value=f"{processes} processes, {min(batches)} images",
            way_out="Use fewer, or a recipe with larger batches: supervised_batch, labelled_batch and"
            " unlabelled_batch.",
        )
    gpus = torch.cuda.device_count()
    if config["device"] == "cuda" and outside_place(os.environ) is None and processes > gpus:
        raise UsageError(
            "there are not so many GPUs",
            value=f"{processes} asked for, {gpus} here",
            way_out="Give fewer --devices, or --device cpu.",
        )


def _new_run(
    project: Project,
    request: TrainRequest,
    progress: Progress,
    started_at: float,
    processes: int,
    team: Team,
) -> RunRecord:
    names = {run.name for run in project.runs()}
    if request.name in names:
        raise name_taken(request.name)
    images = project.images(split="train")
    asked = asked_labels(project, request.labels, images, seed=request.seed)
    for note in asked.facts.get("notes", ()):
        progress.note(f"note: {note}")
    has_val = bool(project.images(split="val", labelled=True))
    if has_val and request.folds:
        raise UsageError(
            "the project has validation images, and they decide",
            value=f"--folds {request.folds}",
            way_out="Leave --folds out.",
        )
    share = 0.0 if has_val or request.folds else find_recipe(request.recipe).validation_share
    draw = draw_labels(
        images, asked.image_ids, budget=asked.budget, seed=request.seed, validation_share=share
    )
    if asked.budget is not None and asked.budget > len(asked.image_ids):
        progress.note(f"{asked.budget} labels asked for, {len(asked.image_ids)} there are: all are used")
    unused = min(asked.budget or len(asked.image_ids), len(asked.image_ids)) - len(draw.train) - len(draw.val)
    if unused:
        progress.note(
            f"note: {unused} labelled images are used without their labels, as others of their group"
            " validate; labelloop add labels --split val names validation images"
        )
    judges = [*project.images(split="val", labelled=True), *project.images(split="test", labelled=True)]
    require_files([*draw.train, *draw.val, *judges])
    draw = replace(draw, pool=pool_there(draw.pool, progress))
    config = _decide(project, request, draw, asked, processes)
    _require_work(config, processes)
    if request.method == "guided" and not draw.pool:
        progress.note("there are no unlabelled images: the labelled ones serve as the pool")
    schedule, costs = _lengths(project, request, config, draw, progress, started_at, processes, team)
    config |= {"schedule": dataclasses.asdict(schedule), "costs": costs and dataclasses.asdict(costs)}
    name = make_run_folder(project, request.name, run_stem(request))
    record = RunRecord(
        name=name,
        state="running",
        method=request.method,
        model=request.model,
        seed=request.seed,
        promoted=None,
        config=config,
        result=None,
    )
    _begin(project, record)
    return record


def _begin(project: Project, record: RunRecord) -> None:
    """Stores a new run; where that cannot be done, nothing of it stays and its name is free again."""
    folder = project.runs_dir / record.name
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            write_json(RunFiles(folder=folder).config, record.config)
        except OutputError as error:
            way_out = "Free space or make the folder writable, then run the same command again."
            raise OutputError(error.what, value=error.value, way_out=way_out) from error
        project.save_run(record)
        undo.pop_all()


def _require_objects(rest: Sequence[Instances], n_folds: int) -> None:
    """Raises a TrainingError where a fold holds every object, so that nothing could be learnt without it."""
    if not any((~labels.crowd & (labels.areas > 0)).any() for labels in rest):
        raise TrainingError(
            "one fold holds all objects of the labelled images",
            value=f"{n_folds} folds, {len(rest)} other images without an object",
            way_out="Label more images that have objects, ask for more --folds, or leave --folds out.",
        )


def _decide(
    project: Project, request: TrainRequest, draw: LabelDraw, asked: AskedLabels, processes: int
) -> dict[str, Any]:
    """Everything but the lengths, as it is written into the run."""
    labels = project.labels([i.id for i in draw.train])
    classes = project.config.classes
    plain = data_stats([labels[i.id] for i in draw.train], classes)
    recipe = find_recipe(request.recipe)
    benchmark = None if request.recipe is None else find_benchmark(request.recipe)
    crop_px = recipe.view_px or training_view_px(request.model, plain)
    stats = data_stats([labels[i.id] for i in draw.train], classes, longest_view_px=1.5 * crop_px)
    revisions = project.newest_label_revisions([i.id for i in (*draw.train, *draw.val)])
    recipe = replace(recipe, geometry=replace(recipe.geometry, crop_px=crop_px))
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
        "protocol": None if benchmark is None else benchmark.protocol,
        "parts": recipe.accumulate * processes,
    }


def _lengths(
    project: Project,
    request: TrainRequest,
    config: dict[str, Any],
    draw: LabelDraw,
    progress: Progress,
    started_at: float,
    processes: int,
    team: Team,
) -> tuple[Schedule, Costs | None]:
    recipe = stored_recipe(config["recipe"])
    pool = len(pool_parts(draw.pool or draw.train, recipe))
    supervised = request.method == "supervised"

    def schedule(iterations: int | None) -> Schedule:
        if supervised:
            return supervised_schedule(recipe, iterations=iterations, n_labels=len(draw.train))
        length, sizes = iterations or recipe.iterations, {"n_labels": len(draw.train), "pool": pool}
        if request.teacher_iterations is not None:
            teacher = request.teacher_iterations
            return with_student(recipe, teacher=teacher, student=length - teacher, **sizes)
        return guided_schedule(recipe, iterations=length, **sizes)

    if request.time_s is None:
        team.tell(None)  # nothing to measure
        return schedule(request.iterations), None
    costs = measured_costs(
        project, Asked(config=config, schedule=schedule(None)), progress, processes=processes, team=team
    )
    left, trainings = request.time_s - (time.monotonic() - started_at), 1 + len(config["folds"])
    iterations = fit_iterations(
        recipe,
        schedule,
        costs,
        n_labels=len(draw.train),
        seconds=left / trainings,
        supervised=supervised,
        processes=processes,
    )
    times = f", {trainings} times" if trainings > 1 else ""
    progress.note(f"{iterations} iterations{times} fit into {request.time_s / 60:.1f} minutes")
    planned, n_labels = schedule(iterations), len(draw.train)
    best = best_supervised_steps(n_labels, recipe.supervised_steps)
    if planned.teacher < POOR_SHARE * best:
        enough = enough_seconds(
            recipe, schedule, costs, n_labels=n_labels, supervised=supervised, processes=processes
        )
        progress.note(
            f"note: {planned.teacher} steps on labels instead of {best} make poor models;"
            f" --time {math.ceil(trainings * enough / 60)}m would be enough for all of them"
        )
    return planned, costs


__all__ = ["TrainRequest", "TrainingError", "train"]
