"""Boundary distances equal those of dense masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from labelloop.instances import Instances
from labelloop.metrics.boundary import boundary_distances
from labelloop.metrics.column_runs import column_runs


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels with one of four neighbours outside the mask or the image."""
    return mask & ~ndimage.binary_erosion(mask)


def dense_distance(a: np.ndarray, b: np.ndarray) -> float:
    """By distance transforms."""
    a, b = boundary(a), boundary(b)
    total = ndimage.distance_transform_edt(~b)[a].sum() + ndimage.distance_transform_edt(~a)[b].sum()
    return float(total / (a.sum() + b.sum()))


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of masks (k, h, w) in pairs."""
    sides = (Instances.from_dense(a).rles, Instances.from_dense(b).rles)
    return boundary_distances(*sides, np.full(len(a), a.shape[1]))


def shapes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Ellipses (4, h, w) that overlap and run over the border, with holes, and in pieces."""
    y, x = np.mgrid[:height, :width]
    masks = np.zeros((4, height, width), bool)
    for mask in masks:
        for _ in range(rng.integers(1, 4)):
            centre, radii = rng.uniform(0, (height, width)), rng.uniform(1, (height / 2 + 1, width / 2 + 1))
            distance = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2
            mask |= (distance <= 1) & (distance > rng.choice([-1, 0.3]))
        mask[rng.integers(height), rng.integers(width)] = True
    return masks


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 60), width=st.integers(1, 60))
def test_distances_of_shapes_are_those_of_distance_transforms(seed: int, height: int, width: int) -> None:
    masks = shapes(np.random.default_rng(seed), height, width)
    expected = [dense_distance(a, b) for a, b in zip(masks, masks[::-1], strict=True)]
    np.testing.assert_allclose(distances(masks, masks[::-1]), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    filled=st.sampled_from((0.05, 0.5, 0.9, 1.0)),
)
def test_distances_of_noise_are_those_of_distance_transforms(
    seed: int, height: int, width: int, filled: float
) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((4, height, width)) < filled
    masks[:, rng.integers(height), rng.integers(width)] = True
    expected = [dense_distance(a, b) for a, b in zip(masks, masks[::-1], strict=True)]
    np.testing.assert_allclose(distances(masks, masks[::-1]), expected, rtol=1e-12, atol=1e-12)


def test_runs_are_cut_where_their_column_ends() -> None:
    masks = np.zeros((2, 3, 4), bool)
    masks[0, 1:, 1], masks[0, :, 2], masks[1, 0, 0] = True, True, True
    runs = column_runs(Instances.from_dense(masks).rles, 3)
    found = np.column_stack([runs.owner, runs.column, runs.first, runs.last])
    assert found.tolist() == [[0, 1, 1, 2], [0, 2, 0, 2], [1, 0, 0, 0]]


def test_pairs_of_images_of_several_heights_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    pairs = [rng.random((2, height, 9)) < 0.8 for height in (7, 12, 7, 30, 12)]
    rles = [Instances.from_dense(pair).rles for pair in pairs]
    found = boundary_distances(
        [rle[0] for rle in rles], [rle[1] for rle in rles], np.asarray([pair.shape[1] for pair in pairs])
    )
    np.testing.assert_allclose(found, [dense_distance(*pair) for pair in pairs], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("side", [pytest.param(40, id="small"), pytest.param(700, id="large")])
def test_a_square_in_a_square_is_as_far_away_as_its_frame_is_wide(side: int) -> None:
    outer, inner = np.zeros((2, side, side), bool)
    outer[:], inner[3:-3, 3:-3] = True, True
    from_inner = 4 * (side - 7) * 3.0
    corner = np.hypot(3, 3) + 2 * (np.hypot(3, 1) + np.hypot(3, 2))
    from_outer = 4 * (side - 6) * 3.0 + 4 * corner
    expected = (from_inner + from_outer) / (4 * (side - 7) + 4 * (side - 1))
    assert distances(outer[None], inner[None])[0] == pytest.approx(expected, rel=1e-6)


def test_equal_masks_lie_at_no_distance_and_no_pairs_give_none() -> None:
    mask = np.ones((1, 5, 5), bool)
    assert distances(mask, mask).tolist() == [0.0]
    assert len(boundary_distances([], [], np.zeros(0, np.int64))) == 0


@pytest.mark.parametrize(
    "gap", [pytest.param(20, id="near"), pytest.param(250, id="far"), pytest.param(4000, id="farthest")]
)
def test_masks_apart_have_the_distance_between_them(gap: int) -> None:
    masks = np.zeros((2, 1, gap + 1), bool)
    masks[0, 0, 0] = masks[1, 0, gap] = True
    assert distances(masks[:1], masks[1:])[0] == distances(masks[1:], masks[:1])[0] == gap
