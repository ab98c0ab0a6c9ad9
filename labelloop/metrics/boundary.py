"""How far apart the outlines of two masks lie, for many pairs at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.metrics.column_runs import ColumnRuns, column_runs
from labelloop.threads import in_threads

Rows = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

_CODE_AT_ONCE = 1_000_000  # characters of each mask, squared and added: about the px of the canvas


def boundary_distances(masks: Sequence[bytes], others: Sequence[bytes], heights: Rows) -> Values:
    """Average symmetric boundary distance of pairs of masks, px; 0 for equal masks, lower is better.

    The mean, over the boundary pixels of both masks, of the distance to the nearest boundary pixel of the
    other (average symmetric surface distance; Heimann et al. 2009, doi:10.1109/TMI.2009.2013851), between
    the centres of pixels. A boundary pixel is one of which one of four neighbours is outside the mask or the
    image.

    Args:
        masks: COCO compressed run lengths of k masks, none empty.
        others: Of the k masks to compare them with, each in the same image, none empty.
        heights: int64 (k,), height of the images, px.

    Returns:
        float64 (k,), px.
    """
    length = np.asarray([len(rle) for rle in masks], np.int64)
    order = np.lexsort((length, heights))  # one height at a time, alike sizes together
    parts = _parts(order, length[order], heights[order])

    def distances_of(rows: Rows) -> Values:
        both = [masks[i] for i in rows] + [others[i] for i in rows]
        return _mean_distances(column_runs(both, int(heights[rows[0]])), len(rows))

    distances = np.zeros(len(masks))
    for rows, found in zip(parts, in_threads(distances_of, parts), strict=True):
        distances[rows] = found
    return distances


def _parts(order: Rows, length: Rows, heights: Rows) -> list[Rows]:
    """Pairs that are looked at together: of one height, and few enough for a processor's cache."""
    starts, filled = [0], 0
    for i, (size, another) in enumerate(zip(length**2, np.diff(heights, prepend=heights[:1]), strict=True)):
        filled += int(size)
        if i > starts[-1] and (another or filled > _CODE_AT_ONCE):
            starts.append(i)
            filled = int(size)
    return [part for part in np.split(order, starts[1:]) if len(part)]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tiles:
    """Where pairs lie on a canvas: side by side, each in a box around both masks with a frame of one pixel.

    The canvas is there twice, one beside the other: for the masks, and for those they are compared with.

    Attributes:
        height: Of the canvas, px.
        half: Width of one of the two, px.
        top: int64 (k,), row of the image that is below the frame.
        left: int64 (k,), column of the image that is right of the frame.
        place: int64 (k,), first column of each tile.
        width: int64 (k,), of each tile, px.
    """

    height: int
    half: int
    top: Rows
    left: Rows
    place: Rows
    width: Rows

    @classmethod
    def around(cls, runs: ColumnRuns, n_pairs: int) -> _Tiles:
        """Boxes around masks i and i + ``n_pairs``."""
        starts = np.searchsorted(runs.owner, np.arange(2 * n_pairs))

        def of_pair(of: np.ufunc, values: Rows) -> Rows:
            return np.asarray(of.reduce(of.reduceat(values, starts).reshape(2, n_pairs)), np.int64)

        top, bottom = of_pair(np.minimum, runs.first), of_pair(np.maximum, runs.last)
        left, right = of_pair(np.minimum, runs.column), of_pair(np.maximum, runs.column)
        width = right - left + 3
        place = np.cumsum(width) - width
        height = int((bottom - top).max()) + 3
        return cls(height=height, half=int(width.sum()), top=top, left=left, place=place, width=width)


def _mean_distances(runs: ColumnRuns, n_pairs: int) -> Values:
    """float64 (n_pairs,): between masks i and i + ``n_pairs`` of the runs, px."""
    tiles = _Tiles.around(runs, n_pairs)
    boundary = _boundaries(runs, tiles)
    position = np.flatnonzero(boundary)
    row = position // (2 * tiles.half)
    column = position - row * (2 * tiles.half)
    is_other = column >= tiles.half
    column -= is_other * tiles.half
    pair = np.repeat(np.arange(n_pairs), tiles.width)[column]
    before = tiles.place[pair] - column  # as far as the frames go, from here
    after = before + tiles.width[pair] - 1
    opposite = position + np.where(is_other, -tiles.half, tiles.half)
    distance = _to_nearest(_rows_to_nearest(boundary, tiles).ravel(), opposite, before, after)
    return np.asarray(np.bincount(pair, distance, n_pairs) / np.bincount(pair, minlength=n_pairs))


def _boundaries(runs: ColumnRuns, tiles: _Tiles) -> npt.NDArray[np.bool_]:
    """The boundary pixels of all masks on the canvas, bool (height, 2 half)."""
    n_pairs = len(tiles.place)
    pair = runs.owner % n_pairs
    column = runs.column - tiles.left[pair] + tiles.place[pair] + 1 + runs.owner // n_pairs * tiles.half
    canvas = np.zeros((tiles.height, 2 * tiles.half), np.int8)
    down = 1 - tiles.top[pair]
    canvas[runs.first + down, column] += 1  # runs of one column do not overlap, so no place comes twice
    canvas[runs.last + down + 1, column] -= 1
    for above, here in pairwise(canvas):
        here += above
    ones = canvas.view(np.bool_)
    surrounded = ones[:-2, 1:-1] & ones[2:, 1:-1]
    surrounded &= ones[1:-1, :-2]
    surrounded &= ones[1:-1, 2:]
    ones[1:-1, 1:-1] &= ~surrounded
    return ones


def _rows_to_nearest(boundary: npt.NDArray[np.bool_], tiles: _Tiles) -> npt.NDArray[Any]:
    """Rows to the nearest boundary pixel of the column, whole (height, 2 half); very far without one."""
    far = tiles.height + int(tiles.width.max())
    kind = np.uint16 if far + tiles.height < 2**16 else np.int64
    rows = np.multiply(~boundary, far, dtype=kind)
    for lines in (rows, rows[::-1]):
        for above, here in pairwise(lines):
            np.minimum(here, above + kind(1), out=here)
    return rows


def _to_nearest(rows: npt.NDArray[Any], at: Rows, before: Rows, after: Rows) -> Values:
    """Distance to the nearest boundary pixel, px.

    Looks at ever farther columns, until what was found is nearer than they are.

    Args:
        rows: Rows to the nearest boundary pixel of each column, the canvas as one line.
        at: int64 (b,), from which of its places.
        before: int64 (b,), columns to the left frame of its tile, negative.
        after: int64 (b,), columns to the right one.

    Returns:
        float64 (b,).
    """
    squared = rows[at].astype(np.int64) ** 2
    reach = 1
    nearer = np.flatnonzero(squared > reach**2)
    while len(nearer):
        here = at[nearer]
        left = rows[here + np.maximum(before[nearer], -reach)]
        right = rows[here + np.minimum(after[nearer], reach)]
        found = np.minimum(left, right).astype(np.int64) ** 2 + reach**2
        squared[nearer] = found = np.minimum(found, squared[nearer])
        reach += 1
        nearer = nearer[found > reach**2]
    return np.sqrt(squared)
