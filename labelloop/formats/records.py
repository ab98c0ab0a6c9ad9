"""What every reader of annotations returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labelloop.instances import Instances

SHOWN = 3  # files that an error names


@dataclass(frozen=True, kw_only=True)
class SkippedFile:
    """Something that could not be used.

    Attributes:
        path: The file, or the place in a file.
        reason: Why, in words.
    """

    path: str
    reason: str


def first_reasons(skipped: Sequence[SkippedFile]) -> str:
    """Why the first few could not be used, and how many more there are: the value of an error."""
    shown = "; ".join(f"{file.path}: {file.reason}" for file in skipped[:SHOWN])
    return shown + (f"; and {len(skipped) - SHOWN} more" if len(skipped) > SHOWN else "")


@dataclass(frozen=True, kw_only=True)
class RelativeOutline:
    """A polygon of an image whose size is not known yet.

    Attributes:
        xy: x and y in turn, as shares of the image's width and height.
        label: Class index.
    """

    xy: tuple[float, ...]
    label: int


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImage:
    """The labels of one image, before its file is found.

    Attributes:
        image: The image's file as the annotations name it (relative, with forward slashes), or its path
            without an ending where ``by_stem`` is true.
        by_stem: Only the name without ending is known, so any image of that stem is meant.
        instances: The objects; labels index ``LabelSet.classes``. None of them is a fact too: an image in
            which somebody looked and found nothing.
        any_size: The annotations do not say the image's size; the objects are ``outlines``.
        outlines: Objects whose coordinates are shares of the image's sides, 0..1.
        void: Run lengths of what nobody may be judged by, whatever the class, or None. Where the image is
            measured it becomes a crowd of every class; training learns that no object is there.
    """

    image: str
    instances: Instances
    by_stem: bool = False
    any_size: bool = False
    outlines: tuple[RelativeOutline, ...] = ()
    void: bytes | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelSet:
    """All that an annotation file or folder says.

    Attributes:
        format: Name of the format.
        records: One for each image.
        classes: Class names in the file's order, or None where the format has no names (all labels are 0).
        skipped: What could not be used, with reasons.
        files: Image files that hold labels, so that none of them is taken for an image.
        image_folder: Where the format's layout has the images, if it is not beside the labels.
    """

    format: str
    records: tuple[LabelledImage, ...]
    classes: tuple[str, ...] | None
    skipped: tuple[SkippedFile, ...]
    files: frozenset[Path] = frozenset()
    image_folder: Path | None = None
