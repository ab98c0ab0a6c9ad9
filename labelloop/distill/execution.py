"""A run from its first step to the promoted model; what was decided before is in its configuration."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from labelloop.data.objects import objects_of
from labelloop.data.parts import Part, parts_of
from labelloop.distill.checkpoint import RunFiles, write_json
from labelloop.distill.recipe import Recipe, recipe_from_dict
from labelloop.distill.runs import LoadedModel, read_run_config, restore_model, stats_from_dict
from labelloop.distill.schedule import Schedule
from labelloop.distill.scoring import ScoredImages, compare, working_thresholds, worth_of_scores
from labelloop.distill.trainer import Trainer
from labelloop.evaluating import predict_known_images
from labelloop.instances import Instances
from labelloop.metrics.gate import GateDecision, decide
from labelloop.models.precision import fabric_precision
from labelloop.progress import Progress
from labelloop.project.looks import count_look
from labelloop.project.project import ImageRecord, Project, RunRecord
from labelloop.team import ALONE, Team


def trainer_of(
    project: Project,
    config: Mapping[str, Any],
    schedule: Schedule,
    name: str,
    progress: Progress,
    *,
    parts: int,
    team: Team = ALONE,
) -> Trainer:
    """The stages of a run.

    Args:
        project: Holds images and labels.
        config: What was decided before the first step.
        schedule: How long the stages are.
        name: Of the run; empty where nothing is to be kept.
        progress: Told of every stage and step.
        parts: A step's batch is seen in so many parts.
        team: The processes that share the work.
    """
    images = {i.id: i for i in project.images(split="train")}
    train_ids = [int(i) for i in config["train_images"]]
    taken = {*train_ids, *config["val_images"]}
    stored = project.labels_at(
        {int(i): int(r) for i, r in config["label_revisions"].items() if int(i) in train_ids}
    )
    pool = [i for i in images.values() if i.id not in taken]
    recipe = recipe_from_dict(config["recipe"])
    device = team.device(torch.device(config["device"]))
    if config["pool_images"] == 0 or recipe.pool_includes_labelled:
        pool = [*pool, *(images[i] for i in train_ids)]
    return Trainer(
        files=RunFiles(folder=project.runs_dir / name),
        model=str(config["model"]),
        stats=stats_from_dict(config["stats"]),
        recipe=recipe,
        schedule=schedule,
        seed=int(config["request"]["seed"]),
        device=device,
        precision=fabric_precision(device),
        labelled={i: objects_of(stored[i]) for i in train_ids},
        images=[images[i] for i in train_ids],
        pool=pool_parts(pool, recipe),
        progress=progress,
        parts=parts,
        team=team,
    )


def pool_parts(images: Sequence[ImageRecord], recipe: Recipe) -> list[Part]:
    """The pool as training sees it: parts that hold the largest window of a view."""
    return parts_of(images, side_px=math.ceil(recipe.geometry.crop_px / recipe.geometry.zoom[0]))


def scored_images_of(project: Project, config: Mapping[str, Any]) -> ScoredImages | None:
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


def execute(project: Project, record: RunRecord, progress: Progress, team: Team = ALONE) -> dict[str, Any]:
    """Trains what is not trained yet, measures, promotes.

    Args:
        project: Holds the run.
        record: The run.
        progress: Told of every stage and step.
        team: The processes that share the work.

    Returns:
        The object that ``train --json`` prints; nothing but in the process that leads.
    """
    files = RunFiles(folder=project.runs_dir / record.name)
    config = read_run_config(files.folder)
    schedule = Schedule(**config["schedule"])
    trainer = trainer_of(
        project, config, schedule, record.name, progress, parts=_parts(config, team), team=team
    )
    seconds = trainer.run(supervised_only=record.method == "supervised")
    evaluated = time.monotonic()
    scored = scored_images_of(project, config)
    seen = _predictions(project, record, trainer, scored, progress)
    if not team.leads:
        return {}
    which, stats = list(seen), trainer.stats
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
        "devices": team.size,
        "memory_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    write_json(files.metrics, result)
    project.save_run(replace(record, state="finished", promoted=str(result["promoted"]), result=result))
    files.checkpoint.unlink(missing_ok=True)
    return json.loads(json.dumps(result))  # type: ignore[no-any-return]


def _predictions(
    project: Project, record: RunRecord, trainer: Trainer, scored: ScoredImages | None, progress: Progress
) -> dict[str, list[Instances]]:
    """What each model of the run sees in the images that measure it; nothing but in the leading process."""
    team = trainer.team
    team.wait()  # until the weights are there
    seen: dict[str, list[Instances]] = {}
    for which in ["supervised"] if record.method == "supervised" else ["supervised", "guided"]:
        seen[which] = []
        if scored is not None:
            model = restore_model(
                trainer.files, which, model=trainer.model, stats=trainer.stats, device=trainer.device
            )
            loaded = LoadedModel(
                model=model,
                stats=trainer.stats,
                classes=trainer.stats.classes,
                min_score=0.5,
                run=record.name,
                which=which,
            )
            seen[which] = predict_known_images(project, loaded, scored.images, progress, team=team)
    team.wait()  # the leader has all of it, and the others may end
    return seen


def _parts(config: Mapping[str, Any], team: Team) -> int:
    """As many parts of a step as when the run began, so that it goes on the same with fewer processes."""
    begun = int(config.get("parts", 1))
    return begun if begun >= team.size else int(config["recipe"].get("accumulate", 1)) * team.size


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
