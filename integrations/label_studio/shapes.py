"""What people draw in Label Studio, as run lengths: polygons, brush masks, rectangles and ellipses.

Lengths are percent of the image's width or height; angles are degrees, clockwise, and hold for pixels, so
that a turned shape in an image that is not square is turned as it looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.formats.outlines import Unusable
from labelloop.formats.rle import runs_to_counts
from labelloop.integrations.label_studio.brush import brush_runs
from labelloop.integrations.label_studio.polygons import polygon_to_mask, to_px

_LARGEST = 1e6  # percent; more is an error
_OFF_CURVE_PX = 0.05  # an ellipse is drawn as a polygon that keeps this close to it
_MOST_POINTS = 2000

FloatArray = npt.NDArray[np.float64]


class ErasedError(Unusable):
    """A brush mask of which nothing was left."""


def shape_to_mask(kind: str, value: Mapping[str, Any], size_hw: tuple[int, int]) -> bytes:
    """The COCO run lengths of a shape, cut to the image.

    Args:
        kind: One of ``KINDS``.
        value: As a region holds it, whatever it is.
        size_hw: Of the image, px.

    Raises:
        Unusable: It is damaged, or no pixel of it is in the image.
    """
    return _READERS[kind](value, size_hw)


def _polygon(value: Mapping[str, Any], size_hw: tuple[int, int]) -> bytes:
    points = value.get("points")
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise Unusable("its polygon is not a list of points")
    if not all(is_number(number) for point in points for number in point):
        raise Unusable("its polygon has coordinates that are not numbers")
    return polygon_to_mask(to_px(np.asarray(points, np.float64).reshape(-1, 2), size_hw), size_hw)


def _brush(value: Mapping[str, Any], size_hw: tuple[int, int]) -> bytes:
    if value.get("format") != "rle" or "rle" not in value:
        raise Unusable("its brush mask is not given as rle")
    try:
        starts, stops = brush_runs(value["rle"], size_hw)
    except ValueError as error:
        raise Unusable(f"its brush mask cannot be read: {error}") from error
    if not len(starts):
        raise ErasedError("its mask is empty")
    return _row_runs_to_rle(starts, stops, size_hw)


def _rectangle(value: Mapping[str, Any], size_hw: tuple[int, int]) -> bytes:
    """Turned about its top left corner."""
    x, y, width, height = _numbers(value, "x", "y", "width", "height")
    corners = to_px(np.array([[0, 0], [width, 0], [width, height], [0, height]]), size_hw)
    return polygon_to_mask(to_px(np.array([x, y]), size_hw) + _turned(corners, value), size_hw)


def _ellipse(value: Mapping[str, Any], size_hw: tuple[int, int]) -> bytes:
    """Turned about its centre."""
    x, y, radius_x, radius_y = _numbers(value, "x", "y", "radiusX", "radiusY")
    radii = np.abs(to_px(np.array([radius_x, radius_y]), size_hw))
    wanted = math.pi / math.sqrt(2 * _OFF_CURVE_PX / max(float(radii.max()), 1))
    angles = np.linspace(0, 2 * np.pi, min(math.ceil(wanted), _MOST_POINTS), endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii
    return polygon_to_mask(to_px(np.array([x, y]), size_hw) + _turned(points, value), size_hw)


_READERS: dict[str, Callable[[Mapping[str, Any], tuple[int, int]], bytes]] = {
    "polygon": _polygon,
    "brush": _brush,
    "rectangle": _rectangle,
    "ellipse": _ellipse,
}
KINDS = tuple(_READERS)


def _numbers(value: Mapping[str, Any], *names: str) -> list[float]:
    numbers = [value.get(name) for name in names]
    wrong = [name for name, number in zip(names, numbers, strict=True) if not is_number(number)]
    if wrong:
        raise Unusable(f"it has no number for {', '.join(wrong)}")
    return [float(number) for number in numbers if number is not None]


def is_number(value: object) -> bool:
    """Whether it is a number of a sensible size; NaN is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _turned(points: FloatArray, value: Mapping[str, Any]) -> FloatArray:
    """Points turned about (0, 0) by the rotation that a value may have."""
    (degrees,) = _numbers({"rotation": 0, **value}, "rotation")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned: FloatArray = points @ np.array([[cos, sin], [-sin, cos]])
    return turned


def _row_runs_to_rle(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], size_hw: tuple[int, int]
) -> bytes:
    """Runs that are counted row by row, one at least, as COCO's run lengths."""
    width = size_hw[1]
    top, bottom = int(starts[0] // width), int((stops[-1] - 1) // width) + 1
    edges = np.zeros((bottom - top) * width + 1, np.int8)
    edges[starts - top * width] = 1
    edges[stops - top * width] = -1
    rows = np.cumsum(edges[:-1], dtype=np.int8).reshape(bottom - top, width)
    columns = np.flatnonzero(rows.any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return crop_to_rle(rows[:, left:right], top, left, size_hw)


def crop_to_rle(crop: npt.NDArray[np.generic], top: int, left: int, size_hw: tuple[int, int]) -> bytes:
    """A mask that is known within a box of an image, as COCO's run lengths of the image.

    Args:
        crop: (h, w), 0 outside and 1 inside.
        top: Of the box in the image, px.
        left: Of the box in the image, px.
        size_hw: Of the image, px.
    """
    height, width = size_hw
    framed = np.zeros((crop.shape[1], crop.shape[0] + 2), np.int8)  # column by column, zeros at both ends
    framed[:, 1:-1] = crop.T
    column, row = np.nonzero(np.diff(framed, axis=1))
    flips = (column + left) * height + top + row
    return runs_to_counts(np.diff(np.concatenate([[0], flips, [height * width]])), size_hw)
