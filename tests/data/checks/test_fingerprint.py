from __future__ import annotations

import numpy as np
import pytest

from labelloop.data.checks.fingerprint import (
    MOST_COMPARISONS,
    keypoint_budget,
    pixel_hash,
    saturated_share,
    why_blank,
)
from labelloop.data.checks.keypoints import half_scale
from labelloop.data.synthetic import organoid_micrograph

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.full((64, 64), 7, np.uint8), id="one-value"),
        pytest.param(np.zeros((64, 64, 3), np.uint8), id="black-rgb"),
        pytest.param(RNG.normal(400, 6, (128, 128)).astype(np.uint16), id="sensor-noise"),
    ],
)
def test_an_image_without_anything_to_see_is_blank(pixels: np.ndarray) -> None:
    assert why_blank(pixels)


@pytest.mark.parametrize("seed", range(5))
def test_a_micrograph_is_neither_blank_nor_saturated(seed: int) -> None:
    pixels, _ = organoid_micrograph(np.random.default_rng(seed), n_objects=2)
    assert why_blank(pixels) is None
    assert saturated_share(pixels) == 0


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("noise", [0, 2])
def test_an_image_with_content_in_one_colour_is_not_blank(channel: int, noise: int) -> None:
    gray, _ = organoid_micrograph(np.random.default_rng(1))
    pixels = np.random.default_rng(2).integers(0, noise + 1, (*gray.shape, 3)).astype(np.uint8)
    pixels[..., channel] = gray
    assert why_blank(pixels) is None


def test_a_single_spot_of_a_large_image_is_not_one_value() -> None:
    pixels = np.zeros((3000, 3000, 3), np.uint8)
    pixels[1001, 1001, 2] = 9
    assert why_blank(pixels) != "every pixel is 0"


def test_a_narrow_range_of_a_wide_type_is_not_blank() -> None:
    pixels, _ = organoid_micrograph(np.random.default_rng(1))
    assert why_blank(pixels.astype(np.uint16) // 4 + 200) is None


@pytest.mark.parametrize("top", [255, 4095])
def test_overexposed_areas_are_saturated_whatever_the_camera_can_count_to(top: int) -> None:
    pixels, _ = organoid_micrograph(np.random.default_rng(3))
    middle = np.median(pixels)
    overexposed = np.minimum(pixels.astype(np.float64) / middle * top, top).astype(np.uint16)
    assert saturated_share(overexposed) == pytest.approx(0.5, abs=0.05)


def test_pixel_hash_ignores_the_file_but_not_a_single_pixel() -> None:
    pixels, _ = organoid_micrograph(np.random.default_rng(4))
    changed = pixels.copy()
    changed[0, 0] ^= 1
    assert pixel_hash(pixels) == pixel_hash(np.repeat(pixels[..., None], 3, axis=2))
    assert pixel_hash(pixels) != pixel_hash(changed)
    assert pixel_hash(pixels) != pixel_hash(pixels.T.copy())


def test_comparisons_stay_bounded_as_a_pool_grows() -> None:
    for images in (10, 1_000, 100_000):
        budget = keypoint_budget(images, 1000)
        assert 6 <= budget <= 2000
        assert budget == 6 or budget**2 * images * 1000 * 8 <= MOST_COMPARISONS


def test_a_large_image_is_judged_by_a_sample_of_it() -> None:
    noise = np.random.default_rng(0).integers(90, 110, (3000, 2500)).astype(np.uint8)
    assert why_blank(noise)
    pixels, _ = organoid_micrograph(np.random.default_rng(3))
    tiled = np.tile(np.minimum(pixels.astype(int) * 4, 255).astype(np.uint8), (12, 10))
    assert why_blank(tiled) is None
    assert saturated_share(tiled) > 0.3


@pytest.mark.parametrize("shape", [(7, 9), (8, 8, 3)])
def test_half_scale_is_the_mean_of_2x2_pixels_and_of_colours(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)
    gray = pixels.reshape(*shape[:2], -1).mean(-1)[: shape[0] // 2 * 2, : shape[1] // 2 * 2]
    expected = gray.reshape(shape[0] // 2, 2, shape[1] // 2, 2).mean((1, 3))
    assert np.allclose(half_scale(pixels), expected, rtol=1e-5)
