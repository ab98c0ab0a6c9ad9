"""Outlines: a mask as a closed polygon with few points, and a polygon as a mask.

Coordinates are px, (x, y), with (0, 0) at the image's top left corner, so that pixel (row r, column c)
covers x in c..c + 1 and y in r..r + 1. Label Studio holds them in percent of the image's sides; here they are
rounded to the digits that are sent, so that what is checked is what a reader will have.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from labelloop.formats.outlines import Unusable, rasterise
from labelloop.instances import Instances

MIN_IOU = 0.98  # of a mask and its polygon, rasterised
PERCENT_DIGITS = 4  # an error of 0.00005 percent: 0.001 px in an image of 2048 px

# On irregular blobs 20 to 60 px wide, 9 of 10 first tries hold the IoU, and other pairs gave as many points.
_FIRST_TOLERANCE = 0.12  # of the mean distance to the outline that area over length of the outline says
_NEXT_TOLERANCE = 0.7  # of the one before
_TRIES = 6
_LONGEST = 50  # times height and width: longer ones are errors, and cost memory to draw

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int32]


def mask_to_polygon(instances: Instances, index: int) -> FloatArray | None:
    """The outline of one object, as simple as an IoU of ``MIN_IOU`` with its mask allows.

    The IoU is that of the mask which ``polygon_to_mask`` gives for these very points, and is checked for each
    object.

    Args:
        instances: The objects of an image.
        index: Which of them.

    Returns:
        float64 (n, 2), px, at least three points inside the image; or None where one polygon cannot say it:
        the object is empty, has a hole or has several parts, or its outline is endless. Pixels that touch at
        a corner are one part.
    """
    height, width = instances.size_hw
    crop, top, left = instances.crop(index)
    edge = _edge(crop)
    if edge is None or 2 * len(edge) > _LONGEST * (height + width):
        return None
    mask = {"size": [height, width], "counts": instances.rles[index]}
    area, at = int(np.count_nonzero(crop)), np.array([left, top])
    for points in _simpler(edge, area):
        if len(points) < 3:
            continue
        rounded = to_px(to_percent(points + at, instances.size_hw), instances.size_hw)
        drawn = coco_mask.frPyObjects([rounded.reshape(-1).tolist()], height, width)[0]
        common = int(coco_mask.area(coco_mask.merge([drawn, mask], intersect=True)))
        if common >= MIN_IOU * (int(coco_mask.area(drawn)) + area - common):
            return rounded
    return None


def polygon_to_mask(points: FloatArray, size_hw: tuple[int, int]) -> bytes:
    """The COCO run lengths of a closed polygon, cut to the image, rasterised by pycocotools.

    Where a polygon crosses itself, what it goes round twice is outside.

    Args:
        points: (n, 2), px; the last is joined to the first.
        size_hw: Of the image, px.

    Raises:
        Unusable: It has fewer than three points, or no pixel of it is in the image.
    """
    if len(points) < 3:
        raise Unusable("its polygon has fewer than 3 points")
    steps = np.abs(points - np.roll(points, 1, axis=0))
    if not steps.sum() <= _LONGEST * sum(size_hw):
        raise Unusable("its polygon is too long for the image")
    return rasterise([points.reshape(-1).tolist()], size_hw)


def to_percent(points: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Points in px, in percent of the image's width and height, rounded to ``PERCENT_DIGITS``."""
    height, width = size_hw
    percent: FloatArray = np.round(points * (100 / width, 100 / height), PERCENT_DIGITS)
    return percent


def to_px(points: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Points in percent, in px."""
    height, width = size_hw
    px: FloatArray = points * (width, height) / 100
    return px


def _edge(crop: BoolArray) -> IntArray | None:
    """The corners of pixels along the object's edge, in order, or None where there is more than one edge.

    OpenCV follows the centres of the pixels at an edge. In the crop made twice as large these are quarters of
    the crop's pixels, and a quarter says which corner of its pixel is meant. The first corner comes again at
    the end.
    """
    if not crop.size:
        return None
    twice = cv2.resize(crop.view(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    framed = cv2.copyMakeBorder(twice, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    edges, _ = cv2.findContours(framed, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    if len(edges) != 1:
        return None
    followed = np.concatenate([edges[0][:, 0], edges[0][:1, 0]]) >> 1
    as_one = followed.view(np.int64)[:, 0]  # x and y
    edge: IntArray = followed[np.concatenate([as_one[1:] != as_one[:-1], [True]])]
    return edge


def _simpler(edge: IntArray, area: int) -> Iterator[FloatArray]:
    """Outlines of the crop, the simplest first; the last two leave nothing out.

    They go through the middle between corners, since corners alone lie inside the object's edge or outside
    it, as its steps run.
    """
    middles = edge[1:] + edge[:-1]  # times two, so that they are whole numbers
    tolerance = _FIRST_TOLERANCE * area / len(middles)
    for _ in range(_TRIES):
        yield cv2.approxPolyDP(middles, 2 * tolerance, True)[:, 0] / 2
        tolerance *= _NEXT_TOLERANCE
    yield middles / 2
    yield edge[1:].astype(np.float64)
