"""How far apart the outlines of two masks lie, for many pairs at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from labelloop.metrics.threads import in_threads

Rows = npt.NDArray[np.int64]
Points = npt.NDArray[np.int32]

_PAIRS_AT_ONCE = 128  # what a processor's cache holds, with objects of 50 px
_SHORT_SPAN = 180  # px; two squares of it fit into 16 bits
_DENSE_SPAN = 2800  # px; and into the 24 bits in which float32 is exact
_DENSE_DISTANCES = 2_000_000  # of one pair; above it a tree is faster than all distances
_BLOCK_DISTANCES = 100_000  # of several pairs at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Outline:
    """The boundary pixels of a mask: those of which one of four neighbours is outside the mask or the image.

    Attributes:
        points: int32 (b, 2), row and column, px, from the top left of the mask's box.
        corner: int64 (2,), row and column of that corner in the image.
        side: The longer side of the box, px.
    """

    points: Points
    corner: Rows
    side: int


def boundary_distances(
    masks: Sequence[bytes], others: Sequence[bytes], heights: Rows
) -> npt.NDArray[np.float64]:
    """Average symmetric boundary distance of pairs of masks, px; 0 for equal masks, lower is better.

    The mean, over the boundary pixels of both masks, of the distance to the nearest boundary pixel of the
    other (average symmetric surface distance; Heimann et al. 2009, doi:10.1109/TMI.2009.2013851), between
    the centres of pixels.

    Args:
        masks: COCO compressed run lengths of k masks, none empty.
        others: Of the k masks to compare them with, each in the same image, none empty.
        heights: int64 (k,), height of the images, px.

    Returns:
        float64 (k,), px.
    """
    order = np.lexsort((np.asarray([len(rle) for rle in masks], np.int64), heights))
    ends = np.flatnonzero(np.diff(heights[order])) + 1  # one height at a time, alike sizes together
    parts = [
        of_height[start : start + _PAIRS_AT_ONCE]
        for of_height in np.split(order, ends)
        for start in range(0, len(of_height), _PAIRS_AT_ONCE)
    ]

    def distances_of(rows: Rows) -> npt.NDArray[np.float64]:
        both = [masks[i] for i in rows] + [others[i] for i in rows]
        found = outlines(both, int(heights[rows[0]]))
        return _mean_distances(found[: len(rows)], found[len(rows) :])

    distances = np.zeros(len(masks))
    for rows, found in zip(parts, in_threads(distances_of, parts), strict=True):
        distances[rows] = found
    return distances


def outlines(rles: Sequence[bytes], height: int) -> list[Outline]:
    """The outlines of masks, none empty, of images of one height.

    The boxes of all masks lie side by side on one canvas of column-major pixels, with a frame of zeros that
    keeps them apart and stands for what is outside the image; so all masks are looked at in a few steps.

    Args:
        rles: COCO compressed run lengths.
        height: Of the images, px.
    """
    runs = _runs(rles, height)
    starts = np.searchsorted(runs.owner, np.arange(len(rles)))
    top, bottom = np.minimum.reduceat(runs.first, starts), np.maximum.reduceat(runs.last, starts)
    left, right = np.minimum.reduceat(runs.column, starts), np.maximum.reduceat(runs.column, starts)
    stride = int((bottom - top).max()) + 3
    widths = right - left + 3
    place = np.cumsum(widths) - widths  # the canvas column of each mask's frame
    column = (runs.column - (left - 1 - place)[runs.owner]) * stride + 1 - top[runs.owner]
    edges = np.zeros(int(widths.sum()) * stride, np.int8)
    edges[column + runs.first] += 1  # runs of one column do not overlap, so no place comes twice
    edges[column + runs.last + 1] -= 1
    ones = np.cumsum(edges, dtype=np.int8).view(np.bool_)
    surrounded = np.zeros_like(ones)
    surrounded[stride:-stride] = ones[2 * stride :] & ones[: -2 * stride]
    surrounded[1:-1] &= ones[2:] & ones[:-2]
    boundary = np.flatnonzero(ones & ~surrounded)
    canvas_column = boundary // stride
    ends = np.searchsorted(canvas_column, place[1:])
    points = np.empty((len(boundary), 2), np.int32)
    points[:, 0] = boundary - canvas_column * stride - 1
    points[:, 1] = canvas_column - np.repeat(place, np.diff(ends, prepend=0, append=len(boundary))) - 1
    sides = np.maximum(bottom - top, right - left) + 1
    boxes = zip(np.split(points, ends), np.column_stack([top, left]), sides.tolist(), strict=True)
    return [Outline(points=part, corner=corner, side=side) for part, corner, side in boxes]


def _mean_distances(a: Sequence[Outline], b: Sequence[Outline]) -> npt.NDArray[np.float64]:
    """float64 (k,): of each pair the mean distance from one outline to the other, both ways."""
    longest = np.asarray([max(len(x.points), len(y.points)) for x, y in zip(a, b, strict=True)])
    span = _spans(a, b)
    dense = (longest**2 <= _DENSE_DISTANCES) & (span <= _DENSE_SPAN)
    means = np.zeros(len(a))
    for i in np.flatnonzero(~dense):
        means[i] = _mean_distance_by_tree(a[i], b[i])
    for short, kind in ((True, np.uint16), (False, np.float32)):
        chosen = np.flatnonzero(dense & ((span <= _SHORT_SPAN) == short))
        order = chosen[np.argsort(longest[chosen], kind="stable")]
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and (stop + 1 - start) * longest[order[stop]] ** 2 <= _BLOCK_DISTANCES:
                stop += 1
            rows = order[start:stop]
            means[rows] = _mean_distances_densely([a[i] for i in rows], [b[i] for i in rows], kind)
            start = stop
    return means


def _spans(a: Sequence[Outline], b: Sequence[Outline]) -> Rows:
    """int64 (k,): the longer side of a box around both outlines of each pair, px, or somewhat more."""
    corner, other = (np.asarray([outline.corner for outline in side]) for side in (a, b))
    end, other_end = (
        start + np.asarray([outline.side for outline in side])[:, None]
        for start, side in ((corner, a), (other, b))
    )
    return np.asarray((np.maximum(end, other_end) - np.minimum(corner, other)).max(axis=1), np.int64)


def _mean_distances_densely(
    a: Sequence[Outline], b: Sequence[Outline], kind: type[np.uint16] | type[np.float32]
) -> npt.NDArray[np.float64]:
    """All distances between the pixels of each pair; shorter outlines repeat a pixel.

    In unsigned numbers a negative difference wraps round, and so does its square, to the right one.
    """
    first, n_first = _stacked([x.points for x in a], kind)
    second, n_second = _stacked([y.points + (y.corner - x.corner) for x, y in zip(a, b, strict=True)], kind)
    squared = first[:, 0, :, None] - second[:, 0, None, :]
    squared *= squared
    across = first[:, 1, :, None] - second[:, 1, None, :]
    across *= across
    squared += across
    forth, back = (np.sqrt(squared.min(axis=axis), dtype=np.float64) for axis in (2, 1))
    total = _sum_of_first(forth, n_first) + _sum_of_first(back, n_second)
    return np.asarray(total / (n_first + n_second), np.float64)


def _stacked(
    outlines_: Sequence[npt.NDArray[Any]], kind: type[np.uint16] | type[np.float32]
) -> tuple[npt.NDArray[Any], Rows]:
    """Rows and columns (k, 2, longest), and how many pixels each outline has, int64 (k,)."""
    lengths = np.asarray([len(points) for points in outlines_])
    longest = int(lengths.max())
    stack = np.empty((len(outlines_), 2, longest), kind)
    for row, points in zip(stack, outlines_, strict=True):
        row[:, : len(points)] = points.T
        row[:, len(points) :] = points[0, :, None]
    return stack, lengths


def _sum_of_first(values: npt.NDArray[np.float64], counts: Rows) -> npt.NDArray[np.float64]:
    inside = np.arange(values.shape[1]) < counts[:, None]
    return np.asarray((values * inside).sum(axis=1))


def _mean_distance_by_tree(a: Outline, b: Outline) -> float:
    first, second = a.points.astype(np.float64) + a.corner, b.points.astype(np.float64) + b.corner
    total = KDTree(second).query(first)[0].sum() + KDTree(first).query(second)[0].sum()
    return float(total) / (len(first) + len(second))


@dataclass(frozen=True, kw_only=True, eq=False)
class _ColumnRuns:
    """Runs of ones that each lie in one column, int64 (r,) each; ordered by owner, column, row.

    Attributes:
        owner: Which mask, from 0.
        column: px.
        first: First row, px.
        last: Last row, px.
    """

    owner: Rows
    column: Rows
    first: Rows
    last: Rows


def _runs(rles: Sequence[bytes], height: int) -> _ColumnRuns:
    """The runs of ones in COCO strings: 5 bits a character, from the third run on as differences."""
    characters = np.frombuffer(b"".join(rles), np.uint8).astype(np.int64) - 48
    is_last = (characters & 0x20) == 0
    number = np.cumsum(is_last) - is_last  # which number each character belongs to
    starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    bits = 5 * (np.arange(len(characters)) - starts[number])
    lengths = np.add.reduceat((characters & 0x1F) << bits, starts)
    negative = (characters[is_last] & 0x10) != 0
    lengths[negative] -= np.int64(1) << (bits[is_last][negative] + 5)
    first_number = number[np.cumsum([0, *map(len, rles[:-1])])]
    ends = np.append(first_number[1:], len(lengths))
    mask = np.repeat(np.arange(len(rles)), ends - first_number)
    order = np.arange(len(lengths)) - first_number[mask]  # of each run in its mask
    for chain in ((order % 2 == 1), (order % 2 == 0) & (order > 0)):
        sums = np.cumsum(lengths[chain])
        begins = np.flatnonzero(np.diff(mask[chain], prepend=-1))
        before = np.repeat(sums[begins] - lengths[chain][begins], np.diff(np.append(begins, len(sums))))
        lengths[chain] = sums - before
    stops = np.cumsum(lengths)
    stops -= (stops - lengths)[first_number][mask]
    ones = (order % 2 == 1) & (lengths > 0)
    return _cut_at_columns(mask[ones], (stops - lengths)[ones], stops[ones] - 1, height)


def _cut_at_columns(owner: Rows, first: Rows, last: Rows, height: int) -> _ColumnRuns:
    """A run from the bottom of a column to the top of the next becomes one run in each."""
    crossed = last // height - first // height + 1
    whose = np.repeat(np.arange(len(owner)), crossed)
    within = np.arange(len(whose)) - np.repeat(np.cumsum(crossed) - crossed, crossed)
    column = first[whose] // height + within
    return _ColumnRuns(
        owner=owner[whose],
        column=column,
        first=np.maximum(first[whose] - column * height, 0),
        last=np.minimum(last[whose] - column * height, height - 1),
    )
