"""What a report says of a project: read from its ledger, nothing trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labelloop.budget.timed_tasks import ReviewedTask, reviewed_tasks
from labelloop.errors import LabelloopError
from labelloop.evaluating import evaluate_run, predict_known_images, to_project_classes
from labelloop.forecast.forecast_project import ProjectForecast, known_forecast
from labelloop.progress import Progress
from labelloop.project.looks import Look, looks
from labelloop.project.project import Project, RunRecord
from labelloop.report.measured import MeasuredImage
from labelloop.review.rounds import RoundRecord, images_by_id, rounds
from labelloop.review.tasks import REVIEWED, SKIPPED, TaskRecord, round_tasks, waiting_tasks
from labelloop.runs.loading import load_model
from labelloop.status import project_status, tied_rounds

_COUNTED = "this is look "


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """A model measured on images.

    Attributes:
        document: As ``evaluate --json`` prints it.
        images: What was measured.
        classes: Names; the index is the label.
    """

    document: Mapping[str, Any]
    images: tuple[MeasuredImage, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundFacts:
    """A round and what came of it.

    Attributes:
        record: The round.
        reviewed: Its tasks that people looked at.
        predicted: Minutes that these were predicted to cost; None where that was not predicted.
        reported: Minutes that they took, as the server reported.
    """

    record: RoundRecord
    reviewed: int
    predicted: float | None
    reported: float


@dataclass(frozen=True, kw_only=True)
class WaitingTask:
    """A task that nobody has decided about.

    Attributes:
        image: Name of its image.
        chosen: As in ``TaskRecord``.
        confidence: Of its image, 0..1.
    """

    image: str
    chosen: Mapping[str, Any]
    confidence: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ProjectFacts:
    """All that the report of a project shows.

    Attributes:
        status: Of ``project_status``.
        run: The run that is reported; None where none has finished.
        runs: All, oldest first.
        measurement: Of its promoted model; None where there is none.
        not_measured: Why, in a sentence with the way out; empty where there is a measurement.
        forecast: From the points that are stored; None where some are missing.
        rounds: Of review, oldest first.
        edits: What people did to objects, by kind.
        waiting: Tasks that wait for review where the project is tied to now, the least sure first.
        looks: At the test images, oldest first; whoever sees the same numbers again learns nothing new, so
            each result is there once.
        settings: labelloop.toml.
    """

    status: Mapping[str, Any]
    run: RunRecord | None
    runs: Sequence[RunRecord]
    measurement: Measurement | None
    not_measured: str
    forecast: ProjectForecast | None
    rounds: Sequence[RoundFacts]
    edits: Mapping[str, int]
    waiting: Sequence[WaitingTask]
    looks: Sequence[Look]
    settings: Mapping[str, Any]


def gather(project: Project, *, run: str | None, progress: Progress) -> ProjectFacts:
    """Reads all of it; images that the model has not seen yet are predicted.

    Args:
        project: What is reported.
        run: A finished run; the newest if None.
        progress: Where progress is reported.

    Raises:
        UsageError: The run that is named does not exist.
    """
    runs = project.runs()
    record = project.run(run) if run is not None or project.finished_runs() else None
    measurement, why = None, "No run has finished yet: labelloop train"
    if record is not None:
        measurement, why = _measure(project, record, progress)
    reviewed = reviewed_tasks(project)
    asked = rounds(project)
    tasks = {each.id: round_tasks(project, each.id) for each in asked}
    return ProjectFacts(
        status=project_status(project),
        run=record,
        runs=runs,
        measurement=measurement,
        not_measured=why,
        forecast=known_forecast(project),
        rounds=[_round_facts(each, tasks[each.id], reviewed) for each in asked],
        edits=Counter(edit.kind for each in reviewed for edit in each.edits),
        waiting=_waiting(project, tied_rounds(project, asked)),
        looks=_looks(project),
        settings=project.config.model_dump(mode="json"),
    )


def _measure(project: Project, record: RunRecord, progress: Progress) -> tuple[Measurement | None, str]:
    """On the test images; where none has labels, on the images that validate."""
    split = "test" if project.images(split="test", labelled=True) else "val"
    try:
        document = evaluate_run(project, run=record.name, split=split, progress=progress)
        images = _measured_images(project, record, split, progress)
    except LabelloopError as error:
        return None, str(error)
    notes = [note for note in document["notes"] if not note.startswith(_COUNTED)]  # the page has a section
    document = {**document, "notes": notes}
    return Measurement(document=document, images=images, classes=project.config.classes), ""


def _measured_images(
    project: Project, record: RunRecord, split: str, progress: Progress
) -> tuple[MeasuredImage, ...]:
    images = project.images(split=split, labelled=True)
    if not images:
        kept = set(record.config.get("val_images", ()))
        images = [image for image in project.images(split="train", labelled=True) if image.id in kept]
    loaded = load_model(project, record.name)
    labels = project.labels([image.id for image in images])
    seen = predict_known_images(project, loaded, images, progress)
    return tuple(
        MeasuredImage(
            name=image.file_name,
            truth=labels[image.id],
            predicted=to_project_classes(predicted, loaded.classes, project.config.classes),
            path=image.path,
            record=image,
            pixel_size_um=image.pixel_size_um or project.config.pixel_size_um,
        )
        for image, predicted in zip(images, seen, strict=True)
    )


def _round_facts(
    record: RoundRecord, tasks: Sequence[TaskRecord], reviewed: Sequence[ReviewedTask]
) -> RoundFacts:
    mine = [each for each in reviewed if each.task.round_id == record.id]
    minutes = [((each.task.chosen or {}).get("minutes") or {}).get("value") for each in mine]
    known = [float(each) for each in minutes if each is not None]
    done = sum(task.state in (REVIEWED, SKIPPED) for task in tasks)
    return RoundFacts(
        record=record,
        reviewed=done,
        predicted=sum(known) if mine and len(known) == len(mine) else None,
        reported=sum(each.seconds or 0.0 for each in mine) / 60,
    )


def _waiting(project: Project, asked: Sequence[RoundRecord]) -> list[WaitingTask]:
    tasks = [task for each in asked for task in waiting_tasks(project, each.id)]
    waiting = sorted(tasks, key=lambda task: task.confidence)
    images = images_by_id(project, {task.image_id for task in waiting})
    return [
        WaitingTask(
            image=images[task.image_id].file_name, chosen=task.chosen or {}, confidence=task.confidence
        )
        for task in waiting
    ]


def _looks(project: Project) -> list[Look]:
    found: list[Look] = []
    for look in looks(project):
        if not any((look.run, look.which, look.metrics) == (o.run, o.which, o.metrics) for o in found):
            found.append(look)
    return found
