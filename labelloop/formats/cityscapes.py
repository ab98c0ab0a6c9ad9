"""Cityscapes: ``gtFine/<split>/<city>/*_gtFine_instanceIds.png`` or ``*_gtFine_polygons.json``.

Ids are those of cityscapesScripts (MIT): a number of 1000 or more is object ``number % 1000`` of the class
``number // 1000``; a smaller one is a class without single objects. Where several objects of a class were not
told apart, a *group*, the pixels hold the number of the class alone: the official evaluation counts what is
predicted in it neither as hits nor as false alarms, so it is a crowd here. The pixels of the classes that are
not evaluated are void for all classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from labelloop.errors import FormatError, ImageError
from labelloop.formats.coco import load_json
from labelloop.formats.layouts import sibling_folder
from labelloop.formats.outlines import Unusable
from labelloop.formats.records import LabelledImage, LabelSet, SkippedFile
from labelloop.formats.rle import numbers_to_counts
from labelloop.images import read_numbers
from labelloop.instances import Instances

NAME = "cityscapes"

# The eight classes whose objects are told apart and evaluated, by id.
CLASSES = {
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
# Neither ever predicted nor judged. Single caravans and trailers are not among them, only their groups: the
# official evaluation compares pixels with these numbers.
VOID_IDS = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
_WITH_OBJECTS = {**CLASSES, 29: "caravan", 30: "trailer"}
_ID_OF = {
    "unlabeled": 0, "ego vehicle": 1, "rectification border": 2, "out of roi": 3, "static": 4, "dynamic": 5,
    "ground": 6, "road": 7, "sidewalk": 8, "parking": 9, "rail track": 10, "building": 11, "wall": 12,
    "fence": 13, "guard rail": 14, "bridge": 15, "tunnel": 16, "pole": 17, "polegroup": 18,
    "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "license plate": -1,
    **{name: number for number, name in _WITH_OBJECTS.items()},
}  # fmt: skip

_PIXELS, _POLYGONS = "_instanceIds.png", "_polygons.json"
_SETS = ("_gtFine", "_gtCoarse")
_MOST_PX = 2**27


def is_cityscapes(path: Path) -> bool:
    """Whether it is named as such labels are, or holds some that are."""
    return next(_label_files(path), None) is not None


def read_cityscapes(path: Path) -> LabelSet:
    """Reads the labels of all frames under a folder, or those in one file.

    Of a frame that has both, the pixels count; drawn in their order, the polygons are the same pixels.

    Raises:
        FormatError: There are none.
    """
    files: dict[str, Path] = {}
    for file in _label_files(path):
        frame = frame_of(file.relative_to(path).as_posix() if path.is_dir() else file.name)
        if frame not in files or file.name.endswith(_PIXELS):
            files[frame] = file
    if not files:
        raise FormatError("there are no labels of Cityscapes", value=path, way_out=f"They end in {_PIXELS}.")
    records: list[LabelledImage] = []
    skipped: list[SkippedFile] = []
    for frame in sorted(files):
        try:
            records.append(_record(frame, _read_numbers(files[frame])))
        except (ImageError, FormatError) as error:
            skipped.append(SkippedFile(path=str(files[frame]), reason=error.what))
        except Unusable as fault:
            skipped.append(SkippedFile(path=str(files[frame]), reason=str(fault)))
    return LabelSet(
        format=NAME,
        records=tuple(records),
        classes=tuple(CLASSES.values()),
        skipped=tuple(skipped),
        files=frozenset(files.values()),
        image_folder=sibling_folder(path, {"gtFine": "leftImg8bit", "gtCoarse": "leftImg8bit"}),
    )


def frame_of(name: str) -> str:
    """What a frame's label files have in common: ``aachen/aachen_000000_000019`` without their ending."""
    for ending in (_PIXELS, _POLYGONS):
        for kind in _SETS:
            name = name.removesuffix(kind + ending)
    return name


def _label_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        names = [(path.parent, [path.name])]
    else:
        names = [(Path(parent), sorted(files)) for parent, _, files in os.walk(path)]
    for parent, files in sorted(names):
        for file in files:
            if file.endswith(tuple(kind + ending for kind in _SETS for ending in (_PIXELS, _POLYGONS))):
                yield parent / file


def _record(frame: str, numbers: npt.NDArray[Any]) -> LabelledImage:
    rles, labels, crowd = [], [], []
    ids = list(CLASSES)
    for number, rle in numbers_to_counts(numbers).items():
        is_group = number < 1000
        class_id = number if is_group else number // 1000
        if class_id in CLASSES:
            rles.append(rle)
            labels.append(ids.index(class_id))
            crowd.append(is_group)
    instances = Instances(
        size_hw=(int(numbers.shape[0]), int(numbers.shape[1])),
        rles=tuple(rles),
        labels=np.asarray(labels, np.int64),
        crowd=np.asarray(crowd, np.bool_),
    )
    void = numbers_to_counts(np.isin(numbers, VOID_IDS)).get(1)
    return LabelledImage(image=f"{frame}_leftImg8bit.png", instances=instances, void=void)


def _read_numbers(file: Path) -> npt.NDArray[Any]:
    """(h, w) ids."""
    if file.name.endswith(_PIXELS):
        numbers = read_numbers(file)
        if numbers.ndim != 2:
            raise Unusable("it has colours instead of ids")
        return numbers
    return _draw(load_json(file))


def _draw(document: Any) -> npt.NDArray[np.int32]:
    """The ids that a file of polygons stands for: later ones lie in front of earlier ones."""
    size_wh = _size_wh(document)
    objects = document.get("objects")
    if not isinstance(objects, list):
        raise Unusable("it has no list of objects")
    image = Image.new("I", size_wh, _ID_OF["unlabeled"])
    pen = ImageDraw.Draw(image)
    seen = dict.fromkeys(_WITH_OBJECTS, 0)
    for thing in objects:
        if not isinstance(thing, dict):
            raise Unusable("one of its objects is damaged")
        if thing.get("deleted"):
            continue
        number, is_group = _class_id(thing.get("label"))
        if number in _WITH_OBJECTS and not is_group:
            seen[number] += 1
            number = number * 1000 + seen[number] - 1
        if number >= 0:
            pen.polygon(_points(thing.get("polygon")), fill=number)
    return np.asarray(image, np.int32)


def _size_wh(document: Any) -> tuple[int, int]:
    if not isinstance(document, dict):
        raise Unusable("it is not an annotation of a frame")
    width, height = document.get("imgWidth"), document.get("imgHeight")
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        raise Unusable("it does not say the image's size")
    if width * height > _MOST_PX:
        raise Unusable(f"its image would be {width} x {height} px")
    return width, height


def _class_id(label: Any) -> tuple[int, bool]:
    """The id of a label, and whether it is a group."""
    if isinstance(label, str):
        if label in _ID_OF:
            return _ID_OF[label], False
        single = label.removesuffix("group")
        if single != label and single in _ID_OF:
            return _ID_OF[single], True
    raise Unusable(f"it has the label {label!r}, which Cityscapes does not have")


def _points(polygon: Any) -> list[tuple[float, float]]:
    try:
        points = [(float(x), float(y)) for x, y in polygon]
    except (TypeError, ValueError) as error:
        raise Unusable("one of its polygons is not a list of points") from error
    if len(points) < 2:
        raise Unusable("one of its polygons has fewer than 2 points")
    return points
