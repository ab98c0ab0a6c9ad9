from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import Prediction
from labelloop.predict.field import predict_array
from labelloop.predict.stitch import pieces_of, stitch
from labelloop.predict.tiles import TileLayout, plan_tiles

LAYOUT = TileLayout(side_hw=(100, 110), overlap=40, margin=4, untiled_hw=(0, 0))
WHOLE = TileLayout(side_hw=(100, 110), overlap=40, margin=4, untiled_hw=(10**6, 10**6))


def same_share(found: Instances, expected: Instances, iou: float = 0.9) -> float:
    """Share of objects that have their like on the other side, of all on both sides."""
    if not len(found) or not len(expected):
        return float(len(found) == len(expected))
    like = found.iou(expected) >= iou
    return float((like.any(axis=1).sum() + like.any(axis=0).sum()) / (len(found) + len(expected)))


def grid_of_ellipses(rng: np.random.Generator, size_hw: tuple[int, int], pitch: int, largest: float):
    """Centres on a jittered grid, so that objects of one colour never touch, and radii up to ``largest``."""
    height, width = size_hw
    rows, columns = np.mgrid[pitch // 2 : height : pitch, pitch // 2 : width : pitch]
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1) + rng.uniform(-4, 4, (rows.size, 2))
    radii = rng.uniform(4, largest, (rows.size, 2))
    return [tuple(c) for c in centres], [tuple(r) for r in radii]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), height=st.integers(60, 420), width=st.integers(60, 420))
def test_tiled_equals_untiled_for_objects_within_reach(
    seed: int, height: int, width: int, components, stats: DataStats, draw_ellipses: Callable
) -> None:
    centres, radii = grid_of_ellipses(np.random.default_rng(seed), (height, width), 36, 14)
    pixels = draw_ellipses((height, width), centres, radii)
    tiled = predict_array(components, pixels, stats=stats, layout=LAYOUT)
    whole = predict_array(components, pixels, stats=stats, layout=WHOLE)
    assert tiled.size_hw == whole.size_hw
    assert sorted(tiled.rles) == sorted(whole.rles)


@pytest.mark.parametrize("layout", [LAYOUT, WHOLE])
@pytest.mark.parametrize(("probability", "pixels_inside"), [(0.45, 20 * 20), (0.4, 0)])
def test_outlines_lie_a_little_below_one_half_in_tiles_as_in_whole_images(
    layout: TileLayout, probability: float, pixels_inside: int, components, stats: DataStats, monkeypatch
) -> None:
    sure = components.predict

    def unsure(images, *, min_score: float) -> list[Prediction]:
        return [
            replace(p, crops=tuple(np.multiply(c, probability).astype(np.uint8) for c in p.crops))
            for p in sure(images, min_score=min_score)
        ]

    monkeypatch.setattr(components, "predict", unsure)
    pixels = np.zeros((250, 250, 3), np.uint8)
    pixels[100:120, 90:110] = 200
    found = predict_array(components, pixels, stats=stats, layout=layout)
    assert found.areas.sum() == pixels_inside


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), y=st.floats(60, 240), x=st.floats(60, 240), angle=st.floats(0, 6.28))
def test_overlapping_objects_stay_two_wherever_the_seams_run(
    seed: int, y: float, x: float, angle: float, components, stats: DataStats, draw_ellipses: Callable
) -> None:
    radius = 14.0
    apart = 1.2 * radius  # discs share 28 % of their area each
    other = (y + apart * np.sin(angle), x + apart * np.cos(angle))
    pixels = draw_ellipses((300, 300), [(y, x), other], [(radius, radius)] * 2)
    tiled = predict_array(components, pixels, stats=stats, layout=LAYOUT)
    assert len(tiled) == 2
    shared = (tiled.mask(0) & tiled.mask(1)).sum() / tiled.areas.min()
    assert 0.2 < shared < 0.45


@pytest.mark.parametrize("length", [120, 200, 290])
@pytest.mark.parametrize("upright", [True, False])
def test_an_object_longer_than_a_tile_is_one_object(
    length: int, upright: bool, components, stats: DataStats, draw_ellipses: Callable
) -> None:
    long, short = length / 2, 12.0
    pixels = draw_ellipses((300, 310), [(150, 155)], [(long, short) if upright else (short, long)])
    tiled = predict_array(components, pixels, stats=stats, layout=LAYOUT)
    whole = predict_array(components, pixels, stats=stats, layout=WHOLE)
    assert len(tiled) == 1
    assert tiled.rles == whole.rles


def test_a_large_disc_across_many_tiles_is_one_object(
    components, stats: DataStats, draw_ellipses: Callable
) -> None:
    pixels = draw_ellipses((400, 400), [(203, 190), (40, 350)], [(120, 110), (10, 10)])
    tiled = predict_array(components, pixels, stats=stats, layout=LAYOUT)
    whole = predict_array(components, pixels, stats=stats, layout=WHOLE)
    assert len(tiled) == len(whole) == 2
    assert same_share(tiled, whole, 0.99) == 1


def test_two_long_objects_that_cross_at_a_seam_stay_two(
    components, stats: DataStats, draw_ellipses: Callable
) -> None:
    pixels = draw_ellipses((300, 300), [(150, 150), (150, 150)], [(130, 10), (10, 130)])
    tiled = predict_array(components, pixels, stats=stats, layout=LAYOUT)
    whole = predict_array(components, pixels, stats=stats, layout=WHOLE)
    assert sorted(tiled.rles) == sorted(whole.rles)
    assert len(tiled) == 2


class Careless:
    """Components as a network sees them: masks differ from view to view and end before the tile's border."""

    def __init__(self, model, seed: int) -> None:
        self._model = model
        self._rng = np.random.default_rng(seed)

    def module(self):
        return self._model.module()

    def predict(self, images, *, min_score: float = 0.05):
        return [self._blur(p) for p in self._model.predict(images, min_score=min_score)]

    def _blur(self, prediction: Prediction) -> Prediction:
        height, width = prediction.size_hw
        crops = []
        for crop, (top, left) in zip(prediction.crops, prediction.offsets_yx, strict=True):
            changed = crop.copy()
            border = np.zeros((height, width), bool)
            depth = int(self._rng.integers(0, 3))
            border[depth : height - depth, depth : width - depth] = True
            changed[~border[top : top + crop.shape[0], left : left + crop.shape[1]]] = 0
            changed[: self._rng.integers(0, 2)] = 0
            changed[:, : self._rng.integers(0, 2)] = 0
            crops.append(changed)
        scores = np.clip(prediction.scores + self._rng.uniform(-0.2, 0.1, len(crops)), 0.06, 1).astype(
            np.float32
        )
        return Prediction(
            size_hw=prediction.size_hw,
            labels=prediction.labels,
            scores=scores,
            quality=prediction.quality,
            crops=tuple(crops),
            offsets_yx=prediction.offsets_yx,
        )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6))
def test_views_that_differ_leave_each_object_once(
    seed: int, components, stats: DataStats, draw_ellipses: Callable
) -> None:
    centres, radii = grid_of_ellipses(np.random.default_rng(seed), (330, 350), 36, 15)
    radii = [(max(r[0], 7), max(r[1], 7)) for r in radii]
    pixels = draw_ellipses((330, 350), centres, radii)
    tiled = predict_array(Careless(components, seed), pixels, stats=stats, layout=LAYOUT)
    whole = predict_array(components, pixels, stats=stats, layout=WHOLE)
    assert len(tiled) == len(whole)
    assert same_share(tiled, whole, 0.6) == 1


# Two tiles side by side of an image of 100 x 160 px: columns 0..110 and 50..160, the seam at 80.
PAIR = plan_tiles((100, 160), LAYOUT)


def seen(*boxes: tuple[int, tuple[int, int, int, int], float]) -> Instances:
    """What is left of rectangles (tile, top-left-bottom-right in the image, score) that the two tiles see."""
    pieces = []
    for index, (top, left, bottom, right), score in boxes:
        y, x = PAIR[index].box[:2]
        prediction = Prediction(
            size_hw=PAIR[index].size_hw,
            labels=np.zeros(1, np.int64),
            scores=np.full(1, score, np.float32),
            quality=np.ones(1, np.float32),
            crops=(np.full((bottom - top, right - left), 255, np.uint8),),
            offsets_yx=np.asarray([(top - y, left - x)]),
        )
        pieces += pieces_of(prediction, PAIR[index], index, LAYOUT.margin)
    return stitch(pieces, PAIR, (100, 160), LAYOUT.margin)


def boxes_of(found: Instances) -> list[tuple[int, ...]]:
    return sorted(tuple(int(v) for v in (y, x, b, r)) for x, y, r, b in found.boxes_xyxy)


def test_the_two_tiles_are_as_the_tests_below_take_them() -> None:
    assert [tile.box for tile in PAIR] == [(0, 0, 100, 110), (0, 50, 100, 160)]
    assert [tile.core for tile in PAIR] == [(0, 0, 100, 80), (0, 80, 100, 160)]


def test_an_object_is_kept_though_each_view_puts_its_centre_in_the_others_core() -> None:
    assert len(seen((0, (40, 71, 60, 91), 0.9), (1, (40, 69, 60, 89), 0.8))) == 1


def test_the_view_of_the_tile_in_whose_core_an_object_lies_is_kept() -> None:
    assert boxes_of(seen((0, (40, 60, 60, 80), 0.7), (1, (41, 61, 60, 80), 0.9))) == [(40, 60, 60, 80)]


def test_an_uncut_view_is_kept_before_a_cut_one_with_a_higher_score() -> None:
    assert boxes_of(seen((0, (40, 75, 60, 103), 0.6), (1, (40, 75, 60, 103), 0.5))) == [(40, 75, 60, 103)]
    assert boxes_of(seen((0, (40, 82, 60, 109), 0.9), (1, (40, 82, 60, 112), 0.5))) == [(40, 82, 60, 112)]


def test_two_objects_that_both_tiles_tell_apart_stay_two_however_alike_they_are() -> None:
    large, small = (30, 70, 60, 90), (30, 70, 55, 90)
    found = seen((0, large, 0.9), (0, small, 0.8), (1, large, 0.9), (1, small, 0.8))
    assert boxes_of(found) == sorted([large, small])


def test_two_objects_with_forty_percent_in_common_stay_two_though_each_tile_sees_one() -> None:
    left, right = (40, 64, 60, 84), (40, 76, 60, 96)
    assert boxes_of(seen((0, left, 0.9), (1, right, 0.9))) == [left, right]


def test_what_the_tile_with_the_better_view_does_not_see_is_dropped() -> None:
    assert boxes_of(seen((0, (40, 82, 60, 100), 0.9))) == []
    assert boxes_of(seen((1, (40, 50, 60, 70), 0.9))) == []


def test_what_no_other_tile_sees_whole_is_kept() -> None:
    assert boxes_of(seen((0, (40, 10, 60, 102), 0.9))) == [(40, 10, 60, 102)]
    assert boxes_of(seen((1, (40, 55, 60, 104), 0.9))) == []
    wide = (40, 52, 60, 150)  # cut by the right tile, and the left one does not see it at all
    assert boxes_of(seen((1, wide, 0.9))) == [wide]


def test_tiles_without_objects_give_no_objects(components, stats: DataStats) -> None:
    tiled = predict_array(components, np.zeros((300, 300), np.uint8), stats=stats, layout=LAYOUT)
    assert len(tiled) == 0
    assert tiled.size_hw == (300, 300)
    assert tiled.scores is not None
