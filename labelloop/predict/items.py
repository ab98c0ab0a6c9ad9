"""What to predict: the pool of a project, or files, folders and patterns that a person named."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labelloop.images import IMAGE_SUFFIXES
from labelloop.predict.names import unique_names
from labelloop.project.project import ImageRecord, Project


@dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """A file that could not be used, and why."""

    path: str
    reason: str


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
) -> tuple[list[PredictItem], list[SkippedFile]]:
    """The images at these paths, and the paths that lead nowhere.

    An image that the project knows is read as it was added; of others the page and channel are read that most
    of the project's images have.

    Args:
        paths: Files, folders (with all below them) and glob patterns.
        project: Whose model predicts.
        out: Earlier results below it are no input.
    """
    records: dict[Path, list[ImageRecord]] = {}
    kinds: Counter[tuple[int, int]] = Counter()
    for record in project.images():
        records.setdefault(record.path, []).append(record)
        kinds[record.page, record.channel] += 1
    page, channel = kinds.most_common(1)[0][0] if kinds else (0, -1)
    files, skipped = _files(paths, out.absolute())
    items: list[PredictItem] = []
    for path, name in files.items():
        known = [_of_record(record, name, project.config.pixel_size_um) for record in records.get(path, [])]
        items += known or [
            PredictItem(
                path=path, name=name, page=page, channel=channel, pixel_size_um=project.config.pixel_size_um
            )
        ]
    return _named(items), skipped


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


def _files(paths: Sequence[str], out: Path) -> tuple[dict[Path, str], list[SkippedFile]]:
    """Name by absolute path, and what cannot be used; a file named twice is there once."""
    files: dict[Path, str] = {}
    skipped: list[SkippedFile] = []
    for text in paths:
        path = Path(text).expanduser().absolute()
        if path.is_dir():
            found = [(file, file.relative_to(path).as_posix()) for file in _images_below(path, out)]
            reason = "the folder holds no image"
        elif path.exists():
            found, reason = [(path, path.name)], ""
        else:
            matches = sorted(Path(match).absolute() for match in glob.glob(str(path), recursive=True))
            found = [(match, match.name) for match in matches if match.is_file()]
            reason = "there is no such file or folder"
        if not found:
            skipped.append(SkippedFile(path=text, reason=reason))
        for file, name in found:
            files.setdefault(file, name)
    return files, skipped


def _images_below(folder: Path, out: Path) -> list[Path]:
    """Image files by their suffix, sorted; hidden ones and earlier results are left out."""
    inside_out = folder.is_relative_to(out)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (inside_out or not path.is_relative_to(out))
        and path.is_file()
    )
