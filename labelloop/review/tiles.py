"""How an image is cut for review, and which objects each tile shows.

An image is shown whole where it is not too large and has not too many objects; else by overlapping tiles.
Every object belongs to one tile, its *owner*: the one that holds most of it. Other tiles show the part of it
that they hold, so that nobody draws it again, unless that part is a sliver.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances
from labelloop.predict.tiles import Tile, TileLayout, plan_tiles

MAX_OBJECTS = 40  # of a task, seen or expected: what a person can look at in one go
MAX_SIDE_PX = 1536  # of a tile: a screen shows it at more than half its size
OVERLAP_PER_BOX_SIDE = 1.25  # overlap over the objects' 95th percentile box side
SHOWN_SHARE = 0.2  # a part of an object is shown from this share of it on,
SHOWN_OF_TILE = 0.01  # or from this share of the tile
SMALLEST_SIDE_PX = 32  # smaller tiles are not made, however many objects they show
_MARGIN_PX = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TileView:
    """One tile and the objects in it.

    Attributes:
        tile: Where it lies.
        shown: int64 (k,), indices of the image's objects that it shows, rising.
        owned: bool (k,), which of them belong to it.
    """

    tile: Tile
    shown: npt.NDArray[np.int64]
    owned: npt.NDArray[np.bool_]


def review_tiles(
    instances: Instances,
    *,
    max_objects: int = MAX_OBJECTS,
    max_side_px: int = MAX_SIDE_PX,
    unseen: float = 0.0,
) -> tuple[TileView, ...]:
    """Cuts an image for review: into as few equal tiles as keep both limits.

    Args:
        instances: What will be proposed.
        max_objects: No tile shows more, unless they lie over each other.
        max_side_px: No tile is longer.
        unseen: So many objects more are expected in the image; they count as if spread evenly.
    """
    boxes, areas = instances.boxes_xyxy, instances.areas
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) if len(instances) else np.zeros(1)
    overlap = math.ceil(OVERLAP_PER_BOX_SIDE * float(np.percentile(sides, 95))) + 2 * _MARGIN_PX
    pieces = 1
    while True:
        tiles, side = _plan(instances.size_hw, pieces, overlap)
        most = max_objects - unseen / len(tiles)  # shown in one tile
        room = len(tiles) * most >= len(instances) or side <= SMALLEST_SIDE_PX
        if (
            side <= max_side_px and room
        ):  # where there is none, no way to share the objects out keeps the limit
            views = _views(instances, boxes, areas, tiles)
            if side <= SMALLEST_SIDE_PX or max(len(view.shown) for view in views) <= most:
                return views
        pieces += 1


def whole_view(instances: Instances) -> TileView:
    """An image that is one task."""
    height, width = instances.size_hw
    everything = (0, 0, height, width)
    return TileView(
        tile=Tile(box=everything, core=everything, inner=(False, False, False, False)),
        shown=np.arange(len(instances), dtype=np.int64),
        owned=np.ones(len(instances), np.bool_),
    )


def _plan(size_hw: tuple[int, int], pieces: int, overlap: int) -> tuple[tuple[Tile, ...], int]:
    """Square tiles, so many along the longer side, and how long they are.

    Neighbours share a third of a tile at most.
    """
    longest = max(size_hw)
    with_overlap = math.ceil((longest + (pieces - 1) * overlap) / pieces)
    side = min(with_overlap, math.ceil(3 * longest / (2 * pieces + 1)))
    common = min(overlap, side // 3)
    layout = TileLayout(side_hw=(side, side), overlap=common, margin=_MARGIN_PX, untiled_hw=(side, side))
    return plan_tiles(size_hw, layout), side


def _views(
    instances: Instances,
    boxes: npt.NDArray[np.float64],
    areas: npt.NDArray[np.int64],
    tiles: tuple[Tile, ...],
) -> tuple[TileView, ...]:
    inside = np.stack([_inside(instances, boxes, areas, tile.box) for tile in tiles])
    owner = _owners(boxes, tiles, inside)
    views = []
    for t, tile in enumerate(tiles):
        enough = enough_to_show(inside[t], areas, tile.size_hw)
        shown = np.flatnonzero((inside[t] > 0) & enough | (owner == t))
        views.append(TileView(tile=tile, shown=shown, owned=owner[shown] == t))
    return tuple(views)


def enough_to_show(
    inside: npt.NDArray[np.int64], areas: npt.NDArray[np.int64], tile_hw: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Bool (n,), whether the part of each object in a tile is more than a sliver.

    Args:
        inside: int64 (n,), px of each object in the tile.
        areas: int64 (n,), px of each object.
        tile_hw: Height and width of the tile, px.
    """
    enough: npt.NDArray[np.bool_] = (inside >= SHOWN_SHARE * areas) | (
        inside >= SHOWN_OF_TILE * tile_hw[0] * tile_hw[1]
    )
    return enough


def _owners(
    boxes: npt.NDArray[np.float64], tiles: tuple[Tile, ...], inside: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """int64 (n,), the tile that holds most of each object; of several the one whose core has its centre."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    best = inside == inside.max(axis=0)
    owner: npt.NDArray[np.int64] = best.argmax(axis=0)
    for i in np.flatnonzero(best.sum(axis=0) > 1):
        x, y = centres[i]
        owner[i] = next((t for t in np.flatnonzero(best[:, i]) if tiles[t].owns(y, x)), owner[i])
    return owner


def areas_inside(instances: Instances, box: tuple[int, int, int, int]) -> npt.NDArray[np.int64]:
    """int64 (n,), how many px of each object lie in a box (top, left, bottom, right)."""
    return _inside(instances, instances.boxes_xyxy, instances.areas, box)


def _inside(
    instances: Instances,
    boxes: npt.NDArray[np.float64],
    areas: npt.NDArray[np.int64],
    box: tuple[int, int, int, int],
) -> npt.NDArray[np.int64]:
    """``areas_inside`` of objects whose boxes and areas are known; only those on an edge are decoded."""
    top, left, bottom, right = box
    x0, y0, x1, y1 = boxes.T
    whole = (x0 >= left) & (y0 >= top) & (x1 <= right) & (y1 <= bottom)
    outside = (x1 <= left) | (y1 <= top) | (x0 >= right) | (y0 >= bottom)
    inside: npt.NDArray[np.int64] = np.where(whole, areas, 0)
    for i in np.flatnonzero(~whole & ~outside):
        mask, at_top, at_left = instances.crop(i)
        inside[i] = int(_window(mask, at_top, at_left, box).sum())
    return inside


def cut_to_box(instances: Instances, box: tuple[int, int, int, int]) -> Instances:
    """The objects as a tile shows them: cut to the box, in its coordinates."""
    top, left, bottom, right = box
    if (top, left, bottom, right) == (0, 0, *instances.size_hw):
        return instances
    dense = np.zeros((len(instances), bottom - top, right - left), np.bool_)
    for i in range(len(instances)):
        mask, at_top, at_left = instances.crop(i)
        part = _window(mask, at_top, at_left, box)
        if part.size:
            y, x = max(at_top - top, 0), max(at_left - left, 0)
            dense[i, y : y + part.shape[0], x : x + part.shape[1]] = part
    cut = Instances.from_dense(
        dense, instances.labels, instances.scores, size_hw=(bottom - top, right - left)
    )
    return replace(cut, crowd=instances.crowd)


def _window(
    mask: npt.NDArray[np.bool_], at_top: int, at_left: int, box: tuple[int, int, int, int]
) -> npt.NDArray[np.bool_]:
    """The part of a crop that lies in a box."""
    top, left, bottom, right = box
    return mask[
        max(top - at_top, 0) : max(bottom - at_top, 0), max(left - at_left, 0) : max(right - at_left, 0)
    ]
