"""Edit records: what a person did to the objects that were proposed.

Objects are followed by their keys. What has the same key before and after was kept; what lost its key or has
a new one is explained, where masks allow it, by a split, a merge or an object drawn anew.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from labelloop.instances import Instances

EditKind = Literal["accepted", "moved", "relabelled", "added", "deleted", "split", "merged"]
EDIT_KINDS: tuple[EditKind, ...] = get_args(EditKind)

REDRAWN_IOU = 0.5  # an object deleted and one drawn that agree this well are one object, moved
INSIDE = 0.5  # a part lies in an object by this share of itself
PART_OF_WHOLE = 0.05  # a part has at least this share of the object that it is a part of

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyedInstances:
    """Objects that can be told apart by a key.

    Attributes:
        keys: One per object, no two alike.
        instances: The objects.
    """

    keys: tuple[str, ...]
    instances: Instances

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.instances) or len(set(self.keys)) != len(self.keys):
            raise ValueError(f"{len(self.instances)} objects need as many different keys, not {self.keys}")


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What happened to one object, or to the objects of one split or merge.

    Attributes:
        kind: accepted: as proposed. moved: the same object with another boundary, also one that was deleted
            and drawn anew. relabelled: another class; its boundary may have moved too, which ``iou`` says.
            added, deleted, split (one became several), merged (several became one).
        before: Keys of the proposed objects.
        after: Keys of the objects that came back.
        iou: Of the areas before and after, 0..1; None where one of them is nothing.
        label_before: Class index of the first object before, or None.
        label_after: Class index of the first object after, or None.
        outline_px: Length of the outlines that came back, px, as if they were discs of their areas.
    """

    kind: EditKind
    before: tuple[str, ...]
    after: tuple[str, ...]
    iou: float | None
    label_before: int | None
    label_after: int | None
    outline_px: float


def find_edits(
    proposed: KeyedInstances, returned: KeyedInstances, *, untouched: Collection[str] = ()
) -> list[Edit]:
    """One record for every object proposed or returned; those of a split or a merge share one.

    Args:
        proposed: What was shown.
        returned: What came back, in an image of the same size.
        untouched: Keys that came back exactly as they were sent.
    """
    return _Comparison(proposed, returned, frozenset(untouched)).edits()


class _Comparison:
    def __init__(self, proposed: KeyedInstances, returned: KeyedInstances, untouched: frozenset[str]) -> None:
        self._before, self._after = proposed, returned
        self._untouched = untouched
        self._index_before = {key: i for i, key in enumerate(proposed.keys)}
        self._index_after = {key: j for j, key in enumerate(returned.keys)}
        self._kept = [key for key in proposed.keys if key in self._index_after]
        self._gone = [i for i, key in enumerate(proposed.keys) if key not in self._index_after]
        self._new = [j for j, key in enumerate(returned.keys) if key not in self._index_before]
        self._size_hw = proposed.instances.size_hw

    def edits(self) -> list[Edit]:
        found = self._splits_and_merges()
        explained = {key for edit in found for key in (*edit.before, *edit.after)}
        found += [self._kept_edit(key) for key in self._kept if key not in explained]
        gone = [i for i in self._gone if self._before.keys[i] not in explained]
        new = [j for j in self._new if self._after.keys[j] not in explained]
        redrawn = self._redrawn(gone, new)
        found += [self._edit("moved", [i], [j]) for i, j in redrawn]
        drawn_from, drawn = {i for i, _ in redrawn}, {j for _, j in redrawn}
        found += [self._edit("deleted", [i], []) for i in gone if i not in drawn_from]
        found += [self._edit("added", [], [j]) for j in new if j not in drawn]
        return found

    def _kept_edit(self, key: str) -> Edit:
        i, j = self._index_before[key], self._index_after[key]
        same_mask = key in self._untouched or self._mask_before(i) == self._mask_after(j)
        return self._edit("accepted" if same_mask else "moved", [i], [j])

    def _redrawn(self, gone: list[int], new: list[int]) -> list[tuple[int, int]]:
        """Pairs of a deleted and a drawn object that are one."""
        if not gone or not new:
            return []
        from scipy.optimize import linear_sum_assignment  # half a second, for what most pulls do without

        iou = self._before.instances.select(gone).iou(self._after.instances.select(new))
        rows, columns = linear_sum_assignment(-np.where(iou >= REDRAWN_IOU, iou, 0))
        return [(gone[r], new[c]) for r, c in zip(rows, columns, strict=True) if iou[r, c] >= REDRAWN_IOU]

    def _splits_and_merges(self) -> list[Edit]:
        """Best agreement first; an object takes part in one of them only."""
        candidates = [*self._splits(), *self._merges()]
        candidates.sort(key=lambda found: (-found[0], found[1].before, found[1].after))
        taken: set[str] = set()
        edits: list[Edit] = []
        for _, edit in candidates:
            keys = {*edit.before, *edit.after}
            if not keys & taken:
                taken |= keys
                edits.append(edit)
        return edits

    def _splits(self) -> list[tuple[float, Edit]]:
        found = []
        for i, kept_j, lost in self._changes("lost"):
            parts = self._parts([self._mask_after(j) for j in self._new], lost, self._mask_before(i))
            after = [j for j, is_part in zip(self._new, parts, strict=True) if is_part]
            alone = [kept_j] if kept_j is not None else []
            found += self._if_better("split", [i], [*alone, *after], [([i], [j]) for j in alone or after])
        return found

    def _merges(self) -> list[tuple[float, Edit]]:
        found = []
        for j, kept_i, gained in self._changes("gained"):
            parts = self._parts([self._mask_before(i) for i in self._gone], gained, self._mask_after(j))
            before = [i for i, is_part in zip(self._gone, parts, strict=True) if is_part]
            alone = [kept_i] if kept_i is not None else []
            found += self._if_better("merged", [*alone, *before], [j], [([i], [j]) for i in alone or before])
        return found

    def _if_better(
        self,
        kind: EditKind,
        before: list[int],
        after: list[int],
        alternatives: list[tuple[list[int], list[int]]],
    ) -> list[tuple[float, Edit]]:
        """The split or merge, where it explains the areas better than one object moved does."""
        if max(len(before), len(after)) < 2:
            return []
        edit = self._edit(kind, before, after)
        best = max((self._iou(b, a) for b, a in alternatives), default=0.0)
        together = edit.iou or 0.0
        return [(together, edit)] if together > best else []

    def _changes(self, which: Literal["lost", "gained"]) -> list[tuple[int, int | None, bytes]]:
        """Objects with what they lost (or gained): its index, that of its other self, the area's mask."""
        lost = which == "lost"
        if not (self._new if lost else self._gone):
            return []
        changes: list[tuple[int, int | None, bytes]] = [
            (k, None, self._mask_before(k) if lost else self._mask_after(k))
            for k in (self._gone if lost else self._new)
        ]
        for key in self._kept:
            i, j = self._index_before[key], self._index_after[key]
            before, after = self._mask_before(i), self._mask_after(j)
            if key not in self._untouched and before != after:
                area = self._minus(before, after) if lost else self._minus(after, before)
                changes.append((i, j, area) if lost else (j, i, area))
        return changes

    def _parts(self, masks: list[bytes], inside: bytes, whole: bytes) -> list[bool]:
        """Which of the masks lie inside an area and are big enough to be a part of the whole."""
        if not masks:
            return []
        areas = np.array([_area(mask, self._size_hw) for mask in masks], np.float64)
        limit = PART_OF_WHOLE * _area(whole, self._size_hw)
        shared = _shares(masks, inside, self._size_hw)
        return [bool(a >= limit and s >= INSIDE) for a, s in zip(areas, shared, strict=True)]

    def _minus(self, mask: bytes, other: bytes) -> bytes:
        dense = self._dense(mask) & ~self._dense(other)
        return bytes(coco_mask.encode(np.asfortranarray(dense.astype(np.uint8)))["counts"])

    def _dense(self, mask: bytes) -> npt.NDArray[np.bool_]:
        decoded: npt.NDArray[np.uint8] = coco_mask.decode(_rle(mask, self._size_hw))
        return decoded.astype(np.bool_)

    def _mask_before(self, i: int) -> bytes:
        return self._before.instances.rles[i]

    def _mask_after(self, j: int) -> bytes:
        return self._after.instances.rles[j]

    def _iou(self, before: list[int], after: list[int]) -> float:
        union_before = self._union([self._mask_before(i) for i in before])
        union_after = self._union([self._mask_after(j) for j in after])
        return float(coco_mask.iou([union_before], [union_after], [0])[0, 0])

    def _union(self, masks: list[bytes]) -> dict[str, object]:
        merged: dict[str, object] = coco_mask.merge([_rle(mask, self._size_hw) for mask in masks])
        return merged

    def _edit(self, kind: EditKind, before: list[int], after: list[int]) -> Edit:
        label_before = int(self._before.instances.labels[before[0]]) if before else None
        label_after = int(self._after.instances.labels[after[0]]) if after else None
        same = kind == "accepted"
        if kind in ("accepted", "moved") and label_before != label_after:
            kind = "relabelled"
        return Edit(
            kind=kind,
            before=tuple(self._before.keys[i] for i in before),
            after=tuple(self._after.keys[j] for j in after),
            iou=None if not before or not after else 1.0 if same else self._iou(before, after),
            label_before=label_before,
            label_after=label_after,
            outline_px=sum(2 * math.sqrt(math.pi * _area(self._mask_after(j), self._size_hw)) for j in after),
        )


def _rle(counts: bytes, size_hw: tuple[int, int]) -> dict[str, object]:
    return {"size": [size_hw[0], size_hw[1]], "counts": counts}


def _area(counts: bytes, size_hw: tuple[int, int]) -> int:
    return int(coco_mask.area(_rle(counts, size_hw)))


def _shares(masks: list[bytes], inside: bytes, size_hw: tuple[int, int]) -> FloatArray:
    """float64 (n,): the share of each mask that lies in an area (pycocotools' IoU with a crowd)."""
    shares = coco_mask.iou([_rle(mask, size_hw) for mask in masks], [_rle(inside, size_hw)], [1])
    return np.asarray(shares, np.float64)[:, 0]
