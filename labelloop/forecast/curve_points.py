"""Points of a project's learning curve: small supervised models on nested subsets of its labels.

Models of one seed start from one that learnt the smallest of its subsets. Their steps are a share of those
that ``train`` gives the supervised model of so many labels: a model that only begins to learn is held back
by its steps and not by its labels. Each is measured on the project's validation images or, without any, on
a fold of the labelled images that its seed keeps out of all its subsets; never on test images. A point is
computed once and stays in the ledger: the next forecast trains only what labels or settings have changed.
No point is a run of the project.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labelloop.budget.effort import Z_95
from labelloop.distill.recipe import find_recipe
from labelloop.forecast.curves import CurvePoint
from labelloop.forecast.subsets import CurveSettings, PointPlan, plan_points
from labelloop.locks import wait_for_lock
from labelloop.metrics.matched import METRICS
from labelloop.progress import OneOfMany, Progress, Silent, stage
from labelloop.project.project import ImageRecord, Project
from labelloop.project.tables import CurvePointRow
from labelloop.runs.files import RunFiles


@dataclass(frozen=True, kw_only=True)
class MeasuredPoint:
    """A model that was trained and measured.

    Attributes:
        n_images: Labelled images that it learnt from.
        seed: As in its plan.
        split: As in its plan.
        metrics: Name to ``{value, low, high, n}``.
    """

    n_images: int
    seed: int
    split: str
    metrics: Mapping[str, Mapping[str, Any]]

    def undefined(self, name: str) -> str | None:
        """Why a metric has no value; None where it has one, or where the reason is not known."""
        estimate = self.metrics.get(name, {})
        reason = estimate.get("reason")
        return f"{name} has no value: {reason}" if estimate.get("value") is None and reason else None

    def of_metric(self, name: str) -> CurvePoint | None:
        """The point for one metric; None where the metric is not defined."""
        estimate = self.metrics.get(name, {})
        if estimate.get("value") is None:
            return None
        low, high = estimate.get("low"), estimate.get("high")
        se = None if low is None or high is None else (high - low) / (2 * Z_95)
        measured = 0 if self.split == "val" else self.seed  # each seed has a fold of its own
        return CurvePoint(
            n_images=self.n_images, value=estimate["value"], se=se, seed=self.seed, measured=measured
        )


def curve_points(
    project: Project, settings: CurveSettings, progress: Progress | None = None
) -> list[MeasuredPoint]:
    """All points of a project as its labels are now; trains those that the ledger does not have.

    An interruption costs the steps since the last checkpoint of one model.

    Args:
        project: Whose labels.
        settings: How points are made.
        progress: Where progress is reported, as one stage over all steps of all models.

    Raises:
        TrainingError: Training cannot go on.
        ImageError: An image is gone or cannot be read.
    """
    return measure_plans(project, plan_points(project, settings), settings, progress or Silent())


def measure_plans(
    project: Project,
    plans: Sequence[PointPlan],
    settings: CurveSettings,
    progress: Progress,
    *,
    keep_bases: bool = False,
) -> list[MeasuredPoint]:
    """The points of these plans, in their order; from the ledger where it has them.

    Args:
        project: Whose images and ledger.
        plans: Which points.
        settings: How they are trained.
        progress: Where progress is reported.
        keep_bases: Leaves the models that others start from on the disk, for further plans.
    """
    keys = [point_key(project, plan, settings) for plan in plans]
    missing = [i for i, key in enumerate(keys) if _stored(project, key) is None]
    if missing:
        scratch = project.cache_dir / "curve-points"
        scratch.mkdir(parents=True, exist_ok=True)
        with (scratch / ".lock").open("w") as lock:
            wait_for_lock(lock, progress, "waiting for another forecast of this project")
            folders = {i: scratch / _base_key(project, plans[i], settings)[:16] for i in missing}
            steps = sum(settings.steps(len(plans[i].train)) for i in missing)
            steps += len(set(folders.values())) * settings.base_steps
            with stage(progress, "training small models", steps) as bar:
                for number, i in enumerate(missing, 1):
                    if _stored(project, keys[i]) is None:  # the other forecast may have made it
                        which, n_labels = f"{number}/{len(missing)}", str(len(plans[i].train))
                        told = OneOfMany(bar, model=which, labels=n_labels)
                        _make(project, plans[i], settings, keys[i], folders[i], told)
            for folder in () if keep_bases else scratch.iterdir():
                shutil.rmtree(folder, ignore_errors=True)  # the lock is a file and stays
    points = [_stored(project, key) for key in keys]
    return [point for point in points if point is not None]


def known_points(
    project: Project, plans: Sequence[PointPlan], settings: CurveSettings
) -> list[MeasuredPoint]:
    """Those of these points that the ledger has; nothing is trained."""
    found = [_stored(project, point_key(project, plan, settings)) for plan in plans]
    return [point for point in found if point is not None]


def point_key(project: Project, plan: PointPlan, settings: CurveSettings) -> str:
    """A digest of all that a point depends on but the machine: images, labels, training, metrics."""
    document = {
        **_dependencies(project, plan, settings),
        "recipe": find_recipe(None).as_dict(),
        "classes": project.config.classes,
        "metrics": METRICS,
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _dependencies(project: Project, plan: PointPlan, settings: CurveSettings) -> dict[str, Any]:
    revisions = project.newest_label_revisions([i.id for i in (*plan.train, *plan.measured)])

    def named(images: Sequence[ImageRecord]) -> list[str]:
        return sorted(f"{i.sha256}/{i.page}/{i.channel}/{revisions[i.id]}" for i in images)

    return {
        "train": named(plan.train),
        "measured": named(plan.measured),
        "base": named(plan.base),
        "seed": plan.seed,
        "model": settings.model,
        "steps": [settings.base_steps, settings.steps(len(plan.train))],
        "split": plan.split,
    }


def _base_key(project: Project, plan: PointPlan, settings: CurveSettings) -> str:
    return point_key(project, replace(plan, train=plan.base), settings)


def _make(
    project: Project, plan: PointPlan, settings: CurveSettings, key: str, folder: Path, progress: Progress
) -> None:
    """Trains, measures and stores one point; its files are gone afterwards, those of its base stay."""
    from labelloop.forecast.curve_training import train_point  # which loads torch

    labels = project.labels([i.id for i in (*plan.train, *plan.measured)])
    files, base = RunFiles(folder=folder / key[:16]), RunFiles(folder=folder)
    metrics = train_point(
        plan, labels, settings, classes=project.config.classes, files=files, base=base, progress=progress
    )
    row = CurvePointRow(
        key=key,
        n_images=len(plan.train),
        seed=plan.seed,
        settings=_dependencies(project, plan, settings),
        metrics=metrics,
    )
    with project.ledger.write() as session:
        session.merge(row)
    shutil.rmtree(files.folder, ignore_errors=True)


def _stored(project: Project, key: str) -> MeasuredPoint | None:
    with project.ledger.read() as session:
        row = session.get(CurvePointRow, key)
    if row is None:
        return None
    split = str(row.settings["split"])
    return MeasuredPoint(n_images=row.n_images, seed=row.seed, split=split, metrics=row.metrics)
