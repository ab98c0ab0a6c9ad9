"""What to predict: the pool of a project, or files, folders and patterns that a person named."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labelloop.formats.records import SkippedFile
from labelloop.paths import plain_path, plain_paths
from labelloop.predict.names import unique_names
from labelloop.predict.writers import FORMATS
from labelloop.project.finding import find_files
from labelloop.project.places import Places
from labelloop.project.project import ImageRecord, Project


@dataclass(frozen=True, kw_only=True)
class PredictItem:
    """One image to predict.

    Attributes:
        path: Of the file.
        name: Its ``file_name`` in predictions.json, with ``/`` between folders; unique in a call. Outputs of
            the image are named after it.
        page: Counted from 0.
        channel: Counted from 0; -1: all of a gray or RGB image.
        size_hw: Height and width where known, px; equal ones are predicted together.
        pixel_size_um: Side of a pixel, µm, where the file does not say.
    """

    path: Path
    name: str
    page: int = 0
    channel: int = -1
    size_hw: tuple[int, int] | None = None
    pixel_size_um: float | None = None


def pool_items(project: Project) -> list[PredictItem]:
    """The images of the train split, labelled or not, in the order they were added."""
    default_um = project.config.pixel_size_um
    return _named(
        [_of_record(record, record.file_name, default_um) for record in project.images(split="train")]
    )


def path_items(
    paths: Sequence[str], project: Project, *, out: Path
) -> tuple[list[PredictItem], tuple[SkippedFile, ...]]:
    """The images at these paths, and the paths that lead nowhere.

    An image that the project knows is read as it was added; of others the page and channel are read that most
    of the project's images have.

    Args:
        paths: Files, folders (with all below them) and glob patterns.
        project: Whose model predicts.
        out: Earlier results below it are not input.
    """
    places = Places()
    records: dict[str, list[ImageRecord]] = {}
    kinds: Counter[tuple[int, int]] = Counter()
    for record in project.images():
        records.setdefault(places.of(record.path), []).append(record)
        kinds[record.page, record.channel] += 1
    page, channel = kinds.most_common(1)[0][0] if kinds else (0, -1)
    named = plain_paths(Path(text) for text in paths)
    folders = [path for path in named if os.path.isdir(path)]
    found = find_files(paths, leave_out=[plain_path(out), *(plain_path(out) / name for name in FORMATS)])
    items: list[PredictItem] = []
    for path in found.files:
        name = _name(path, folders)
        known = [
            replace(_of_record(record, name, project.config.pixel_size_um), path=path)
            for record in records.get(places.of(path), [])
        ]
        items += known or [
            PredictItem(
                path=path, name=name, page=page, channel=channel, pixel_size_um=project.config.pixel_size_um
            )
        ]
    return _named(items), found.skipped


def _of_record(record: ImageRecord, name: str, default_um: float | None) -> PredictItem:
    return PredictItem(
        path=record.path,
        name=name,
        page=record.page,
        channel=record.channel,
        size_hw=record.size_hw,
        pixel_size_um=record.pixel_size_um or default_um,
    )


def _named(items: Sequence[PredictItem]) -> list[PredictItem]:
    names = unique_names([item.name for item in items], [item.path for item in items])
    return [replace(item, name=name) for item, name in zip(items, names, strict=True)]


def _name(path: Path, folders: Sequence[Path]) -> str:
    """The path from the innermost named folder that holds it; of other files the name."""
    inside = [path.relative_to(folder).as_posix() for folder in folders if path.is_relative_to(folder)]
    return min(inside, key=len, default=path.name)
