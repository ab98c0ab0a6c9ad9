"""TIFF, OME-TIFF and ImageJ TIFF files -> one plane as an array, and its pixel size."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import tifffile

from labelloop.errors import ImageError

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# A resolution tag gives the pixel size only if that is one of a microscope (or a fine scanner): 72, 96, 300
# and 1200 dpi are what programs write who know nothing of the sample. Fiji keeps them in inch or cm.
PLAUSIBLE_PIXEL_UM = (0.01, 10.0)
_UNITS_OF_PRINTERS = frozenset(("inch", "in", "cm"))

_UNIT_UM = {
    "pm": 1e-6, "å": 1e-4, "nm": 1e-3, "nanometer": 1e-3,
    "\u00b5m": 1.0, "\u03bcm": 1.0, "\\u00b5m": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0,     "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "inch": 25400.0, "in": 25400.0, "m": 1e6,
}  # fmt: skip
_RESOLUTION_UNIT_UM = {2: 25400.0, 3: 1e4}  # inch, centimetre
_SPATIAL = frozenset("YX")
_SAMPLES = "S"
_CHANNELS = "C"
# What tifffile and its codecs raise on broken files, found by cutting and changing bytes of good ones.
_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, struct.error, ElementTree.ParseError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TiffLayout:
    """What a TIFF holds.

    Attributes:
        size_hw: Height and width of a plane, px.
        planes: Pages (over z, time and all other axes but the channels, series after series) times channels,
            where the colours of a pixel and its transparency are one channel.
        pixel_size_um: Side of a pixel, µm, if the file says.
    """

    size_hw: tuple[int, int]
    planes: int
    pixel_size_um: float | None


def tiff_layout(path: Path, page: int = 0) -> TiffLayout:
    """Reads the tags of a TIFF without decoding pixels; the size is that of ``page``.

    Raises:
        ImageError: It is broken, or has no such page.
    """
    with _opened(path) as tif:
        series, _, pages = _series_of_page(tif, page)
        return TiffLayout(
            size_hw=_size_hw(series),
            planes=pages * _axis_length(series, _CHANNELS) * _gray_samples(series),
            pixel_size_um=_pixel_size_um(tif),
        )


def read_tiff(path: Path, *, page: int, channel: int, colours: bool = True) -> npt.NDArray[Any]:
    """One plane, (h, w) or (h, w, 3), in the file's type and the machine's byte order.

    Args:
        path: The file.
        page: Counted from 0 over z, time and other axes, series after series.
        channel: Counted from 0; -1 for RGB as it is, else the first channel.
        colours: False gives palette numbers and inverted grays as they are stored.

    Raises:
        ImageError: It is broken, or has no such page or channel.
    """
    with _opened(path) as tif:
        series, index, _ = _series_of_page(tif, page)
        channels = _channels(series)
        if channel >= channels:
            raise ImageError("the image has no such channel", value=f"{channel}, of {channels} from 0")
        plane, axes = _plane(tif, series, index, max(channel, 0))
        palette = _has_palette(series) and colours
        pixels = _select_samples(plane, axes, series, -1 if palette else channel)
        if pixels.ndim not in (2, 3) or pixels.shape[:2] != _size_hw(series):
            raise ImageError("the TIFF is damaged (its tags contradict each other)")
        if colours:
            pixels = _as_seen(pixels, series.keyframe)
        if palette and channel >= 0:
            pixels = pixels[..., channel]
        return np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("="), copy=False))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A TiffFile whose faults, on opening and in the block, become ImageErrors."""
    logger = logging.getLogger("tifffile")
    if not logger.handlers:  # its remarks are for whoever sets up logging, not for the screen
        logger.addHandler(logging.NullHandler())
    try:
        with tifffile.TiffFile(path, _multifile=False) as tif:
            yield tif
    except ImageError:
        raise
    except _FAULTS as error:
        raise ImageError("the TIFF is damaged or truncated") from error


def _series_of_page(tif: Any, page: int) -> tuple[Any, int, int]:
    """The series that holds this page, the page's number in it, and the pages of the file."""
    counts = [_pages(series) for series in tif.series]
    total = sum(counts)
    if total == 0:
        raise ImageError("the TIFF has no pages")
    if not 0 <= page < total:
        raise ImageError("the image has no such page", value=f"{page}, of {total} counted from 0")
    ends = np.cumsum(counts)
    number = int(np.searchsorted(ends, page, side="right"))
    series, index = tif.series[number], page - int(ends[number] - counts[number])
    if not _SPATIAL <= set(series.axes):
        raise ImageError("the TIFF has no rows and columns", value=f"axes {series.axes}")
    return series, index, total


def _pages(series: Any) -> int:
    return math.prod(
        int(n)
        for axis, n in zip(series.axes, series.shape, strict=True)
        if axis not in _SPATIAL and axis not in (_SAMPLES, _CHANNELS)
    )


def _size_hw(series: Any) -> tuple[int, int]:
    return int(series.shape[series.axes.index("Y")]), int(series.shape[series.axes.index("X")])


def _axis_length(series: Any, axis: str) -> int:
    return int(series.shape[series.axes.index(axis)]) if axis in series.axes else 1


def _channels(series: Any) -> int:
    channels = _axis_length(series, _CHANNELS)
    if _has_palette(series) and channels == 1:
        return 3
    return channels if channels > 1 else _axis_length(series, _SAMPLES)


def _gray_samples(series: Any) -> int:
    """The samples of a pixel that are neither colours nor transparency."""
    page = series.keyframe
    if _is_coloured(page):
        return 1
    return max(1, _axis_length(series, _SAMPLES) - sum(int(extra) != 0 for extra in page.extrasamples))


def _is_coloured(page: Any) -> bool:
    return page.photometric in (
        tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR, tifffile.PHOTOMETRIC.SEPARATED,
    )  # fmt: skip


def _has_palette(series: Any) -> bool:
    page = series.keyframe
    is_palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.samplesperpixel == 1
    return bool(is_palette and page.colormap is not None)


def _plane(tif: Any, series: Any, index: int, channel: int) -> tuple[npt.NDArray[Any], str]:
    """The wanted page (and channel, where channels are planes) as an array, and its axes."""
    outer = [
        (axis, int(n))
        for axis, n in zip(series.axes, series.shape, strict=True)
        if axis not in _SPATIAL and axis != _SAMPLES
    ]
    numbers = iter(np.unravel_index(index, [n for axis, n in outer if axis != _CHANNELS] or [1]))
    chosen = {axis: min(channel, n - 1) if axis == _CHANNELS else int(next(numbers)) for axis, n in outer}
    inside = "".join(axis for axis in series.axes if axis not in chosen)
    where = tuple(chosen.get(axis, slice(None)) for axis in series.axes)
    if series.dataoffset is not None:  # one block of plain samples: only the plane is read from it
        offset = int(series.dataoffset)
        _require_bytes(tif, offset, int(series.nbytes))
        dtype = np.dtype(tif.byteorder + series.dtype.char)
        block: npt.NDArray[Any] = np.memmap(tif.filehandle.path, dtype, "r", offset, tuple(series.shape))
        return np.array(block[where]), inside
    if len(series.pages) == math.prod(n for _, n in outer):  # a plane is a page of the file
        number = int(np.ravel_multi_index(list(chosen.values()) or [0], [n for _, n in outer] or [1]))
        frame = series.pages[number]
        if frame is None:
            raise ImageError("this plane of the OME-TIFF lies in another file")
        _require_segments(tif, frame)
        return np.asarray(frame.asarray()), str(series.keyframe.axes)
    for frame in series.pages:
        if frame is not None:
            _require_segments(tif, frame)
    return np.asarray(series.asarray())[where], inside


def _require_bytes(tif: Any, offset: int, length: int) -> None:
    if offset + length > int(tif.filehandle.size):
        raise ImageError("the TIFF is truncated")


def _require_segments(tif: Any, frame: Any) -> None:
    """Looks whether every strip or tile lies inside the file: tifffile would fill some gaps with zeros."""
    offsets, lengths = frame.dataoffsets, frame.databytecounts
    needed = math.prod(frame.keyframe.chunked)
    if not offsets or len(offsets) != len(lengths) or len(offsets) < needed or 0 in lengths:
        raise ImageError("the TIFF is damaged (strips or tiles are missing)")
    for offset, length in zip(offsets, lengths, strict=True):
        _require_bytes(tif, int(offset), int(length))


def _select_samples(plane: npt.NDArray[Any], axes: str, series: Any, channel: int) -> npt.NDArray[Any]:
    """(h, w) or, for colours of which no channel was asked for, (h, w, samples)."""
    if _SAMPLES not in axes:
        return plane.T if axes == "XY" else plane
    plane = np.moveaxis(plane, axes.index(_SAMPLES), -1)
    if _axis_length(series, _CHANNELS) > 1 or channel < 0:
        return plane if _is_coloured(series.keyframe) and plane.shape[-1] >= 3 else plane[..., 0]
    return plane[..., channel]


def _as_seen(pixels: npt.NDArray[Any], page: Any) -> npt.NDArray[Any]:
    """Palettes, inverted grays and CMYK as gray or RGB."""
    photometric = page.photometric
    if photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None and pixels.ndim == 2:
        colours = np.asarray(page.colormap, np.uint16).T
        scale = 8 if colours.max(initial=0) > 255 else 0
        return np.asarray((colours >> scale).astype(np.uint8)[pixels])
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
        return np.asarray(np.invert(pixels))
    if photometric == tifffile.PHOTOMETRIC.SEPARATED and pixels.ndim == 3 and pixels.dtype == np.uint8:
        ink = 255 - pixels[..., :4].astype(np.uint16)
        key = ink[..., 3:4] if pixels.shape[-1] >= 4 else np.uint16(255)
        return ((ink[..., :3] * key + 127) // 255).astype(np.uint8)
    return pixels[..., :3] if pixels.ndim == 3 else pixels


def _pixel_size_um(tif: Any) -> float | None:
    """What OME metadata say, else ImageJ's, else a plausible resolution tag. Width of a pixel, µm."""
    if tif.ome_metadata:
        return _ome_pixel_size_um(tif.ome_metadata)
    page = tif.pages.first
    resolution = page.tags.get("XResolution")
    per_unit = _ratio(resolution.value) if resolution is not None else None
    sure = False
    if tif.imagej_metadata:
        name = str(tif.imagej_metadata.get("unit", "")).strip().lower()
        unit_um, sure = _UNIT_UM.get(name), name not in _UNITS_OF_PRINTERS
    else:
        unit = page.tags.get("ResolutionUnit")
        unit_um = _RESOLUTION_UNIT_UM.get(int(unit.value) if unit is not None else 2)
    if unit_um is None or per_unit is None:
        return None
    low, high = PLAUSIBLE_PIXEL_UM
    size = unit_um / per_unit
    return size if sure or low <= size <= high else None


def _ome_pixel_size_um(xml: str) -> float | None:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    for pixels in root.iter():
        if pixels.tag.rpartition("}")[2] == "Pixels":
            unit_um = _UNIT_UM.get(pixels.get("PhysicalSizeXUnit", "µm").strip().lower())
            size = _positive(pixels.get("PhysicalSizeX", ""))
            return size * unit_um if size is not None and unit_um is not None else None
    return None


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _ratio(value: Any) -> float | None:
    """What a resolution tag says: two numbers as it should, or one, as some programs write."""
    parts = value if isinstance(value, tuple) else (value,)
    usable = all(isinstance(part, int | float) and 0 < part < math.inf for part in parts)
    return parts[0] / (*parts, 1)[1] if len(parts) in (1, 2) and usable else None
