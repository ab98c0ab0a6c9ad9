from __future__ import annotations

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.overlays import contour, distinct_colour, draw_overlay

RED, BLUE = (255, 0, 0), (0, 0, 255)


def two_overlapping_squares(scores: list[float] | None = None) -> Instances:
    masks = np.zeros((2, 40, 50), bool)
    masks[0, 5:25, 5:25] = True
    masks[1, 15:35, 15:45] = True
    return Instances.from_dense(masks, scores=scores)


def test_both_contours_stay_visible_where_objects_overlap() -> None:
    drawn = draw_overlay(
        np.full((40, 50), 100, np.uint8), two_overlapping_squares(), colours=[RED, BLUE], line_px=1
    )
    assert tuple(drawn[24, 20]) == RED
    assert tuple(drawn[15, 20]) == BLUE


def test_tint_deepens_where_objects_overlap_and_is_absent_outside() -> None:
    drawn = draw_overlay(
        np.full((40, 50), 100, np.uint8), two_overlapping_squares(), colours=[RED, RED], show_count=False
    )
    once, twice = int(drawn[10, 10, 0]), int(drawn[20, 20, 0])
    assert 100 < once < twice < 255
    assert (drawn[38, 2] == 100).all()


def test_objects_below_the_score_are_neither_drawn_nor_counted() -> None:
    pixels = np.zeros((40, 50), np.uint8)
    shown = two_overlapping_squares(scores=[0.9, 0.2])
    drawn = draw_overlay(pixels, shown, min_score=0.5)
    assert np.array_equal(drawn, draw_overlay(pixels, shown.select([0])))


def test_count_is_written_only_if_asked_for() -> None:
    pixels = np.full((120, 120, 3), 90, np.uint8)
    nothing = Instances(size_hw=(120, 120))
    assert np.array_equal(draw_overlay(pixels, nothing, show_count=False), pixels)
    assert not np.array_equal(draw_overlay(pixels, nothing), pixels)
    assert (pixels == 90).all()


def test_contour_follows_the_border_of_a_crop() -> None:
    outline = contour(np.ones((6, 7), bool), 2)
    assert outline.sum() == 6 * 7 - 2 * 3


def test_neighbouring_colours_differ() -> None:
    colours = np.array([distinct_colour(i) for i in range(12)], int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1)[~np.eye(12, dtype=bool)]
    assert apart.min() > 30


def test_objects_of_another_image_size_are_refused() -> None:
    with pytest.raises(ValueError, match="40, 50"):
        draw_overlay(np.zeros((10, 10), np.uint8), two_overlapping_squares())
