"""A project's labels and predictions as tasks for Label Studio, without a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from labelloop.errors import ProjectError
from labelloop.instances import Instances
from labelloop.integrations.label_studio.export_writer import write_export
from labelloop.predict.names import unique_names
from labelloop.project.ledger import decode_instances
from labelloop.project.project import ImageRecord, Project, RunRecord
from labelloop.project.tables import PredictionRow

FILE_NAME = "label-studio.json"


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported.

    Attributes:
        out: The file.
        images: Tasks in it.
        labelled: Images with labels in it.
        predicted: Images with predictions of the newest finished run.
        partly_labelled: Images whose labels are left out, since a part of them is unknown (a crowd).
    """

    out: Path
    images: int
    labelled: int
    predicted: int
    partly_labelled: int


def export_project(project: Project, out: Path) -> ExportReport:
    """Writes every image that has labels or stored predictions as a task: ``out``/label-studio.json.

    Labels are annotations, in their newest revision. Where a part of the image is unknown they are left out:
    Label Studio has no word for it, so it would come back as background. Predictions are those that the
    ledger has of the promoted model of the newest finished run (from ``evaluate`` or ``push``), scored at its
    working score or more.

    Args:
        project: What to export.
        out: A folder; made if missing.

    Raises:
        ProjectError: There is nothing to export.
        OutputError: It cannot be written.
    """
    images = project.images()
    labels = project.labels([image.id for image in images])
    predictions = _predictions(project)
    whole = {image_id: of_it for image_id, of_it in labels.items() if not of_it.crowd.any()}
    told = [image for image in images if image.id in labels or image.id in predictions]
    if not told:
        raise ProjectError(
            "no image has labels or predictions", value=project.root, way_out="Add labels, or train and push."
        )
    names = unique_names([image.file_name for image in told], [image.path for image in told])
    path = out / FILE_NAME
    write_export(
        path,
        [
            (name, whole.get(image.id), predictions.get(image.id))
            for name, image in zip(names, told, strict=True)
        ],
        project.config.classes,
    )
    return ExportReport(
        out=path,
        images=len(told),
        labelled=len(whole),
        predicted=_count(told, predictions),
        partly_labelled=len(labels) - len(whole),
    )


def _predictions(project: Project) -> dict[int, Instances]:
    finished = [run for run in project.runs() if run.state == "finished" and run.promoted]
    if not finished:
        return {}
    run = finished[-1]
    statement = select(PredictionRow.image_id, PredictionRow.instances).where(
        PredictionRow.run == run.name, PredictionRow.which == run.promoted
    )
    with project.ledger.read() as session:
        return {
            image_id: decode_instances(stored).above(_min_score(run))
            for image_id, stored in session.execute(statement)
        }


def _min_score(run: RunRecord) -> float:
    thresholds = (run.result or {}).get("min_score", {})
    return float(thresholds.get(run.promoted, 0.5))


def _count(images: list[ImageRecord], told: dict[int, Instances]) -> int:
    return sum(image.id in told for image in images)
