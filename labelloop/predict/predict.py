"""``predict``: masks for any images, or for the whole pool of a project."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from labelloop.errors import ImageError, LabelloopError, ProjectError, UsageError
from labelloop.formats.records import SkippedFile, first_reasons
from labelloop.interrupts import stops_interrupt
from labelloop.plurals import plural
from labelloop.predict.items import path_items, pool_items
from labelloop.predict.pool import PredictReport, make_folder, predict_images, require_formats
from labelloop.predict.sharing import help_predict
from labelloop.processes import outside_place, placed, started
from labelloop.progress import Progress, Silent
from labelloop.project.project import Project
from labelloop.proposing import note_refusal
from labelloop.runs.loading import choose_device, load_model
from labelloop.team import ALONE, Team


def predict(
    project: Project,
    paths: Sequence[str] = (),
    *,
    out: Path,
    run: str | None = None,
    formats: Sequence[str] = ("coco",),
    min_score: float | None = None,
    device: str = "auto",
    devices: int = 1,
    progress: Progress | None = None,
) -> PredictReport:
    """Predicts the images at these paths, or the pool, with a trained run of the project.

    Under a launcher such as torchrun every process calls this, and only the first one comes back from it.

    Args:
        project: Holds the run.
        paths: Files, folders and glob patterns. None: the train split, labelled and unlabelled; val and test
            images are predicted only when they are named.
        out: Output folder.
        run: Name of the run; None: the newest finished one. Its promoted model predicts.
        formats: Of coco, label-tiff and overlay.
        min_score: For label TIFFs, overlays and the count, 0..1; None: the run's own.
        device: auto, cpu, cuda or cuda:N.
        devices: Processes of this machine that share the images, a GPU or a part of the cores each.
        progress: Told about every image.

    Raises:
        UsageError: There is no such run or format.
        ProjectError: The run has not finished, or the pool that is meant is empty.
        ImageError: Not one of the images can be used, or nothing that was named is an image.
        ModelError: The run's model cannot be loaded.
        OutputError: The results cannot be written.
    """
    progress = progress or Silent()
    require_formats(formats)
    kind = choose_device(device)
    place = outside_place(os.environ)
    call = partial(_predict, project, paths, out=out, formats=formats, min_score=min_score, progress=progress)
    with stops_interrupt():
        if place is not None:
            with placed(place, device_type=kind.type) as team:
                name = team.tell(_chosen(project, run, progress) if team.leads else "")
                if team.leads:
                    return call(run=name, device=str(team.device(kind)), team=team)
                loaded = load_model(project, name, device=str(team.device(kind)))
                help_predict(loaded.model, loaded.stats, team)
        name = _chosen(project, run, progress)
        if devices == 1:
            return call(run=name, device=device, team=ALONE)
        gpus = torch.cuda.device_count()
        if kind.type == "cuda" and devices > gpus:
            raise UsageError(
                "there are not that many GPUs",
                value=f"{devices} asked for, {gpus} here",
                way_out="Give fewer --devices.",
            )
        make_folder(out)
        arguments = ["-m", "labelloop.predict.taking_part", str(project.root), name, device]
        with started(
            arguments, size=devices, device_type=kind.type, logs=out, way_out="The same command continues."
        ) as team:
            return call(run=name, device=str(team.device(kind)), team=team)


def _chosen(project: Project, run: str | None, progress: Progress) -> str:
    """The run's name, found once for all processes: others may finish while they start."""
    name = project.run(run).name
    if run is None:
        note_refusal(project, progress)
    return name


def _predict(
    project: Project,
    paths: Sequence[str],
    *,
    out: Path,
    run: str,
    formats: Sequence[str],
    min_score: float | None,
    device: str,
    progress: Progress,
    team: Team,
) -> PredictReport:
    """In the one process, or in the one that leads."""
    items, skipped = path_items(paths, project, out=out) if paths else (pool_items(project), ())
    if not items:
        raise _nothing(project, paths, skipped)
    for file in skipped:
        progress.note(f"skipped {file.path}: {file.reason}")
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
        team=team,
    )
    report = replace(report, skipped=(*skipped, *report.skipped))
    if report.images == 0:
        raise ImageError(
            "no image could be predicted",
            value=first_reasons(report.skipped),
            way_out="Fix these files or name others.",
        )
    if not report.changed:
        images = plural(report.images, "image was", "images were")
        progress.note(f"{images} predicted before; nothing has changed in {out}")
    return report


def _nothing(project: Project, paths: Sequence[str], skipped: Sequence[SkippedFile]) -> LabelloopError:
    if paths:
        value = first_reasons(skipped) if skipped else ", ".join(paths)
        return ImageError(
            "there is nothing to predict", value=value, way_out="Name images or folders of them."
        )
    return ProjectError(
        "the pool is empty",
        value=project.root,
        way_out="Add images with labelloop add images, or name the ones to predict.",
    )
