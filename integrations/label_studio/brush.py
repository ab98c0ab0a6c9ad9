"""Label Studio's brush run lengths.

A brush region holds its image as RGBA, row by row, packed by thi.ng/rle-pack in words of 8 bits: a header (32
bits number of words, 5 bits word size less one, four times 4 bits run-length size less one), then records of

    1 bit whether it is a run, 2 bits which of the four sizes, that many bits length less one,
    and one word (a run) or as many words as the length (no run),

the most significant bit first, zeros at the end to fill a byte. The mask is the fourth channel, alpha;
labelloop writes all four alike, 0 or 255. Edited regions are antialiased: a pixel is inside from half of full
alpha on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_SIZES = (3, 4, 8, 16)  # bits of a record's length
_HEADER_BITS = 32 + 5 + 4 * len(_SIZES)
_CHANNELS = 4
_INSIDE = 128  # of alpha: half of it, and more
_CHUNK = 1 << 16  # bytes that are looked through at once

BoolArray = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.int64]


def encode_brush(mask: npt.NDArray[np.generic]) -> bytes:
    """A mask as Label Studio's ``rle``; ``list`` of it is what JSON holds.

    Args:
        mask: (h, w), nonzero inside, at least one pixel.
    """
    flat = np.ascontiguousarray(mask if mask.dtype == np.bool_ else mask != 0).reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    lengths = np.diff(bounds) * _CHANNELS
    inside = np.arange(len(lengths)) % 2 == (0 if flat[0] else 1)
    longest = 1 << _SIZES[-1]
    pieces = -(-lengths // longest)
    words = np.repeat(np.where(inside, 255, 0), pieces)
    counts = np.full(len(words), longest, np.int64)
    counts[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * longest
    which = np.searchsorted([1 << s for s in _SIZES], counts)
    size = np.asarray(_SIZES)[which]
    values = (((((1 << 2) | which) << size) | (counts - 1)) << 8) | words
    return _pack(flat.size * _CHANNELS, values, 1 + 2 + size + 8)


def _pack(n_words: int, values: IntArray, widths: IntArray) -> bytes:
    """The header and records of these values, each so many bits wide."""
    header = n_words
    for value, width in ((7, 5), *((s - 1, 4) for s in _SIZES)):
        header = (header << width) | value
    all_widths = np.concatenate([[_HEADER_BITS], widths])
    ends = np.cumsum(all_widths)
    bits = np.zeros(int(ends[-1]), np.uint8)
    bits[:_HEADER_BITS] = [(header >> i) & 1 for i in range(_HEADER_BITS - 1, -1, -1)]
    place = np.arange(_HEADER_BITS, len(bits))
    behind = np.repeat(ends[1:], widths) - 1 - place  # bits of the same record that follow
    bits[_HEADER_BITS:] = (np.repeat(values, widths) >> behind) & 1
    return np.packbits(bits).tobytes()


def decode_brush(rle: bytes | Sequence[int], size_hw: tuple[int, int]) -> BoolArray:
    """The mask in Label Studio's ``rle``.

    Args:
        rle: Bytes, or their values as JSON holds them.
        size_hw: Of the image, px.

    Returns:
        bool (h, w), where alpha is half of full or more.

    Raises:
        ValueError: It is damaged, or of an image of another size.
    """
    starts, stops = brush_runs(rle, size_hw)
    mask = np.zeros(size_hw[0] * size_hw[1], np.bool_)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        mask[start:stop] = True
    return mask.reshape(size_hw)


def brush_runs(rle: bytes | Sequence[int], size_hw: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """Where the mask of an ``rle`` begins and ends, pixels counted row by row.

    Two int64 (runs,); stops are exclusive.

    Raises:
        ValueError: It is damaged, or of an image of another size.
    """
    try:
        packed = np.frombuffer(bytes(iter(rle)), np.uint8)  # bytes(7) would be seven zeros
    except (TypeError, ValueError) as error:
        raise ValueError("it holds something else than bytes") from error
    lengths, words = _words(packed, size_hw[0] * size_hw[1] * _CHANNELS)
    ends = np.cumsum(lengths) // _CHANNELS  # alpha of pixel p is word 4 p + 3
    starts = np.concatenate([[0], ends[:-1]])
    inside = (words >= _INSIDE) & (ends > starts)
    starts, stops = starts[inside], ends[inside]
    apart = starts[1:] > stops[:-1]  # else the two are one
    begins, ends_here = np.append(True, apart), np.append(apart, True)
    return starts[begins[: len(starts)]], stops[ends_here[: len(stops)]]


def _words(packed: Bytes, n_words: int) -> tuple[IntArray, IntArray]:
    """All words of a code: how often each comes, and its value; both int64 (n,)."""
    if 8 * len(packed) < _HEADER_BITS:
        raise ValueError("it is too short")
    header = int.from_bytes(packed[:7].tobytes()) >> (56 - _HEADER_BITS)
    sizes = np.array([(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)])
    if header >> 16 & 31 != 7:
        raise ValueError("its words are not of 8 bits")
    if header >> 21 != n_words:
        raise ValueError(f"it covers {header >> 21} words, but the image has {n_words}")
    heads = _heads(packed, sizes, n_words)
    kinds = _read(packed, heads) >> 13
    size = sizes[kinds & 3]
    counts = (_read(packed, heads + 3) >> (16 - size)) + 1
    is_run = kinds >= 4
    singles = np.where(is_run, 1, counts)
    before = np.cumsum(singles) - singles
    at = np.repeat(heads + 3 + size - 8 * before, singles) + 8 * np.arange(int(singles.sum()))
    lengths = np.repeat(np.where(is_run, counts, 1), singles)
    if at[-1] + 8 > 8 * len(packed) or int(lengths.sum()) != n_words:
        raise ValueError("it is cut off or damaged")
    return lengths, _read(packed, at) >> 8


def _heads(packed: Bytes, sizes: IntArray, n_words: int) -> IntArray:
    """The bit at which each record begins: where one from a bit on would end is known, then followed."""
    found: list[IntArray] = []
    at, covered = _HEADER_BITS, 0
    kinds = np.arange(8)
    skip = (3 + sizes[kinds & 3] + np.where(kinds >= 4, 8, 0)).astype(np.int32)
    shift = (16 - sizes[kinds & 3]).astype(np.int32)
    while covered < n_words:
        if at + 3 + int(sizes.min()) + 8 > 8 * len(packed):
            raise ValueError("it is cut off")
        first = at // 8
        next_bits = _every_16_bits(packed[first : first + _CHUNK + 3])
        kind = next_bits[:-3] >> 13
        lengths = (next_bits[3:] >> shift.take(kind)) + 1
        after = np.arange(len(kind), dtype=np.int32) + skip.take(kind) + 8 * lengths * (kind < 4)
        heads, at = _followed(after, at - 8 * first, min(len(kind), 8 * _CHUNK))
        ends = covered + np.cumsum(lengths[heads], dtype=np.int64)
        within = int(np.searchsorted(ends, n_words)) + 1  # the record that reaches the last word is the last
        found.append(8 * first + heads[:within])
        covered, at = int(ends[-1]), 8 * first + at
    return np.concatenate(found)


def _followed(after: npt.NDArray[np.int32], here: int, stop: int) -> tuple[IntArray, int]:
    """The records of a chunk from the one at a bit on, and the first bit behind them."""
    heads: list[int] = []
    follow = after.data
    while here < stop:
        heads.append(here)
        here = follow[here]
    return np.array(heads, np.int64), here


def _every_16_bits(packed: Bytes) -> npt.NDArray[np.int32]:
    """The 16 bits from each bit on, zeros behind the end: int32 (8 n,)."""
    padded = np.concatenate([packed, np.zeros(2, np.uint8)]).astype(np.int32)
    three = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
    every: npt.NDArray[np.int32] = three[:, None] >> np.arange(8, 0, -1, dtype=np.int32) & 0xFFFF
    return every.reshape(-1)


def _read(packed: Bytes, at: IntArray) -> IntArray:
    """The 16 bits from each of these bits on, zeros behind the end: int64, as ``at``."""
    padded = np.concatenate([packed, np.zeros(4, np.uint8)])
    byte = np.minimum(at >> 3, len(packed) + 1)
    three = padded[byte].astype(np.int64) << 16 | padded[byte + 1].astype(np.int64) << 8 | padded[byte + 2]
    read: IntArray = three >> (8 - (at & 7)) & 0xFFFF
    return read
