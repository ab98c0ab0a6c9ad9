"""An annotation's outline in COCO's words -> run lengths. Rasterised by pycocotools, the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from labelloop.formats.records import RelativeOutline
from labelloop.formats.rle import checked_rle
from labelloop.instances import Instances

_FAR = 10  # a coordinate this many image sides away is an error, and would cost memory to draw


class Unusable(Exception):
    """Something in a file that cannot be used; its text is the reason."""


def rasterise(segmentation: Any, size_hw: tuple[int, int], *, has_box: bool = False) -> bytes:
    """The compressed COCO run lengths of a ``segmentation``: polygons, or run lengths of either kind.

    Args:
        segmentation: As in the file, whatever it is.
        size_hw: Of the image, px.
        has_box: Whether the annotation has a box; for the reason only.

    Raises:
        Unusable: There is no usable outline, or not one pixel of it is in the image.
    """
    if isinstance(segmentation, dict):
        try:
            rle = checked_rle(segmentation, size_hw)
        except (ValueError, TypeError, OverflowError) as error:
            raise Unusable(f"the RLE cannot be used: {error}") from error
        outside = False
    elif isinstance(segmentation, list) and segmentation:
        rle, outside = _rasterise_polygons(segmentation, size_hw)
    else:
        raise Unusable("it has a box but no mask" if has_box else "it has no mask")
    if not coco_mask.area({"size": list(size_hw), "counts": rle}):
        raise Unusable("it lies outside the image" if outside else "its mask is empty")
    return rle


def draw_outlines(
    outlines: Sequence[RelativeOutline], size_hw: tuple[int, int]
) -> tuple[Instances, list[str]]:
    """Outlines in shares of the image's sides as objects, and why some cannot be used.

    Args:
        outlines: Of one image.
        size_hw: Of that image, px.
    """
    height, width = size_hw
    rles, labels, faults = [], [], []
    for outline in outlines:
        sides = (width, height) * (len(outline.xy) // 2)
        polygon = [share * side for share, side in zip(outline.xy, sides, strict=True)]
        try:
            rles.append(rasterise([polygon], size_hw))
            labels.append(outline.label)
        except Unusable as fault:
            faults.append(str(fault))
    instances = Instances(size_hw=size_hw, rles=tuple(rles), labels=np.asarray(labels, np.int64))
    return instances, faults


def _rasterise_polygons(segmentation: list[Any], size_hw: tuple[int, int]) -> tuple[bytes, bool]:
    """The union of the parts, and whether all of them lie outside the image."""
    height, width = size_hw
    flat = not isinstance(segmentation[0], list)
    parts = [_coordinates(part) for part in ([segmentation] if flat else segmentation)]
    drawn = [part for part in parts if len(part) >= 6]
    if not drawn:
        raise Unusable("its polygon has fewer than 3 points")
    limit = _FAR * max(size_hw)
    if any(abs(value) > limit for part in drawn for value in part):
        raise Unusable("its polygon reaches far outside the image")
    outside = all(_lies_outside(part, size_hw) for part in drawn)
    rle = coco_mask.merge(coco_mask.frPyObjects(drawn, height, width))
    return bytes(rle["counts"]), outside


def _coordinates(part: Any) -> list[float]:
    if not isinstance(part, list) or len(part) % 2:
        raise Unusable("its polygon is not a list of x and y in turn")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in part):
        raise Unusable("its polygon has coordinates that are not numbers")
    return [float(value) for value in part]


def _lies_outside(part: list[float], size_hw: tuple[int, int]) -> bool:
    xs, ys = part[0::2], part[1::2]
    return max(xs) <= 0 or max(ys) <= 0 or min(xs) >= size_hw[1] or min(ys) >= size_hw[0]
