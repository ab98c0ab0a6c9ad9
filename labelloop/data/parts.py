"""Parts: the pool as training sees it. A large field is many parts, so that no step pays for a whole one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from labelloop.project.project import ImageRecord

IMAGE_BITS = 32  # the low bits of a part's id are its image's id


class Part(NamedTuple):
    """A part of an image; light, so that a pool of 100,000 images is parted in seconds.

    ``id`` is the image's own where the part is all of it. ``window`` is top, left, height and width, px.
    """

    id: int
    image: ImageRecord
    window: tuple[int, int, int, int]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.window[2:]


def whole(image: ImageRecord) -> Part:
    """The part that is all of an image."""
    return Part(image.id, image, (0, 0, *image.size_hw))


def image_of(part_id: int) -> int:
    """The id of the image that a part belongs to."""
    return part_id & (1 << IMAGE_BITS) - 1


def parts_of(images: Iterable[ImageRecord], *, side_px: int) -> list[Part]:
    """The parts of images, in their order; each pixel is in exactly one.

    Args:
        images: Of the pool.
        side_px: Parts are about so long; an image up to half as long again is one part.
    """
    parts: list[Part] = []
    for image in images:
        rows, columns = (_cuts(length, side_px) for length in image.size_hw)
        if len(rows) == len(columns) == 1:
            parts.append(whole(image))
            continue
        windows = [(top, left, height, width) for top, height in rows for left, width in columns]
        parts += [
            Part(number << IMAGE_BITS | image.id, image, window) for number, window in enumerate(windows, 1)
        ]
    return parts


def _cuts(length: int, side: int) -> list[tuple[int, int]]:
    """Start and length of even pieces of about this side."""
    count = max(round(length / side), 1)
    ends = [round(length * i / count) for i in range(count + 1)]
    return [(start, end - start) for start, end in pairwise(ends)]
