"""YOLO segmentation: for each image a text file; each line is a class number and the outline of an object.

    0 0.48 0.31 0.52 0.33 0.50 0.40

Coordinates are shares of the image's width and height. ``labels/train/x.txt`` belongs to
``images/train/x.jpg``, or to the image beside it. The names of the classes are the lines of ``classes.txt``,
or else ``names`` in ``data.yaml``, beside the labels or above them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from labelloop.errors import FormatError
from labelloop.formats.layouts import sibling_folder
from labelloop.formats.outlines import Unusable
from labelloop.formats.records import LabelledImage, LabelSet, RelativeOutline, SkippedFile
from labelloop.instances import Instances
from labelloop.plurals import plural

NAME = "yolo"

_CLASSES_FILE = "classes.txt"
_SET_FILE = "data.yaml"  # of Ultralytics
_LEVELS_UP = 3  # set/labels/train: the names may lie in the set's folder
_PROBED = 20  # files that auto looks into


def is_yolo(path: Path) -> bool:
    """Whether it is a folder of such text files, and not one of them is anything else."""
    if not path.is_dir():
        return False
    outlines = 0
    for number, file in enumerate(_label_files(path)):
        if number == _PROBED:
            break
        try:
            outlines += len(list(_objects(file)))
        except Unusable:
            return False
    return outlines > 0


def read_yolo(path: Path) -> LabelSet:
    """Reads all text files under a folder, or one file. An empty file is an image without objects.

    Raises:
        FormatError: There are none, or the names of the classes are missing and needed, or cannot be used.
    """
    root = path if path.is_dir() else path.parent
    files = list(_label_files(path))
    if not files:
        raise FormatError(
            "the folder has no text files of labels",
            value=path,
            way_out="YOLO labels are one .txt file for each image.",
        )
    records: list[LabelledImage] = []
    skipped: list[SkippedFile] = []
    for file in files:
        try:
            outlines = tuple(_objects(file))
        except Unusable as fault:
            skipped.append(SkippedFile(path=str(file), reason=str(fault)))
            continue
        records.append(
            LabelledImage(
                image=file.relative_to(root).as_posix(),
                instances=Instances(size_hw=(1, 1)),
                by_stem=True,
                any_size=True,
                outlines=outlines,
            )
        )
    return LabelSet(
        format=NAME,
        records=tuple(records),
        classes=_class_names(root, max((o.label for r in records for o in r.outlines), default=0)),
        skipped=tuple(skipped),
        image_folder=sibling_folder(path, {"labels": "images"}),
    )


def _label_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for parent, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.endswith(".txt") and name != _CLASSES_FILE and not name.startswith("."):
                yield Path(parent) / name


def _objects(file: Path) -> Iterator[RelativeOutline]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # some editors mark the start
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"it cannot be read ({error})") from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        try:
            label, xy = int(words[0]), tuple(float(word) for word in words[1:])
        except ValueError as error:
            raise Unusable(f"line {number} is not a class number and coordinates") from error
        if label < 0 or not all(math.isfinite(value) and -1 <= value <= 2 for value in xy):
            raise Unusable(f"line {number} has numbers that are not shares of the image's sides")
        if len(xy) == 4:
            raise Unusable(f"line {number} is a box, not an outline")
        if len(xy) < 6 or len(xy) % 2:
            coordinates = plural(len(xy), "coordinate")
            raise Unusable(f"line {number} has {coordinates}, not x and y of 3 points or more")
        yield RelativeOutline(xy=xy, label=label)


def _class_names(root: Path, largest: int) -> tuple[str, ...] | None:
    folders = (root, *root.resolve().parents[:_LEVELS_UP])
    for name, named in ((_CLASSES_FILE, _lines), (_SET_FILE, _names_of_set)):
        for file in (folder / name for folder in folders):
            if not file.is_file():
                continue
            names = named(file)
            if names is None:
                continue
            if len(set(names)) != len(names) or largest >= len(names):
                raise FormatError(
                    f"the labels name class {largest}, the names are {len(names)}, {len(set(names))} of them"
                    " different",
                    value=file,
                    way_out="Give each class, from 0, a name of its own.",
                )
            return tuple(names)
    if largest > 0:
        raise FormatError(
            "the names of the classes are missing",
            value=root / _CLASSES_FILE,
            way_out="Write them there, one per line, the name of class 0 first.",
        )
    return None


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in _text(file).splitlines() if line.strip()]


def _names_of_set(file: Path) -> list[str] | None:
    """``names`` of a data.yaml, a list or names by number; None where it has none."""
    try:
        # All scalars are text: a class may be called no, or 1e3.
        document: Any = yaml.load(_text(file), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise FormatError(
            f"the names of the classes cannot be read, it is not YAML ({' '.join(str(error).split())})",
            value=file,
            way_out=f"Repair it, or write the names into {_CLASSES_FILE}, one per line.",
        ) from error
    if not isinstance(document, dict) or "names" not in document:
        return None
    names = document["names"]
    if isinstance(names, dict) and set(names) == {str(number) for number in range(len(names))}:
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(
            "there is no list of names of the classes from 0",
            value=file,
            way_out=f"Write names: [FIRST, SECOND] there, or the names into {_CLASSES_FILE}, one per line.",
        )
    return names


def _text(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FormatError(
            f"the names of the classes cannot be read ({error.strerror})",
            value=file,
            way_out="Make it readable.",
        ) from error
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 without a mark is UTF-8 with zeros
        raise FormatError(
            "the names of the classes are in another encoding than UTF-8",
            value=file,
            way_out="Save the file as UTF-8 in a text editor.",
        )
    return text
