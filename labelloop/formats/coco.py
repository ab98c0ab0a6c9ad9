"""COCO instance annotations: polygons, run lengths, crowds. Rasterised by pycocotools, the reference."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from labelloop.errors import FormatError
from labelloop.formats.outlines import Unusable, rasterise
from labelloop.formats.records import LabelledImage, LabelSet, SkippedFile
from labelloop.instances import Instances
from labelloop.plurals import plural

NAME = "coco"

_SHOWN_FAULTS = 3
_SHOWN_IDS = 5
_DESCRIPTION = "labelloop"
_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}")
_NO = ("", "0", "0.0", "false")  # marks as text


@dataclass(kw_only=True)
class _Image:
    """One image of the file while its objects are collected."""

    file_name: str
    size_hw: tuple[int, int]
    rles: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    entries: int = 0

    def add(self, rle: bytes, label: int, crowd: bool) -> None:
        """Takes an object; where entries share this image, the very same object counts once."""
        if self.entries > 1 and (rle, label, crowd) in zip(self.rles, self.labels, self.crowd, strict=True):
            return
        self.rles.append(rle)
        self.labels.append(label)
        self.crowd.append(crowd)

    def instances(self) -> Instances:
        return Instances(
            size_hw=self.size_hw,
            rles=tuple(self.rles),
            labels=np.asarray(self.labels, np.int64),
            crowd=np.asarray(self.crowd, np.bool_),
        )


def is_coco(document: object) -> bool:
    """Whether a JSON document has the outer form of COCO instance annotations."""
    return (
        isinstance(document, dict)
        and isinstance(document.get("images"), list)
        and isinstance(document.get("annotations"), list)
    )


def load_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        FormatError: It cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise FormatError(
            f"the annotations cannot be read ({error.strerror})",
            value=path,
            way_out="Check the path, and that you may read it.",
        ) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"the annotations are not JSON ({error})", value=path, way_out="Export them as JSON again."
        ) from error


def read_coco(path: Path) -> LabelSet:
    """Reads a COCO file.

    An image without annotations counts as looked at and empty. Image entries that share a file name are one
    image. What is a crowd ``is_crowd`` says. Objects that cannot be used are skipped with their reason. An
    image is skipped too where it is not known to be empty: all of its objects are unusable, or it has none
    and annotations name no image of the file.

    Raises:
        FormatError: It is not a COCO file, holds predictions, or has several classes without names.
    """
    document = load_json(path)
    if not is_coco(document):
        raise FormatError(
            "the JSON file is not a COCO instance annotation",
            value=path,
            way_out="It needs images and annotations.",
        )
    skipped: list[SkippedFile] = []
    images = _images(document["images"], skipped)
    names, label_of = _categories(document.get("categories"))
    _require_labels(path, document["annotations"], named=names is not None)
    drawn = draws_with_crowds(document)
    unplaced = 0
    for number, entry in enumerate(document["annotations"]):
        place = _place(entry, number)
        try:
            _take_annotation(entry, images, label_of, drawn)
        except Unusable as fault:
            image = images.get(as_id(entry.get("image_id"))) if isinstance(entry, dict) else None
            if image is None:
                unplaced += 1
            else:
                image.faults.append(str(fault))
                place = f"{image.file_name}, {place}"
            skipped.append(SkippedFile(path=place, reason=str(fault)))
    distinct = {id(image): image for image in images.values()}.values()
    records = []
    for image in distinct:
        reason = None
        if image.faults and not image.rles:
            reasons = "; ".join(list(dict.fromkeys(image.faults))[:_SHOWN_FAULTS])
            reason = f"none of its objects can be used ({reasons})"
        elif unplaced and not image.rles:
            share = f"{unplaced} of {len(document['annotations'])}"
            reason = f"it is not known to be empty, as annotations name no image of the file ({share})"
        if reason is None:
            records.append(LabelledImage(image=image.file_name, instances=image.instances()))
        else:
            skipped.append(SkippedFile(path=image.file_name, reason=reason))
    return LabelSet(format=NAME, records=tuple(records), classes=names, skipped=tuple(skipped))


def coco_dataset(
    images: Sequence[tuple[str, tuple[int, int]]], instances: Sequence[Instances], classes: Sequence[str]
) -> dict[str, Any]:
    """A COCO dataset that other tools open as it is; ids count from 1.

    Args:
        images: File name and (height, width) in px of each image.
        instances: The objects of each image; scores are written where there are any.
        classes: Class names by label.
    """
    annotations: list[dict[str, Any]] = []
    for image_id, objects in enumerate(instances, start=1):
        annotations.extend(coco_annotations(objects, image_id=image_id, first_id=len(annotations) + 1))
    return {
        "info": {"description": _DESCRIPTION},
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, (name, (height, width)) in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
    }


def coco_annotations(instances: Instances, *, image_id: int, first_id: int) -> Iterator[dict[str, Any]]:
    """The objects of one image as COCO annotations with compressed run lengths.

    Args:
        instances: The objects.
        image_id: Id of their image.
        first_id: Id of the first annotation; the others count on.
    """
    areas, boxes = instances.areas, instances.boxes_xywh
    for i, counts in enumerate(instances.rles):
        annotation: dict[str, Any] = {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": int(instances.labels[i]) + 1,
            "segmentation": {"size": list(instances.size_hw), "counts": counts.decode("ascii")},
            "bbox": [float(side) for side in boxes[i]],
            "area": int(areas[i]),
            "iscrowd": int(instances.crowd[i]),
        }
        if instances.scores is not None:
            annotation["score"] = float(str(instances.scores[i]))  # the shortest decimal that is this float32
        yield annotation


def _images(entries: list[Any], skipped: list[SkippedFile]) -> dict[Any, _Image]:
    """The images by id; entries with one file name share one image, and an id of two images names neither."""
    by_id: dict[Any, _Image] = {}
    by_name: dict[str, _Image] = {}
    unclear = set()
    for number, entry in enumerate(entries):
        try:
            key, name, size_hw = _image_entry(entry)
            image = by_name.setdefault(name, _Image(file_name=name, size_hw=size_hw))
            if image.size_hw != size_hw:
                raise Unusable(f"{name} is listed twice with different sizes")
            if by_id.setdefault(key, image) is not image:
                unclear.add(key)
                raise Unusable(f"{name} has the id {key}, which another image has")
            image.entries += 1
        except Unusable as fault:
            skipped.append(SkippedFile(path=f"images[{number}]", reason=str(fault)))
    for key in unclear:
        name = by_id.pop(key).file_name
        skipped.append(SkippedFile(path=name, reason=f"it has the id {key}, which another image has"))
    return by_id


def _image_entry(entry: Any) -> tuple[Any, str, tuple[int, int]]:
    if not isinstance(entry, dict):
        raise Unusable("it is not an image entry")
    name, key = entry.get("file_name"), as_id(entry.get("id"))
    if not isinstance(name, str) or not name:
        raise Unusable("the image has no file_name")
    if key is None:
        raise Unusable(f"{name} has no id")
    height, width = _count(entry.get("height")), _count(entry.get("width"))
    if height is None or width is None:
        raise Unusable(f"{name} has no width and height")
    return key, name.replace("\\", "/"), (height, width)


def _categories(entries: Any) -> tuple[tuple[str, ...] | None, dict[Any, int]]:
    """Class names, and the label of each category id; categories of one name are one class."""
    if not isinstance(entries, list) or not entries:
        return None, {}
    names: dict[str, int] = {}
    label_of = {}
    for entry in entries:
        if (
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and as_id(entry.get("id")) is not None
        ):
            name = entry["name"].strip()
            if name:
                label_of[as_id(entry["id"])] = names.setdefault(name, len(names))
    return (tuple(names), label_of) if names else (None, {})


def _require_labels(path: Path, annotations: list[Any], *, named: bool) -> None:
    """Refuses what would lose its scores or its classes if it became labels."""
    entries = [entry for entry in annotations if isinstance(entry, dict)]
    n_scored = sum(entry.get("score") is not None for entry in entries)
    if n_scored:
        have = plural(len(annotations), "annotation has", "annotations have")
        raise FormatError(
            f"{n_scored} of {have} scores, so they are predictions, no labels",
            value=path,
            way_out="Measure them with evaluate --predictions; to make labels of them, keep those that are "
            "right and remove their scores.",
        )
    ids = {as_id(entry.get("category_id")) for entry in entries} - {None}
    if not named and len(ids) > 1:
        shown = ", ".join(sorted(map(str, ids))[:_SHOWN_IDS]) + (", ..." if len(ids) > _SHOWN_IDS else "")
        raise FormatError(
            "the annotations are of several classes, but the file has no names for them",
            value=f"{path}, category ids {shown}",
            way_out="Add the names to its categories, or give all annotations one category_id.",
        )


def draws_with_crowds(document: dict[str, Any]) -> bool:
    """Whether a tool calls every mask of a COCO file a crowd, since run lengths and crowds are one to it.

    labelloop's own files mean what they say.
    """
    info = document.get("info")
    own = isinstance(info, dict) and info.get("description") == _DESCRIPTION
    entries = [entry for entry in document.get("annotations", []) if isinstance(entry, dict)]
    return not own and all(_is_marked(entry.get("iscrowd")) and _has_run_lengths(entry) for entry in entries)


def is_crowd(entry: dict[str, Any], *, drawn_with_crowds: bool) -> bool:
    """Whether an annotation is neither a hit nor a miss: marked ``ignore``, or ``iscrowd`` and meant so.

    Run lengths that only stand for how an object was drawn are an object: CVAT writes what was drawn with a
    brush as a crowd, and its own attributes with it.

    Args:
        entry: As in the file.
        drawn_with_crowds: What ``draws_with_crowds`` says of the file.
    """
    is_object = _has_run_lengths(entry) and (drawn_with_crowds or "attributes" in entry)
    return _is_marked(entry.get("ignore")) or (_is_marked(entry.get("iscrowd")) and not is_object)


def _has_run_lengths(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("segmentation"), dict)


def _take_annotation(
    entry: Any, images: dict[Any, _Image], label_of: dict[Any, int], drawn_with_crowds: bool
) -> None:
    if not isinstance(entry, dict):
        raise Unusable("it is not an annotation")
    image = images.get(as_id(entry.get("image_id")))
    if image is None:
        raise Unusable(f"it names the image id {entry.get('image_id')}, which the file does not have")
    category = as_id(entry.get("category_id"))
    if label_of and category not in label_of:
        raise Unusable(f"it names the category id {entry.get('category_id')}, which the file does not have")
    rle = rasterise(entry.get("segmentation"), image.size_hw, has_box=bool(entry.get("bbox")))
    image.add(rle, label_of.get(category, 0), is_crowd(entry, drawn_with_crowds=drawn_with_crowds))


def as_id(value: Any) -> int | str | None:
    """An id as a key: the same one for 1, 1.0 and "1"; None where it can be none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _is_marked(value: Any) -> bool:
    """Whether a mark is set: a truth value, a number, or either as text; NaN is none."""
    if isinstance(value, str):
        return value.strip().lower() not in _NO
    return bool(value) and value == value


def _count(value: Any) -> int | None:
    """A number of pixels, or None."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return int(value) if is_number and value == int(value) and 0 < value < 2**31 else None


def _place(entry: Any, number: int) -> str:
    named = entry.get("id") if isinstance(entry, dict) else None
    return f"annotations[{number}]" if named is None else f"annotation {named}"
