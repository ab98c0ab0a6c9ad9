"""The runs of many masks at once, cut at columns: from COCO strings, without painting a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnRuns:
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


def column_runs(rles: Sequence[bytes], height: int) -> ColumnRuns:
    """The runs of masks of images of one height.

    Args:
        rles: COCO compressed run lengths.
        height: Of the images, px.
    """
    numbers, counts = _numbers(rles)
    n_rows = (counts + 1) // 2  # zeros, then ones; the last row may lack its ones
    start = np.cumsum(n_rows) - n_rows
    place = np.arange(len(numbers)) + np.repeat(2 * start - (np.cumsum(counts) - counts), counts)
    table = np.zeros((int(n_rows.sum()), 2), np.int64)
    table.ravel()[place] = numbers
    owner = np.repeat(np.arange(len(rles)), n_rows)
    lead = table[start, 0]
    table[start, 0] = 0  # the first run is no part of the chain of differences
    sums = np.cumsum(table, axis=0)
    sums -= (sums - table)[start][owner]
    sums[start, 0] = lead
    sums[(start + n_rows - 1)[counts % 2 == 1], 1] = 0
    zeros, ones = sums.T
    stop = np.cumsum(zeros + ones)
    stop -= (stop - zeros - ones)[start][owner]
    has_ones = ones > 0
    owner, stop = owner[has_ones], stop[has_ones]
    return _cut_at_columns(owner, stop - ones[has_ones], stop - 1, height)


def _numbers(rles: Sequence[bytes]) -> tuple[Rows, Rows]:
    """The numbers in all strings, as they are written, and how many each string has; 5 bits a character."""
    characters = np.frombuffer(b"".join(rles), np.uint8) - 48
    last = np.flatnonzero(characters < 0x20)
    first = np.concatenate([[0], last[:-1] + 1])
    length = last - first + 1
    numbers = (characters[first] & 0x1F).astype(np.int64)
    for place in range(1, int(length.max(initial=0))):
        longer = np.flatnonzero(length > place)
        numbers[longer] |= (characters[first[longer] + place] & 0x1F).astype(np.int64) << 5 * place
    negative = np.flatnonzero(characters[last] & 0x10)
    numbers[negative] -= np.int64(1) << 5 * length[negative]
    through = np.searchsorted(last, np.cumsum([len(rle) for rle in rles]))
    return numbers, np.diff(through, prepend=0)


def _cut_at_columns(owner: Rows, first: Rows, last: Rows, height: int) -> ColumnRuns:
    """A run from the bottom of a column to the top of the next becomes one run in each."""
    crossed = last // height - first // height + 1
    whose = np.repeat(np.arange(len(owner)), crossed)
    within = np.arange(len(whose)) - np.repeat(np.cumsum(crossed) - crossed, crossed)
    column = first[whose] // height + within
    return ColumnRuns(
        owner=owner[whose],
        column=column,
        first=np.maximum(first[whose] - column * height, 0),
        last=np.minimum(last[whose] - column * height, height - 1),
    )
