"""A run from its first step to the promoted model; what was decided before is in its configuration."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from labelloop.distill.assembly import trainer_of
from labelloop.distill.folds import remove_folds, seen_out_of_fold
from labelloop.distill.gpu_memory import full_memory_says
from labelloop.distill.measured import scored_images_of, seen_by_models
from labelloop.distill.pacing import rest_planned
from labelloop.distill.schedule import Schedule
from labelloop.distill.trainer import Trainer
from labelloop.instances import Instances
from labelloop.metrics.gate import GateDecision, decide
from labelloop.progress import Progress
from labelloop.project.looks import count_look
from labelloop.project.project import Project, RunRecord
from labelloop.runs.files import RunFiles, write_json
from labelloop.runs.loading import read_run_config
from labelloop.runs.scoring import ScoredImages, compare, working_thresholds, worth_of_scores
from labelloop.team import ALONE, Team


def execute(
    project: Project,
    record: RunRecord,
    progress: Progress,
    team: Team = ALONE,
    *,
    ends_at: float | None = None,
) -> dict[str, Any]:
    """Trains what is not trained yet, measures, promotes.

    Args:
        project: Holds the run.
        record: The run.
        progress: Told of every stage and step.
        team: The processes that share the work.
        ends_at: When a new run that was given a time should end, on ``time.monotonic``'s clock; told to the
            process that leads.

    Returns:
        The object that ``train --json`` prints; nothing but in the process that leads.
    """
    files = RunFiles(folder=project.runs_dir / record.name)
    config = read_run_config(files.folder)
    schedule = Schedule(**config["schedule"])
    parts = _parts(config, team)
    trainer = trainer_of(project, config, schedule, record.name, progress, parts=parts, team=team)
    spent: dict[str, float] = {}
    if config.get("costs") and record.method == "guided" and not config.get("folds"):
        record, trainer, spent = rest_planned(project, replace(record, config=config), trainer, ends_at)
        config, schedule = record.config, trainer.schedule
    with full_memory_says(trainer.recipe.accumulate):
        seconds = trainer.run(supervised_only=record.method == "supervised")
    seconds |= {stage: seconds[stage] + spent[stage] for stage in spent}
    scored = scored_images_of(project, config, progress)
    if config.get("folds"):
        begun = time.monotonic()
        seen = seen_out_of_fold(project, record, config, schedule, progress, parts=parts, team=team)
        seconds["folds"] = time.monotonic() - begun
    evaluated = time.monotonic()
    if not config.get("folds"):
        seen = seen_by_models(project, record, trainer, scored.images if scored else (), progress)
    if not team.leads:
        return {}
    measured = _measured(project, record, config, trainer, scored, seen)
    seconds["evaluation"] = time.monotonic() - evaluated
    result = {
        "run": record.name,
        "labels": {key: config["labels"][key] for key in ("requested", "used", "pool")},
        "model": record.model,
        "method": record.method,
        "seed": record.seed,
        "iterations": schedule.iterations,
        "length": schedule.length,
        **measured,
        "schedule": config["schedule"],
        "seconds": {stage: round(spent, 2) for stage, spent in seconds.items()},
        "device": config["device"],
        "devices": team.size,
        "memory_peak_mib": round(_memory_peak_mib()),
    }
    write_json(files.metrics, result)
    project.save_run(replace(record, state="finished", promoted=str(result["promoted"]), result=result))
    files.checkpoint.unlink(missing_ok=True)
    remove_folds(project, record)
    return json.loads(json.dumps(result))  # type: ignore[no-any-return]


def _measured(
    project: Project,
    record: RunRecord,
    config: Mapping[str, Any],
    trainer: Trainer,
    scored: ScoredImages | None,
    seen: Mapping[str, Sequence[Instances]],
) -> dict[str, Any]:
    """What the images say of each model, and which one is promoted; a look at test images is counted."""
    n_classes = len(trainer.stats.classes)
    n_classes = n_classes if scored is None else scored.n_classes(n_classes)
    thresholds = working_thresholds(scored, seen, n_classes=n_classes)
    scores = compare(
        scored,
        seen,
        n_classes=n_classes,
        thresholds=thresholds,
        protocol=config.get("protocol"),  # older runs have none
    )
    if scored is not None and scored.split == "test":
        for which in seen:
            metrics = scores[which] or {}
            count_look(project, run=record.name, which=which, n_images=len(scored.images), metrics=metrics)
    gate = _gate(scored, seen, n_classes)
    return {
        **scores,
        "promoted": _promoted(record.method, gate),
        "gate": None if gate is None else gate.as_dict(),
        "verified": scored is not None
        and scored.may_choose
        and (gate is None or gate.difference.low is not None),
        "split": scored.split if scored else None,
        "min_score": thresholds,
        "scores": worth_of_scores(scored, seen, n_classes=n_classes),
    }


def _parts(config: Mapping[str, Any], team: Team) -> int:
    """As many parts of a step as when the run began, so that it goes on the same with fewer processes."""
    begun = int(config.get("parts", 1))
    return begun if begun >= team.size else int(config["recipe"].get("accumulate", 1)) * team.size


def _gate(
    scored: ScoredImages | None, seen: Mapping[str, Sequence[Instances]], n_classes: int
) -> GateDecision | None:
    """Whether the guided model takes the place of the supervised one; None without images to choose by."""
    if scored is None or not scored.may_choose or "guided" not in seen:
        return None
    return decide(
        scored.truth,
        seen["guided"],
        seen["supervised"],
        n_classes=n_classes,
        groups=scored.groups,
    )


def _promoted(method: str, gate: GateDecision | None) -> str:
    """The guided model, unless the gate refuses it."""
    return "supervised" if method == "supervised" or (gate is not None and not gate.promote) else "guided"


def _memory_peak_mib() -> float:
    """Of this process; macOS tells bytes, Linux KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
