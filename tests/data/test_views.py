"""Objects in views: what is painted, and what painting costs in a field of any size."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelloop.data.objects import SoftObjects
from labelloop.data.view_settings import STRONG, GeometryConfig
from labelloop.data.views import Geometry, change_photometry, draw_geometry, view_image, view_objects


def soft_objects(crop: np.ndarray, at: tuple[int, int], size_hw: tuple[int, int], *, crowd: bool):
    return SoftObjects(
        size_hw=size_hw,
        labels=np.zeros(1, np.int64),
        weights=np.ones(1, np.float32),
        ignore=np.array([crowd]),
        crops=(crop,),
        offsets_yx=np.array([at]),
    )


def weights(low: float, high: float, cells: int, pixels: int) -> np.ndarray:
    """Of all cells in all pixels of an axis: how near their middles are, in cells."""
    at = (np.arange(pixels, dtype=np.float32) + 0.5 - low) / (max(high - low, 1e-3) / cells) - 0.5
    return np.maximum(1 - np.abs(at[:, None] - np.arange(cells)), 0).astype(np.float32)


def painted_whole(crop: np.ndarray, at: tuple[int, int], geometry: Geometry) -> np.ndarray:
    """The mask in the view, resampled from all that there is of it, not rounded."""
    top, left, height, width = geometry.window
    scale = np.array([geometry.view_hw[1] / width, geometry.view_hw[0] / height] * 2, np.float32)
    (y, x), (rows, columns) = at, crop.shape
    corners = np.array([x, y, x + columns, y + rows]) - [left, top, left, top]
    box = (corners * scale).astype(np.float32)
    down = weights(box[1], box[3], rows, geometry.view_hw[0])
    across = weights(box[0], box[2], columns, geometry.view_hw[1])
    share = np.multiply(crop, 1 / 255, dtype=np.float32)
    return down @ share @ across.T * 255


@given(
    seed=st.integers(0, 10**6),
    zoom=st.sampled_from([0.16, 0.5, 0.75, 1.0, 4 / 3, 3.2]),
    crop_px=st.integers(4, 60),
    crowd=st.booleans(),
    probable=st.booleans(),
)
def test_what_is_beyond_a_view_changes_no_pixel_in_it(seed, zoom, crop_px, crowd, probable):
    rng = np.random.default_rng(seed)
    size_hw = (int(rng.integers(1, 160)), int(rng.integers(1, 160)))
    at = (int(rng.integers(size_hw[0])), int(rng.integers(size_hw[1])))
    shape = [int(rng.integers(1, size - start + 1)) for size, start in zip(size_hw, at, strict=True)]
    soft = rng.integers(0, 256, shape, dtype=np.uint8)
    crop = soft if probable else np.where(soft > 40, np.uint8(255), np.uint8(0))
    geometry = draw_geometry(rng, size_hw, GeometryConfig(zoom=(zoom, zoom), crop_px=crop_px))
    geometry = Geometry(window=geometry.window, view_hw=geometry.view_hw, turns=0, flip=False)
    target = view_objects(soft_objects(crop, at, size_hw, crowd=crowd), geometry, least_visible=0.15)
    if len(target.masks):
        whole = painted_whole(crop, at, geometry)
        if zoom < 1 and whole.max() < 128:  # what is thinner than a pixel of the view is painted all the same
            return
        assert np.abs(target.masks[0].numpy() - whole).max() < 0.501  # a half may round either way


def test_a_view_of_a_partly_reviewed_field_costs_the_same_however_large_the_field_is():
    def peak(side: int) -> int:
        unknown = np.full((side, side), 255, np.uint8)
        unknown[:200, :200] = 0
        field = soft_objects(unknown, (0, 0), (side, side), crowd=True)
        geometry = Geometry(window=(150, 150, 300, 300), view_hw=(320, 320), turns=0, flip=False)
        tracemalloc.start()
        target = view_objects(field, geometry, least_visible=0.15)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert target.ignore.tolist() == [True]
        assert target.masks[0, 300, 300] == 255
        assert target.masks[0, 10, 10] == 0
        return most

    assert peak(4000) < 1.1 * peak(500)


def test_a_uniform_zoom_does_not_favour_small_factors() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for drawn in ("log", "uniform"):
        config = GeometryConfig(zoom=(0.16, 3.2), zoom_draw=drawn, crop_px=64)
        views = [draw_geometry(rng, (1000, 1000), config) for _ in range(4000)]
        shares.append(np.mean([view.window[2] > 128 for view in views]))  # zoomed below one half
    assert abs(shares[0] - np.log(0.5 / 0.16) / np.log(3.2 / 0.16)) < 0.03
    assert abs(shares[1] - (0.5 - 0.16) / (3.2 - 0.16)) < 0.03


def disc(side: int, middle: tuple[float, float], radius: float) -> np.ndarray:
    """255 inside, in a square."""
    yy, xx = np.mgrid[:side, :side] + 0.5
    inside = (yy - middle[0]) ** 2 + (xx - middle[1]) ** 2 < radius**2
    return np.where(inside, np.uint8(255), np.uint8(0))


def around(mask: np.ndarray) -> SoftObjects:
    """One object, as the crop around it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return soft_objects(crop, (rows[0], columns[0]), mask.shape, crowd=False)


@pytest.mark.parametrize("scale", [1 / 2, 1 / 7, 1 / 16])
def test_a_coarse_view_shows_the_same_in_fewer_pixels(scale):
    mask = disc(1200, (610, 540), 300)
    objects, image = around(mask), np.repeat(mask[None] / np.float32(255), 3, 0)
    config = GeometryConfig(crop_px=1000)
    for seed in range(8):
        fine = draw_geometry(np.random.default_rng(seed), mask.shape, config)
        coarse = draw_geometry(np.random.default_rng(seed), mask.shape, config, scale=scale)
        assert (coarse.window, coarse.turns, coarse.flip) == (fine.window, fine.turns, fine.flip)
        assert coarse.view_hw == pytest.approx([side * scale for side in fine.view_hw], abs=1)
        top, left, height, width = coarse.window
        view = view_image(image[:, top : top + height, left : left + width], coarse)
        small, large = (view_objects(objects, g, least_visible=0.15) for g in (coarse, fine))
        assert small.ignore.tolist() == large.ignore.tolist()
        apart = (small.masks[0].float() / 255 - view[0]).abs()
        assert apart[1:-1, 1:-1].max() < 0.02  # at the border only the mask knows what lies beyond
        areas = [float((t.masks > 127).float().mean()) for t in (small, large)]
        assert areas[0] == pytest.approx(areas[1], rel=0.03 if scale > 0.1 else 0.06)


@pytest.mark.parametrize("at", range(100, 116))
def test_an_object_thinner_than_a_pixel_of_a_coarse_view_is_still_in_it(at):
    fibre = np.zeros((320, 320), np.uint8)
    fibre[at : at + 2, 64:256] = 255
    geometry = Geometry(window=(0, 0, 320, 320), view_hw=(20, 20), turns=0, flip=False, scale=1 / 16)
    (mask,) = view_objects(around(fibre), geometry, least_visible=0.15).masks
    seen = torch.nonzero(mask > 127)
    assert seen[:, 0].unique().tolist() in ([at // 16], [at // 16 - 1, at // 16], [at // 16, at // 16 + 1])
    assert (int(seen[:, 1].min()), int(seen[:, 1].max())) == (4, 15)


@pytest.mark.parametrize("zoom", [0.75, 0.8, 0.3])
@pytest.mark.parametrize("at", range(40, 44))
def test_a_line_that_a_smaller_view_would_lose_between_its_pixels_is_still_in_it(at, zoom):
    line = np.zeros((80, 80), np.uint8)
    line[at, 10:70] = 255
    side = round(80 * zoom)
    geometry = Geometry(window=(0, 0, 80, 80), view_hw=(side, side), turns=0, flip=False)
    (mask,) = view_objects(around(line), geometry, least_visible=0.15).masks
    seen = torch.nonzero(mask > 127)
    assert set(seen[:, 0].tolist()) <= {int((at + 0.5) * zoom) + step for step in (-1, 0, 1)}
    assert len(seen[:, 1].unique()) == pytest.approx(60 * zoom, abs=2)


def test_an_object_that_fills_the_view_is_learnt():
    well, organoid = around(disc(2000, (1000, 1000), 900)), around(disc(2000, (790, 1000), 26))
    geometry = Geometry(window=(808, 808, 384, 384), view_hw=(384, 384), turns=0, flip=False)
    assert view_objects(well, geometry, least_visible=0.15).ignore.tolist() == [False]
    assert view_objects(organoid, geometry, least_visible=0.15).ignore.tolist() == [True]


def test_an_object_larger_than_a_view_is_a_sliver_where_it_fills_little_of_the_view():
    well = around(disc(2000, (1000, 1000), 900))
    for left, ignored in ((1890, True), (1700, False)):  # it ends at 1900
        geometry = Geometry(window=(950, left, 100, 100), view_hw=(100, 100), turns=0, flip=False)
        assert view_objects(well, geometry, least_visible=0.15).ignore.tolist() == [ignored]


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 3), (4, 100)])
def test_views_of_any_size_can_be_blurred(size_hw):
    image = torch.rand(3, *size_hw, generator=torch.Generator().manual_seed(0))
    for seed in range(40):
        strong = change_photometry(np.random.default_rng(seed), image, STRONG)
        assert strong.shape == image.shape
        assert 0 <= float(strong.min()) <= float(strong.max()) <= 1


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.1, 0.3, 0.65]))
def test_objects_that_are_kept_coarsely_are_seen_where_they_are_in_the_image(seed, scale):
    rng = np.random.default_rng(seed)
    side = 900
    middle, radius = rng.uniform(300, 600, 2), rng.uniform(120, 290)
    fine, grid = disc(side, middle, radius), round(side * scale)
    per = grid / side
    kept = replace(around(disc(grid, middle * per, radius * per)), grid_yx=(per, per))
    geometry = draw_geometry(rng, (side, side), GeometryConfig(crop_px=600), scale=scale)
    ours, theirs = (view_objects(o, geometry, least_visible=0.15) for o in (kept, around(fine)))
    if len(theirs.masks) and (theirs.masks > 127).sum() > 200:
        shared, both = ((ours.masks > 127) & (theirs.masks > 127)).sum(), (ours.masks > 127).sum()
        assert shared / (both + (theirs.masks > 127).sum() - shared) > 0.93
