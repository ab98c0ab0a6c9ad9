"""The formats that labels are read from, by name, and finding out which one it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from labelloop.errors import FormatError, ImageError, UsageError
from labelloop.formats import ade20k, cityscapes, coco, label_image, mask_folder, orgasegment, yolo
from labelloop.formats.layouts import images_and_labels
from labelloop.formats.records import LabelSet
from labelloop.images import IMAGE_SUFFIXES, read_numbers

AUTO = "auto"

_PROBED = 60  # files that auto looks into

Holder = Literal["file", "folder", "either"]


@dataclass(frozen=True, kw_only=True)
class LabelReader:
    """One format of labels. Whoever reads labels may bring along those of other software.

    Attributes:
        name: As ``--format`` takes it.
        form: What such labels are, in words.
        recognises: Whether a file or folder is surely of this format.
        read: Reads it; raises FormatError.
        holder: What the labels are in.
    """

    name: str
    form: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], LabelSet]
    holder: Holder = "file"


def _never(path: Path) -> bool:
    """Nothing says so surely: ``find_format`` looks closer, or the format has to be named."""
    return False


FORMATS = (
    LabelReader(
        name=coco.NAME,
        form="a JSON file with images and annotations",
        recognises=lambda path: path.is_file() and path.suffix.lower() == ".json",
        read=coco.read_coco,
    ),
    LabelReader(
        name=label_image.NAME,
        form="an image or a folder of images whose pixels hold object numbers",
        recognises=_never,
        read=label_image.read_label_images,
        holder="either",
    ),
    LabelReader(
        name=mask_folder.NAME,
        form="for each image a folder with one mask for each object",
        recognises=_never,
        read=mask_folder.read_mask_folders,
        holder="folder",
    ),
    LabelReader(
        name=yolo.NAME,
        form="a folder of text files of outlines, with classes.txt or data.yaml",
        recognises=yolo.is_yolo,
        read=yolo.read_yolo,
        holder="either",
    ),
    LabelReader(
        name=cityscapes.NAME,
        form="a folder such as gtFine/train",
        recognises=cityscapes.is_cityscapes,
        read=cityscapes.read_cityscapes,
        holder="either",
    ),
    LabelReader(
        name=ade20k.NAME,
        form="a folder such as annotations_instance/training",
        recognises=ade20k.is_ade20k,
        read=ade20k.read_ade20k,
        holder="either",
    ),
    LabelReader(
        name=orgasegment.NAME,
        form="a folder of x_img.jpg and x_masks_organoid.png; auto reads label images, without a class name",
        recognises=_never,
        read=orgasegment.read_orgasegment,
        holder="either",
    ),
)


def read_labels(path: Path, format_name: str = AUTO, *, readers: Sequence[LabelReader] = ()) -> LabelSet:
    """Reads annotations.

    Args:
        path: A file or a folder.
        format_name: The name of one of ``FORMATS`` or ``readers``, or ``auto`` to find out.
        readers: Of further formats.

    Raises:
        UsageError: There is no such format.
        FormatError: There is no such path, or what is there is not of this format.
    """
    known = {reader.name: reader for reader in (*FORMATS, *readers)}
    if format_name != AUTO and format_name not in known:
        raise UsageError(
            "there is no such label format",
            value=format_name,
            way_out=f"Formats: auto, {_forms(readers)}.",
        )
    if not path.exists():
        raise FormatError(
            "there is no such file or folder", value=path, way_out="Check the path of the labels."
        )
    reader = known[find_format(path, readers) if format_name == AUTO else format_name]
    kind = "folder" if path.is_dir() else "file"
    if reader.holder not in (kind, "either"):
        raise FormatError(
            f"a {kind} cannot be of the format {reader.name}",
            value=path,
            way_out=f"Formats: {_forms(readers)}.",
        )
    return reader.read(path)


def _forms(readers: Sequence[LabelReader]) -> str:
    return ", ".join(f"{reader.name} ({reader.form})" for reader in (*FORMATS, *readers))


def find_format(path: Path, readers: Sequence[LabelReader] = ()) -> str:
    """The name of the format of what lies at ``path``.

    Raises:
        FormatError: It has none that is known.
    """
    sure = [reader.name for reader in (*readers, *reversed(FORMATS)) if reader.recognises(path)]
    if sure:
        return sure[0]
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return label_image.NAME
    else:
        if paired := images_and_labels(path):
            images, (labels, *_) = paired
            if any(label_image.image_files(labels)) and find_format(labels, readers) == mask_folder.NAME:
                raise FormatError(
                    "the masks lie in a folder of their own, apart from the images",
                    value=path,
                    way_out=f"Add {labels} with --images {images}.",
                )
            return label_image.NAME
        files = list(label_image.image_files(path))
        folders = mask_folder.mask_folders(path)
        here = {file.stem for file in files if file.parent == path}
        if inside := [masks for masks, named in folders.items() if masks != named]:
            some = islice((file for masks in inside for file in label_image.image_files(masks)), _PROBED)
            return label_image.NAME if any(map(_holds_numbers, some)) else mask_folder.NAME
        if folders and {named.name for named in folders.values()} <= here:  # images and their folders
            return mask_folder.NAME
        if not here and folders and all(map(_is_one_mask, label_image.image_files(next(iter(folders))))):
            return mask_folder.NAME
        if files:
            _require_no_coco_file(path, files)
            return label_image.NAME
    raise FormatError(
        "no annotations of a known format are here", value=path, way_out=f"Formats: {_forms(readers)}."
    )


def _require_no_coco_file(path: Path, files: Sequence[Path]) -> None:
    """Images beside a COCO file are not labels, unless their names say so."""
    if any(map(label_image.is_named_as_labels, files)):
        return
    documents = islice(
        (file for depth in ("*", "*/*") for file in sorted(path.glob(f"{depth}.json"))), _PROBED
    )
    found = [str(file) for file in documents if _is_coco_file(file)]
    if found:
        raise FormatError(
            "the folder holds images whose annotations are in a COCO file",
            value=path,
            way_out=f"Add that file: {', '.join(found)}. Label images are added with --format label-image.",
        )


def _is_coco_file(path: Path) -> bool:
    try:
        return coco.is_coco(coco.load_json(path))
    except FormatError:
        return False


def _holds_numbers(path: Path) -> bool:
    try:
        return mask_folder.object_numbers(mask_folder.brightest(read_numbers(path))) > 0
    except ImageError:
        return False


def _is_one_mask(path: Path) -> bool:
    try:
        return len(np.unique(read_numbers(path))) <= 2
    except ImageError:
        return True
