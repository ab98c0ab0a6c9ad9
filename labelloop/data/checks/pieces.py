"""Which images hold a piece of which others: at any place, turned, mirrored or exposed otherwise.

Keypoints of the two sides are compared all with all, as one matrix product. Images that share several points
at one shift are candidates; a candidate counts after its overlapping parts were laid over each other.
Enlarged or shrunk pieces are not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.data.checks.keypoints import (
    ORIENTATIONS,
    PATCH,
    Floats,
    Keypoints,
    band_passed,
    turned,
    turned_points,
)

MIN_CORRELATION = 0.8  # of the overlapping parts; see tests/data for what lies on either side of it

_MIN_LIKENESS = 0.85  # of two descriptors
_MIN_VOTES = 3  # points that agree on a shift
_SHIFT_TOLERANCE = 3  # half-scale px
_MIN_OVERLAP_SIDE = 24  # half-scale px
_PARTNERS = 8  # images of the second side that are verified for one of the first
_BLOCK = 4096  # descriptors that are compared at once


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Two images that seem to share content: pixel p of the first lies at p + shift in the turned second.

    Attributes:
        first: Index into the first side.
        second: Index into the second side.
        orientation: How the second is turned.
        shift: Half-scale px, (y, x).
        votes: Keypoints that agree.
    """

    first: int
    second: int
    orientation: int
    shift: tuple[int, int]
    votes: int


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Two images that do share content.

    Attributes:
        candidate: Which images, and how they lie.
        correlation: Of the overlapping parts, band-passed, -1..1.
        share: Overlap as a share of the smaller image, 0..1.
    """

    candidate: Candidate
    correlation: float
    share: float


def candidates(
    firsts: Sequence[Keypoints], seconds: Sequence[Keypoints], advance: Callable[[int], None]
) -> list[Candidate]:
    """Pairs of images with several keypoints alike at one shift; the best one of each pair.

    Of an image that seems to share content with very many others, those with the most votes are kept.

    Args:
        firsts: Keypoints of the images of one side.
        seconds: Of the other side; the smaller side is better here.
        advance: Told after each block of the second side how many of its images are done.
    """
    queries = _Stack.of(firsts, [0])
    best: dict[tuple[int, int], Candidate] = {}
    for start, stop in _blocks(seconds):
        columns = _Stack.of(seconds[start:stop], range(ORIENTATIONS))
        for found in _vote(*_likest(queries, columns)):
            candidate = Candidate(
                first=found[0], second=start + found[1], orientation=found[2], shift=found[3], votes=found[4]
            )
            key = (candidate.first, candidate.second)
            if key not in best or best[key].votes < candidate.votes:
                best[key] = candidate
        advance(stop - start)
    return _most_voted(best.values())


def _most_voted(found: Iterable[Candidate]) -> list[Candidate]:
    by_first: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in found:
        by_first[candidate.first].append(candidate)
    return [c for group in by_first.values() for c in sorted(group, key=lambda c: -c.votes)[:_PARTNERS]]


def verify(candidate: Candidate, first: Floats, second: Floats) -> Piece | None:
    """Lays the overlapping parts of two half-scale images over each other.

    Returns:
        None where they are not the same.
    """
    one, other = band_passed(first), band_passed(np.ascontiguousarray(turned(second, candidate.orientation)))
    best: tuple[float, int] = (-1.0, 0)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            shift = (candidate.shift[0] + dy, candidate.shift[1] + dx)
            best = max(best, _correlation(one, other, shift))
    correlation, overlap_px = best
    if correlation < MIN_CORRELATION:
        return None
    return Piece(
        candidate=candidate, correlation=correlation, share=overlap_px / min(first.size, second.size)
    )


def _correlation(one: Floats, other: Floats, shift: tuple[int, int]) -> tuple[float, int]:
    """Pearson correlation of the overlap, without the rim where band-passing saw beyond an edge; its px."""
    top, left = max(0, -shift[0]), max(0, -shift[1])
    bottom = min(one.shape[0], other.shape[0] - shift[0])
    right = min(one.shape[1], other.shape[1] - shift[1])
    rim = 4
    if min(bottom - top, right - left) < _MIN_OVERLAP_SIDE + 2 * rim:
        return -1.0, 0
    a = one[top + rim : bottom - rim, left + rim : right - rim]
    b = other[top + rim + shift[0] : bottom - rim + shift[0], left + rim + shift[1] : right - rim + shift[1]]
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return (float((a * b).sum()) / norm if norm > 0 else -1.0), (bottom - top) * (right - left)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stack:
    """Descriptors of many images in one array: float32 (n, PATCH**2), with image, orientation and place."""

    descriptors: Floats
    image: npt.NDArray[np.int32]
    orientation: npt.NDArray[np.int32]
    yx: npt.NDArray[np.int32]

    @classmethod
    def of(cls, images: Sequence[Keypoints], orientations: Sequence[int]) -> _Stack:
        """All keypoints of these images, turned in each of these orientations."""
        parts = [(i, o, points) for o in orientations for i, points in enumerate(images)]
        return cls(
            descriptors=np.concatenate(
                [turned(p.patches, o).reshape(len(p.yx), PATCH**2).astype(np.float32) for _, o, p in parts]
            ),
            image=np.concatenate([np.full(len(p.yx), i, np.int32) for i, _, p in parts]),
            orientation=np.concatenate([np.full(len(p.yx), o, np.int32) for _, o, p in parts]),
            yx=np.concatenate([turned_points(p.yx, p.size_hw, o) for _, o, p in parts]),
        )


def _blocks(images: Sequence[Keypoints]) -> list[tuple[int, int]]:
    """Runs of images with about _BLOCK descriptors, all orientations together."""
    blocks, start, held = [], 0, 0
    for i, points in enumerate(images):
        held += ORIENTATIONS * len(points.yx)
        if held >= _BLOCK or i == len(images) - 1:
            blocks.append((start, i + 1))
            start, held = i + 1, 0
    return blocks


def _likest(queries: _Stack, columns: _Stack) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(n, 3) query image, column image and orientation, and (n, 2) shifts, of each query's likest column."""
    if not len(queries.yx) or not len(columns.yx):
        return np.zeros((0, 3), np.int64), np.zeros((0, 2), np.int64)
    rows, matches = [], []
    for start in range(0, len(queries.yx), _BLOCK):
        likeness = queries.descriptors[start : start + _BLOCK] @ columns.descriptors.T
        match = likeness.argmax(axis=1)
        good = likeness[np.arange(len(match)), match] > _MIN_LIKENESS
        rows.append(start + np.flatnonzero(good))
        matches.append(match[good])
    row, match = np.concatenate(rows), np.concatenate(matches)
    key = np.stack([queries.image[row], columns.image[match], columns.orientation[match]], axis=1)
    return key.astype(np.int64), (columns.yx[match] - queries.yx[row]).astype(np.int64)


def _vote(
    keys: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64]
) -> list[tuple[int, int, int, tuple[int, int], int]]:
    """Groups of matches with one key that agree on a shift: (*key, shift, votes)."""
    if not len(keys):
        return []
    order = np.lexsort(keys.T[::-1])
    keys, shifts = keys[order], shifts[order]
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(keys, axis=0) != 0).any(axis=1)]))
    found: list[tuple[int, int, int, tuple[int, int], int]] = []
    for start, stop in zip(starts, np.append(starts[1:], len(keys)), strict=True):
        if stop - start < _MIN_VOTES:
            continue
        group = shifts[start:stop]
        near = (np.abs(group[:, None] - group[None]) <= _SHIFT_TOLERANCE).all(axis=-1)
        votes = near.sum(axis=1)
        middle = int(votes.argmax())
        if votes[middle] >= _MIN_VOTES:
            y, x = np.median(group[near[middle]], axis=0)
            first, second, orientation = keys[start]
            shift = (round(float(y)), round(float(x)))
            found.append((int(first), int(second), int(orientation), shift, int(votes[middle])))
    return found
