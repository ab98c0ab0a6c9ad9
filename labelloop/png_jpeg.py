"""PNG and JPEG files -> arrays. Metadata is cut away before a decoder can stumble over it."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import JpegImagePlugin, PngImagePlugin

from labelloop.errors import ImageError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type; a palette gives RGB
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
_PALETTE = 3
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers
_JPEG_ADOBE = 0xEE  # says how the colours are stored, so it is more than metadata
_EXIF_ORIENTATION = 0x0112
# What the decoders are known to raise on broken files.
_FAULTS = (
    LookupError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error,
    zlib.error,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a PNG or JPEG says of itself.

    Attributes:
        size_hw: Height and width, px, upright.
        channels: Samples of a pixel, alpha included.
        dtype: Type of the decoded samples.
        has_palette: The samples are numbers of colours.
        orientation: EXIF orientation 1..8; 1 is upright.
        clean: The file without its metadata.
    """

    size_hw: tuple[int, int]
    channels: int
    dtype: str
    has_palette: bool
    orientation: int
    clean: bytes


def png_header(data: bytes) -> Header:
    """Reads the chunks of a PNG without decoding it.

    Raises:
        ImageError: It is truncated or broken.
    """
    kept = [PNG_SIGNATURE]
    head: bytes | None = None
    position = len(PNG_SIGNATURE)
    name = b""
    while name != b"IEND":
        if position + 12 > len(data):
            raise ImageError("the PNG is truncated")
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ImageError("the PNG is truncated")
        if name in _PNG_KEPT:
            kept.append(data[position:end])
        if name == b"IHDR" and head is None and length == 13:
            head = data[position + 8 : position + 21]
        position = end
    if head is None:
        raise ImageError("the PNG is damaged (no header)")
    width, height, depth, colour = struct.unpack_from(">IIBB", head)
    if colour not in _PNG_CHANNELS:
        raise ImageError("the PNG is damaged (no such colour type)", value=colour)
    return Header(
        size_hw=(height, width),
        channels=_PNG_CHANNELS[colour],
        dtype="uint16" if depth == 16 else "uint8",
        has_palette=colour == _PALETTE,
        orientation=1,
        clean=b"".join(kept),
    )


def decode_png(header: Header) -> npt.NDArray[Any]:
    """(h, w) or (h, w, c), uint8 or uint16, palettes and small depths expanded.

    Raises:
        ImageError: It is damaged.
    """
    try:
        return np.asarray(imagecodecs.png_decode(header.clean))
    except _FAULTS as error:
        raise ImageError("the PNG is damaged") from error


def decode_png_palette(header: Header) -> npt.NDArray[Any]:
    """(h, w) uint8, the colour numbers of a PNG with a palette.

    Raises:
        ImageError: It is damaged.
    """
    try:
        return np.asarray(PngImagePlugin.PngImageFile(io.BytesIO(header.clean)))
    except _FAULTS as error:
        raise ImageError("the PNG is damaged") from error


def jpeg_header(data: bytes) -> Header:
    """Reads the segments of a JPEG up to its pixels, without decoding it.

    Raises:
        ImageError: It is truncated or broken.
    """
    kept = [data[:2]]
    orientation = 1
    frame: tuple[int, int, int] | None = None
    position = 2
    while True:
        while data[position : position + 2] == b"\xff\xff":  # fill bytes
            position += 1
        if position + 4 > len(data):
            raise ImageError("the JPEG is truncated")
        fill, marker, length = struct.unpack_from(">BBH", data, position)
        if fill != 0xFF or length < 2:
            raise ImageError("the JPEG is damaged (no marker where one must be)")
        segment = data[position : position + 2 + length]
        if len(segment) < 2 + length:
            raise ImageError("the JPEG is truncated")
        if marker == 0xDA:  # the pixels begin
            kept.append(data[position:])
            break
        if marker in _JPEG_FRAMES and length >= 8:
            height, width, channels = struct.unpack_from(">HHB", segment, 5)
            frame = (height, width, channels)
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            orientation = _exif_orientation(segment[10:])
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or marker == _JPEG_ADOBE:
            kept.append(segment)
        position += 2 + length
    if frame is None:
        raise ImageError("the JPEG is damaged (no header)")
    size_hw = frame[:2] if orientation < 5 else (frame[1], frame[0])
    return Header(
        size_hw=size_hw,
        channels=1 if frame[2] == 1 else 3,
        dtype="uint8",
        has_palette=False,
        orientation=orientation,
        clean=b"".join(kept),
    )


def decode_jpeg(header: Header) -> npt.NDArray[Any]:
    """(h, w) or (h, w, 3) uint8, upright; CMYK becomes RGB.

    Raises:
        ImageError: It is damaged or truncated.
    """
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(header.clean)) as image:
            pixels = np.asarray(image.convert("RGB") if image.mode == "CMYK" else image)
    except _FAULTS as error:
        truncated = "truncated" in str(error)
        raise ImageError("the JPEG is truncated" if truncated else "the JPEG is damaged") from error
    return upright(pixels, header.orientation)


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turns and mirrors (h, w, ...) pixels the way that EXIF orientation 1..8 asks for."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def _exif_orientation(exif: bytes) -> int:
    """The orientation in a TIFF-like EXIF block; 1 where it says none, or something senseless."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(order + "H", exif, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == _EXIF_ORIENTATION and kind == 3:
            return int(value) if 1 <= value <= 8 else 1
    return 1
