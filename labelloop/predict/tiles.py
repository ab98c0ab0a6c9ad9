"""Overlapping tiles of an image that is larger than a model was trained for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from labelloop.models.protocol import DataStats

OVERLAP_PER_BOX_SIDE = 1.75  # overlap over the objects' 95th percentile box side; larger ones are merged
UNTILED_RATIO = 1.5  # an image up to this many tile sides long is predicted whole
TILES_PER_OVERLAP = 2.5  # a tile is at least this many overlaps wide, so that most of it is seen once
SMALLEST_SIDE_PX = 256  # smaller tiles cost more in overlap and calls than they save in memory


@dataclass(frozen=True, kw_only=True)
class TileLayout:
    """How images are cut for one model. All lengths are px of the image.

    Attributes:
        side_hw: Height and width of a tile: about what the model was trained on.
        overlap: Least overlap of neighbouring tiles.
        margin: An object this close to a tile's inner border counts as cut by it.
        untiled_hw: An image up to this height and width is predicted whole.
    """

    side_hw: tuple[int, int]
    overlap: int
    margin: int
    untiled_hw: tuple[int, int]

    def __post_init__(self) -> None:
        if self.overlap < 0 or self.margin < 1 or min(self.side_hw) <= 2 * self.overlap:
            raise ValueError(f"tiles need a side above two overlaps and a margin of 1 px or more, not {self}")

    @property
    def reach(self) -> int:
        """Longest box side of an object that lies whole, with margin, in a tile wherever it is; px."""
        return self.overlap - 2 * self.margin


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One tile, px of the image; ends are exclusive.

    Attributes:
        box: Top, left, bottom, right.
        core: The part of the box that is this tile's own; the cores of all tiles part the image.
        inner: Whether the top, left, bottom, right side lies inside the image.
    """

    box: tuple[int, int, int, int]
    core: tuple[int, int, int, int]
    inner: tuple[bool, bool, bool, bool]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    def sees_whole(self, box: tuple[int, int, int, int], margin: int) -> bool:
        """Whether a box lies in the tile and keeps the margin from its inner sides."""
        gaps = (
            box[0] - self.box[0],
            box[1] - self.box[1],
            self.box[2] - box[2],
            self.box[3] - box[3],
        )
        return all(gap >= (margin if inner else 0) for gap, inner in zip(gaps, self.inner, strict=True))

    def owns(self, y: float, x: float) -> bool:
        """Whether a point lies in the tile's core."""
        top, left, bottom, right = self.core
        return top <= y < bottom and left <= x < right


def tile_layout(stats: DataStats) -> TileLayout:
    """The layout that fits the data a model was trained on.

    Tiles have the size of the training images, because that is the scale and the number of objects the model
    knows; they grow where the objects are large against them.
    """
    largest = stats.box_side_px[2]
    margin = max(4, round(0.1 * stats.box_side_px[1]))
    overlap = math.ceil(OVERLAP_PER_BOX_SIDE * largest) + 2 * margin
    least = max(SMALLEST_SIDE_PX, math.ceil(TILES_PER_OVERLAP * overlap))
    height, width = (max(side, least) for side in stats.image_size_hw)
    return TileLayout(
        side_hw=(height, width),
        overlap=overlap,
        margin=margin,
        untiled_hw=(math.floor(UNTILED_RATIO * height), math.floor(UNTILED_RATIO * width)),
    )


def plan_tiles(size_hw: tuple[int, int], layout: TileLayout) -> tuple[Tile, ...]:
    """The tiles of an image, row by row; a single one where the image is predicted whole.

    Args:
        size_hw: Height and width of the image, px.
        layout: How the model wants its tiles.
    """
    height, width = size_hw
    if height <= layout.untiled_hw[0] and width <= layout.untiled_hw[1]:
        whole = (0, 0, height, width)
        return (Tile(box=whole, core=whole, inner=(False, False, False, False)),)
    rows = _spans(height, layout.side_hw[0], layout.overlap)
    columns = _spans(width, layout.side_hw[1], layout.overlap)
    return tuple(
        Tile(
            box=(top, left, bottom, right),
            core=(core_top, core_left, core_bottom, core_right),
            inner=(top > 0, left > 0, bottom < height, right < width),
        )
        for top, bottom, core_top, core_bottom in rows
        for left, right, core_left, core_right in columns
    )


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Start, end, core start, core end of the tiles along one axis, evenly spread."""
    count = 1 if length <= side else math.ceil((length - overlap) / (side - overlap))
    starts = [0] if count == 1 else [i * (length - side) // (count - 1) for i in range(count)]
    ends = [min(start + side, length) for start in starts]
    cuts = [0, *((end + start) // 2 for end, start in zip(ends[:-1], starts[1:], strict=True)), length]
    return list(zip(starts, ends, cuts[:-1], cuts[1:], strict=True))
