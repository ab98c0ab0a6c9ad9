"""A run's models out of fold: how good they are where labels are too few to keep some for validation.

The run is made again without a part of its labels, once for each part, with the same recipe, schedule and
seed; what these models see in the images of the part stands for what the run's own models see in images that
they have not learnt. They learnt fewer labels, so their numbers are on the low side.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from labelloop.data.pool import data_stats
from labelloop.distill.assembly import trainer_of
from labelloop.distill.measured import seen_by_models
from labelloop.distill.recipe import stored_recipe
from labelloop.distill.schedule import Schedule
from labelloop.instances import Instances
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord, Project, RunRecord
from labelloop.team import Team


def seen_out_of_fold(
    project: Project,
    record: RunRecord,
    config: Mapping[str, Any],
    schedule: Schedule,
    progress: Progress,
    *,
    parts: int,
    team: Team,
) -> dict[str, list[Instances]]:
    """What models of the other folds see in each image that a run learnt.

    Whatever interrupts it, the next call goes on.

    Args:
        project: Holds the run.
        record: The run.
        config: Of the run.
        schedule: Of the run, and of every fold.
        progress: Told of every stage and step.
        parts: A step's batch is seen in so many parts.
        team: The processes that share the work.

    Returns:
        By model, in the order of the ledger's images; nothing but in the leading process.
    """
    learnt = set(config["train_images"])
    images = [image for image in project.images() if image.id in learnt]
    seen: dict[str, dict[int, Instances]] = {}
    for number, fold in enumerate(config["folds"], 1):
        held, name = [image for image in images if image.id in fold], f"fold-{number}"
        (project.runs_dir / record.name / name).mkdir(exist_ok=True)
        trainer = trainer_of(
            project,
            _without(project, config, held),
            schedule,
            f"{record.name}/{name}",
            _OfFold(progress, number, len(config["folds"])),
            parts=parts,
            team=team,
        )
        trainer.run(supervised_only=record.method == "supervised")
        for which, found in seen_by_models(project, record, trainer, held, progress, fold=name).items():
            of_model = seen.setdefault(which, {})
            if team.leads:
                of_model.update(zip([image.id for image in held], found, strict=True))
    ids = [image.id for image in images] if team.leads else []
    return {which: [found[i] for i in ids] for which, found in seen.items()}


def remove_folds(project: Project, record: RunRecord) -> None:
    """Removes the models of a run's folds; what they saw is in the ledger."""
    for folder in (project.runs_dir / record.name).glob("fold-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _without(project: Project, config: Mapping[str, Any], held: list[ImageRecord]) -> dict[str, Any]:
    """The run's configuration without a fold: its images are in no pool, its labels are in no statistic."""
    out = {image.id for image in held}
    kept = [i for i in config["train_images"] if i not in out]
    labels = project.labels_at({i: int(config["label_revisions"][str(i)]) for i in kept})
    geometry = stored_recipe(config["recipe"]).geometry
    stats = data_stats([labels[i] for i in kept], tuple(config["stats"]["classes"]), geometry=geometry)
    by_recipe = ("input_scale", "intensity_percentile")  # not by the labels
    set_so = {key: config["stats"][key] for key in by_recipe if key in config["stats"]}
    return {**config, "train_images": kept, "val_images": sorted(out), "stats": asdict(stats) | set_so}


class _OfFold:
    """The Progress of a fold: its stages say which fold they are of."""

    def __init__(self, progress: Progress, number: int, of: int) -> None:
        self._progress, self._prefix = progress, f"fold {number} of {of}: "

    def start(self, stage: str, total: int) -> None:
        """The stage, by its fold."""
        self._progress.start(self._prefix + stage, total)

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        """Passed on."""
        self._progress.advance(steps, **facts)

    def note(self, message: str) -> None:
        """Passed on."""
        self._progress.note(message)

    def finish(self) -> None:
        """Passed on."""
        self._progress.finish()
