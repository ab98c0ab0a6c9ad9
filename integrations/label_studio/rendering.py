"""The pictures that people see: 8-bit PNG, one for each task, in the pixels of the image.

8-bit images are shown as they are; others are stretched, as ``images.render_8bit`` says. A PNG of 8 bits
that is shown whole goes out as its file is, without its metadata.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from labelloop.errors import ImageError
from labelloop.images import render_8bit
from labelloop.png_jpeg import png_header
from labelloop.predict.tiles import Tile
from labelloop.project.project import ImageRecord
from labelloop.project.recorded import read_unchanged

_PNG = b"\x89PNG\r\n\x1a\n"


def task_pictures(image: ImageRecord, tiles: Sequence[Tile]) -> list[bytes]:
    """PNG files of these parts of an image.

    Raises:
        ImageError: It cannot be read any more, or is not the one that was added.
    """
    whole = (0, 0, *image.size_hw)
    if all(tile.box == whole for tile in tiles) and (file := _plain_png(image)) is not None:
        return [file for _ in tiles]
    pixels = render_8bit(read_unchanged(image).pixels)
    pictures = []
    for tile in tiles:
        top, left, bottom, right = tile.box
        png = io.BytesIO()
        Image.fromarray(pixels[top:bottom, left:right]).save(png, "PNG", compress_level=1)
        pictures.append(png.getvalue())
    return pictures


def _plain_png(image: ImageRecord) -> bytes | None:
    """The file without its metadata, if it is a PNG that shows just the image's pixels."""
    if image.channel != -1 or image.page != 0 or image.replaced:
        return None
    data = _content(image.path)
    if not data.startswith(_PNG) or hashlib.sha256(data).hexdigest() != image.sha256:
        return None
    header = png_header(data)
    plain = header.dtype == "uint8" and header.channels in (1, 3) and not header.has_palette
    return header.clean if plain and header.size_hw == image.size_hw else None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})", value=path) from error
