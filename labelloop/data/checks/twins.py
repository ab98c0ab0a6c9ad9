"""Whole images that look the same: saved again, other exposure, other size, turned or mirrored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from labelloop.data.checks.keypoints import ORIENTATIONS, Floats, band_passed, turned

THUMBNAIL = 16  # px a side
MIN_CORRELATION = 0.85  # of two images laid over each other

_MIN_LIKENESS = 0.8  # of two thumbnails
_PARTNERS = 8  # pairs of one image that are looked at, in one orientation
_ROWS = 1024  # thumbnails that are compared with all others at once
_MANY = 20_000  # images beyond which turned ones are not looked for
_ASPECT = 1.03  # images whose sides differ more cannot be the same


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Two images that look alike: the second looks like the first once it is turned.

    Attributes:
        first: Index of an image.
        second: Index of another, higher.
        orientation: How the second is turned.
    """

    first: int
    second: int
    orientation: int


def thumbnail(half: Floats) -> npt.NDArray[np.float16]:
    """float16 (THUMBNAIL, THUMBNAIL): what is left of an image without fine detail and uneven light."""
    small = np.asarray(Image.fromarray(half).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float32)
    small = small - ndimage.uniform_filter(small, 5)
    small = small - small.mean()
    norm = float(np.sqrt((small**2).sum()))
    return np.asarray(small / norm if norm > 1e-6 else np.zeros_like(small), np.float16)


def likely_twins(thumbnails: npt.NDArray[np.float16], shapes_hw: npt.NDArray[np.int64]) -> list[Twins]:
    """Pairs of images whose thumbnails and shapes agree; the best orientation of each pair.

    Of many images that all look alike each is paired with a few, enough to chain them together.

    Args:
        thumbnails: (n, THUMBNAIL, THUMBNAIL).
        shapes_hw: (n, 2), px.
    """
    n = len(thumbnails)
    flat = thumbnails.reshape(n, -1).astype(np.float32)
    aspect = np.log(np.maximum(shapes_hw[:, 0], 1) / np.maximum(shapes_hw[:, 1], 1))
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for orientation in range(ORIENTATIONS if n <= _MANY else 1):
        other = np.ascontiguousarray(turned(thumbnails, orientation)).reshape(n, -1).astype(np.float32)
        turned_aspect = -aspect if orientation % 2 else aspect
        for start in range(0, n, _ROWS):
            likeness = flat[start : start + _ROWS] @ other[start:].T
            likeness[np.tril_indices(likeness.shape[0], m=likeness.shape[1])] = -1  # each pair once
            for i, j in _likest(likeness) + start:
                if abs(aspect[i] - turned_aspect[j]) < np.log(_ASPECT):
                    found = (float(likeness[i - start, j - start]), orientation)
                    best[(int(i), int(j))] = max(best.get((int(i), int(j)), found), found)
    return [Twins(first=i, second=j, orientation=o) for (i, j), (_, o) in sorted(best.items())]


def _likest(likeness: Floats) -> npt.NDArray[np.int64]:
    """(p, 2): row and column of what is alike enough, of each row no more than _PARTNERS, the likest."""
    alike = likeness > _MIN_LIKENESS
    for row in np.flatnonzero(alike.sum(axis=1) > _PARTNERS):
        least = np.partition(likeness[row], -_PARTNERS)[-_PARTNERS]
        alike[row] &= likeness[row] >= least
    return np.argwhere(alike)


def whole_correlation(first: Floats, second: Floats, orientation: int) -> float:
    """Pearson correlation of two half-scale images, band-passed; the larger one is shrunk to the other."""
    second = np.ascontiguousarray(turned(second, orientation))
    if first.size > second.size:
        first, second = second, first
    if second.shape != first.shape:
        height, width = first.shape
        second = np.asarray(Image.fromarray(second).resize((width, height), Image.Resampling.BOX), np.float32)
    one, other = band_passed(first), band_passed(second)
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / norm if norm > 0 else 0.0
