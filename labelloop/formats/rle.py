"""COCO run lengths, checked: column-major runs of zeros and ones in turn, zeros first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

IntArray = npt.NDArray[np.int64]


def counts_to_runs(counts: str | bytes) -> IntArray:
    """Decodes COCO's compressed string.

    It has 5 bits a character; from the fourth run on, each is stored as the difference from the run two
    before it.

    Raises:
        ValueError: The string is not such a code.
    """
    text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    characters = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if len(characters) == 0:
        return np.zeros(0, np.int64)
    if characters.min() < 0 or characters.max() > 63 or characters[-1] & 0x20:
        raise ValueError("it is damaged")
    last = (characters & 0x20) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    lengths = np.diff(np.append(starts, len(characters)))
    if lengths.max() > 7:  # 35 bits hold more than any image
        raise ValueError("it is damaged")
    place = np.arange(len(characters)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((characters & 0x1F) << (5 * place), starts)
    negative = (characters[last] & 0x10) != 0
    runs[negative] -= np.int64(1) << (5 * lengths[negative])
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def runs_to_counts(runs: Sequence[int] | IntArray, size_hw: tuple[int, int]) -> bytes:
    """Encodes runs as COCO's compressed string, in the one shortest form that each mask has.

    Args:
        runs: Lengths of zeros and ones in turn, zeros first; they fill the image.
        size_hw: Height and width of the image, px.

    Raises:
        ValueError: The runs do not fill the image.
    """
    height, width = size_hw
    lengths = np.asarray(runs)
    if lengths.dtype.kind not in "iu":
        whole = lengths.astype(np.int64)
        if not np.array_equal(whole, lengths):
            raise ValueError("it has runs that are not whole numbers")
        lengths = whole
    if lengths.ndim != 1 or (lengths < 0).any():
        raise ValueError("it has negative runs")
    total = int(lengths.sum())
    if total != height * width:
        raise ValueError(f"it covers {total} px, but the image has {height * width}")
    flips, times = np.unique(np.cumsum(lengths)[:-1], return_counts=True)
    flips = flips[(times % 2 == 1) & (flips < total)]
    short = np.diff(np.concatenate([[0], flips, [total]]))
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": short.tolist()}, height, width)
    return bytes(encoded["counts"])


def checked_rle(segmentation: dict[str, Any], size_hw: tuple[int, int]) -> bytes:
    """The compressed string of a COCO run-length object, compressed or not.

    Args:
        segmentation: ``{"size": [h, w], "counts": str | list[int]}``.
        size_hw: Height and width that it must have, px.

    Raises:
        ValueError: It has another size, or is damaged; the message can follow "the RLE cannot be used:".
    """
    size = segmentation.get("size")
    if size is not None and list(size) != list(size_hw):
        raise ValueError(f"its size is {size}, but the image has {list(size_hw)} (height, width)")
    counts = segmentation.get("counts")
    if isinstance(counts, str | bytes):
        return runs_to_counts(counts_to_runs(counts), size_hw)
    if isinstance(counts, list) and all(isinstance(run, int | float) for run in counts):
        return runs_to_counts(counts, size_hw)
    raise ValueError("it has no counts")


def numbers_to_counts(numbers: npt.NDArray[Any]) -> dict[int, bytes]:
    """One mask for each number but 0 in an (h, w) image of whole numbers, by number, in one pass."""
    height, width = numbers.shape
    flat = numbers.T.ravel()
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], change])
    ends = np.concatenate([change, [flat.size]])
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    order = order[values[order] != 0]
    found, first = np.unique(values[order], return_index=True)
    masks = {}
    for value, of_value in zip(found, np.split(order, first[1:]), strict=False):
        bounds = np.stack([starts[of_value], ends[of_value]], axis=1).ravel()
        runs = np.diff(np.concatenate([[0], bounds, [flat.size]]))
        masks[int(value)] = runs_to_counts(runs, (height, width))
    return masks
