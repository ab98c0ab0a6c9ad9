"""Objects as Label Studio's regions, and regions as objects.

A region is one or several entries of a result that share an id: its shape, its label, and what else a project
asks about it. labelloop writes polygons, and brush masks where one polygon cannot say a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelloop.formats.outlines import Unusable
from labelloop.instances import Instances
from labelloop.integrations.label_studio.brush import encode_brush
from labelloop.integrations.label_studio.labelling_config import ControlNames
from labelloop.integrations.label_studio.polygons import mask_to_polygon, to_percent
from labelloop.integrations.label_studio.shapes import KINDS, ErasedError, is_number, shape_to_mask

SAME_PERCENT = 1e-6  # coordinates this close are the same
SCORE_DIGITS = 4

_KIND_OF_TYPE = {kind: kind for kind in KINDS} | {f"{kind}labels": kind for kind in KINDS}
_ANSWERS = "choices textarea relation rating number datetime taxonomy pairwise ranker".split()
_NO_OBJECTS = frozenset([*_ANSWERS, "keypoint", "keypointlabels"])
_NAMES_OF_TYPE = ("labels", *(f"{kind}labels" for kind in KINDS))


@dataclass(frozen=True, kw_only=True)
class Region:
    """An object that came back.

    Attributes:
        key: Its id, which it keeps through a review.
        label: Class index.
        rle: COCO run lengths in the task's image.
        origin: ``prediction``, ``prediction-changed`` or ``manual`` as the editor says it, or None.
        value: Its shape, in the server's words.
        kind: polygon, brush, rectangle or ellipse.
    """

    key: str
    label: int
    rle: bytes
    origin: str | None
    value: Mapping[str, Any]
    kind: str


@dataclass(frozen=True, kw_only=True)
class ReadRegions:
    """A result that was read.

    Attributes:
        regions: Objects, in the result's order; no two keys are alike.
        unusable: Key and reason of each region that is none.
        unnamed: Key and run lengths of those that have a shape but no label that is a class.
        lost: Keys of others that may have been objects: they are damaged, or no answers that lie nowhere.
    """

    regions: tuple[Region, ...]
    unusable: tuple[tuple[str, str], ...]
    unnamed: tuple[tuple[str, bytes], ...] = ()
    lost: tuple[str, ...] = ()


def to_regions(
    instances: Instances, keys: Sequence[str], classes: Sequence[str], controls: ControlNames
) -> list[dict[str, Any]]:
    """The result that shows these objects in one task.

    A polygon agrees with its mask to an IoU of 0.98 or more, and its points are rounded to 0.0001 percent; a
    brush mask is exact. Objects without a pixel are left out. Whether an object is a crowd is not recorded.

    Args:
        instances: The objects, in the task's image.
        keys: The id of each region.
        classes: Class names by label.
        controls: What the labelling configuration calls its parts.
    """
    areas = instances.areas
    return [
        _to_region(instances, i, key, classes, controls)
        for i, (key, area) in enumerate(zip(keys, areas, strict=True))
        if area
    ]


def _to_region(
    instances: Instances, index: int, key: str, classes: Sequence[str], controls: ControlNames
) -> dict[str, Any]:
    height, width = instances.size_hw
    names = [classes[int(instances.labels[index])]]
    points = mask_to_polygon(instances, index)
    value: dict[str, Any]
    if points is not None:
        kind, control = "polygonlabels", controls.polygon
        value = {"points": to_percent(points, instances.size_hw).tolist(), "closed": True}
    else:
        kind, control = "brushlabels", controls.brush
        crop, top, left = instances.crop(index)
        mask = np.zeros(instances.size_hw, np.bool_)  # row by row, as the code is; Instances.mask is not
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        value = {"format": "rle", "rle": list(encode_brush(mask))}
    region = {
        "id": key,
        "type": kind,
        "from_name": control,
        "to_name": controls.image,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, kind: names},
    }
    if instances.scores is not None:
        region["score"] = round(float(instances.scores[index]), SCORE_DIGITS)
    return region


def read_regions(result: object, size_hw: tuple[int, int], classes: Sequence[str]) -> ReadRegions:
    """Reads the result of an annotation or prediction, whatever it holds.

    Of the entries that share an id, the first with a shape gives the shape. Of several labels the first one
    that is a class counts; the others are not kept.

    Args:
        result: As the server gives it.
        size_hw: Of the task's image, px; a region of another size is unusable.
        classes: Class names by label.
    """
    label_of = {name: label for label, name in reversed(list(enumerate(classes)))}
    regions: list[Region] = []
    unusable: list[tuple[str, str]] = []
    unnamed: list[tuple[str, bytes]] = []
    by_key = _by_key(result, unusable)
    lost = [key for key, _ in unusable]
    for key, entries in by_key.items():
        names = list(_labels(entries))
        label = next((label_of[name] for name in names if name in label_of), None)
        try:
            region = _read_region(key, entries, size_hw, -1 if label is None else label)
        except Unusable as fault:
            unusable.append((key, str(fault)))
            if not isinstance(fault, ErasedError) and not all(map(_is_no_object, entries)):
                lost.append(key)
        else:
            if label is not None:
                regions.append(region)
                continue
            reason = f"its label {', '.join(names)} is not a class" if names else "it has no label"
            unusable.append((key, reason))
            unnamed.append((key, region.rle))
    return ReadRegions(
        regions=tuple(regions), unusable=tuple(unusable), unnamed=tuple(unnamed), lost=tuple(lost)
    )


def shape_facts(result: object) -> Iterator[tuple[str | None, tuple[int, int] | None]]:
    """The first label of each shape in a result, and the size of its image, height and width, px."""
    for entries in _by_key(result, []).values():
        shape = _shape(entries)
        if shape is not None:
            size_hw = shape.get("original_height"), shape.get("original_width")
            whole = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size_hw)
            yield next(_labels(entries), None), (size_hw if whole else None)  # type: ignore[misc]


def _by_key(result: object, unusable: list[tuple[str, str]]) -> dict[str, list[Mapping[str, Any]]]:
    """The entries of each region; one without an id is a region of its own, named by its place."""
    entries: dict[str, list[Mapping[str, Any]]] = {}
    if not isinstance(result, list):
        unusable.append(("result", "it is not a list of regions"))
        return entries
    for place, entry in enumerate(result):
        if not isinstance(entry, dict):
            unusable.append((f"result[{place}]", "it is not a region"))
            continue
        key = entry.get("id")
        named = isinstance(key, str | int) and key != ""
        entries.setdefault(str(key) if named else f"result[{place}]", []).append(entry)
    return entries


def _read_region(
    key: str, entries: Sequence[Mapping[str, Any]], size_hw: tuple[int, int], label: int
) -> Region:
    shape = _shape(entries)
    if shape is None:
        types = ", ".join(dict.fromkeys(str(entry.get("type")) for entry in entries))
        raise Unusable(f"the type {types} is not an outline that labelloop reads")
    height, width = size_hw
    size = shape.get("original_width"), shape.get("original_height")
    if size != (width, height):
        raise Unusable(
            f"it is for an image of {size[0]} x {size[1]} px, but the task's has {width} x {height}"
        )
    if shape.get("image_rotation") or shape.get("item_index"):
        raise Unusable("it was drawn on a turned image or on another image of the task")
    kind, value, origin = _KIND_OF_TYPE[shape["type"]], shape.get("value"), shape.get("origin")
    if not isinstance(value, dict):
        raise Unusable("it has no value")
    return Region(
        key=key,
        label=label,
        rle=shape_to_mask(kind, value, size_hw),
        origin=origin if isinstance(origin, str) else None,
        value=value,
        kind=kind,
    )


def _shape(entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first entry that is a shape."""
    kinds = (
        entry for entry in entries if isinstance(entry.get("type"), str) and entry["type"] in _KIND_OF_TYPE
    )
    return next(kinds, None)


def _is_no_object(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is about the image or a point in it; what is not known may be an outline."""
    return isinstance(entry.get("type"), str) and entry["type"] in _NO_OBJECTS


def _labels(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """All label names of a region, in order."""
    for entry in entries:
        value = entry.get("value")
        if isinstance(value, dict):
            lists = [names for name in _NAMES_OF_TYPE if isinstance(names := value.get(name), list)]
            yield from (text for names in lists for text in names if isinstance(text, str))


def is_untouched(pushed: Mapping[str, Any], returned: Mapping[str, Any]) -> bool:
    """Whether a region came back with the shape and the label with which it was sent.

    What else it has, such as its origin and score, does not count.

    Args:
        pushed: As ``to_regions`` gave it.
        returned: As the server gives it, whatever it is.
    """
    there = returned.get("value")
    same = all(pushed[name] == returned.get(name) for name in ("type", "original_width", "original_height"))
    if not same or returned.get("image_rotation") or not isinstance(there, dict):
        return False
    return all(_is_same(name, value, there.get(name)) for name, value in pushed["value"].items())


def has_same_shape(pushed: Mapping[str, Any], region: Region) -> bool:
    """Whether a region that was read has the shape with which it was sent, whatever its label is now.

    Args:
        pushed: As ``to_regions`` gave it.
        region: As ``read_regions`` gave it, for the same image.
    """
    label = pushed["type"]
    return _KIND_OF_TYPE[label] == region.kind and all(
        _is_same(name, value, region.value.get(name))
        for name, value in pushed["value"].items()
        if name != label
    )


def _is_same(name: str, pushed: Any, returned: Any) -> bool:
    if name != "points" or pushed == returned:
        return bool(pushed == returned)
    if not isinstance(returned, list) or len(returned) != len(pushed):
        return False
    return all(
        isinstance(there, list)
        and len(there) == 2
        and all(is_number(number) for number in there)
        and abs(here[0] - there[0]) <= SAME_PERCENT
        and abs(here[1] - there[1]) <= SAME_PERCENT
        for here, there in zip(pushed, returned, strict=True)
    )
