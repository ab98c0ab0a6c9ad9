"""The formats that labels are read from, by name, and finding out which one it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from labelloop.errors import FormatError, ImageError, UsageError
from labelloop.formats import coco, label_image, mask_folder
from labelloop.formats.records import LabelSet
from labelloop.images import IMAGE_SUFFIXES, read_numbers

READERS: dict[str, Callable[[Path], LabelSet]] = {
    coco.NAME: coco.read_coco,
    label_image.NAME: label_image.read_label_images,
    mask_folder.NAME: mask_folder.read_mask_folders,
}
AUTO = "auto"

_FORMS = (
    "coco (a JSON file with images and annotations), label-image (an image or a folder of images whose "
    "pixels hold object numbers), mask-folder (for each image a folder with one mask for each object)"
)


def read_labels(path: Path, format_name: str = AUTO) -> LabelSet:
    """Reads annotations.

    Args:
        path: A file or a folder.
        format_name: ``coco``, ``label-image``, ``mask-folder``, or ``auto`` to find out.

    Raises:
        UsageError: There is no such format or path.
        FormatError: What is there is not of this format.
    """
    if format_name != AUTO and format_name not in READERS:
        raise UsageError(
            "there is no such label format", value=format_name, way_out=f"Formats: auto, {_FORMS}."
        )
    if not path.exists():
        raise UsageError("there is no such file or folder", value=path)
    name = find_format(path) if format_name == AUTO else format_name
    if path.is_dir() == (name == coco.NAME) or (name == mask_folder.NAME and not path.is_dir()):
        kind = "folder" if path.is_dir() else "file"
        raise FormatError(
            f"a {kind} cannot be of the format {name}", value=path, way_out=f"Formats: {_FORMS}."
        )
    return READERS[name](path)


def find_format(path: Path) -> str:
    """The name of the format of what lies at ``path``.

    Raises:
        FormatError: It is of no known one.
    """
    if path.is_file():
        if path.suffix.lower() == ".json":
            return coco.NAME
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return label_image.NAME
    else:
        files = list(label_image.image_files(path))
        folders = mask_folder.mask_folders(path)
        here = {file.stem for file in files if file.parent == path}
        if any(masks != named for masks, named in folders.items()):
            return mask_folder.NAME
        if folders and {named.name for named in folders.values()} <= here:  # images and their folders
            return mask_folder.NAME
        if here:
            return label_image.NAME
        if folders:
            first = label_image.image_files(next(iter(folders)))
            return mask_folder.NAME if all(map(_is_one_mask, first)) else label_image.NAME
        if files:
            return label_image.NAME
    raise FormatError("no known annotations are here", value=path, way_out=f"Formats: {_FORMS}.")


def _is_one_mask(path: Path) -> bool:
    try:
        return len(np.unique(read_numbers(path))) <= 2
    except ImageError:
        return True
