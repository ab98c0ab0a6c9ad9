"""A folder of binary masks for each image: ``<image>/*.png``, or as in DSB2018 ``<image>/masks/*.png``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.errors import FormatError, ImageError
from labelloop.formats.label_image import image_files
from labelloop.formats.records import LabelledImage, LabelSet, SkippedFile
from labelloop.formats.rle import numbers_to_counts
from labelloop.images import read_numbers
from labelloop.instances import Instances

NAME = "mask-folder"

_INSIDE = (1, 255, 65535)  # what a mask of one object has inside


def mask_folders(path: Path) -> dict[Path, Path]:
    """The folders that hold masks, each with the folder named after its image, sorted."""
    found = {}
    for child in sorted(
        child for child in path.iterdir() if child.is_dir() and not child.name.startswith(".")
    ):
        masks = child / "masks" if (child / "masks").is_dir() else child
        if any(image_files(masks)):
            found[masks] = child
    return found


def read_mask_folders(path: Path) -> LabelSet:
    """Reads all folders of masks in a folder. Inside is where a mask is above half of its greatest value.

    Raises:
        FormatError: There are none.
    """
    records: list[LabelledImage] = []
    skipped: list[SkippedFile] = []
    folders = mask_folders(path)
    for masks, named in folders.items():
        try:
            instances = _read_masks(masks, skipped)
        except FormatError as error:
            skipped.append(SkippedFile(path=str(masks), reason=error.what))
            continue
        if instances is None:
            skipped.append(SkippedFile(path=str(masks), reason="none of its masks can be used"))
        else:
            records.append(LabelledImage(image=_image_of(path, named), instances=instances, by_stem=True))
    if not folders:
        raise FormatError(
            "the folder has no folders of masks",
            value=path,
            way_out="Each image needs a folder of its name that holds one mask for each object.",
        )
    files = frozenset(file for masks in folders for file in image_files(masks))
    return LabelSet(format=NAME, records=tuple(records), classes=None, skipped=tuple(skipped), files=files)


def object_numbers(plane: npt.NDArray[Any]) -> int:
    """The greatest of the numbers of several objects in a plane; 0 if it is the mask of one.

    The soft edge of a mask has more than two values too, but its inside is then the greatest of its type.
    """
    greatest = int(plane.max(initial=0))
    return greatest if greatest not in _INSIDE and len(np.unique(plane)) > 2 else 0


def _image_of(path: Path, named: Path) -> str:
    """The image of these masks: in DSB2018 the one beside them, else the one their folder is named after."""
    beside = [file for file in image_files(named / "images")] if (named / "images").is_dir() else []
    image = beside[0] if len(beside) == 1 else Path(f"{named}.png")
    return image.relative_to(path).as_posix()


def _read_masks(folder: Path, skipped: list[SkippedFile]) -> Instances | None:
    rles: list[bytes] = []
    size_hw: tuple[int, int] | None = None
    for file in image_files(folder):
        try:
            plane = brightest(read_numbers(file))
            size = (int(plane.shape[0]), int(plane.shape[1]))
            if size_hw is not None and size != size_hw:
                raise ImageError(
                    f"its size is {size}, but the masks before it have {size_hw} (height, width)"
                )
            if greatest := object_numbers(plane):
                raise FormatError(
                    f"{file.name} holds the numbers of several objects (up to {greatest}), not one mask;"
                    " add the labels with --format label-image"
                )
            greatest = plane.max()
            if not greatest > 0:
                raise ImageError("its mask is empty")
            inside = plane if plane.dtype == np.bool_ else plane > greatest / 2
            rles.append(numbers_to_counts(inside)[1])
            size_hw = size
        except ImageError as error:
            skipped.append(SkippedFile(path=str(file), reason=error.what))
    if size_hw is None:
        return None
    return Instances(size_hw=size_hw, rles=tuple(rles), labels=np.zeros(len(rles), np.int64))


def brightest(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(h, w): the greatest of red, green and blue; alpha does not count.

    Raises:
        ImageError: They are complex, NaN or infinite.
    """
    if numbers.dtype.kind not in "biuf":
        raise ImageError("its pixels are not real numbers")
    colours = numbers
    if numbers.ndim == 3:
        colours = numbers[..., :3] if numbers.shape[2] >= 3 else numbers[..., :1]
    if not np.isfinite(colours).all():
        raise ImageError("it has pixels that are NaN or infinite")
    return colours if colours.ndim == 2 else np.asarray(colours.max(axis=2))
