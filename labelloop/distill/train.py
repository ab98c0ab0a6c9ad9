"""``train``: from a project and a request to a promoted model."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from labelloop.data.label_draw import LabelDraw, draw_labels
from labelloop.distill.asked_labels import AskedLabels, asked_labels
from labelloop.distill.assembly import images_of_run
from labelloop.distill.execution import execute
from labelloop.distill.files_there import pool_there, require_files
from labelloop.distill.measured import scored_images_of
from labelloop.distill.measuring import help_measure
from labelloop.distill.naming import (
    claimed,
    make_run_folder,
    name_taken,
    run_begins,
    run_stem,
    run_to_resume,
)
from labelloop.distill.planning import decide, plan_lengths
from labelloop.distill.recipe import canonical_recipe, find_recipe
from labelloop.distill.request import TrainRequest, check_request, require_work
from labelloop.errors import OutputError, UsageError
from labelloop.interrupts import interrupts_say, stops_interrupt
from labelloop.models.catalog import canonical_name
from labelloop.plurals import plural
from labelloop.processes import outside_place, placed, started
from labelloop.progress import Progress, Silent
from labelloop.project.project import Project, RunRecord
from labelloop.project.tables import now
from labelloop.runs.files import RunFiles, write_json
from labelloop.runs.loading import choose_device, read_run_config
from labelloop.team import ALONE, Team


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
        ImageError: A labelled image has changed since it was added.
    """
    progress = progress or Silent()
    started_at = time.monotonic()
    place = outside_place(os.environ)
    check_request(request, place)
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
            begun = _resumed(project, request, progress, processes)
            team.tell(None)  # nothing to measure
        else:
            begun = _new_run(project, request, progress, started_at, processes, team)
        record = team.tell(begun)
    assert record is not None  # the leader's
    if record.state == "finished" and record.result is not None:
        progress.note(f"run {record.name} has already finished")
        return record.result
    go_on = project.resume_command(record.name, Path.cwd())
    go_on += f" --devices {request.devices} continues it." if request.devices > 1 else " continues it."
    folder, device_type = project.runs_dir / record.name, torch.device(record.config["device"]).type
    with ExitStack() as stack:
        stack.enter_context(interrupts_say(go_on))
        if team.leads:
            stack.enter_context(claimed(folder))
            if request.resume:
                _store_device(project, record, progress)
        if request.resume:
            team.wait()  # until the others may read it
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


def _resumed(project: Project, request: TrainRequest, progress: Progress, processes: int) -> RunRecord:
    record = run_to_resume(project, request)
    if record.state != "finished":
        if request.device != "auto":
            device = str(choose_device(request.device))
            record = replace(record, config={**record.config, "device": device})
        require_work(record.config, processes)
        labelled, _ = images_of_run(project, record.config)
        scored = scored_images_of(project, record.config)
        require_files([*labelled, *(scored.images if scored else ())], progress)
    return record


def _store_device(project: Project, record: RunRecord, progress: Progress) -> None:
    """Stores where a run goes on from now on; nobody else may train it meanwhile."""
    files = RunFiles(folder=project.runs_dir / record.name)
    config, device = read_run_config(files.folder), record.config["device"]
    if config["device"] == device:
        return
    if torch.device(config["device"]).type != torch.device(device).type:
        progress.note(
            f"note: the run began on {config['device']} and goes on on {device}; from here on it is no longer"
            " the same bit for bit"
        )
    config = {**config, "device": device}
    write_json(files.config, config)
    project.save_run(replace(record, config=config))


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
    labels_read_at = now()  # what comes back from review while a step is measured is for the next run
    images = project.images(split="train")
    asked = asked_labels(project, request.labels, images, seed=request.seed)
    for note in asked.facts.get("notes", ()):
        progress.note(f"note: {note}")
    has_val = bool(project.images(split="val", labelled=True))
    if has_val and request.folds:
        raise UsageError(
            "--folds cannot be used: the project has validation images, which are used instead",
            value=f"--folds {request.folds}",
            way_out="Leave --folds out.",
        )
    share = 0.0 if has_val or request.folds else find_recipe(request.recipe).validation_share
    draw = draw_labels(
        images, asked.image_ids, budget=asked.budget, seed=request.seed, validation_share=share
    )
    _tell_of_draw(draw, asked, progress)
    judges = [*project.images(split="val", labelled=True), *project.images(split="test", labelled=True)]
    require_files([*draw.train, *draw.val, *judges], progress)
    draw = replace(draw, pool=pool_there(draw.pool, progress))
    config = decide(project, request, draw, asked, processes)
    config["labels_read_at"] = labels_read_at.isoformat()
    require_work(config, processes)
    if request.method == "guided" and not draw.pool:
        progress.note("there are no unlabelled images: the labelled ones are used as the pool")
    schedule, costs = plan_lengths(project, request, config, draw, progress, started_at, processes, team)
    config |= {"schedule": dataclasses.asdict(schedule), "costs": costs and dataclasses.asdict(costs)}
    with run_begins(project, progress):
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


def _tell_of_draw(draw: LabelDraw, asked: AskedLabels, progress: Progress) -> None:
    """Notes where fewer labels are used than were asked for."""
    if asked.budget is not None and asked.budget > len(asked.image_ids):
        wanted = plural(asked.budget, "label was", "labels were")
        progress.note(f"{wanted} asked for, {plural(len(asked.image_ids), 'is', 'are')} there: all are used")
    unused = min(asked.budget or len(asked.image_ids), len(asked.image_ids)) - len(draw.train) - len(draw.val)
    if unused:
        spared = plural(
            unused,
            "labelled image is used without its labels, since others of its group are",
            "labelled images are used without their labels, since others of their group are",
        )
        progress.note(
            f"note: {spared} used for validation; labelloop add labels --split val adds validation images"
            " instead"
        )


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


__all__ = ["TrainRequest", "train"]
