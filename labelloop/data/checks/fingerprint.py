"""What one reading of an image tells a check; little enough to be kept for every image of a pool."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from labelloop.data.checks.keypoints import Floats, Keypoints, find_keypoints, half_scale
from labelloop.data.checks.twins import THUMBNAIL, thumbnail
from labelloop.errors import ChangedImageError, ImageError
from labelloop.project.project import ImageRecord
from labelloop.project.recorded import read_recorded, read_unchanged

MOST_COMPARISONS = 5e10  # of keypoints, between two sides
_SATURATED_SHARE = 0.02  # of the pixels at the brightest value
_STRUCTURE = 1.3  # how much coarse means must vary beyond what noise of independent pixels makes of them
_DENSITY = 60 / 22_500  # keypoints per half-scale px
_BLOCK = 8  # px a side
_SAMPLE_PX = 4_000_000  # statistics of larger images are taken from an even grid


@dataclass(frozen=True, kw_only=True, eq=False)
class Fingerprint:
    """What is kept of one image.

    Attributes:
        fault: Why the image cannot be used; None if it can. All else is empty then.
        changed: The fault is that its file has changed since it was added.
        pixel_hash: Equal for equal pixels, whatever the file.
        blank: In words, why nothing can be seen; None if something can.
        saturated: Share of the pixels that are stuck at the brightest value, 0..1; 0 if that is not a fault.
        size_hw: Height and width, px.
        thumbnail: float16 (THUMBNAIL, THUMBNAIL), band-passed, zero mean and unit norm, or all 0.
        keypoints: None where none were asked for.
    """

    fault: str | None = None
    changed: bool = False
    pixel_hash: str = ""
    blank: str | None = None
    saturated: float = 0.0
    size_hw: tuple[int, int] = (0, 0)
    thumbnail: npt.NDArray[np.float16]
    keypoints: Keypoints | None = None


def fingerprint(record: ImageRecord, *, keypoints: int) -> Fingerprint:
    """Reads an image once.

    Args:
        record: Which image.
        keypoints: Not more than so many are kept; none are looked for if 0.
    """
    nothing = np.zeros((THUMBNAIL, THUMBNAIL), np.float16)
    try:
        pixels = read_unchanged(record).pixels
    except ImageError as error:
        changed = isinstance(error, ChangedImageError)
        return Fingerprint(fault=error.what, changed=changed, thumbnail=nothing)
    blank = why_blank(pixels)
    half = half_scale(pixels)
    most = min(keypoints, int(_DENSITY * half.size) + 8)
    return Fingerprint(
        pixel_hash=pixel_hash(pixels),
        blank=blank,
        saturated=0.0 if blank else saturated_share(pixels),
        size_hw=(pixels.shape[0], pixels.shape[1]),
        thumbnail=nothing if blank else thumbnail(half),
        keypoints=find_keypoints(half, most) if keypoints and not blank else None,
    )


def pixel_hash(pixels: npt.NDArray[Any]) -> str:
    """A hash of the pixels, their type and their shape; gray stored as RGB counts as gray."""
    if pixels.ndim == 3 and (pixels[..., :1] == pixels).all():
        pixels = pixels[..., 0]
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.kind}{pixels.dtype.itemsize}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def why_blank(pixels: npt.NDArray[Any]) -> str | None:
    """Why nothing can be seen in an image, or None. Of colours the channel that varies most counts.

    Pixels of pure noise do not know of each other, so means of 8x8 of them vary 8 times less than they do.
    """
    gray = pixels if pixels.ndim == 2 else _widest_channel(pixels)
    if gray.min() == gray.max():
        return f"every pixel is {gray.flat[0]}"
    height, width = (side // _BLOCK for side in gray.shape)
    grid = gray[: height * _BLOCK, : width * _BLOCK].reshape(height, _BLOCK, width, _BLOCK)
    step = _sampling(gray, _SAMPLE_PX)
    blocks = grid[::step, :, ::step].astype(np.float64)
    coarse = blocks.mean(axis=(1, 3)) - blocks.mean()
    fine = float(blocks.std())
    if coarse.size >= 64 and float(coarse.std()) * _BLOCK < _STRUCTURE * fine:
        return "nothing but noise"
    return None


def _widest_channel(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The channel that varies most."""
    step = _sampling(pixels, _SAMPLE_PX)
    channels = [pixels[..., channel] for channel in range(pixels.shape[2])]
    spreads = [(float(c[::step, ::step].std(dtype=np.float64)), c.min() < c.max()) for c in channels]
    return channels[spreads.index(max(spreads))]


def saturated_share(pixels: npt.NDArray[Any]) -> float:
    """Share of the pixels that are stuck at the brightest value, or 0 where they are not overexposed.

    Overexposed pixels form areas at one value, with far fewer pixels at the values just below. Colour images
    count where all channels are at the end; a white background of a stained section is not a fault.
    """
    if pixels.ndim == 3:
        return 0.0
    brightest = pixels.max()
    stuck = pixels == brightest
    share = float(stuck.mean())
    if share < _SATURATED_SHARE:
        return 0.0
    step = _sampling(pixels, _SAMPLE_PX)
    sample = pixels[::step, ::step]
    below = np.unique(sample[sample != brightest])[-3:]
    beside = float(np.isin(sample, below).mean()) / max(1, len(below))
    area = ndimage.binary_erosion(stuck, iterations=2)
    return share if share > 3 * beside and area.any() else 0.0


def _sampling(pixels: npt.NDArray[Any], most: int) -> int:
    """The step of an even grid that has no more than about ``most`` of the pixels."""
    return max(1, int(np.ceil(np.sqrt(pixels.shape[0] * pixels.shape[1] / most))))


def read_half(record: ImageRecord) -> Floats:
    """The image at half scale, read again."""
    return half_scale(read_recorded(record).pixels)


def keypoint_budget(n_firsts: int, n_seconds: int) -> int:
    """Keypoints per image for which comparing all of two sides stays within ``MOST_COMPARISONS``."""
    pairs = max(1, n_firsts) * max(1, n_seconds) * 8
    return int(np.clip(np.sqrt(MOST_COMPARISONS / pairs), 6, 2000))
