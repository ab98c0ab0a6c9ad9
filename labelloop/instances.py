"""Instances: the one value type for masks. Every edge of labelloop speaks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Instances:
    """The objects of one image. Masks may overlap, and overlap is never lost.

    Dense masks exist only where a kernel needs them: ``to_dense`` makes them, ``from_dense`` takes them.

    Attributes:
        size_hw: Height and width of the image, px.
        rles: COCO compressed run lengths (column-major), one per object.
        labels: int64 (n,), class index from 0, into the project's classes.
        scores: float32 (n,) in 0..1, or None for annotations.
        crowd: bool (n,), regions that are neither hits nor misses (COCO ``iscrowd``).
    """

    size_hw: tuple[int, int]
    rles: tuple[bytes, ...] = ()
    labels: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    scores: FloatArray | None = None
    crowd: BoolArray = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        n = len(self.rles)
        if len(self.crowd) == 0 and n:
            object.__setattr__(self, "crowd", np.zeros(n, np.bool_))
        lengths = {"labels": len(self.labels), "crowd": len(self.crowd)}
        if self.scores is not None:
            lengths["scores"] = len(self.scores)
        wrong = {name: length for name, length in lengths.items() if length != n}
        if wrong:
            raise ValueError(f"Instances holds {n} masks, but {wrong}")

    @classmethod
    def from_dense(
        cls,
        masks: npt.NDArray[np.generic],
        labels: Sequence[int] | IntArray | None = None,
        scores: Sequence[float] | FloatArray | None = None,
        *,
        size_hw: tuple[int, int] | None = None,
    ) -> Instances:
        """Encodes dense masks.

        Args:
            masks: (n, h, w), nonzero inside the object.
            labels: (n,) class indices; all 0 if None.
            scores: (n,) in 0..1, or None.
            size_hw: Needed only where ``masks`` is an empty list without a size.
        """
        n = len(masks)
        height, width = size_hw if size_hw is not None else (int(masks.shape[1]), int(masks.shape[2]))
        rles: tuple[bytes, ...] = ()
        if n:
            column_major = np.asfortranarray(np.moveaxis(masks != 0, 0, -1).astype(np.uint8))
            rles = tuple(r["counts"] for r in coco_mask.encode(column_major))
        return cls(
            size_hw=(height, width),
            rles=rles,
            labels=np.zeros(n, np.int64) if labels is None else np.asarray(labels, np.int64).reshape(n),
            scores=None if scores is None else np.asarray(scores, np.float32).reshape(n),
        )

    def to_dense(self) -> BoolArray:
        """All masks, bool (n, h, w)."""
        if not self.rles:
            return np.zeros((0, *self.size_hw), np.bool_)
        decoded: npt.NDArray[np.uint8] = coco_mask.decode(self.coco_rles())
        return np.ascontiguousarray(np.moveaxis(decoded, -1, 0)).astype(np.bool_)

    def mask(self, index: int) -> BoolArray:
        """One mask, bool (h, w)."""
        decoded: npt.NDArray[np.uint8] = coco_mask.decode(self._coco_rle(self.rles[index]))
        return decoded.astype(np.bool_)

    def crop(self, index: int) -> tuple[BoolArray, int, int]:
        """One mask cut to its box, without decoding the image: bool (h_i, w_i), and its top and left, px.

        An empty mask gives an empty array at (0, 0).
        """
        height = self.size_hw[0]
        runs = _runs(self.rles[index])
        ends = np.cumsum(runs)
        starts, stops = ends[0::2][: len(runs) // 2], ends[1::2]  # of the ones, column-major
        starts, stops = starts[stops > starts], stops[stops > starts]
        if len(starts) == 0:
            return np.zeros((0, 0), np.bool_), 0, 0
        left, right = int(starts[0] // height), int((stops[-1] - 1) // height)
        wraps = bool((starts // height != (stops - 1) // height).any())  # then it reaches from top to bottom
        top = 0 if wraps else int((starts % height).min())
        bottom = height - 1 if wraps else int(((stops - 1) % height).max())
        crop_height, crop_width = bottom - top + 1, right - left + 1
        first, last = starts, stops - 1
        edges = np.zeros(crop_height * crop_width + 1, np.int8)
        np.add.at(edges, (first // height - left) * crop_height + first % height - top, 1)
        np.add.at(edges, (last // height - left) * crop_height + last % height - top + 1, -1)
        inside = np.cumsum(edges[:-1], dtype=np.int8).astype(np.bool_)
        return np.ascontiguousarray(inside.reshape(crop_width, crop_height).T), top, left

    def coco_rles(self) -> list[dict[str, object]]:
        """The masks as pycocotools takes them: ``{"size": [h, w], "counts": bytes}``."""
        return [self._coco_rle(counts) for counts in self.rles]

    @property
    def areas(self) -> IntArray:
        """int64 (n,), px."""
        if not self.rles:
            return np.zeros(0, np.int64)
        rles = self.coco_rles()  # pycocotools 2.0.11 fails on more than 255 at once: its count is a uint8
        parts = [coco_mask.area(rles[i : i + 255]) for i in range(0, len(rles), 255)]
        return np.asarray(np.concatenate(parts), np.int64)

    @property
    def holds_objects(self) -> bool:
        """Whether there is anything to learn: an object that is neither a crowd nor empty."""
        return bool((~self.crowd & (self.areas > 0)).any())

    @property
    def boxes_xywh(self) -> npt.NDArray[np.float64]:
        """float64 (n, 4): left, top, width, height, px, as COCO writes them."""
        if not self.rles:
            return np.zeros((0, 4))
        return np.asarray(coco_mask.toBbox(self.coco_rles()), np.float64)

    @property
    def boxes_xyxy(self) -> npt.NDArray[np.float64]:
        """float64 (n, 4): left, top, right, bottom, px; right and bottom are exclusive."""
        boxes = self.boxes_xywh.copy()
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def iou(self, other: Instances) -> npt.NDArray[np.float64]:
        """float64 (n, m): mask IoU of every pair, on the full masks. Crowds are treated as plain masks."""
        if not self.rles or not other.rles:
            return np.zeros((len(self), len(other)))
        plain = [0] * len(other)
        return np.asarray(coco_mask.iou(self.coco_rles(), other.coco_rles(), plain), np.float64)

    def select(self, keep: npt.NDArray[np.generic] | Sequence[int]) -> Instances:
        """The objects at these indices (or where this bool mask is true), in that order."""
        keep_array = np.asarray(keep)
        index = np.flatnonzero(keep_array) if keep_array.dtype == np.bool_ else keep_array.astype(np.int64)
        return Instances(
            size_hw=self.size_hw,
            rles=tuple(self.rles[i] for i in index),
            labels=self.labels[index],
            scores=None if self.scores is None else self.scores[index],
            crowd=self.crowd[index],
        )

    def above(self, min_score: float) -> Instances:
        """The objects scored ``min_score`` or more; all of them where there are no scores."""
        return self if self.scores is None else self.select(self.scores >= min_score)

    def __len__(self) -> int:
        return len(self.rles)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Instances):
            return NotImplemented
        same_scores = (
            self.scores is other.scores
            if self.scores is None or other.scores is None
            else np.array_equal(self.scores, other.scores)
        )
        return (
            self.size_hw == other.size_hw
            and self.rles == other.rles
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.crowd, other.crowd)
            and same_scores
        )

    __hash__ = None  # type: ignore[assignment]

    def _coco_rle(self, counts: bytes) -> dict[str, object]:
        return {"size": [self.size_hw[0], self.size_hw[1]], "counts": counts}


def _runs(counts: bytes) -> IntArray:
    """The run lengths in a COCO string.

    It has 5 bits a character; from the fourth run on, each is stored as the difference from the run two
    before it.
    """
    characters = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = (characters & 0x20) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    if len(characters) == 0:
        return np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, len(characters)))
    place = np.arange(len(characters)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((characters & 0x1F) << (5 * place), starts)
    negative = (characters[last] & 0x10) != 0
    runs[negative] -= np.int64(1) << (5 * lengths[negative])
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
