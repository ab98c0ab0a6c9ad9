"""Label images: every pixel holds the number of its object, 0 is background."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from labelloop.errors import FormatError, ImageError
from labelloop.formats.layouts import images_and_labels
from labelloop.formats.records import LabelledImage, LabelSet, SkippedFile
from labelloop.formats.rle import numbers_to_counts
from labelloop.images import IMAGE_SUFFIXES, read_numbers
from labelloop.instances import Instances

NAME = "label-image"

_LABEL_ENDING = re.compile(
    r"[ _.-](?:cp_masks|masks?_organoid|inst(?:ance)?s?|masks?|labels?|lbl|seg(?:mentation)?|gt)$",
    re.IGNORECASE,
)
_DRAWN_ENDING = re.compile(r"[ _.-](?:cp_output|flows|(?:cp_)?outlines)$", re.IGNORECASE)  # by Cellpose
_IMAGE_ENDING = re.compile(r"[ _.-](?:img|image|raw)$", re.IGNORECASE)


def is_named_as_labels(path: Path) -> bool:
    """Whether it is named as label images are: ``x_masks.tif``, ``x_label.png``, ``x_seg.png`` ..."""
    return _LABEL_ENDING.search(_stem(path.name)) is not None


def bare_stem(name: str) -> str:
    """What a label image and its image have in common: the name without its ending, ``_masks``, ``_img``.

    ``plate/x_img.jpg`` and ``plate/x_cp_masks.tif`` are both ``plate/x``.
    """
    folder, _, base = unicodedata.normalize("NFC", name).rpartition("/")
    stem = _IMAGE_ENDING.sub("", _LABEL_ENDING.sub("", _stem(base)))
    return f"{folder}/{stem}" if folder else stem


def made_from(path: Path) -> str | None:
    """What the name of an image of labels, or of flows or outlines, has in common with that of its image.

    None where the name is that of an image.
    """
    stem = _DRAWN_ENDING.sub("", _stem(path.name))
    return bare_stem(f"{stem}.tif") if stem != _stem(path.name) or is_named_as_labels(path) else None


def read_label_images(path: Path) -> LabelSet:
    """Reads a label image, or all in a folder and the folders in it.

    In a folder where some names end as those of label images do, only these are taken; the others are images.
    Where a folder has ``images`` and ``masks`` in it, the second holds labels and the first their images.

    Raises:
        FormatError: There are none.
    """
    if path.is_file():
        return read_label_files({path: path.name})
    images: dict[Path, str] = {}
    alone: list[Path] = []
    for parent, folders, files in _folders_of_images(path):
        paired = images_and_labels(parent)
        if paired is None:
            alone += files
            continue
        folders.clear()
        for labels in paired[1]:
            for file in image_files(labels):
                if made_from(file) is not None and not is_named_as_labels(file):
                    continue  # flows and outlines
                images[file] = (paired[0] / file.relative_to(labels)).relative_to(path).as_posix()
    named = [file for file in alone if is_named_as_labels(file)]
    others = named if images else named or alone
    images |= {file: file.relative_to(path).as_posix() for file in others}
    if not images:
        raise FormatError(
            "the folder has no label images",
            value=path,
            way_out="They are images named like x_masks.tif for x.tif, or images in a folder of their own.",
        )
    return read_label_files(images)


def read_label_files(images: Mapping[Path, str]) -> LabelSet:
    """Reads these label images.

    Where one and the same number is all that they hold, and that in more than two pieces each on average,
    they are masks of all objects together, and those in several pieces are refused.

    Args:
        images: What the image of each label image is called; no matter what its name ends in.
    """
    read: dict[Path, LabelledImage] = {}
    skipped: list[SkippedFile] = []
    pieces: dict[Path, int] = {}  # of the only object of a file
    numbers: set[int] = set()  # of those objects
    for file, image in images.items():
        try:
            plane = _one_plane(read_numbers(file))
            instances = numbers_to_instances(plane)
        except ImageError as error:
            skipped.append(SkippedFile(path=str(file), reason=error.what))
            continue
        read[file] = LabelledImage(image=image, instances=instances, by_stem=True)
        if len(instances) == 1:
            pieces[file] = _pieces(plane)
            numbers.add(int(plane.max()))
    alone = len(numbers) == 1 and all(len(read[file].instances) == 0 for file in read.keys() - pieces.keys())
    if alone and sum(pieces.values()) > 2 * len(pieces):
        for file in (file for file, n in pieces.items() if n > 1):
            skipped.append(SkippedFile(path=str(file), reason=_together(pieces[file])))
            del read[file]
    return LabelSet(
        format=NAME,
        records=tuple(read.values()),
        classes=None,
        skipped=tuple(skipped),
        files=frozenset(images),
    )


def numbers_to_instances(numbers: npt.NDArray[Any]) -> Instances:
    """The objects of a label image, in the order of their numbers.

    Raises:
        ImageError: The pixels are not object numbers.
    """
    plane = _one_plane(numbers)
    masks = numbers_to_counts(plane)
    if list(masks) == [255] or (masks and plane.dtype == np.bool_):
        pieces = _pieces(plane)
        if pieces > 1:
            raise ImageError(_together(pieces))
    return Instances(
        size_hw=(int(plane.shape[0]), int(plane.shape[1])),
        rles=tuple(masks.values()),
        labels=np.zeros(len(masks), np.int64),
    )


def _pieces(plane: npt.NDArray[Any]) -> int:
    return int(ndimage.label(plane, np.ones((3, 3)))[1])


def _together(pieces: int) -> str:
    return f"it is a mask of all objects together ({pieces} pieces of one number), not a label image"


def image_files(folder: Path) -> Iterator[Path]:
    """The files under a folder whose names end as those of images do, sorted; hidden ones are left out."""
    for _, _, files in _folders_of_images(folder):
        yield from files


def _folders_of_images(folder: Path) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """As ``os.walk``: a folder, the names of the folders in it, and its images."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = [name for name in sorted(names) if not name.startswith(".")]
        files = [Path(parent) / name for name in here if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        yield Path(parent), folders, files


def _one_plane(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(h, w) whole numbers."""
    if numbers.ndim == 3:
        colours = numbers[..., :3] if numbers.shape[-1] >= 3 else numbers[..., :1]
        if not (colours == colours[..., :1]).all():
            raise ImageError("it has colours instead of object numbers")
        numbers = colours[..., 0]
    if numbers.dtype.kind == "f":
        if not np.isfinite(numbers).all() or not (numbers == np.rint(numbers)).all():
            raise ImageError("it has fractions instead of object numbers")
        numbers = numbers.astype(np.int64)
    if numbers.dtype.kind not in "iub":
        raise ImageError("it has no object numbers")
    if numbers.dtype.kind == "i" and numbers.size and numbers.min() < 0:
        raise ImageError("it has negative numbers")
    return numbers


def _stem(name: str) -> str:
    stem = Path(name).stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem
