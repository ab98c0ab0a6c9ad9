"""Whether a newer run takes the place of the one in use: the gate, on images that neither has learnt."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from labelloop.data.groups import groups_of
from labelloop.evaluating import seen_by, to_project_classes
from labelloop.instances import Instances
from labelloop.metrics.gate import GateDecision, decide
from labelloop.progress import Progress, Silent
from labelloop.project.ledger import decode_instances
from labelloop.project.project import ImageRecord, Project
from labelloop.project.tables import PredictionRow
from labelloop.runs.loading import load_model


def gate_of_runs(
    project: Project, *, new: str, old: str, progress: Progress | None = None
) -> GateDecision | None:
    """Compares the promoted models of two runs on the same validation images.

    Without any, where both runs have folds, by what the models of their folds saw in the images that both
    learnt: each of those models has not learnt the image.

    The new run, which has learnt all labels of the old one and more, takes the place unless its AP is lower.

    Args:
        project: Holds both runs.
        new: Name of the run that may take the place of the other.
        old: Name of the run in use.
        progress: Where progress is reported.

    Returns:
        None where the project has no labelled image for this that neither run has learnt.
    """
    images = _unlearnt_images(project, new, old)
    if images:
        seen = [_seen(project, run, images, progress or Silent()) for run in (new, old)]
    else:
        seen = [_seen_out_of_fold(project, run) for run in (new, old)]
        both = seen[0].keys() & seen[1].keys()
        images = [image for image in project.images(split="train", labelled=True) if image.id in both]
    if not images:
        return None
    labels = project.labels([image.id for image in images])
    new_seen, old_seen = ([of_run[image.id] for image in images] for of_run in seen)
    return decide(
        [labels[image.id] for image in images],
        new_seen,
        old_seen,
        n_classes=len(project.config.classes),
        groups=groups_of(images),
    )


def _unlearnt_images(project: Project, new: str, old: str) -> list[ImageRecord]:
    """The labelled val split, or what the new run kept for validation, without what either run learnt."""
    configs = [project.run(name).config for name in (new, old)]
    learnt = {image_id for config in configs for image_id in config.get("train_images", ())}
    images = project.images(split="val", labelled=True)
    if not images:
        kept = set(configs[0].get("val_images", ()))
        images = [image for image in project.images(split="train", labelled=True) if image.id in kept]
    return [image for image in images if image.id not in learnt]


def _seen(
    project: Project, run: str, images: Sequence[ImageRecord], progress: Progress
) -> dict[int, Instances]:
    found = seen_by(project, load_model(project, run), images, progress)
    return dict(zip([image.id for image in images], found, strict=True))


def _seen_out_of_fold(project: Project, run: str) -> dict[int, Instances]:
    """What the models of a run's folds saw in the images that they had not learnt, by image id."""
    record = project.run(run)
    statement = select(PredictionRow.image_id, PredictionRow.instances).where(
        PredictionRow.run == run, PredictionRow.which.startswith(f"{record.promoted}/")
    )
    with project.ledger.read() as session:
        seen = {image_id: decode_instances(stored) for image_id, stored in session.execute(statement)}
    classes = record.config["stats"]["classes"]
    return {
        image_id: to_project_classes(found, classes, project.config.classes)
        for image_id, found in seen.items()
    }
