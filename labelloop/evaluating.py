"""Measuring a run on a split of its project."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from sqlalchemy import select

from labelloop.data.groups import groups_of
from labelloop.errors import ImageError, ProjectError
from labelloop.instances import Instances
from labelloop.metrics.bootstrap import REPLICATES, SEED
from labelloop.metrics.panel import evaluate
from labelloop.metrics.protocols import Protocol, evaluate_protocol
from labelloop.progress import Progress, Silent, stage
from labelloop.project.ledger import decode_instances, encode_instances, rows_with
from labelloop.project.looks import count_look
from labelloop.project.project import ImageRecord, Project, RunRecord
from labelloop.project.recorded import read_recorded, require_unchanged
from labelloop.project.tables import PredictionRow
from labelloop.proposing import note_refusal
from labelloop.runs.loading import LoadedModel, load_model
from labelloop.runs.scoring import ScoredImages, compare
from labelloop.team import ALONE, Team

STORE_EVERY = 16  # images; what an interruption may cost


def evaluate_run(
    project: Project,
    *,
    run: str | None = None,
    split: str = "test",
    min_score: float | None = None,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measures the promoted model of a run on the labelled images of a split.

    Args:
        project: Holds the run.
        run: Its name; the newest finished one if None.
        split: ``test`` or ``val``; without a val split, the images that the run kept for validation.
        min_score: Working threshold, 0..1; the run's own if None.
        protocol: Of published numbers, beside the panel; the one of the run's recipe if None.
        progress: Where progress is reported.

    Returns:
        ``run``, ``which`` (guided or supervised), ``split``, all of ``Panel.as_dict``, ``protocol``
        (``ProtocolResult.as_dict``, None where neither was asked for nor the recipe has one), ``bootstrap``
        (``replicates`` and ``seed`` of the intervals), and ``scores``: what the run found its scores worth on
        validation images, None without (``worth_of_scores``). A measurement on the test images is counted in
        the ledger.

    Raises:
        ProjectError: The split has no labelled images.
        ImageError: An image that the model has not seen yet cannot be read, or has changed since it was
            added.
    """
    record = project.run(run)
    if run is None:
        note_refusal(project, progress or Silent())
    images = _measured_images(project, record, split)
    learnt = {*record.config.get("train_images", ())} & {image.id for image in images}
    loaded = load_model(project, run)
    predicted = seen_by(project, loaded, images, progress or Silent())
    classes, labels = project.config.classes, project.labels([image.id for image in images])
    pair = ([labels[image.id] for image in images], predicted)
    bootstrap = {"replicates": REPLICATES, "seed": SEED}
    of_both: dict[str, Any] = {
        **bootstrap,
        "n_classes": len(classes),
        "groups": groups_of(images),
        "class_names": classes,
        "min_score": loaded.min_score if min_score is None else min_score,
    }
    sizes = [image.pixel_size_um or project.config.pixel_size_um for image in images]
    document = evaluate(*pair, pixel_sizes_um=sizes, **of_both).as_dict()
    chosen: Protocol | None = protocol or record.config.get("protocol")
    document["protocol"] = None if chosen is None else evaluate_protocol(chosen, *pair, **of_both).as_dict()
    if learnt:
        document["notes"].append(
            f"the run was trained on {len(learnt)} of these images before they were moved into this split:"
            " its numbers look better than they are"
        )
    if split == "test":
        metrics = dict(document["metrics"])
        if chosen is not None and chosen != record.config.get("protocol"):
            metrics["protocol_ap"] = next(iter(document["protocol"]["metrics"].values()))
        seen = count_look(project, run=loaded.run, which=loaded.which, n_images=len(images), metrics=metrics)
        if seen > 1:
            document["notes"].append(
                f"this is look {seen} at the test images: choosing by them makes their numbers less reliable"
            )
    document["bootstrap"] = bootstrap
    scores = ((record.result or {}).get("scores") or {}).get(loaded.which)
    return {"run": loaded.run, "which": loaded.which, "split": split, **document, "scores": scores}


def compare_models(
    project: Project, *, run: str, split: str = "test", progress: Progress | None = None
) -> dict[str, Any]:
    """Measures both models of a guided run on the labelled images of a split, and their paired difference.

    Args:
        project: Holds the run.
        run: Its name.
        split: ``test`` or ``val``. A measurement on the test images is counted in the ledger.
        progress: Where progress is reported.

    Returns:
        ``split``, and ``supervised``, ``guided`` and ``difference``: the panel's metrics, as ``train`` has
        them of the images that it measures on.

    Raises:
        ProjectError: The split has no labelled images.
    """
    images = _measured_images(project, project.run(run), split)
    models = {which: load_model(project, run, which=which) for which in ("supervised", "guided")}
    labels = project.labels([image.id for image in images])
    seen = {which: seen_by(project, each, images, progress or Silent()) for which, each in models.items()}
    scored = ScoredImages(
        split=split,
        images=tuple(images),
        truth=tuple(labels[image.id] for image in images),
        pixel_size_um=project.config.pixel_size_um,
    )
    thresholds = {which: loaded.min_score for which, loaded in models.items()}
    found = compare(scored, seen, n_classes=len(project.config.classes), thresholds=thresholds)
    if split == "test":
        for which in models:
            count_look(project, run=run, which=which, n_images=len(images), metrics=found[which])
    return {"split": split, **{key: found[key] for key in ("supervised", "guided", "difference")}}


def _measured_images(project: Project, run: RunRecord, split: str) -> list[ImageRecord]:
    """The labelled images of a split; without a val split those that the run kept for validation.

    Raises:
        ProjectError: There are none.
    """
    images = project.images(split=split, labelled=True)
    if not images and split == "val":
        kept = set(run.config.get("val_images", ()))
        images = [image for image in project.images(split="train", labelled=True) if image.id in kept]
    if not images:
        raise ProjectError(
            f"no {split} image has labels",
            value=project.root,
            way_out=f"Run labelloop add labels PATH --split {split}.",
        )
    return images


def seen_by(
    project: Project, loaded: LoadedModel, images: Sequence[ImageRecord], progress: Progress
) -> list[Instances]:
    """What a run's model sees in images of its project, with labels that index the project's classes."""
    found = predict_known_images(project, loaded, images, progress)
    return [to_project_classes(seen, loaded.classes, project.config.classes) for seen in found]


def predict_known_images(
    project: Project,
    loaded: LoadedModel,
    images: Sequence[ImageRecord],
    progress: Progress,
    *,
    team: Team = ALONE,
) -> list[Instances]:
    """What a run's model sees in images of its project; what it saw before is taken from the ledger.

    It reports itself as the stage ``evaluating guided`` or ``evaluating supervised``; where files have to be
    read to be sure that they are those that were added, as ``checking files`` before. The images are shared
    out over a team; its leader stores what all have seen, and the others return nothing.

    Raises:
        ImageError: An image that was not seen before cannot be read, or has changed since it was added.
    """
    known = _predictions(project, loaded, images, progress, team, skip_unreadable=False)
    return [known[image.id] for image in images] if team.leads else []


def predict_readable_images(
    project: Project, loaded: LoadedModel, images: Sequence[ImageRecord], progress: Progress
) -> dict[int, Instances]:
    """The same of those images that can be read, by image id."""
    return _predictions(project, loaded, images, progress, ALONE, skip_unreadable=True)


def _predictions(
    project: Project,
    loaded: LoadedModel,
    images: Sequence[ImageRecord],
    progress: Progress,
    team: Team,
    *,
    skip_unreadable: bool,
) -> dict[int, Instances]:
    """What the model sees in the images, by image id; nothing where the process does not lead its team."""
    known = _stored_predictions(project, loaded, images) if team.leads else {}
    if team.leads and not skip_unreadable:
        require_unchanged([image for image in images if image.id not in known], progress)
    absent = set(team.tell([image.id for image in images if image.id not in known]))
    missing = [image for image in images if image.id in absent]
    if missing:
        from labelloop.predict.field import predict_array  # which loads torch

        at_once = STORE_EVERY * team.size
        with stage(progress, f"evaluating {loaded.which}", len(missing)):
            for start in range(0, len(missing), at_once):
                fresh = {}
                for image in team.share(missing[start : start + at_once]):
                    with suppress(ImageError) if skip_unreadable else nullcontext():
                        pixels = read_recorded(image).pixels
                        fresh[image.id] = predict_array(loaded.model, pixels, stats=loaded.stats)
                    progress.advance()
                for rank, seen in enumerate(team.gather(fresh)):
                    if rank != team.rank:
                        fresh |= seen
                        progress.advance(len(seen))
                if team.leads:
                    _store_predictions(project, loaded, fresh)
                    known |= fresh
    return known


def to_project_classes(
    instances: Instances, model_classes: Sequence[str], project_classes: Sequence[str]
) -> Instances:
    """The same objects with labels that index the project's classes, as they are now.

    Raises:
        ProjectError: The model knows a class that the project no longer has.
    """
    if tuple(model_classes) == tuple(project_classes[: len(model_classes)]):
        return instances
    gone = [name for name in model_classes if name not in project_classes]
    if gone:
        raise ProjectError(
            "the run knows classes that the project does not have",
            value=", ".join(gone),
            way_out="Train again.",
        )
    index = np.asarray([project_classes.index(name) for name in model_classes], np.int64)
    return replace(instances, labels=index[instances.labels])


def _stored_predictions(
    project: Project, loaded: LoadedModel, images: Sequence[ImageRecord]
) -> dict[int, Instances]:
    statement = select(PredictionRow.image_id, PredictionRow.instances).where(
        PredictionRow.run == loaded.run, PredictionRow.which == loaded.which
    )
    wanted = [image.id for image in images]
    with project.ledger.read() as session:
        rows = rows_with(session, statement, PredictionRow.image_id, wanted)
        return {image_id: decode_instances(stored) for image_id, stored in rows}


def _store_predictions(project: Project, loaded: LoadedModel, fresh: dict[int, Instances]) -> None:
    with project.ledger.write() as session:
        for image_id, instances in fresh.items():
            session.merge(
                PredictionRow(
                    run=loaded.run,
                    which=loaded.which,
                    image_id=image_id,
                    instances=encode_instances(instances),
                )
            )
