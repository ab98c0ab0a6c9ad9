"""Points of an image that are found again in a copy or a piece of it, and how their surroundings look.

All of this happens at half scale. A point is an extreme of the band-passed image in its neighbourhood, so the
same points are found wherever the image is cut; the surroundings are kept without their brightness and
contrast, so another exposure does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]

ORIENTATIONS = 8  # four quarter turns, mirrored or not
PATCH = 9  # samples a side of a descriptor
_STEP = 3  # half-scale px between samples: a descriptor covers 48 px of the image
_MARGIN = PATCH // 2 * _STEP
_NEIGHBOURHOOD = 17  # half-scale px a side in which a point is the most extreme


@dataclass(frozen=True, kw_only=True, eq=False)
class Keypoints:
    """Points of one image.

    Attributes:
        yx: int32 (n, 2), half-scale px.
        patches: float16 (n, PATCH, PATCH), zero mean, unit norm.
        size_hw: The image at half scale.
    """

    yx: npt.NDArray[np.int32]
    patches: npt.NDArray[np.float16]
    size_hw: tuple[int, int]


def half_scale(pixels: npt.NDArray[Any]) -> Floats:
    """Gray at half the size, (h // 2, w // 2), by means of 2x2 px; colours are averaged."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    height, width = planes.shape[0] // 2, planes.shape[1] // 2
    half = np.zeros((height, width), np.float32)
    for y, x in np.ndindex(2, 2):
        for channel in range(planes.shape[2]):
            half += planes[y : 2 * height : 2, x : 2 * width : 2, channel]
    return half / np.float32(4 * planes.shape[2])


def band_passed(half: Floats) -> Floats:
    """Without noise and without slow changes of brightness."""
    smooth = ndimage.gaussian_filter(half, 1.2, truncate=3)
    return np.asarray(smooth - ndimage.uniform_filter(smooth, 25), np.float32)


def find_keypoints(half: Floats, most: int) -> Keypoints:
    """The most extreme points of an image.

    Args:
        half: Half-scale image.
        most: Not more than so many, the strongest.
    """
    band = band_passed(half)
    blobs = ndimage.gaussian_filter(half, 1.5, truncate=3) - ndimage.gaussian_filter(half, 3.0, truncate=3)
    strength = np.abs(blobs)
    peaks = (strength == ndimage.maximum_filter(strength, _NEIGHBOURHOOD)) & (strength > 0)
    inner = np.zeros_like(peaks)
    inner[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] = True
    y, x = np.nonzero(peaks & inner)
    strongest = np.argsort(-strength[y, x], kind="stable")[:most]
    y, x = y[strongest], x[strongest]
    offsets = np.arange(-_MARGIN, _MARGIN + 1, _STEP)
    patches = band[y[:, None, None] + offsets[:, None], x[:, None, None] + offsets]
    patches = patches - patches.mean(axis=(1, 2), keepdims=True)
    norms = np.sqrt((patches**2).sum(axis=(1, 2), keepdims=True))
    patches = patches / np.maximum(norms, 1e-12)
    return Keypoints(
        yx=np.stack([y, x], axis=1).astype(np.int32),
        patches=patches.astype(np.float16),
        size_hw=(half.shape[0], half.shape[1]),
    )


def turned(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """An array (..., h, w) turned by quarter turns and, from orientation 4 on, mirrored after that."""
    rotated = np.rot90(array, orientation % 4, axes=(-2, -1))
    return rotated[..., ::-1] if orientation >= 4 else rotated


def turned_points(
    yx: npt.NDArray[np.int32], size_hw: tuple[int, int], orientation: int
) -> npt.NDArray[np.int32]:
    """Where points (n, 2) of an image lie in the image that ``turned`` gives."""
    y, x = yx[:, 0], yx[:, 1]
    height, width = size_hw
    for _ in range(orientation % 4):
        y, x = width - 1 - x, y
        height, width = width, height
    if orientation >= 4:
        x = width - 1 - x
    return np.stack([y, x], axis=1).astype(np.int32)
