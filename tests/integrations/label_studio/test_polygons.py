"""Outlines of shapes whose pixels are known, read back by the rasteriser that reading uses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy import ndimage

from labelloop.formats.outlines import Unusable
from labelloop.instances import Instances
from labelloop.integrations.label_studio.polygons import (
    MIN_IOU,
    mask_to_polygon,
    polygon_to_mask,
    to_percent,
    to_px,
)

Mask = npt.NDArray[np.bool_]
EVERY_NEIGHBOUR = np.ones((3, 3), int)


def disc(size_hw: tuple[int, int], x: float, y: float, radius: float) -> Mask:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.asarray((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2)


@st.composite
def unions_of_discs(draw: st.DrawFn) -> Mask:
    """Up to four discs in an image of any size, some of them reaching over its border, some punched out."""
    size_hw = (draw(st.integers(1, 90)), draw(st.integers(1, 90)))
    mask = np.zeros(size_hw, np.bool_)
    for _ in range(draw(st.integers(1, 4))):
        x, y = draw(st.floats(0, size_hw[1])), draw(st.floats(0, size_hw[0]))
        inside = disc(size_hw, x, y, draw(st.floats(0.5, 40)))
        mask = mask & ~inside if draw(st.integers(0, 5)) == 5 else mask | inside
    return mask


def is_simple(mask: Mask) -> bool:
    """Whether it is one part without a hole."""
    _, parts = ndimage.label(mask, EVERY_NEIGHBOUR)
    _, outsides = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return (parts, outsides) == (1, 1)


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def drawn(points: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> Mask:
    rle = polygon_to_mask(points, size_hw)
    return Instances(size_hw=size_hw, rles=(rle,), labels=np.zeros(1, np.int64)).mask(0)


def check(mask: Mask) -> npt.NDArray[np.float64] | None:
    points = mask_to_polygon(Instances.from_dense(mask[None]), 0)
    assert (points is not None) == is_simple(mask)
    if points is not None:
        height, width = mask.shape
        assert points.shape[0] >= 3
        assert (points >= 0).all()
        assert (points <= (width, height)).all()
        assert iou(drawn(points, (height, width)), mask) >= MIN_IOU
    return points


@given(unions_of_discs())
def test_one_part_without_a_hole_is_a_polygon_that_agrees_and_nothing_else_is(mask: Mask) -> None:
    check(mask)


@given(st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_so_is_any_heap_of_pixels(mask: Mask) -> None:
    check(mask)


@given(unions_of_discs())
def test_points_come_back_from_percent_to_the_last_bit(mask: Mask) -> None:
    points, (height, width) = mask_to_polygon(Instances.from_dense(mask[None]), 0), mask.shape
    if points is not None:
        assert np.array_equal(to_px(to_percent(points, (height, width)), (height, width)), points)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (6, 1), (33, 20), (2048, 2048)])
def test_an_object_that_fills_the_image_has_its_corners(size_hw: tuple[int, int]) -> None:
    points = check(np.ones(size_hw, np.bool_))
    assert points is not None
    assert len(points) <= 8


@pytest.mark.parametrize("at", [(0, 0), (0, 2047), (2047, 0), (2047, 2047), (1000, 77)])
def test_one_pixel_anywhere_in_a_large_image(at: tuple[int, int]) -> None:
    mask = np.zeros((2048, 2048), np.bool_)
    mask[at] = True
    assert check(mask) is not None


def test_lines_of_one_pixel() -> None:
    straight = np.zeros((30, 40), np.bool_)
    straight[7, 3:33] = True
    for mask in (np.eye(30, dtype=np.bool_), straight, straight.T):
        assert check(mask) is not None


@pytest.mark.parametrize("radius", [10, 20, 30, 100, 400])
def test_a_disc_needs_few_points(radius: int) -> None:
    points = check(disc((900, 1000), 480.3, 444.8, radius))
    assert points is not None
    assert 8 <= len(points) <= 40


def test_a_second_part_and_a_hole_of_one_pixel_are_no_polygon() -> None:
    whole = disc((60, 60), 30, 30, 20)
    for at in ((30, 30), (2, 2)):
        mask = whole.copy()
        mask[at] = not mask[at]
        assert check(mask) is None
    assert check(np.zeros((5, 5), np.bool_)) is None


def test_a_comb_of_too_many_teeth_is_no_polygon() -> None:
    comb = np.zeros((200, 2000), np.bool_)
    comb[:, ::2] = True
    comb[0] = True
    assert mask_to_polygon(Instances.from_dense(comb[None]), 0) is None
    assert check(comb[:40, :40]) is not None


def test_a_polygon_is_cut_to_the_image() -> None:
    mask = drawn(np.array([[-5.0, -5], [3, -5], [3, 40], [-5, 40]]), (10, 12))
    assert np.array_equal(mask, np.arange(12)[None] < 3 * np.ones((10, 1)))


def test_a_polygon_that_crosses_itself_has_two_halves() -> None:
    mask = drawn(np.array([[0.0, 0], [20, 20], [20, 0], [0, 20]]), (20, 20))
    assert mask[10, 1]
    assert mask[10, 18]
    assert not mask[2, 10]
    assert not mask[18, 10]


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([[1, 1], [5, 5]], "fewer than 3"),
        (np.zeros((0, 2)), "fewer than 3"),
        ([[30, 30], [40, 30], [40, 40]], "outside"),
        ([[1, 1], [2, 2], [3, 3]], "empty"),
        ([[0, 0], [1e12, 0], [0, 5]], "too long"),
        ([[0, 0], [np.nan, 0], [0, 5]], "too long"),
        ([[0, 0], [250, 0], [0, 5]], "far outside"),
        ([[0, 0], [200, 200]] * 50, "too long"),
    ],
)
def test_what_is_no_polygon_says_why(points: list[list[float]], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        polygon_to_mask(np.asarray(points, float), (20, 20))
