"""Which images belong together, so that none of them is measured by what another one taught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from labelloop.project.project import ImageRecord


def groups_of(images: Sequence[ImageRecord]) -> list[str | None]:
    """The group of each image: its own, else its file where others of the images are of that file too.

    Pages and channels of one file are one group, as files are recognised by their content. An image that is
    alone has None.
    """
    counts = Counter(image.sha256 for image in images if image.group is None)
    names: dict[str, str] = {}
    for image in images:
        names.setdefault(image.sha256, f"{image.file_name} ({image.sha256[:8]})")
    return [
        names[image.sha256] if image.group is None and counts[image.sha256] > 1 else image.group
        for image in images
    ]


def units_of(images: Sequence[ImageRecord]) -> list[list[ImageRecord]]:
    """The images by group, an image that is alone by itself; in the order of each group's first image."""
    units: dict[object, list[ImageRecord]] = {}
    for image, group in zip(images, groups_of(images), strict=True):
        units.setdefault(image.id if group is None else group, []).append(image)
    return list(units.values())
