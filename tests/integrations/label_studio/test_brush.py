"""Brush run lengths: read and written as Label Studio's own SDK does, which is the reference here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from label_studio_sdk.converter.brush import decode_rle, mask2rle

from labelloop.integrations.label_studio.brush import brush_runs, decode_brush, encode_brush

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
MASKS = SIZES.flatmap(lambda size: st_numpy.arrays(np.bool_, size))
ALPHAS = SIZES.flatmap(lambda size: st_numpy.arrays(np.uint8, size))


def disc(side: int, radius: int) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:side, :side] - side // 2
    return np.asarray(y * y + x * x < radius * radius)


@given(MASKS)
def test_a_mask_comes_back(mask: npt.NDArray[np.bool_]) -> None:
    assert np.array_equal(decode_brush(encode_brush(mask), mask.shape), mask)


@given(MASKS)
def test_the_sdk_reads_what_was_written_and_writes_the_same_but_for_zeros_at_the_end(
    mask: npt.NDArray[np.bool_],
) -> None:
    written = encode_brush(mask)
    alpha = np.where(mask, 255, 0).astype(np.uint8)
    assert np.array_equal(decode_rle(list(written)).reshape(*mask.shape, 4)[..., 3], alpha)
    assert written.rstrip(b"\0") == bytes(mask2rle(alpha)).rstrip(b"\0")


@given(ALPHAS)
def test_a_pixel_of_an_antialiased_stroke_is_inside_from_half_of_alpha_on(
    alpha: npt.NDArray[np.uint8],
) -> None:
    assert np.array_equal(decode_brush(mask2rle(alpha), alpha.shape), alpha >= 128)


@pytest.mark.parametrize("radius", [1, 63, 180, 255])
def test_long_runs_and_codes_of_several_pieces(radius: int) -> None:
    mask = disc(512, radius)
    assert np.array_equal(decode_brush(encode_brush(mask), mask.shape), mask)
    noise = np.random.default_rng(radius).random((512, 512)) < 0.5  # a code longer than one look at it
    assert np.array_equal(decode_brush(encode_brush(noise), noise.shape), noise)


def test_runs_are_pixels_row_by_row_and_neighbours_are_one_run() -> None:
    alpha = np.zeros((3, 5), np.uint8)
    alpha[0, 3:] = 200
    alpha[1, 0] = 255  # goes on in the next row
    alpha[2, 4] = 127
    starts, stops = brush_runs(mask2rle(alpha), (3, 5))
    assert starts.tolist() == [3]
    assert stops.tolist() == [6]


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=8)), min_size=1, max_size=30))
def test_any_records_are_read_as_the_sdk_reads_them(records: list[tuple[bool, bytes]]) -> None:
    n_words = sum(len(words) for _, words in records)
    n_words_of_pixels = -(-n_words // 4) * 4
    code = f"{n_words_of_pixels:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    if n_words_of_pixels > n_words:
        records = [*records, (False, bytes(n_words_of_pixels - n_words))]
    for is_run, words in records:
        said = words[:1] if is_run else words
        code += f"{is_run:d}00{len(words) - 1:03b}" + "".join(f"{word:08b}" for word in said)
    packed = int(code.ljust(-(-len(code) // 8) * 8, "0"), 2).to_bytes(-(-len(code) // 8))
    size_hw = (1, n_words_of_pixels // 4)
    alpha = decode_rle(list(packed)).reshape(*size_hw, 4)[..., 3]
    assert np.array_equal(decode_brush(packed, size_hw), alpha >= 128)


@given(st.binary(max_size=60))
def test_rubbish_behind_a_good_header_is_refused_or_a_mask_of_the_image(rubbish: bytes) -> None:
    header = encode_brush(np.zeros((4, 4), np.bool_))[:6]
    try:
        mask = decode_brush(header + rubbish, (4, 4))
    except ValueError:
        return
    assert mask.shape == (4, 4)
    assert mask.dtype == np.bool_


@given(MASKS, st.data())
def test_a_code_that_is_cut_off_is_refused(mask: npt.NDArray[np.bool_], data: st.DataObject) -> None:
    code = encode_brush(mask)
    kept = data.draw(st.integers(0, max(len(code.rstrip(b"\0")) - 2, 0)))
    with pytest.raises(ValueError, match=r"short|cut off"):
        decode_brush(code[:kept], mask.shape)


@pytest.mark.parametrize(
    ("rle", "reason"),
    [
        (list(encode_brush(disc(8, 3))), "it covers"),
        (7, "else than bytes"),
        ([300, 1], "else than bytes"),
        (["a"], "else than bytes"),
        (b"", "short"),
    ],
)
def test_what_cannot_be_used_says_why(rle: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_brush(rle, (9, 8))
