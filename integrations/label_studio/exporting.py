"""A project's labels and predictions as tasks for Label Studio, without a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from labelloop.errors import ProjectError
from labelloop.instances import Instances
from labelloop.integrations.label_studio.export_writer import MODEL_VERSION, write_export
from labelloop.predict.names import unique_names
from labelloop.project.ledger import decode_instances
from labelloop.project.project import ImageRecord, Project, RunRecord
from labelloop.project.storing import newest_labels
from labelloop.project.tables import PredictionRow

FILE_NAME = "label-studio.json"
CHUNK = 20  # images in memory at a time


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported.

    Attributes:
        out: The file.
        images: Tasks in it.
        labelled: Images with labels in it.
        predicted: Images with predictions of the run.
        partly_labelled: Images whose labels are left out, since a part of them is unknown (a crowd).
        run: Whose predictions: the newest finished one that is there; None without one.
        which: Which of its models: guided or supervised.
        not_predicted: Images of the pool that are no tasks: they have no labels, and the ledger has no
            prediction of the run for them.
    """

    out: Path
    images: int
    labelled: int
    predicted: int
    partly_labelled: int
    run: str | None
    which: str | None
    not_predicted: int


def export_project(project: Project, out: Path) -> ExportReport:
    """Writes every image that has labels or stored predictions as a task: ``out``/label-studio.json.

    Labels are annotations, in their newest revision. Where a part of the image is unknown they are left out:
    Label Studio has no word for it, so it would come back as background. Predictions are those that the
    ledger has of the promoted model of the newest finished run that is still there (from ``train``,
    ``evaluate``, ``push`` or ``report``), scored at its score threshold or more; nothing is predicted anew.

    Args:
        project: What to export.
        out: A folder; made if missing.

    Raises:
        ProjectError: There is nothing to export.
        OutputError: It cannot be written.
    """
    images = project.images()
    run = _promoted_run(project)
    has_any = project.newest_label_revisions([image.id for image in images]).keys() | _predicted(project, run)
    told = [image for image in images if image.id in has_any]
    if not told:
        raise ProjectError(
            "no image has labels or predictions", value=project.root, way_out="Add labels, or train and push."
        )
    names = unique_names([image.file_name for image in told], [image.path for image in told])
    path, counts = out / FILE_NAME, Counter[str]()
    write_export(
        path,
        _read(project, run, told, names, counts),
        project.config.classes,
        model_version=MODEL_VERSION if run is None else f"{run.name}-{run.promoted}",
    )
    return ExportReport(
        out=path,
        images=len(told),
        labelled=counts["labelled"],
        predicted=counts["predicted"],
        partly_labelled=counts["partly_labelled"],
        run=None if run is None else run.name,
        which=None if run is None else run.promoted,
        not_predicted=sum(image.split == "train" and image.id not in has_any for image in images),
    )


def _read(
    project: Project,
    run: RunRecord | None,
    images: Sequence[ImageRecord],
    names: Sequence[str],
    counts: Counter[str],
) -> Iterator[tuple[str, Instances | None, Instances | None]]:
    """Name, labels and prediction of each image, a few in memory at a time; counts what it gives."""
    for start in range(0, len(images), CHUNK):
        some = slice(start, start + CHUNK)
        ids = [image.id for image in images[some]]
        with project.ledger.read() as session:
            newest, predictions = newest_labels(session, ids), _predictions(session, run, ids)
        for image_id, name in zip(ids, names[some], strict=True):
            _, labels = newest.get(image_id, (0, None))
            if labels is not None and labels.crowd.any():
                counts["partly_labelled"] += 1
                labels = None
            prediction = predictions.get(image_id)
            counts["labelled"] += labels is not None
            counts["predicted"] += prediction is not None
            yield name, labels, prediction


def _promoted_run(project: Project) -> RunRecord | None:
    finished = [run for run in project.finished_runs() if run.promoted]
    return finished[-1] if finished else None


def _predicted(project: Project, run: RunRecord | None) -> set[int]:
    """Images with predictions of the run's promoted model."""
    if run is None:
        return set()
    with project.ledger.read() as session:
        return set(session.scalars(select(PredictionRow.image_id).where(_of_run(run))))


def _predictions(session: Session, run: RunRecord | None, image_ids: Sequence[int]) -> dict[int, Instances]:
    if run is None:
        return {}
    statement = select(PredictionRow.image_id, PredictionRow.instances).where(
        _of_run(run), PredictionRow.image_id.in_(image_ids)
    )
    rows = session.execute(statement)
    return {image_id: decode_instances(stored).above(_min_score(run)) for image_id, stored in rows}


def _of_run(run: RunRecord) -> ColumnElement[bool]:
    return (PredictionRow.run == run.name) & (PredictionRow.which == run.promoted)


def _min_score(run: RunRecord) -> float:
    thresholds = (run.result or {}).get("min_score", {})
    return float(thresholds.get(run.promoted, 0.5))
