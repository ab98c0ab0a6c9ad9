from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.models.data_stats import DataStats
from labelloop.predict.tiles import TileLayout, plan_tiles, tile_layout


@st.composite
def layouts(draw: st.DrawFn) -> TileLayout:
    margin = draw(st.integers(1, 6))
    overlap = draw(st.integers(2 * margin + 1, 40))
    grid = draw(st.sampled_from([1.0, 1.5, 8.0, 36.14]))
    side = st.integers(2 * overlap + math.ceil(grid) + 1, 200)
    height, width = draw(side), draw(side)
    ratio = draw(st.sampled_from([0.0, 1.0, 1.5]))
    return TileLayout(
        side_hw=(height, width),
        overlap=overlap,
        margin=margin,
        untiled_hw=(int(ratio * height), int(ratio * width)),
        grid=grid,
    )


sizes = st.tuples(st.integers(1, 700), st.integers(1, 700))


@settings(deadline=None)
@given(sizes, layouts())
def test_cores_part_the_image(size_hw: tuple[int, int], layout: TileLayout) -> None:
    owners = np.zeros(size_hw, np.int32)
    for tile in plan_tiles(size_hw, layout):
        top, left, bottom, right = tile.core
        owners[top:bottom, left:right] += 1
        assert tile.box[0] <= top < bottom <= tile.box[2] <= size_hw[0]
        assert tile.box[1] <= left < right <= tile.box[3] <= size_hw[1]
    assert (owners == 1).all()


@settings(deadline=None)
@given(sizes, layouts())
def test_tiles_have_the_planned_size_or_that_of_the_image(
    size_hw: tuple[int, int], layout: TileLayout
) -> None:
    tiles = plan_tiles(size_hw, layout)
    if len(tiles) == 1:
        assert tiles[0].size_hw == size_hw
        return
    for tile in tiles:
        for axis in (0, 1):
            least = min(layout.side_hw[axis], size_hw[axis])
            assert least <= tile.size_hw[axis] < least + layout.grid + 1
            start = tile.box[axis]
            assert start == math.floor(math.ceil(start / layout.grid) * layout.grid)


@settings(deadline=None)
@given(sizes, layouts(), st.data())
def test_an_object_within_reach_lies_whole_in_a_tile(
    size_hw: tuple[int, int], layout: TileLayout, data: st.DataObject
) -> None:
    height = data.draw(st.integers(1, min(layout.reach, size_hw[0])))
    width = data.draw(st.integers(1, min(layout.reach, size_hw[1])))
    top = data.draw(st.integers(0, size_hw[0] - height))
    left = data.draw(st.integers(0, size_hw[1] - width))
    box = (top, left, top + height, left + width)
    assert any(tile.sees_whole(box, layout.margin) for tile in plan_tiles(size_hw, layout))


def test_the_layout_follows_the_training_images_and_objects() -> None:
    stats = DataStats(
        classes=("organoid",),
        image_size_hw=(600, 800),
        diameter_px=(20, 40, 70),
        box_side_px=(25, 50, 100),
        objects_per_image=(20, 60),
    )
    layout = tile_layout(stats)
    assert layout.side_hw == (600, 800)
    assert layout.reach >= 1.5 * 100
    assert len(plan_tiles((700, 1000), layout)) == 1
    assert len(plan_tiles((2048, 1536), layout)) > 4


def test_tiles_grow_with_large_objects() -> None:
    stats = DataStats(
        classes=("organoid",),
        image_size_hw=(300, 300),
        diameter_px=(100, 200, 250),
        box_side_px=(120, 220, 280),
        objects_per_image=(2, 4),
    )
    layout = tile_layout(stats)
    assert min(layout.side_hw) > 2 * layout.overlap


def test_a_layout_with_too_much_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="a side above"):
        TileLayout(side_hw=(64, 64), overlap=32, margin=2, untiled_hw=(64, 64))


class Coarse:
    """A model with cells of 36.5 px."""

    stride_px = 36.5


def test_tiles_begin_on_the_grid_of_a_model_that_has_one() -> None:
    stats = DataStats(
        classes=("organoid",),
        image_size_hw=(600, 800),
        diameter_px=(20, 40, 70),
        box_side_px=(25, 50, 100),
        objects_per_image=(20, 60),
    )
    assert tile_layout(stats, Coarse()).grid == 36.5
    starts = {tile.box[1] for tile in plan_tiles((2048, 3000), tile_layout(stats, Coarse()))}
    assert len(starts) > 4
    assert all(start == math.floor(round(start / 36.5) * 36.5) for start in starts)
