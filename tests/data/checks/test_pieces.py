"""Pieces of synthetic fields, cut, turned and exposed by known amounts."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from labelloop.data.checks.keypoints import ORIENTATIONS, find_keypoints, half_scale, turned, turned_points
from labelloop.data.checks.pieces import Piece, candidates, verify
from labelloop.data.checks.twins import likely_twins, thumbnail, whole_correlation
from labelloop.data.synthetic import organoid_micrograph


def field(seed: int, side: int = 400) -> np.ndarray:
    return organoid_micrograph(np.random.default_rng(seed), size_hw=(side, side))[0]


def shared(one: np.ndarray, other: np.ndarray) -> Piece | None:
    halves = half_scale(one), half_scale(other)
    points = [find_keypoints(half, 200) for half in halves]
    found = candidates(points[:1], points[1:], lambda _: None)
    return verify(found[0], *halves) if found else None


def brighter(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels * 1.3 + 12, 0, 255).astype(np.uint8)


def other_gamma(pixels: np.ndarray) -> np.ndarray:
    return np.clip(255 * (pixels / 255) ** 0.7, 0, 255).astype(np.uint8)


def sixteen_bit(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 13 + 400


def saved_as_jpeg(pixels: np.ndarray) -> np.ndarray:
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "JPEG", quality=60)
    return np.asarray(Image.open(stored))


def noisier(pixels: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(9).normal(0, 4, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_a_crop_is_found_in_its_field_however_it_is_turned(orientation: int) -> None:
    whole = field(orientation)
    crop = brighter(turned(whole[37:285, 110:361], orientation))
    piece = shared(crop, whole)
    assert piece is not None
    assert piece.correlation > 0.9
    assert piece.share > 0.95
    assert piece.candidate.orientation == orientation


@pytest.mark.parametrize("change", [brighter, other_gamma, sixteen_bit, saved_as_jpeg, noisier])
def test_a_crop_is_found_at_another_exposure_or_quality(change) -> None:  # type: ignore[no-untyped-def]
    for seed in range(5):
        whole = field(20 + seed)
        piece = shared(change(whole[51:300, 20:271]), whole)
        assert piece is not None
        assert piece.correlation > 0.85


@pytest.mark.parametrize("overlap_px", [300, 200, 150])
def test_two_crops_that_share_a_part_are_found_with_its_size(overlap_px: int) -> None:
    found = 0
    for seed in range(8):
        whole = field(40 + seed, side=600)
        start = 300 - overlap_px
        piece = shared(whole[100:400, :300], whole[150:450, start : start + 300])
        if piece is not None:
            found += 1
            assert piece.share == pytest.approx(overlap_px * 250 / 300**2, abs=0.03)
            assert piece.candidate.shift == pytest.approx((-25, -start // 2), abs=1)
    assert found >= 7


def test_other_fields_share_nothing() -> None:
    halves = [half_scale(field(seed)) for seed in range(100, 140)]
    points = [find_keypoints(half, 200) for half in halves]
    found = candidates(points[:20], points[20:], lambda _: None)
    verified = [verify(c, halves[c.first], halves[20 + c.second]) for c in found]
    assert not any(verified)


def test_each_image_is_a_piece_of_itself_and_of_no_other() -> None:
    halves = [half_scale(field(seed)) for seed in range(200, 212)]
    points = [find_keypoints(half, 200) for half in halves]
    whole = candidates(points, points, lambda _: None)
    true = [c for c in whole if c.first == c.second]
    assert len(true) == len(halves)
    assert all(verify(c, halves[c.first], halves[c.second]).correlation > 0.99 for c in true)  # type: ignore[union-attr]
    false = [c for c in whole if c.first != c.second]
    assert not any(verify(c, halves[c.first], halves[c.second]) for c in false)


def test_points_turn_as_their_image_does() -> None:
    image = np.arange(5 * 7).reshape(5, 7)
    yx = np.array([[0, 0], [1, 5], [4, 6]], np.int32)
    for orientation in range(ORIENTATIONS):
        there = turned_points(yx, (5, 7), orientation)
        assert turned(image, orientation)[there[:, 0], there[:, 1]].tolist() == [0, 12, 34]


def test_an_image_smaller_than_a_descriptor_has_no_points_and_no_pieces() -> None:
    tiny = half_scale(field(1, side=40))
    points = find_keypoints(tiny, 50)
    assert len(points.yx) == 0
    assert candidates([points], [points], lambda _: None) == []


def test_whole_images_are_recognised_turned_resized_and_brightened() -> None:
    images = [field(seed, side=300) for seed in range(6)]
    small = np.asarray(Image.fromarray(brighter(images[2])).resize((150, 150), Image.Resampling.BOX))
    changed = [turned(small, 5), saved_as_jpeg(images[4])]
    halves = [half_scale(pixels) for pixels in (*images, *changed)]
    shapes = np.array([half.shape for half in halves])
    likely = likely_twins(np.stack([thumbnail(half) for half in halves]), shapes)
    same = {
        (p.first, p.second)
        for p in likely
        if whole_correlation(halves[p.first], halves[p.second], p.orientation) > 0.85
    }
    assert same == {(2, 6), (4, 7)}
