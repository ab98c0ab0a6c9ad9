"""The formats that labels are read from, by name, and finding out which one it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class LabelReader:
    """A format of other software, which whoever reads labels brings along; it is one file.

    Attributes:
        name: As ``--format`` takes it.
        form: What such a file is, in words.
        recognises: Whether a file looks like one.
        read: Reads one; raises FormatError.
    """

    name: str
    form: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], LabelSet]


def read_labels(path: Path, format_name: str = AUTO, *, readers: Sequence[LabelReader] = ()) -> LabelSet:
    """Reads annotations.

    Args:
        path: A file or a folder.
        format_name: ``coco``, ``label-image``, ``mask-folder``, a reader's name, or ``auto`` to find out.
        readers: Of further formats.

    Raises:
        UsageError: There is no such format or path.
        FormatError: What is there is not of this format.
    """
    known = READERS | {reader.name: reader.read for reader in readers}
    if format_name != AUTO and format_name not in known:
        raise UsageError(
            "there is no such label format",
            value=format_name,
            way_out=f"Formats: auto, {_forms(readers)}.",
        )
    if not path.exists():
        raise UsageError("there is no such file or folder", value=path)
    name = find_format(path, readers) if format_name == AUTO else format_name
    of_files = {coco.NAME, *(reader.name for reader in readers)}
    if path.is_dir() == (name in of_files) or (name == mask_folder.NAME and not path.is_dir()):
        kind = "folder" if path.is_dir() else "file"
        raise FormatError(
            f"a {kind} cannot be of the format {name}", value=path, way_out=f"Formats: {_forms(readers)}."
        )
    return known[name](path)


def _forms(readers: Sequence[LabelReader]) -> str:
    return ", ".join([_FORMS, *(f"{reader.name} ({reader.form})" for reader in readers)])


def find_format(path: Path, readers: Sequence[LabelReader] = ()) -> str:
    """The name of the format of what lies at ``path``.

    Raises:
        FormatError: It is of no known one.
    """
    if path.is_file():
        brought = [reader.name for reader in readers if reader.recognises(path)]
        if brought:
            return brought[0]
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
    raise FormatError("no known annotations are here", value=path, way_out=f"Formats: {_forms(readers)}.")


def _is_one_mask(path: Path) -> bool:
    try:
        return len(np.unique(read_numbers(path))) <= 2
    except ImageError:
        return True
