"""Merges what a model sees in overlapping tiles: no object twice, none cut at a seam.

1. A piece that comes close to an inner side of its tile is *cut*; the others are *whole*.
2. Pieces of different tiles that agree where both tiles look are the same object, best agreement first; two
   pieces of one tile are never the same object, because that tile saw them as two. Overlapping objects
   therefore stay two.
3. Of an object's whole pieces the one in whose tile's core it lies is kept, else the best score. An object
   that is cut in every tile is the union of its pieces.
4. What only one tile sees is kept where no other tile has the better view of it: a whole piece is judged by
   the tile in whose core it lies, a cut one by any tile that holds it with margin.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.instances import BoolArray, Instances
from labelloop.models.protocol import Prediction, to_instances
from labelloop.predict.tiles import Box, Tile, common_box

SAME_IOU = 0.5  # pieces that agree better than this are one object; 40 % mutual overlap is an IoU of 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """One object as one tile sees it, hard, cut to its box, and packed: a field may hold 100,000 of them.

    Attributes:
        tile: Index of the tile.
        box: Where it lies in the image.
        packed: Its mask, ``zlib`` of ``packbits``.
        area: Pixels of the mask.
        label: Class index.
        score: 0..1.
        cut: It comes within the margin of an inner side of its tile.
    """

    tile: int
    box: Box
    packed: bytes
    area: int
    label: int
    score: float
    cut: bool

    def mask(self) -> BoolArray:
        """Bool (h, w) of the box."""
        height, width = self.box[2] - self.box[0], self.box[3] - self.box[1]
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        return np.unpackbits(bits, count=height * width).reshape(height, width).astype(np.bool_)


def pieces_of(
    prediction: Prediction, tile: Tile, index: int, margin: int, threshold: float = 0.5
) -> list[Piece]:
    """The hard objects of a tile's prediction, in the coordinates of the image.

    Args:
        prediction: Of the tile, in its coordinates.
        tile: The tile.
        index: Of the tile in the plan.
        margin: An object this close to an inner side is cut, px.
        threshold: A pixel is inside where its probability is above this, 0..1.
    """
    pieces: list[Piece] = []
    for i, (crop, (top, left)) in enumerate(zip(prediction.crops, prediction.offsets_yx, strict=True)):
        inside = crop > threshold * 255
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if len(rows) == 0:
            continue
        inside = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        y, x = int(tile.box[0] + top + rows[0]), int(tile.box[1] + left + columns[0])
        box = (y, x, y + inside.shape[0], x + inside.shape[1])
        pieces.append(
            Piece(
                tile=index,
                box=box,
                packed=zlib.compress(np.packbits(inside).tobytes(), 1),
                area=int(inside.sum()),
                label=int(prediction.labels[i]),
                score=float(prediction.scores[i]),
                cut=not tile.sees_whole(box, margin),
            )
        )
    return pieces


def stitch(
    pieces: Sequence[Piece], tiles: Sequence[Tile], size_hw: tuple[int, int], margin: int
) -> Instances:
    """The objects of an image from the pieces of its tiles, best score first.

    Args:
        pieces: Of all tiles.
        tiles: The plan.
        size_hw: Height and width of the image, px.
        margin: As given to ``pieces_of``.
    """
    groups = _same_objects(pieces, tiles)
    resolved = (_resolve(group, tiles, margin) for group in groups)
    kept = sorted(
        (found for found in resolved if found is not None), key=lambda found: (-found.score, found.box)
    )
    return _encode(kept, size_hw)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Object:
    """A group of pieces, resolved: one mask, as the union of ``parts``."""

    box: Box
    parts: tuple[Piece, ...]
    label: int
    score: float

    def mask(self) -> BoolArray:
        if len(self.parts) == 1:
            return self.parts[0].mask()
        union = np.zeros((self.box[2] - self.box[0], self.box[3] - self.box[1]), np.bool_)
        for part in self.parts:
            _window(union, self.box, part.box)[...] |= part.mask()
        return union


def _same_objects(pieces: Sequence[Piece], tiles: Sequence[Tile]) -> list[list[Piece]]:
    """Groups of pieces, at most one of each tile, joined in the order of their agreement."""
    agreements = [
        (agreement, i, j)
        for i, j in _neighbours(pieces, tiles)
        if (agreement := _agreement(pieces[i], pieces[j], tiles)) >= SAME_IOU
    ]
    agreements.sort(key=lambda found: (-found[0], found[1], found[2]))
    group_of = list(range(len(pieces)))
    members = {i: [i] for i in range(len(pieces))}
    for _, i, j in agreements:
        a, b = group_of[i], group_of[j]
        if a == b or {pieces[k].tile for k in members[a]} & {pieces[k].tile for k in members[b]}:
            continue
        for k in members[b]:
            group_of[k] = a
        members[a] += members.pop(b)
    return [[pieces[k] for k in group] for group in members.values()]


def _neighbours(pieces: Sequence[Piece], tiles: Sequence[Tile]) -> Iterable[tuple[int, int]]:
    """Pairs of pieces of one class in different tiles whose boxes overlap."""
    if not pieces:
        return
    boxes = np.asarray([piece.box for piece in pieces])
    labels = np.asarray([piece.label for piece in pieces])
    tile_of = np.asarray([piece.tile for piece in pieces])
    tile_boxes = np.asarray([tile.box for tile in tiles])
    of_tile = [np.flatnonzero(tile_of == t) for t in range(len(tiles))]
    for first, tile_box in enumerate(tile_boxes):
        for second in np.flatnonzero(_overlap(tile_boxes, tile_box)):
            if second <= first:
                continue
            there = of_tile[second][_overlap(boxes[of_tile[second]], tile_box)]
            for i in of_tile[first][_overlap(boxes[of_tile[first]], tile_boxes[second])]:
                near = _overlap(boxes[there], boxes[i]) & (labels[there] == labels[i])
                yield from ((int(i), int(j)) for j in there[near])


def _overlap(boxes: npt.NDArray[np.int64], box: npt.NDArray[np.int64]) -> BoolArray:
    """Bool (n,): which boxes share pixels with a box."""
    return np.logical_and((boxes[:, :2] < box[2:]).all(axis=1), (boxes[:, 2:] > box[:2]).all(axis=1))


def _agreement(a: Piece, b: Piece, tiles: Sequence[Tile]) -> float:
    """IoU of two pieces, each only where the other's tile looks if the other one is cut by it."""
    seen_a = common_box(a.box, tiles[b.tile].box) if b.cut else a.box
    seen_b = common_box(b.box, tiles[a.tile].box) if a.cut else b.box
    common = common_box(seen_a, seen_b)
    if common[0] >= common[2] or common[1] >= common[3]:
        return 0.0
    mask_a, mask_b = a.mask(), b.mask()
    shared = int((_window(mask_a, a.box, common) & _window(mask_b, b.box, common)).sum())
    area_a, area_b = int(_window(mask_a, a.box, seen_a).sum()), int(_window(mask_b, b.box, seen_b).sum())
    return shared / (area_a + area_b - shared) if shared else 0.0


def _resolve(group: Sequence[Piece], tiles: Sequence[Tile], margin: int) -> _Object | None:
    """The object that a group stands for, or None where a tile with a better view does not see it."""
    whole = [piece for piece in group if not piece.cut]
    if whole:
        best = max(whole, key=lambda piece: (_owned(piece, tiles), piece.score))
        if len(group) == 1 and not _owned(best, tiles) and _owner_sees_whole(best, tiles, margin):
            return None
        return _Object(box=best.box, parts=(best,), label=best.label, score=best.score)
    box = _hull([piece.box for piece in group])
    if any(tile.sees_whole(box, margin) for tile in tiles):
        return None
    best = max(group, key=lambda piece: piece.score)
    return _Object(box=box, parts=tuple(group), label=best.label, score=best.score)


def _owned(piece: Piece, tiles: Sequence[Tile]) -> bool:
    return tiles[piece.tile].owns(*_centre(piece.box))


def _owner_sees_whole(piece: Piece, tiles: Sequence[Tile], margin: int) -> bool:
    y, x = _centre(piece.box)
    return any(tile.owns(y, x) and tile.sees_whole(piece.box, margin) for tile in tiles)


def _encode(objects: Sequence[_Object], size_hw: tuple[int, int]) -> Instances:
    """Run lengths, one object unpacked at a time."""
    rles: list[bytes] = []
    for found in objects:
        one = Prediction(
            size_hw=size_hw,
            labels=np.zeros(1, np.int64),
            scores=np.ones(1, np.float32),
            quality=np.ones(1, np.float32),
            crops=(found.mask().astype(np.uint8) * 255,),
            offsets_yx=np.asarray([found.box[:2]], np.int64),
        )
        rles += to_instances(one).rles
    return Instances(
        size_hw=size_hw,
        rles=tuple(rles),
        labels=np.asarray([found.label for found in objects], np.int64),
        scores=np.asarray([found.score for found in objects], np.float32),
    )


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _hull(boxes: Sequence[Box]) -> Box:
    tops, lefts, bottoms, rights = zip(*boxes, strict=True)
    return min(tops), min(lefts), max(bottoms), max(rights)


def _window(mask: BoolArray, box: Box, part: Box) -> BoolArray:
    """The view of a mask on a part of its box."""
    return mask[part[0] - box[0] : part[2] - box[0], part[1] - box[1] : part[3] - box[1]]
