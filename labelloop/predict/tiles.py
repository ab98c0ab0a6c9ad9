"""Overlapping tiles of an image that is larger than a model was trained for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from labelloop.models.data_stats import DataStats
    from labelloop.models.protocol import InstanceModel

OVERLAP_PER_BOX_SIDE = 1.75  # overlap over the objects' 95th percentile box side; larger ones are merged
UNTILED_RATIO = 1.5  # an image up to this many tile sides long is predicted whole
TILES_PER_OVERLAP = 2.5  # a tile is at least this many overlaps wide, so that most of it is seen once
SMALLEST_SIDE_PX = 256  # smaller tiles cost more in overlap and calls than they save in memory

Box = tuple[int, int, int, int]  # top, left, bottom, right; px of the image, ends exclusive


@dataclass(frozen=True, kw_only=True)
class TileLayout:
    """How images are cut for one model. All lengths are px of the image.

    Attributes:
        side_hw: Height and width of a tile: about what the model was trained on.
        overlap: Least overlap of neighbouring tiles.
        margin: An object this close to a tile's inner border counts as cut by it.
        untiled_hw: An image up to this height and width is predicted whole.
        grid: Tiles begin at whole multiples of this, rounded down to a pixel: a network whose cells lie this
            far apart answers alike for an object wherever the tile begins.
    """

    side_hw: tuple[int, int]
    overlap: int
    margin: int
    untiled_hw: tuple[int, int]
    grid: float = 1.0

    def __post_init__(self) -> None:
        least = 2 * self.overlap + math.ceil(self.grid)
        if self.overlap < 0 or self.margin < 1 or self.grid < 1 or min(self.side_hw) <= least:
            raise ValueError(
                f"tiles need a side above {least}, and margin and grid of 1 px or more, not {self}"
            )

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

    box: Box
    core: Box
    inner: tuple[bool, bool, bool, bool]

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]

    def sees_whole(self, box: Box, margin: int) -> bool:
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


@runtime_checkable
class Strided(Protocol):
    """A model that says how far it can shift an image without seeing it otherwise.

    Attributes:
        stride_px: Its coarsest cells lie this far apart, px of the image.
    """

    @property
    def stride_px(self) -> float:
        """See above."""


def tile_layout(stats: DataStats, model: InstanceModel | None = None) -> TileLayout:
    """The layout that fits the data a model was trained on.

    Tiles have the size of the training images, because that is the scale and the number of objects the model
    knows; they grow where the objects are large against them.

    Args:
        stats: What the model was fitted to.
        model: Its cells give the grid, where it is ``Strided``.
    """
    grid = max(1.0, float(model.stride_px)) if isinstance(model, Strided) else 1.0
    largest = stats.box_side_px[2]
    margin = max(4, round(0.1 * stats.box_side_px[1]))
    overlap = math.ceil(OVERLAP_PER_BOX_SIDE * largest) + 2 * margin
    least = max(SMALLEST_SIDE_PX, math.ceil(TILES_PER_OVERLAP * overlap + grid))
    height, width = (max(side, least) for side in stats.image_size_hw)
    return TileLayout(
        side_hw=(height, width),
        overlap=overlap,
        margin=margin,
        untiled_hw=(math.floor(UNTILED_RATIO * height), math.floor(UNTILED_RATIO * width)),
        grid=grid,
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
    rows = _spans(height, layout.side_hw[0], layout)
    columns = _spans(width, layout.side_hw[1], layout)
    return tuple(
        Tile(
            box=(top, left, bottom, right),
            core=(core_top, core_left, core_bottom, core_right),
            inner=(top > 0, left > 0, bottom < height, right < width),
        )
        for top, bottom, core_top, core_bottom in rows
        for left, right, core_left, core_right in columns
    )


def _spans(length: int, side: int, layout: TileLayout) -> list[tuple[int, int, int, int]]:
    """Start, end, core start, core end of the tiles along one axis, spread evenly but on the grid."""
    overlap = layout.overlap + (math.ceil(layout.grid) if layout.grid > 1 else 0)
    count = 1 if length <= side else math.ceil((length - overlap) / (side - overlap))
    even = [i * (length - side) / max(count - 1, 1) for i in range(count)]
    starts = sorted({math.floor(start // layout.grid * layout.grid) for start in even})
    ends = [*(start + side for start in starts[:-1]), length]  # the last one is longer by less than the grid
    cuts = [0, *((end + start) // 2 for end, start in zip(ends[:-1], starts[1:], strict=True)), length]
    return list(zip(starts, ends, cuts[:-1], cuts[1:], strict=True))


def common_box(a: Box, b: Box) -> Box:
    """What two boxes share; its ends lie before its beginnings where that is nothing."""
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
