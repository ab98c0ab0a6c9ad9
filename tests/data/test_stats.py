from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.data.pool import data_stats
from labelloop.data.view_settings import GeometryConfig
from labelloop.formats.rle import runs_to_counts
from labelloop.instances import Instances

SIDE = 1000


def dots(places: np.ndarray) -> Instances:
    """Objects of 2 x 2 px in a field, at these rows and columns."""
    rles = []
    for row, column in places.tolist():
        start = column * SIDE + row
        runs = [start, 2, SIDE - 2, 2, SIDE * SIDE - start - SIDE - 2]
        rles.append(runs_to_counts(np.array(runs), (SIDE, SIDE)))
    labels, scores = np.zeros(len(rles), np.int64), None
    return Instances(size_hw=(SIDE, SIDE), rles=tuple(rles), labels=labels, scores=scores)


@given(st.integers(0, 9), st.integers(60, 900))
def test_of_a_large_field_about_as_many_objects_count_as_one_view_holds(seed: int, side: int) -> None:
    rng = np.random.default_rng(seed)
    places = np.concatenate([rng.integers(0, SIDE - 2, (60, 2)), rng.integers(400, 500, (60, 2))])
    config = GeometryConfig(crop_px=side, zoom=(1.0, 1.0))
    most = data_stats([dots(places)], ("a",), geometry=config).objects_per_image[1]
    middles = places + 1
    views = rng.integers(0, SIDE - side + 1, (200, 2))
    inside = ((middles[None] >= views[:, None]) & (middles[None] < views[:, None] + side)).all(axis=2)
    assert inside.sum(axis=1).max() <= most <= 120


def test_objects_of_a_field_count_whole_where_views_are_not_known_and_by_view_where_they_are() -> None:
    rows, columns = np.meshgrid(np.arange(5, SIDE, 20), np.arange(5, SIDE, 20))
    field = dots(np.stack([rows.ravel(), columns.ravel()], axis=1))
    assert data_stats([field], ("a",)).objects_per_image == (2500, 2500)
    small, large = GeometryConfig(crop_px=133), GeometryConfig(crop_px=SIDE)
    assert data_stats([field], ("a",), geometry=small).objects_per_image[1] == pytest.approx(225, rel=0.1)
    assert data_stats([field], ("a",), geometry=large).objects_per_image == (2500, 2500)


def test_objects_are_counted_in_the_largest_window_that_a_recipe_draws() -> None:
    rows = np.arange(20, 970, 19)
    bands = np.concatenate([np.stack([rows, np.full_like(rows, x)], 1) for x in (200, 790)])
    config = GeometryConfig(crop_px=320, zoom=(0.5, 2.0))  # windows of up to 640 px
    stats = data_stats([dots(bands)], ("a",), geometry=config)
    middles = bands + 1
    inside = ((middles >= (0, 190)) & (middles < (640, 830))).all(axis=1)  # both bands
    assert stats.objects_per_image[1] >= inside.sum()
    assert stats.image_size_hw == (480, 480)  # what prediction sees at once is three halves of a crop
