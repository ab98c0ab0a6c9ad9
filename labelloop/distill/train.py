"""``train``: from a project and a request to a promoted model."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import resource
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
import torchvision

import labelloop
from labelloop.data.objects import objects_of
from labelloop.data.parts import Part, parts_of
from labelloop.data.pool import LabelDraw, data_stats, draw_labels
from labelloop.distill.asked_labels import AskedLabels, asked_labels, word_for
from labelloop.distill.checkpoint import RunFiles, write_json
from labelloop.distill.interrupts import interrupts_say
from labelloop.distill.naming import check_name, claimed, make_run_folder, name_taken, run_to_resume
from labelloop.distill.recipe import Recipe, find_recipe, recipe_from_dict
from labelloop.distill.runs import LoadedModel, choose_device, read_run_config, restore_model, stats_from_dict
from labelloop.distill.schedule import Schedule, guided_schedule, supervised_schedule
from labelloop.distill.scoring import ScoredImages, compare, working_thresholds, worth_of_scores
from labelloop.distill.timing import fit_iterations, measure_costs
from labelloop.distill.trainer import Trainer
from labelloop.errors import OutputError, TrainingError, UsageError
from labelloop.evaluating import predict_known_images
from labelloop.instances import Instances
from labelloop.metrics.gate import GateDecision, decide
from labelloop.models.catalog import canonical_name, training_view_px
from labelloop.models.precision import fabric_precision
from labelloop.progress import Progress, Silent
from labelloop.project.looks import count_look
from labelloop.project.project import ImageRecord, Project, RunRecord
from labelloop.recipes.catalog import find_benchmark


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
        recipe: A recipe's name; None for the default.
        seed: Of everything random.
        device: auto, cpu or cuda.
        devices: How many of them.
        name: The run's name; None to make one up.
        resume: Go on with an unfinished run: the named one, or the newest.
    """

    labels: str = "all"
    model: str = "mask-rcnn-lite"
    method: str = "guided"
    time_s: float | None = None
    iterations: int | None = None
    recipe: str | None = None
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    name: str | None = None
    resume: bool = False


def train(project: Project, request: TrainRequest, progress: Progress | None = None) -> dict[str, Any]:
    """Trains, measures, promotes.

    Whatever interrupts it, ``resume`` goes on from the last checkpoint and ends with the same result.

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
    started = time.monotonic()
    _check(request)
    with interrupts_say("Nothing was started yet; run the same command again."):
        record = (
            run_to_resume(project, request)
            if request.resume
            else _new_run(project, request, progress, started)
        )
    if record.state == "finished" and record.result is not None:
        progress.note(f"run {record.name} has finished already")
        return record.result
    go_on = f"labelloop train --resume --name {shlex.quote(record.name)} goes on."
    with claimed(project.runs_dir / record.name), interrupts_say(go_on):
        return _execute(project, record, progress, started)


def _check(request: TrainRequest) -> None:
    if request.time_s is not None and request.iterations is not None:
        raise UsageError("--time and --iterations exclude each other", way_out="Give one of them.")
    if request.devices != 1:
        raise UsageError("training runs on one device", value=request.devices, way_out="Leave --devices out.")
    if request.name is not None:
        check_name(request.name)
    if request.iterations is not None and request.iterations < 4 and request.method == "guided":
        raise UsageError("a guided run needs at least 4 iterations", value=request.iterations)


def _new_run(project: Project, request: TrainRequest, progress: Progress, started: float) -> RunRecord:
    names = {run.name for run in project.runs()}
    if request.name in names:
        raise name_taken(request.name)
    request = replace(request, model=canonical_name(request.model))
    images = project.images(split="train")
    asked = asked_labels(project, request.labels, images, seed=request.seed)
    for note in asked.facts.get("notes", ()):
        progress.note(f"note: {note}")
    has_val = bool(project.images(split="val", labelled=True))
    share = 0.0 if has_val else find_recipe(request.recipe).validation_share
    draw = draw_labels(
        images, asked.image_ids, budget=asked.budget, seed=request.seed, validation_share=share
    )
    if asked.budget is not None and asked.budget > len(asked.image_ids):
        progress.note(f"{asked.budget} labels asked for, {len(asked.image_ids)} there are: all are used")
    _require_files(
        [*images, *project.images(split="val", labelled=True), *project.images(split="test", labelled=True)]
    )
    config = _decide(project, request, draw, asked)
    if request.method == "guided" and not draw.pool:
        progress.note("there are no unlabelled images: the labelled ones serve as the pool")
    schedule, recipe = _lengths(project, request, config, draw, progress, started)
    config |= {"schedule": dataclasses.asdict(schedule), "recipe": recipe.as_dict()}
    stem = f"{request.method}-{word_for(request.labels)}-s{request.seed}"
    name = make_run_folder(project, request.name, stem)
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


def _require_files(images: Sequence[ImageRecord]) -> None:
    """Raises a TrainingError before the first step rather than in the middle of a run."""
    gone = [image.path for image in images if not image.path.is_file()]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise TrainingError(
            "images of the project are not where they were",
            value=f"{gone[0]}{more}",
            way_out="Put them back, or name their new place to labelloop add images.",
        )


def _decide(project: Project, request: TrainRequest, draw: LabelDraw, asked: AskedLabels) -> dict[str, Any]:
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
        "pool_images": len(draw.pool),
        "label_revisions": {str(i): r for i, r in revisions.items()},
        "stats": dataclasses.asdict(stats),
        "recipe": recipe.as_dict(),
        "protocol": None if benchmark is None else benchmark.protocol,
    }


def _lengths(
    project: Project,
    request: TrainRequest,
    config: dict[str, Any],
    draw: LabelDraw,
    progress: Progress,
    started: float,
) -> tuple[Schedule, Recipe]:
    recipe = recipe_from_dict(config["recipe"])
    pool = len(_pool_parts(draw.pool or draw.train, recipe))

    def schedule(iterations: int | None) -> Schedule:
        if request.method == "supervised":
            return supervised_schedule(recipe, iterations=iterations, n_labels=len(draw.train))
        length = iterations or recipe.iterations
        return guided_schedule(recipe, iterations=length, n_labels=len(draw.train), pool=pool)

    if request.time_s is None:
        return schedule(request.iterations), recipe
    trainer = _trainer(project, config, schedule(None), "", progress)
    scored = _scored_images(project, config)
    costs = measure_costs(trainer, scored.images if scored else (), progress)
    left = request.time_s - (time.monotonic() - started)
    iterations = fit_iterations(
        recipe,
        schedule,
        costs,
        n_labels=len(draw.train),
        seconds=left,
        supervised=request.method == "supervised",
    )
    progress.note(f"{iterations} iterations fit into {request.time_s / 60:.1f} minutes")
    return schedule(iterations), recipe


def _trainer(
    project: Project, config: Mapping[str, Any], schedule: Schedule, name: str, progress: Progress
) -> Trainer:
    images = {i.id: i for i in project.images(split="train")}
    train_ids = [int(i) for i in config["train_images"]]
    taken = {*train_ids, *config["val_images"]}
    stored = project.labels_at(
        {int(i): int(r) for i, r in config["label_revisions"].items() if int(i) in train_ids}
    )
    pool = [i for i in images.values() if i.id not in taken]
    recipe = recipe_from_dict(config["recipe"])
    if config["pool_images"] == 0 or recipe.pool_includes_labelled:
        pool = [*pool, *(images[i] for i in train_ids)]
    return Trainer(
        files=RunFiles(folder=project.runs_dir / name),
        model=str(config["model"]),
        stats=stats_from_dict(config["stats"]),
        recipe=recipe,
        schedule=schedule,
        seed=int(config["request"]["seed"]),
        device=torch.device(config["device"]),
        precision=fabric_precision(torch.device(config["device"])),
        labelled={i: objects_of(stored[i]) for i in train_ids},
        images=[images[i] for i in train_ids],
        pool=_pool_parts(pool, recipe),
        progress=progress,
    )


def _pool_parts(images: Sequence[ImageRecord], recipe: Recipe) -> list[Part]:
    """The pool as training sees it: parts that hold the largest window of a view."""
    return parts_of(images, side_px=math.ceil(recipe.geometry.crop_px / recipe.geometry.zoom[0]))


def _scored_images(project: Project, config: Mapping[str, Any]) -> ScoredImages | None:
    """Validation images, else test images, else none."""
    drawn = set(config["val_images"])
    choices: list[tuple[str, list[ImageRecord]]] = [
        ("val", project.images(split="val", labelled=True)),
        ("val", [i for i in project.images(split="train") if i.id in drawn]),
        ("test", project.images(split="test", labelled=True)),
    ]
    for split, images in choices:
        if images:
            labels: dict[int, Instances] = project.labels([i.id for i in images])
            return ScoredImages(
                split=split,
                images=tuple(images),
                truth=tuple(labels[i.id] for i in images),
                pixel_size_um=project.config.pixel_size_um,
            )
    return None


def _execute(project: Project, record: RunRecord, progress: Progress, started: float) -> dict[str, Any]:
    files = RunFiles(folder=project.runs_dir / record.name)
    config = read_run_config(files.folder)
    schedule = Schedule(**config["schedule"])
    trainer = _trainer(project, config, schedule, record.name, progress)
    seconds = trainer.run(supervised_only=record.method == "supervised")
    which = ["supervised"] if record.method == "supervised" else ["supervised", "guided"]
    device, stats = torch.device(config["device"]), stats_from_dict(config["stats"])
    scored = _scored_images(project, config)
    evaluated = time.monotonic()
    seen: dict[str, list[Instances]] = {w: [] for w in which}
    for w in which if scored else []:
        model = LoadedModel(
            model=restore_model(files, w, model=config["model"], stats=stats, device=device),
            stats=stats,
            classes=stats.classes,
            min_score=0.5,
            run=record.name,
            which=w,
        )
        seen[w] = predict_known_images(project, model, scored.images if scored else (), progress)
    thresholds = working_thresholds(scored, seen, n_classes=len(stats.classes))
    scores = compare(
        scored,
        seen,
        n_classes=len(stats.classes),
        thresholds=thresholds,
        protocol=config.get("protocol"),  # runs of before have none
    )
    seconds["evaluation"] = time.monotonic() - evaluated
    if scored is not None and scored.split == "test":
        for w in which:
            metrics = scores[w] or {}
            count_look(project, run=record.name, which=w, n_images=len(scored.images), metrics=metrics)
    verified = scored is not None and scored.split == "val"
    gate = _gate(scored, seen, len(stats.classes))
    result = {
        "run": record.name,
        "labels": {key: config["labels"][key] for key in ("requested", "used", "pool")},
        "model": record.model,
        "method": record.method,
        "seed": record.seed,
        "iterations": schedule.iterations,
        **scores,
        "promoted": _promoted(record.method, gate),
        "gate": None if gate is None else gate.as_dict(),
        "verified": verified,
        "split": scored.split if scored else None,
        "min_score": thresholds,
        "scores": worth_of_scores(scored, seen, n_classes=len(stats.classes)),
        "schedule": config["schedule"],
        "seconds": {stage: round(spent, 2) for stage, spent in seconds.items()},
        "device": config["device"],
        "memory_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    write_json(files.metrics, result)
    project.save_run(replace(record, state="finished", promoted=str(result["promoted"]), result=result))
    files.checkpoint.unlink(missing_ok=True)
    return json.loads(json.dumps(result))  # type: ignore[no-any-return]


def _gate(
    scored: ScoredImages | None, seen: Mapping[str, Sequence[Instances]], n_classes: int
) -> GateDecision | None:
    """Whether validation shows the guided model worse than the supervised one; None without validation.

    Guided distillation is presumed to help, so it has to be shown worse to be refused.
    """
    if scored is None or scored.split != "val" or "guided" not in seen:
        return None
    return decide(
        scored.truth,
        seen["guided"],
        seen["supervised"],
        n_classes=n_classes,
        groups=scored.groups,
        presume="new",
    )


def _promoted(method: str, gate: GateDecision | None) -> str:
    """The guided model, unless validation shows the supervised one better."""
    return "supervised" if method == "supervised" or (gate is not None and not gate.promote) else "guided"


__all__ = ["TrainRequest", "TrainingError", "train"]
