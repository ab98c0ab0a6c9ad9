"""``predict``: masks for any images, or for the whole pool of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from labelloop.distill.runs import load_model
from labelloop.errors import ImageError, LabelloopError, ProjectError, UsageError
from labelloop.formats.records import SkippedFile
from labelloop.predict.items import path_items, pool_items
from labelloop.predict.pool import PredictReport, predict_images, require_formats
from labelloop.progress import Progress, Silent
from labelloop.project.project import Project


def predict(
    project: Project,
    paths: Sequence[str] = (),
    *,
    out: Path,
    run: str | None = None,
    formats: Sequence[str] = ("coco",),
    min_score: float | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> PredictReport:
    """Predicts the images at these paths, or the pool, with a trained run of the project.

    Args:
        project: Holds the run.
        paths: Files, folders and glob patterns. None: the train split, labelled and unlabelled; val and test
            images are predicted only when they are named.
        out: Output folder.
        run: Name of the run; None: the newest finished one. Its promoted model predicts.
        formats: Of coco, label-tiff and overlay.
        min_score: For label TIFFs, overlays and the count, 0..1; None: the run's own.
        device: auto, cpu, cuda or cuda:N.
        progress: Told about every image.

    Raises:
        UsageError: There is no such run or format, or nothing to predict.
        ImageError: Not one of the images can be used.
        ModelError: The run's model cannot be loaded.
        OutputError: The results cannot be written.
    """
    progress = progress or Silent()
    require_formats(formats)
    items, skipped = path_items(paths, project, out=out) if paths else (pool_items(project), ())
    if not items:
        raise _nothing(project, skipped)
    loaded = load_model(project, run, device=device)
    report = predict_images(
        loaded.model,
        items,
        out=out,
        formats=formats,
        min_score=loaded.min_score if min_score is None else min_score,
        stats=loaded.stats,
        classes=loaded.classes,
        run=loaded.run,
        which=loaded.which,
        progress=progress,
    )
    report = replace(report, skipped=(*skipped, *report.skipped))
    if report.images == 0:
        raise ImageError("no image could be predicted", value=_listed(report.skipped))
    if not report.changed:
        progress.note(f"all {report.images} images were predicted before; nothing has changed in {out}")
    return report


def _nothing(project: Project, skipped: Sequence[SkippedFile]) -> LabelloopError:
    if skipped:
        return UsageError(
            "there is nothing to predict", value=_listed(skipped), way_out="Name images or folders."
        )
    return ProjectError(
        "the pool is empty",
        value=project.root,
        way_out="Add images with labelloop add images, or name the ones to predict.",
    )


def _listed(skipped: Sequence[SkippedFile]) -> str:
    """The first few reasons, and how many more there are."""
    shown = "; ".join(f"{file.path}: {file.reason}" for file in skipped[:3])
    return shown + (f"; and {len(skipped) - 3} more" if len(skipped) > 3 else "")
