"""Trains the small model behind one point of a learning curve, and measures it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labelloop.distill.small_trainer import SmallTraining, predictions_of, small_trainer
from labelloop.forecast.subsets import CurveSettings, PointPlan
from labelloop.instances import Instances
from labelloop.metrics.panel import evaluate
from labelloop.progress import Progress
from labelloop.runs.files import RunFiles
from labelloop.runs.scoring import ScoredImages, working_thresholds

REPLICATES = 200  # for standard errors, which weigh the points


def train_point(
    plan: PointPlan,
    labels: Mapping[int, Instances],
    settings: CurveSettings,
    *,
    classes: tuple[str, ...],
    files: RunFiles,
    base: RunFiles,
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """The metrics of a model that has learnt a plan's images, each as ``Estimate.as_dict``.

    Args:
        plan: Which images it learns and is measured on.
        labels: Of these, by image id.
        settings: How it is trained.
        classes: Of the project.
        files: Of this model; an interruption leaves its checkpoint there.
        base: Of the model that it starts from, which is trained where it is missing.
        progress: Told of every step.
    """
    files.folder.mkdir(parents=True, exist_ok=True)
    if not base.weights("supervised").exists():
        first = SmallTraining(
            model=settings.model, steps=settings.base_steps, seed=plan.seed, device=settings.device
        )
        small_trainer(plan.base, labels, first, classes=classes, files=base, progress=progress).run(
            supervised_only=True
        )
    training = SmallTraining(
        model=settings.model,
        steps=settings.steps(len(plan.train)),
        seed=plan.seed,
        device=settings.device,
        start=base,
    )
    trainer = small_trainer(plan.train, labels, training, classes=classes, files=files, progress=progress)
    trainer.run(supervised_only=True)
    return _measured(plan, labels, list(predictions_of(trainer, plan.measured)), n_classes=len(classes))


def _measured(
    plan: PointPlan, labels: Mapping[int, Instances], seen: Sequence[Instances], *, n_classes: int
) -> dict[str, dict[str, Any]]:
    """The metrics panel on the measured images, at the working threshold of best F1 there, as of a run."""
    truth = tuple(labels[image.id] for image in plan.measured)
    scored = ScoredImages(split="val", images=plan.measured, truth=truth)
    threshold = working_thresholds(scored, {"supervised": seen}, n_classes=n_classes)["supervised"]
    panel = evaluate(
        truth, seen, n_classes=n_classes, groups=scored.groups, min_score=threshold, replicates=REPLICATES
    )
    return {name: estimate.as_dict() for name, estimate in panel.metrics.items()}
