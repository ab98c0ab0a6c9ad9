"""Soft masks on small grids, and how they become pixels of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def resample_mask(
    mask: npt.NDArray[np.float32] | npt.NDArray[np.uint8],
    box_xyxy: Sequence[float] | npt.NDArray[np.float32],
    size_hw: tuple[int, int],
    *,
    antialias: bool = False,
) -> tuple[npt.NDArray[np.uint8], int, int]:
    """A mask on its box's grid, resampled to the image's pixels.

    Bilinear, with zeros around the mask, as torchvision's ``paste_masks_in_image``; separable, so it is two
    small matrix products. What of the mask lies beyond the image costs nothing.

    Args:
        mask: float32 (rows, columns), 0..1; or uint8, 0..255.
        box_xyxy: Where the mask lies, image px; it may reach over the image's border.
        size_hw: The image.
        antialias: Where pixels are larger than cells, all cells in and around a pixel make it, as in
            ``torch.nn.functional.interpolate``; else those around its centre alone.

    Returns:
        The crop, uint8 (h, w) 0..255, and its top and left in the image. It has at least one pixel.
    """
    (x0, y0, x1, y1), (height, width) = (float(at) for at in box_xyxy), size_hw
    left, columns, across = _resampling(x0, x1, mask.shape[1], width, antialias=antialias)
    top, rows, down = _resampling(y0, y1, mask.shape[0], height, antialias=antialias)
    seen = mask[rows, columns]
    share = np.multiply(seen, 1 / 255, dtype=np.float32) if seen.dtype == np.uint8 else seen
    return np.rint(down @ share @ across.T * 255).astype(np.uint8), top, left


def _resampling(
    low: float, high: float, cells: int, limit: int, *, antialias: bool
) -> tuple[int, slice, npt.NDArray[np.float32]]:
    """How mask cells from ``low`` to ``high`` make pixels, along one axis.

    Returns:
        The first pixel, the cells that count in the image, and their weights (pixels, cells).
    """
    cell = max(high - low, 1e-3) / cells
    reach = max(1 / cell, 1.0) if antialias else 1.0  # of a pixel, in cells
    first = int(min(max(math.floor(low - cell * (reach - 0.5)), 0), limit - 1))
    last = int(min(max(math.ceil(high + cell * (reach - 0.5)), first + 1), limit))
    at = (np.arange(first, last, dtype=np.float32) + 0.5 - low) / cell - 0.5
    begin = min(max(math.floor(at[0] - (reach - 1)), 0), cells - 1)
    end = min(max(math.floor(at[-1] + (reach - 1)) + 2, begin + 1), cells)
    weights = np.maximum(1 - np.abs(at[:, None] - np.arange(begin, end, dtype=np.float32)) / reach, 0)
    if reach > 1:  # the cells around the mask, which are empty, count too
        around = np.arange(math.floor(-reach), math.ceil(reach) + 1) - (at % 1)[:, None]
        weights /= np.maximum(1 - np.abs(around) / reach, 0).sum(1, keepdims=True)
    return first, slice(begin, end), weights.astype(np.float32)
