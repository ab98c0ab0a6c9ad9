"""Which image file the labels of a record belong to, and whether they fit it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from labelloop.errors import UsageError
from labelloop.formats.label_image import bare_stem, is_named_as_labels
from labelloop.formats.outlines import draw_outlines
from labelloop.formats.records import LabelledImage, LabelSet, SkippedFile
from labelloop.paths import plain_path
from labelloop.progress import Progress
from labelloop.project.finding import folder_files
from labelloop.project.label_source import LabelSource
from labelloop.project.places import Places
from labelloop.project.project import Project
from labelloop.project.reading import read_files
from labelloop.project.storing import LabelledFile

_EXACT = 1_000_000  # closer than any number of folders that agree
_SHOWN = 3


def with_images(
    project: Project,
    source: LabelSource,
    label_set: LabelSet,
    page_and_channel: tuple[int, int],
    progress: Progress,
) -> tuple[list[LabelledFile], list[SkippedFile]]:
    """The records whose images are found, usable and of the right size, and why the others are not.

    Args:
        project: Whose images are searched too, unless the source has a folder of its own.
        source: Where the annotations lie.
        label_set: What they say, in the project's classes.
        page_and_channel: Of the files; (0, -1) for RGB as it is or the first channel.
        progress: Is told of each image.

    Raises:
        UsageError: There is no such folder of images.
    """
    skipped: list[SkippedFile] = []
    found: list[tuple[Path, LabelledImage]] = []
    folder, indices = _places(project, source, label_set)
    hint = f" ({folder}); give its folder with --images" if source.images is None else ""
    records = label_set.records
    for record, file in zip(records, match_images(records, indices), strict=True):
        if isinstance(file, Path):
            found.append((file, record))
        else:
            skipped.append(SkippedFile(path=record.image, reason=f"{file}{hint}"))
    distinct = list(dict.fromkeys(file for file, _ in found))
    page, channel = page_and_channel
    read, unusable = read_files(distinct, page=page, channel=channel, progress=progress)
    by_path = {image.path: image for image in read}
    labelled: list[LabelledFile] = []
    for file, record in found:
        image = by_path.get(file)
        if image is None:
            continue
        labels, faults = record.instances, list[str]()
        if record.any_size:
            labels, faults = draw_outlines(record.outlines, image.size_hw)
            skipped += [SkippedFile(path=record.image, reason=fault) for fault in faults]
        if labels.size_hw != image.size_hw:
            skipped.append(SkippedFile(path=str(file), reason=_size_fault(labels.size_hw, image.size_hw)))
        elif faults and not len(labels):
            skipped.append(SkippedFile(path=str(file), reason="none of its objects can be used"))
        else:
            labelled.append(LabelledFile(image=image, labels=labels, void=record.void))
    return labelled, [*skipped, *unusable]


def _places(project: Project, source: LabelSource, label_set: LabelSet) -> tuple[Path, list[ImageIndex]]:
    """The folder of the images, and where they are looked for."""
    place = source.place
    folder = label_set.image_folder or (place if place.is_dir() else place.parent)
    if source.images is not None:
        folder = plain_path(Path(source.images))
        if not folder.is_dir():
            raise UsageError(
                "there is no such folder of images",
                value=source.images,
                way_out="Check the path of --images.",
            )
    places = Places()
    of_labels = {places.of(file) for file in label_set.files}
    index = ImageIndex((file for file in folder_files(folder) if places.of(file) not in of_labels), folder)
    if source.images is not None:
        return folder, [index]
    files = dict.fromkeys(image.path for image in project.images())  # each once, whatever its pages
    known = (file for file in files if places.of(file) not in of_labels)
    return folder, [index, ImageIndex(known, project.root)]


class ImageIndex:
    """Image files by what annotations may call them.

    Args:
        files: All files that can be meant.
        root: Folder that relative names start from.
    """

    def __init__(self, files: Iterable[Path], root: Path) -> None:
        self._names = _Table()
        self._stems = _Table()
        for file in files:
            inside = file.is_relative_to(root)
            relative = _key(file.relative_to(root).as_posix() if inside else str(file))
            self._names.take(file, relative)
            self._stems.take(file, bare_stem(relative))

    def closest(self, record: LabelledImage) -> tuple[int, list[Path]]:
        """The files that could be meant best, and how well: how many folders of the name are theirs too."""
        table = self._stems if record.by_stem else self._names
        closeness, files = table.closest(_name(record))
        if record.by_stem:  # x.png and x_masks.png are of one stem
            files = [file for file in files if not is_named_as_labels(file)] or files
        return closeness, files


def match_images(records: Sequence[LabelledImage], indices: Sequence[ImageIndex]) -> list[Path | str]:
    """For each record the file of its image, or the reason why there is none.

    A file with the very path that a name has from the root is meant, else the one that has the most folders
    of the name before its own name, from the end. It goes to the labels whose name fits it best; where the
    names of several labels fit a file equally well by a part of them only, nobody knows whose it is.

    Args:
        records: All labels of one act.
        indices: Where to look; what is found equally well in several counts in the first one.
    """
    found = [_best(record, indices) for record in records]
    wanting: dict[Path, dict[str, int]] = {}
    for record, (closeness, file) in zip(records, found, strict=True):
        if isinstance(file, Path):
            wanting.setdefault(file, {})[_name(record)] = closeness
    return [
        _unless_another_has(record, closeness, file, wanting[file]) if isinstance(file, Path) else file
        for record, (closeness, file) in zip(records, found, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Table:
    """Files by one kind of their names."""

    by_path: dict[str, list[Path]] = field(default_factory=dict)
    by_tail: dict[str, list[Path]] = field(default_factory=dict)  # the last folder and the name
    by_name: dict[str, list[Path]] = field(default_factory=dict)

    def take(self, file: Path, name: str) -> None:
        base = name.rpartition("/")[2]
        self.by_path.setdefault(name, []).append(file)
        self.by_tail.setdefault(f"{_key(file.parent.name)}/{base}", []).append(file)
        self.by_name.setdefault(base, []).append(file)

    def closest(self, name: str) -> tuple[int, list[Path]]:
        if name in self.by_path:
            return _EXACT, self.by_path[name]
        *folders, base = name.split("/")
        near = self.by_tail.get(f"{folders[-1]}/{base}", []) if folders else []
        if not near:
            return 0, self.by_name.get(base, [])
        closeness = [_folders_shared(file, folders) for file in near]
        most = max(closeness)
        return most, [file for file, n in zip(near, closeness, strict=True) if n == most]


def _folders_shared(file: Path, folders: Sequence[str]) -> int:
    """How many folders agree, from the last one on."""
    shared = 0
    for own, other in zip(map(_key, reversed(file.parent.parts)), reversed(folders), strict=False):
        if own != other:
            break
        shared += 1
    return shared


def _best(record: LabelledImage, indices: Sequence[ImageIndex]) -> tuple[int, Path | str]:
    found = [index.closest(record) for index in indices]
    closeness = max(close for close, files in found if files) if any(files for _, files in found) else 0
    several = [files for close, files in found if close == closeness and files]
    for files in several:
        if len(files) == 1:
            return closeness, files[0]
    if several:
        return closeness, f"several images could be meant: {', '.join(map(str, several[0][:_SHOWN]))}"
    return 0, "its image was not found"


def _unless_another_has(
    record: LabelledImage, closeness: int, file: Path, wanting: dict[str, int]
) -> Path | str:
    """The file, or the reason why it is not the image of this record."""
    name = _name(record)
    best = max(wanting.values())
    if closeness < best:
        owner = next(other for other, close in wanting.items() if close == best)
        return f"its image was not found: {file} has its name, but is the image of {owner}"
    rivals = [other for other, close in wanting.items() if close == best and other != name]
    if rivals and closeness < min(_EXACT, name.count("/")):
        return f"its image was not found: {file} could as well be the image of {', '.join(rivals[:_SHOWN])}"
    return file


def _name(record: LabelledImage) -> str:
    """What the record calls its image, as the tables have it."""
    name = _key(record.image).removeprefix("./")
    return bare_stem(name) if record.by_stem else name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _size_fault(labels_hw: tuple[int, int], image_hw: tuple[int, int]) -> str:
    labels, image = (f"{width} x {height} px" for height, width in (labels_hw, image_hw))
    return f"its labels are for {labels}, but the image has {image}"
