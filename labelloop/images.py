"""Any micrograph -> array and pixel size; intensities for networks and for eyes.

PNG, JPEG, TIFF, OME-TIFF and ImageJ TIFF are recognised by their content, never by their names. Of a stack
one page is read; of several channels the first, unless one is named; RGB stays RGB; alpha is left out. JPEGs
are turned upright as their EXIF orientation says, since that is how people saw them when they drew masks.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop import png_jpeg, tiff
from labelloop.errors import ImageError

MIN_SIDE_PX = 8  # nothing can be segmented in less
MAX_PIXELS = 1_000_000_000  # about 31,600 x 31,600
IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".btf", ".tf8"))

_SAMPLE_PX = 1_000_000  # percentiles of bigger images come from an even grid of about so many pixels
_EYE_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, kw_only=True, eq=False)
class Micrograph:
    """One image.

    Attributes:
        pixels: (h, w) gray or (h, w, 3) RGB, in the file's own type and range; finite.
        pixel_size_um: Side of a pixel, µm, if the file says.
    """

    pixels: npt.NDArray[Any]
    pixel_size_um: float | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width, px."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])


def read_image(path: Path, *, page: int = 0, channel: int = -1) -> Micrograph:
    """Reads one page of an image file.

    Args:
        path: PNG, JPEG, TIFF, OME-TIFF or ImageJ TIFF.
        page: Counted from 0 over z, time and everything else but channels.
        channel: Counted from 0; red, green and blue are channels too. -1: RGB as it is,
            else the first channel.

    Raises:
        ImageError: It cannot be used; the reason is in the message.
    """
    kind, data = _open(path)
    try:
        if kind == "TIFF":
            layout = tiff.tiff_layout(path, page)
            _require_size(layout.size_hw)
            pixels = tiff.read_tiff(path, page=page, channel=channel)
            pixel_size_um = layout.pixel_size_um
        else:
            pixels = _read_png_or_jpeg(kind, data, page, channel)
            pixel_size_um = None
        return Micrograph(pixels=_usable(pixels), pixel_size_um=pixel_size_um)
    except ImageError as error:
        raise _at(path, error) from error
    except MemoryError as error:
        raise _at(path, ImageError("the image does not fit into memory")) from error


def read_numbers(path: Path) -> npt.NDArray[Any]:
    """Reads a label image: the stored numbers, (h, w) or (h, w, c), palette numbers rather than colours.

    Raises:
        ImageError: It cannot be read, or has several planes; the reason is in the message.
    """
    kind, data = _open(path)
    try:
        if kind == "TIFF":
            layout = tiff.tiff_layout(path)
            _require_size(layout.size_hw)
            if layout.planes > 1:
                raise ImageError(
                    f"it has {layout.planes} planes (pages or channels), but labels have one; save that which"
                    " belongs to the image as a file of its own"
                )
            return tiff.read_tiff(path, page=0, channel=-1, colours=False)
        if kind == "JPEG":
            raise ImageError("a JPEG cannot hold labels, it changes the numbers")
        header = png_jpeg.png_header(data)
        _require_size(header.size_hw)
        return png_jpeg.decode_png_palette(header) if header.has_palette else png_jpeg.decode_png(header)
    except ImageError as error:
        raise _at(path, error) from error


def percentiles(pixels: npt.NDArray[Any], low_high: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles (0..100) of all samples of an image; big images are sampled on an even grid.

    Where both are the same, as few and small objects on a background of one value lie outside of them, the
    lowest and the highest sample instead.
    """
    height, width = pixels.shape[:2]
    step = max(1, int(np.ceil(np.sqrt(height * width / _SAMPLE_PX))))
    low, high = np.percentile(pixels[::step, ::step], low_high)
    if not high > low:
        low, high = pixels.min(), pixels.max()
    return float(low), float(high)


def black_and_white(pixels: npt.NDArray[Any], low_high: tuple[float, ...]) -> tuple[float, float]:
    """The intensities of an image that become 0 and 1.

    Args:
        pixels: (h, w) or (h, w, 3), any real type.
        low_high: Two of its ``percentiles``, 0..100; or none, for the range of its type, such as 0 and 255 of
            8-bit images. Types without a range, as floats are, go from the lowest to the highest sample.
    """
    if low_high:
        low, high = low_high
        return percentiles(pixels, (low, high))
    if pixels.dtype.kind == "f":
        return float(pixels.min()), float(pixels.max())
    limits = np.iinfo(pixels.dtype)
    return float(limits.min), float(limits.max)


def normalise(pixels: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float32]:
    """float32 (3, h, w): ``low`` becomes 0, ``high`` 1, clipped to 0..1; gray is repeated three times.

    A flat image (``high`` not above ``low``) becomes 0 everywhere.

    Args:
        pixels: (h, w) or (h, w, 3), any real type.
        low: Intensity that becomes 0.
        high: Intensity that becomes 1.
    """
    height, width = pixels.shape[:2]
    result = np.zeros((3, height, width), np.float32)
    if not high > low:
        return result
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    for i, plane in enumerate(planes):
        # Wide types lose their low bits in float32, so they are shifted first.
        narrow = plane.dtype.itemsize <= 2
        shifted = plane.astype(np.float32 if narrow else np.float64) - low
        np.clip(shifted * (1.0 / (high - low)), 0.0, 1.0, out=result[i], casting="same_kind")
    if len(planes) == 1:
        result[1:] = result[0]
    return result


def render_8bit(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """uint8 (h, w) or (h, w, 3) for eyes.

    8-bit images stay as they are. Others are stretched: their 0.5th percentile becomes 0, their 99.5th 255
    (of all colours together); a flat image becomes 0.
    """
    if pixels.dtype == np.uint8:
        return pixels
    low, high = percentiles(pixels, _EYE_PERCENTILES)
    stretched = normalise(pixels, low, high)
    eight = stretched[0] if pixels.ndim == 2 else np.moveaxis(stretched, 0, -1)
    return np.ascontiguousarray(np.rint(eight * 255).astype(np.uint8))


def _open(path: Path) -> tuple[str, bytes]:
    """The file's format by its first bytes, and its bytes; none of a TIFF, which is read in parts."""
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # opening a pipe would wait forever
            raise ImageError("the file cannot be read (it is a pipe, a socket or a device)", value=path)
        with path.open("rb") as file:
            start = file.read(8)
            if start.startswith(tiff.TIFF_SIGNATURES):
                return "TIFF", b""
            data = start + file.read() if _kind(start) else start
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})", value=path) from error
    if not data:
        raise ImageError("the file is empty", value=path)
    kind = _kind(start)
    if kind is None:
        raise ImageError(
            "the file is not a PNG, JPEG or TIFF image; export .czi, .nd2 or .lif as TIFF,"
            " for example in Fiji",
            value=path,
        )
    return kind, data


def _kind(start: bytes) -> str | None:
    if start.startswith(png_jpeg.PNG_SIGNATURE):
        return "PNG"
    return "JPEG" if start.startswith(png_jpeg.JPEG_SIGNATURE) else None


def _read_png_or_jpeg(kind: str, data: bytes, page: int, channel: int) -> npt.NDArray[Any]:
    _require_page(page)
    header = png_jpeg.png_header(data) if kind == "PNG" else png_jpeg.jpeg_header(data)
    _require_size(header.size_hw)
    if channel >= header.channels:
        raise ImageError("the image has no such channel", value=f"{channel}, of {header.channels} from 0")
    pixels = png_jpeg.decode_png(header) if kind == "PNG" else png_jpeg.decode_jpeg(header)
    if pixels.ndim == 2:
        return pixels
    if channel >= 0:
        return pixels[..., channel]
    return pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]


def _usable(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The pixels in a type that everyone can work with."""
    _require_size((int(pixels.shape[0]), int(pixels.shape[1])))
    if pixels.dtype.kind == "b":
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind not in "iuf":
        raise ImageError("the pixels are not real numbers", value=pixels.dtype)
    if pixels.dtype.kind == "f":
        bad = int(pixels.size - np.count_nonzero(np.isfinite(pixels)))
        if bad:
            raise ImageError("the image has pixels that are NaN or infinite", value=f"{bad} of {pixels.size}")
        if pixels.dtype.itemsize == 2:
            pixels = pixels.astype(np.float32)
    return np.ascontiguousarray(pixels)


def _require_page(page: int) -> None:
    if page != 0:
        raise ImageError("the image has no such page", value=f"{page}, of 1 from 0")


def _require_size(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    size = f"{width} x {height} px"
    if min(height, width) < MIN_SIDE_PX:
        raise ImageError(f"the image is too small (each side must be {MIN_SIDE_PX} px or more)", value=size)
    if height * width > MAX_PIXELS:
        raise ImageError("the image is too big (the limit is 1,000 megapixels)", value=size)


def _at(path: Path, error: ImageError) -> ImageError:
    """The same error with the file named."""
    detail = f" ({error.value})" if error.value else ""
    return ImageError(f"{error.what}{detail}", value=path, way_out=error.way_out)
