"""The data sets of the benchmarks: where their labels and images lie, and into which split they go."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from labelloop.errors import ProjectError, UsageError
from labelloop.formats import ade20k, cityscapes, coco, orgasegment
from labelloop.paths import plain_path
from labelloop.plurals import plural
from labelloop.progress import Progress
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import FILE_NAME, ProjectConfig
from labelloop.project.project import Project


@dataclass(frozen=True, kw_only=True)
class Part:
    """Labels that are added at once.

    Attributes:
        labels: Path inside the data set's folder.
        split: train, val or test.
        images: Folder of the images inside the data set's folder; None for where the format has them.
        leave_out: Images whose names match this pattern are not taken; None takes all.
    """

    labels: str
    split: str
    images: str | None = None
    leave_out: str | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A published data set.

    Attributes:
        name: As recipes call it.
        format: Of its labels.
        parts: What is added. What papers measure on is ``test``, though most of them call it val.
        lists: Where its published lists of labelled images can be found.
        note: What whoever compares numbers must know; shown at every start.
    """

    name: str
    format: str
    parts: tuple[Part, ...]
    lists: str = ""
    note: str = ""


_ORGANOIDS = tuple(
    Part(labels=f"annotations/instances_{split}.json", images=split, split=split)
    for split in ("train", "val", "test")
)

DATASETS = (
    Dataset(
        name="cityscapes",
        format=cityscapes.NAME,
        parts=(Part(labels="gtFine/train", split="train"), Part(labels="gtFine/val", split="test")),
        lists="data_splits/cityscapes of github.com/facebookresearch/GuidedDistillation",
    ),
    Dataset(
        name="coco",
        format=coco.NAME,
        parts=tuple(
            Part(labels=f"annotations/instances_{year}.json", images=year, split=split)
            for year, split in (("train2017", "train"), ("val2017", "test"))
        ),
        lists="dataseed of github.com/facebookresearch/unbiased-teacher",
    ),
    Dataset(
        name="ade20k",
        format=ade20k.NAME,
        parts=(
            Part(labels="annotations_instance/training", split="train"),
            Part(labels="annotations_instance/validation", split="test"),
        ),
    ),
    Dataset(
        name="orgasegment",
        format=orgasegment.NAME,
        parts=tuple(
            Part(labels=folder, images=folder, split=split)
            for folder, split in (("train", "train"), ("val", "val"), ("eval", "test"))
        ),
    ),
    Dataset(
        name="m-orgaquant",
        format=coco.NAME,
        parts=_ORGANOIDS,
        lists="datasets/datasseed of github.com/HGCSDN/Organoid_Overlap_Instance_Segmentation",
        note="the published split of M-OrgaQuant leaks: training and validation images of Subset_1 are pieces"
        " of test images; m-orgaquant-clean leaves them out",
    ),
    Dataset(
        name="m-orgaquant-clean",
        format=coco.NAME,
        parts=tuple(
            replace(part, leave_out=None if part.split == "test" else "^Subset_1_") for part in _ORGANOIDS
        ),
    ),
)


def find_dataset(name: str) -> Dataset:
    """The data set of this name.

    Raises:
        UsageError: There is none.
    """
    for dataset in DATASETS:
        if dataset.name == name:
            return dataset
    names = ", ".join(dataset.name for dataset in DATASETS)
    raise UsageError("there is no such data set", value=name, way_out=f"Data sets are {names}.")


def add_dataset(project: Project, dataset: Dataset, folder: Path, progress: Progress) -> None:
    """Adds the parts that the project lacks; each is one transaction, so an interrupted start continues.

    Raises:
        UsageError: The folder does not have the data set's layout.
        FormatError: Labels cannot be read.
        ProjectError: No image of a part can be used, or the ledger cannot be written.
    """
    folder = plain_path(folder)
    needed = [path for part in dataset.parts for path in (part.labels, part.images) if path is not None]
    missing = [path for path in dict.fromkeys(needed) if not (folder / path).exists()]
    if missing:
        raise UsageError(
            f"the folder does not have the layout of {dataset.name}",
            value=folder,
            way_out=f"These are missing: {', '.join(missing)}.",
        )
    for part in dataset.parts:
        if f"{dataset.format}:{folder / part.labels}" in project.label_sources(split=part.split):
            continue
        report = add_labels(
            project,
            LabelSource(
                path=str(folder / part.labels),
                format=dataset.format,
                images=None if part.images is None else str(folder / part.images),
                leave_out=part.leave_out,
            ),
            split=part.split,
            progress=progress,
        )
        if not (report.added or report.known or report.revised):
            reasons = "; ".join(f"{skipped.path}: {skipped.reason}" for skipped in report.skipped[:3])
            place = folder / part.labels
            raise ProjectError("no image of the data set can be used", value=place, way_out=reasons)
        left_out = f", {len(report.skipped)} skipped" if report.skipped else ""
        moved = ""
        if report.moved:
            moved = f", {report.moved} moved from another split, where the project had the same image"
        added = f"{plural(report.added, 'image')} added from {part.labels}"
        progress.note(f"{part.split}: {added}{moved}{left_out}")


def dataset_project(root: Path | None, dataset: Dataset) -> Project:
    """The project of a data set: made, or opened where it is there.

    Args:
        root: Its folder; ``labelloop-NAME`` in the working folder if None.
        dataset: What it holds.

    Raises:
        UsageError: The project there is another one.
        ProjectError: It cannot be made or used.
    """
    root = Path(f"labelloop-{dataset.name}") if root is None else root
    if not (root / FILE_NAME).exists():
        return Project.init(root, ProjectConfig(name=dataset.name))
    project = Project.open(root)
    if project.config.name != dataset.name:
        raise UsageError(
            f"this project is not that of {dataset.name}",
            value=f"{project.root}, {project.config.name}",
            way_out="Name another folder with -C, or leave it out.",
        )
    return project
