"""The part of COCO JSON that an evaluation needs: pictures, categories and masks."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelloop.errors import FormatError
from labelloop.formats.coco import as_id, draws_with_crowds


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One entry of ``images``; ``size_hw`` is None where the file does not say."""

    id: Hashable
    file_name: str
    size_hw: tuple[int, int] | None


@dataclass(frozen=True, kw_only=True)
class CocoFile:
    """A COCO dataset, read but with its annotations as they are.

    Attributes:
        path: Where it was read.
        pictures: By id.
        categories: Names by id; None where the file names none.
        annotations: As in the file.
        drawn_with_crowds: What ``formats.coco.is_crowd`` has to know of the file.
    """

    path: Path
    pictures: dict[Hashable, Picture]
    categories: dict[Hashable, str | None]
    annotations: list[dict[str, Any]]
    drawn_with_crowds: bool


def parse_dataset(path: Path, document: Any) -> CocoFile:
    """The dataset in a JSON document.

    Raises:
        FormatError: It is not a COCO dataset, or two images share an id or a file name.
    """
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise FormatError(
            "the file is not a COCO dataset: it has no list of images", value=path, way_out=_WHAT_COCO_IS
        )
    pictures = [_picture(path, entry) for entry in document["images"]]
    categories = document.get("categories", [])
    annotations = document.get("annotations", [])
    for name, entries in (("categories", categories), ("annotations", annotations)):
        check_entries(path, name, entries)
    names: dict[Hashable, str | None] = {
        as_id(c.get("id")): c["name"] if isinstance(c.get("name"), str) else None for c in categories
    }
    if not categories:
        names = dict.fromkeys(sorted({as_id(a.get("category_id")) for a in annotations}, key=str))
    _check_unique(path, "id", [str(p.id) for p in pictures])
    _check_unique(path, "file name", [plain_name(p.file_name) for p in pictures])
    return CocoFile(
        path=path,
        pictures={p.id: p for p in pictures},
        categories=names,
        annotations=annotations,
        drawn_with_crowds=draws_with_crowds(document),
    )


def plain_name(file_name: str) -> str:
    """A file name as names are compared: with forward slashes and composed letters."""
    return unicodedata.normalize("NFC", file_name.replace("\\", "/"))


def check_entries(path: Path, name: str, entries: Any) -> None:
    """Raises FormatError unless ``entries`` is a list of objects."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise FormatError(f"{name} is not a list of objects", value=path, way_out=_WHAT_COCO_IS)


_WHAT_COCO_IS = "Give COCO JSON: an object with the lists images, annotations and categories."


def _picture(path: Path, entry: Any) -> Picture:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str) or "id" not in entry:
        raise FormatError(
            "an image has no id or no file_name", value=f"{path}, {str(entry)[:80]}", way_out=_WHAT_COCO_IS
        )
    key = as_id(entry["id"])
    if key is None:
        raise FormatError("an image's id is not a number", value=entry["id"], way_out=_WHAT_COCO_IS)
    height, width = _side(entry.get("height")), _side(entry.get("width"))
    size_hw = (height, width) if height and width else None
    return Picture(id=key, file_name=entry["file_name"], size_hw=size_hw)


def _side(value: Any) -> int:
    """A side of an image, px; 0 where it is none."""
    whole = isinstance(value, int | float) and math.isfinite(value) and value == int(value) and value > 0
    return int(value) if whole else 0


def _check_unique(path: Path, what: str, values: list[str]) -> None:
    doubled = [value for value, times in Counter(values).items() if times > 1]
    if doubled:
        raise FormatError(f"two images have one {what}", value=f"{path}, {doubled[0]}", way_out="Rename one.")
