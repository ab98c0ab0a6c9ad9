"""ADE20K instances: ``ADEChallengeData2016/annotations_instance/<split>/*.png``.

As the instance segmentation task of the Places Challenge 2017 has them: red is the class, 1 to 100, and green
the number of the object, which no other object of the image has; 0 is everything else. Blue says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.errors import FormatError, ImageError
from labelloop.formats.label_image import image_files
from labelloop.formats.layouts import sibling_folder
from labelloop.formats.records import LabelledImage, LabelSet, SkippedFile
from labelloop.formats.rle import numbers_to_counts
from labelloop.images import read_numbers
from labelloop.instances import Instances

NAME = "ade20k"

# In the task's order: the class that red calls 1 comes first.
CLASSES = (
    "bed", "windowpane", "cabinet", "person", "door", "table", "curtain", "chair", "car", "painting", "sofa",
    "shelf", "mirror", "armchair", "seat", "fence", "desk", "wardrobe", "lamp", "bathtub", "railing",
    "cushion", "box", "column", "signboard", "chest of drawers", "counter", "sink", "fireplace",
    "refrigerator", "stairs", "case", "pool table", "pillow", "screen door", "bookcase", "coffee table",
    "toilet", "flower", "book", "bench", "countertop", "stove", "palm", "kitchen island", "computer",
    "swivel chair", "boat", "arcade machine", "bus", "towel", "light", "truck", "chandelier", "awning",
    "streetlight", "booth", "television receiver", "airplane", "apparel", "pole", "bannister", "ottoman",
    "bottle", "van", "ship", "fountain", "washer", "plaything", "stool", "barrel", "basket", "bag",
    "minibike", "oven", "ball", "food", "step", "trade name", "microwave", "pot", "animal", "bicycle",
    "dishwasher", "screen", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan",
    "plate", "monitor", "bulletin board", "radiator", "glass", "clock", "flag",
)  # fmt: skip

_FILE = re.compile(r"ADE_(?:train|val|test)_\d{8}\.png")
_LABELS, _IMAGES = "annotations_instance", "images"


def is_ade20k(path: Path) -> bool:
    """Whether it is a folder of such labels; those of the other tasks lie in ``annotations``."""
    folder = path if path.is_dir() else path.parent
    return _LABELS in folder.parts and next(_label_files(path), None) is not None


def read_ade20k(path: Path) -> LabelSet:
    """Reads all labels under a folder, or those in one file. An object without a class is left out.

    Raises:
        FormatError: There are none.
    """
    root = path if path.is_dir() else path.parent
    files = list(_label_files(path))
    if not files:
        raise FormatError(
            "there are no instance labels of ADE20K", value=path, way_out=f"They lie in {_LABELS}."
        )
    records: list[LabelledImage] = []
    skipped: list[SkippedFile] = []
    for file in files:
        try:
            instances = _instances(read_numbers(file), file, skipped)
        except ImageError as error:
            skipped.append(SkippedFile(path=str(file), reason=error.what))
            continue
        name = file.relative_to(root).with_suffix(".jpg").as_posix()
        records.append(LabelledImage(image=name, instances=instances))
    return LabelSet(
        format=NAME,
        records=tuple(records),
        classes=CLASSES,
        skipped=tuple(skipped),
        files=frozenset(files),
        image_folder=sibling_folder(path, {_LABELS: _IMAGES}),
    )


def _label_files(path: Path) -> Iterator[Path]:
    files = [path] if path.is_file() else image_files(path)
    return (file for file in files if _FILE.fullmatch(file.name))


def _instances(numbers: npt.NDArray[Any], file: Path, skipped: list[SkippedFile]) -> Instances:
    if numbers.ndim != 3 or numbers.shape[2] < 3:
        raise ImageError("it is gray, but red should be the class and green the object")
    red, green = numbers[..., 0], numbers[..., 1]
    rles, labels = [], []
    for number, rle in numbers_to_counts(green).items():
        classes = np.unique(red[green == number])
        if len(classes) == 1 and 1 <= classes[0] <= len(CLASSES):
            rles.append(rle)
            labels.append(int(classes[0]) - 1)
        else:
            named = " and ".join(str(value) for value in classes[:3])
            reason = f"its class is {named}, not one of 1 to {len(CLASSES)}"
            skipped.append(SkippedFile(path=f"{file}, object {number}", reason=reason))
    return Instances(
        size_hw=(int(numbers.shape[0]), int(numbers.shape[1])),
        rles=tuple(rles),
        labels=np.asarray(labels, np.int64),
    )
