"""Which image a Label Studio task shows.

Only names come from here, relative and without steps upward; nothing is opened by them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from labelloop.formats.outlines import Unusable
from labelloop.images import IMAGE_SUFFIXES

PLACE = "labelloop"  # in a task's data: what labelloop says of a task that it made
MAX_SIDE_PX = 100_000  # of an image; more is an error, and would cost memory

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_UPLOAD = "/data/upload/"
_LOCAL_FILES = "/data/local-files"
_UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The part of an image that a task of labelloop shows.

    Attributes:
        of: What tells images apart: content, page, channel and size.
        top: In the image, px.
        left: In the image, px.
        size_hw: Of the tile, px.
        image_hw: Of the image, px.
    """

    of: tuple[object, ...]
    top: int
    left: int
    size_hw: tuple[int, int]
    image_hw: tuple[int, int]

    def is_covered_by(self, tiles: Sequence[Tile]) -> bool:
        """Whether these tiles of its image leave no pixel of the image out."""
        height, width = self.image_hw
        ys = sorted({0, *(tile.top for tile in tiles), *(tile.top + tile.size_hw[0] for tile in tiles)})
        xs = sorted({0, *(tile.left for tile in tiles), *(tile.left + tile.size_hw[1] for tile in tiles)})
        corners = ((y, x) for y in ys for x in xs if y < height and x < width)
        return all(any(tile.holds(y, x) for tile in tiles) for y, x in corners)

    def holds(self, y: int, x: int) -> bool:
        """Whether it shows this pixel of the image."""
        height, width = self.size_hw
        return self.top <= y < self.top + height and self.left <= x < self.left + width


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What a task shows.

    Attributes:
        name: Of the image's file, relative, with forward slashes.
        tile: The part of it, for tasks that labelloop made.
    """

    name: str
    tile: Tile | None


def task_picture(data: Mapping[str, Any]) -> Picture:
    """The image of a task.

    It is what labelloop noted there, else the ``image`` of the data, else the first text that names an image.

    Raises:
        Unusable: There is none.
    """
    if PLACE in data:
        return _noted(data[PLACE])
    texts = [value for value in (data.get("image"), *data.values()) if isinstance(value, str)]
    if not isinstance(data.get("image"), str):
        texts = [text for text in texts if PurePosixPath(image_name(text)).suffix.lower() in IMAGE_SUFFIXES]
    name = image_name(texts[0]) if texts else ""
    if not name:
        raise Unusable("its data does not name an image file")
    return Picture(name=name, tile=None)


def image_name(reference: str) -> str:
    """The file name behind what a task's data says, or nothing.

    Uploads lose the prefix that Label Studio gives them; of addresses the last part of the path is left;
    local files and plain paths keep their folders, but never lead upward.
    """
    is_served = _UPLOAD in reference or _LOCAL_FILES in reference
    if reference.startswith("data:"):
        return ""
    if not is_served and not _ADDRESS.match(reference):
        return _relative(reference)
    try:
        parts = urlsplit(reference)
    except ValueError:
        return ""
    if _LOCAL_FILES in parts.path:
        return _relative(parse_qs(parts.query).get("d", [""])[0])
    last = unquote(parts.path.rpartition("/")[2])
    name = _UPLOAD_PREFIX.sub("", last, count=1) if _is_upload(parts.path, last) else last
    return _relative(name).rpartition("/")[2]


def _is_upload(path: str, last: str) -> bool:
    return _UPLOAD in path and _UPLOAD_PREFIX.match(last) is not None


def _relative(name: str) -> str:
    """A path without a drive, a root and steps upward."""
    steps = re.sub(r"^[A-Za-z]:", "", name.replace("\\", "/")).split("/")
    return "/".join(step for step in steps if step not in ("", ".", ".."))


def _noted(place: object) -> Picture:
    """What labelloop noted, checked: a person or another program may have changed it."""
    held = place if isinstance(place, dict) else {}
    name, box, size = held.get("file_name"), _counts(held.get("box"), 4), _counts(held.get("size"), 2)
    if not isinstance(name, str) or not _relative(name) or not box or not size:
        raise Unusable("what labelloop noted in its data is damaged")
    left, top, width, height = box
    if not width or not height or left + width > size[0] or top + height > size[1]:
        raise Unusable("what labelloop noted in its data is not a part of the image")
    sha256, page, channel = (str(held.get(key)) for key in ("sha256", "page", "channel"))
    tile = Tile(
        of=(sha256, page, channel, *size),
        top=top,
        left=left,
        size_hw=(height, width),
        image_hw=(size[1], size[0]),
    )
    return Picture(name=_relative(name), tile=tile)


def _counts(values: object, length: int) -> list[int]:
    """So many numbers of pixels, or nothing."""
    numbers = values if isinstance(values, list) and len(values) == length else []
    whole = all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= MAX_SIDE_PX for v in numbers)
    return numbers if whole else []
