"""Synthetic micrographs: repeatable, and true to their masks."""

from __future__ import annotations

import numpy as np
import pytest

from labelloop.data.synthetic import SyntheticConfig, organoid_micrograph
from labelloop.instances import Instances

PLAIN = SyntheticConfig(
    ghosts=(0, 0),
    debris=(0, 0),
    noise=(0.0, 0.0),
    overlap_share=0.0,
    dense_share=0.0,
    contrast=(0.5, 0.5),
    drop_edge_share=0.0,
)


def test_same_seed_gives_same_micrograph_and_other_seed_another() -> None:
    pixels, truth = organoid_micrograph(np.random.default_rng(5))
    again, truth_again = organoid_micrograph(np.random.default_rng(5))
    other, _ = organoid_micrograph(np.random.default_rng(6))
    assert np.array_equal(pixels, again)
    assert truth == truth_again
    assert not np.array_equal(pixels, other)


@pytest.mark.parametrize("size_hw", [(256, 256), (96, 160), (33, 20)])
def test_pixels_and_truth_have_the_asked_size(size_hw: tuple[int, int]) -> None:
    pixels, truth = organoid_micrograph(np.random.default_rng(1), size_hw=size_hw)
    assert pixels.shape == size_hw == truth.size_hw
    assert pixels.dtype == np.uint8


def test_an_image_without_organoids_has_an_empty_truth() -> None:
    _, truth = organoid_micrograph(np.random.default_rng(1), n_objects=0)
    assert len(truth) == 0
    assert truth.to_dense().shape == (0, 256, 256)


def test_overlapping_organoids_keep_overlapping_masks() -> None:
    config = SyntheticConfig(overlap_share=1.0)
    masks = organoid_micrograph(np.random.default_rng(2), n_objects=10, config=config)[1].to_dense()
    assert (masks.sum(axis=0) >= 2).any()


def test_every_mask_is_visible_and_of_a_plausible_size() -> None:
    config = SyntheticConfig()
    for seed in range(10):
        _, truth = organoid_micrograph(np.random.default_rng(seed))
        assert (truth.areas >= 24).all()
        assert (truth.areas < np.pi * (1.5 * config.radius_px[1]) ** 2).all()


def test_a_wall_is_darker_than_what_lies_around_it() -> None:
    from scipy import ndimage

    for seed in range(5):
        pixels, truth = organoid_micrograph(np.random.default_rng(seed), n_objects=1, config=PLAIN)
        for mask in truth.to_dense():
            rim = mask & ~ndimage.binary_erosion(mask, iterations=3, border_value=1)
            near = ndimage.binary_dilation(mask, iterations=8)
            around = ndimage.binary_dilation(near, iterations=4) & ~near
            assert pixels[rim].mean() < 0.95 * pixels[around].mean()


def test_ghosts_and_debris_are_not_labelled() -> None:
    config = SyntheticConfig(ghosts=(8, 8), debris=(30, 30))
    pixels, truth = organoid_micrograph(np.random.default_rng(0), n_objects=0, config=config)
    assert len(truth) == 0
    assert pixels.std() > 1


def test_run_lengths_of_crops_are_those_of_full_masks() -> None:
    _, truth = organoid_micrograph(np.random.default_rng(3), size_hw=(60, 90), n_objects=25)
    assert truth == Instances.from_dense(truth.to_dense())
    touching = [box for box in truth.boxes_xyxy if box.min() == 0 or box[2] == 90 or box[3] == 60]
    assert touching
