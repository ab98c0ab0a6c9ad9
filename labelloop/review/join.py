"""Joins what came back from the tiles of an image into its labels.

1. The tile that owns an object decides whether it is one, and its class.
2. An object that nobody touched keeps its mask bit for bit. Where a tile changed it, its mask inside that
   tile is the tile's; where two tiles changed it, the owner's counts in what both show.
3. A part that another tile deleted loses only what the owner does not show.
4. Objects drawn in two tiles that agree where both look are one object, cut by the seam; so is one drawn in a
   tile that did not show an object which another tile holds there.
5. Where no tile has come back, all stays as it was: what was known there is still known, and the rest, with
   the objects owned there, is unknown.
6. Objects that were known before stay where the tile that owns them has not come back. If they were changed
   after the tiles had been sent, the newer form counts, unless the tiles change them too.
7. A region that came back and cannot be used is unknown area, until a later round brings an object there.
   Where nobody can tell where it lies, its tile is unknown outside its objects, until another tile shows the
   place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from labelloop.instances import BoolArray, Instances
from labelloop.predict.tiles import Box, Tile, common_box
from labelloop.review.edits import KeyedInstances
from labelloop.review.joined import Joined, union_mask
from labelloop.review.tasks import is_known_key

Floats = npt.NDArray[np.float64]

SAME_OBJECT = 0.5  # drawn objects whose parts in the common area agree this well (IoU) are one
COVERED = 0.5  # a drawn object that is this far inside one that its tile did not show is that object,
# and what was known is gone where this much of it lies in what was brought of its class
BEFORE = -1  # what was known before, where an object's tiles are numbered


@dataclass(frozen=True, kw_only=True, eq=False)
class ReturnedTile:
    """What came back from one tile.

    Attributes:
        tile: Where it lies.
        shown: Keys of the objects that it had shown.
        owned: Those of them that belong to it.
        returned: What came back, in the tile's coordinates.
        untouched: Keys that came back as they were sent.
        unreadable: Run lengths, in the whole image, of regions that came back and cannot be used.
        lost: Something else came back that may be an object, and nobody can tell where it lies.
    """

    tile: Tile
    shown: frozenset[str]
    owned: frozenset[str]
    returned: KeyedInstances
    untouched: frozenset[str]
    unreadable: tuple[bytes, ...] = ()
    lost: bool = False


def join_tiles(
    proposed: KeyedInstances, returned: Sequence[ReturnedTile], *, before: Joined | None = None
) -> Joined:
    """What is known of an image after tiles of it have come back.

    Args:
        proposed: What was proposed for the whole image.
        returned: The tiles that came back, one at least.
        before: What was known without them; None for nothing.
    """
    join = _Join(
        proposed=proposed,
        returned=returned,
        before=before or Joined.nothing(proposed.instances.size_hw),
    )
    join.keep_proposed()
    join.add_drawn()
    return join.joined()


@dataclass(kw_only=True, eq=False)
class _Join:
    proposed: KeyedInstances
    returned: Sequence[ReturnedTile]
    before: Joined
    rles: list[bytes] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    holders: list[frozenset[int]] = field(default_factory=list)  # tiles that show each object
    undecided: list[tuple[bytes, int]] = field(default_factory=list)

    def keep_proposed(self) -> None:
        instances = self.proposed.instances
        owners = {key: r for r, tile in enumerate(self.returned) for key in tile.owned}
        old, unknown = _objects(self.before.objects), self.before.unknown
        for i, key in enumerate(self.proposed.keys):
            rle, label = instances.rles[i], int(instances.labels[i])
            holders = frozenset(r for r, tile in enumerate(self.returned) if key in tile.shown)
            if old[rle, label]:
                old[rle, label] -= 1
                self._keep(i, owners.get(key, BEFORE), holders | {BEFORE})
            elif key in owners:
                if not is_known_key(key) or key not in self.returned[owners[key]].untouched:
                    self._keep(i, owners[key], holders)
            elif holders and not is_known_key(key):
                self._leave_open(i, unknown)
        self._add_changed(list(old.elements()))

    def _add_changed(self, changed: Sequence[tuple[bytes, int]]) -> None:
        """What was known, but not yet in this form when the tiles were sent; what they say of it counts."""
        instances = self._instances(changed)
        covered = self._covered(instances)
        for i in self._not_brought(instances):
            if covered[i] < COVERED:
                self._add(instances.rles[i], int(instances.labels[i]), frozenset({BEFORE}))

    def _not_brought(self, old: Instances) -> list[int]:
        """Indices of those that no object which the tiles have brought so far takes the place of."""
        iou = old.iou(self._brought())
        return [i for i, with_brought in enumerate(iou) if with_brought.max(initial=0.0) < SAME_OBJECT]

    def _covered(self, old: Instances) -> Floats:
        """float64 (n,), 0..1: how much of each lies in what the tiles have brought of its class.

        They may have brought two objects where one was known, or one where two were.
        """
        brought, covered = self._brought(), np.zeros(len(old))
        for label in np.unique(brought.labels):
            alike = np.flatnonzero(old.labels == label)
            if len(alike):
                union = coco_mask.merge(brought.select(brought.labels == label).coco_rles())
                shares = coco_mask.iou(old.select(alike).coco_rles(), [union], [1])  # over the first's area
                covered[alike] = np.asarray(shares)[:, 0]
        return covered

    def _brought(self) -> Instances:
        """Objects that the tiles have brought so far."""
        return self._instances(
            [
                (rle, label)
                for rle, label, holders in zip(self.rles, self.classes, self.holders, strict=True)
                if BEFORE not in holders
            ]
        )

    def _keep(self, i: int, owner: int, holders: frozenset[int]) -> None:
        """A proposed object as its owner and the other tiles left it, if it still is one."""
        key, rle = self.proposed.keys[i], self.proposed.instances.rles[i]
        label = int(self.proposed.instances.labels[i])
        if owner != BEFORE:
            back = self.returned[owner].returned
            if key not in back.keys:
                return
            label = int(back.instances.labels[back.keys.index(key)])
        mask = self._mask(i, owner, holders - {BEFORE})
        if mask is None:
            self._add(rle, label, holders)
        elif mask.any():
            self._add(_encode(mask), label, holders)

    def _leave_open(self, i: int, unknown: BoolArray) -> None:
        """A proposed object of which a part was looked at, but not by whom it belongs to."""
        mask = self.proposed.instances.mask(i) & unknown
        if mask.any():
            self.undecided.append((_encode(mask), int(self.proposed.instances.labels[i])))

    def _mask(self, i: int, owner: int, holders: frozenset[int]) -> BoolArray | None:
        """The object's mask after all changes; None where there are none."""
        key = self.proposed.keys[i]
        changing = [r for r in sorted(holders) if key not in self.returned[r].untouched]
        if not changing:
            return None
        mask = self.proposed.instances.mask(i)
        changing.sort(key=lambda r: r == owner)  # the owner last: its say counts
        for r in changing:
            tile = self.returned[r]
            top, left, bottom, right = tile.tile.box
            keys = tile.returned.keys
            part = tile.returned.instances.mask(keys.index(key)) if key in keys else None
            if r == owner and part is not None:
                mask[top:bottom, left:right] = part
                continue
            elsewhere = self._not_shown_by(owner, tile.tile.box)
            if part is not None and (owner == BEFORE or key in self.returned[owner].untouched):
                elsewhere = np.ones_like(elsewhere)  # the owner left it alone: this tile's boundary counts
            window = mask[top:bottom, left:right]
            window[elsewhere] = part[elsewhere] if part is not None else False
        return mask

    def _not_shown_by(self, owner: int, box: Box) -> BoolArray:
        """What of a box an object's owner has not looked at."""
        top, left, bottom, right = box
        if owner == BEFORE:
            return self.before.unseen[top:bottom, left:right]
        elsewhere = np.ones((bottom - top, right - left), np.bool_)
        _clear(elsewhere, box, self.returned[owner].tile.box)
        return elsewhere

    def add_drawn(self) -> None:
        drawn = [
            (r, _paste(tile, j, self.proposed.instances.size_hw), int(tile.returned.instances.labels[j]))
            for r, tile in enumerate(self.returned)
            for j, key in enumerate(tile.returned.keys)
            if key not in tile.shown
        ]
        groups: list[tuple[set[int], BoolArray, int]] = []
        for r, mask, label in drawn:
            partner = self._partner(groups, r, mask, label)
            if partner is None:
                groups.append(({r}, mask, label))
            else:
                partner[0].add(r)
                partner[1][...] |= mask
        for tiles, mask, label in groups:
            if not self._absorbed(tiles, mask, label):
                self._add(_encode(mask), label, frozenset(tiles))

    def _partner(
        self, groups: list[tuple[set[int], BoolArray, int]], r: int, mask: BoolArray, label: int
    ) -> tuple[set[int], BoolArray, int] | None:
        """The object of other tiles that a drawn one is the rest of."""
        best, best_iou = None, SAME_OBJECT
        for group in groups:
            if group[2] != label or r in group[0]:
                continue
            for other in group[0]:
                common = common_box(self.returned[r].tile.box, self.returned[other].tile.box)
                iou = _iou(_cut(mask, common), _cut(group[1], common))
                if iou >= best_iou:
                    best, best_iou = group, iou
        return best

    def _absorbed(self, tiles: set[int], mask: BoolArray, label: int) -> bool:
        """Whether a drawn object is one that its tile had not shown; if so it grows by it."""
        area = int(mask.sum())
        for i, holders in enumerate(self.holders):
            if holders & tiles or self.classes[i] != label:
                continue
            other = Instances(
                size_hw=self.proposed.instances.size_hw, rles=(self.rles[i],), labels=np.zeros(1, np.int64)
            ).mask(0)
            if int((other & mask).sum()) >= COVERED * area:
                self.rles[i] = _encode(other | mask)
                return True
        return False

    def joined(self) -> Joined:
        seen, read, unread = np.zeros((3, *self.proposed.instances.size_hw), np.bool_)
        for tile in self.returned:
            top, left, bottom, right = tile.tile.box
            seen[top:bottom, left:right] = True
            if tile.lost:
                unread[top:bottom, left:right] |= ~union_mask(tile.returned.instances)
            else:
                read[top:bottom, left:right] = True
        undecided = [*self._still_undecided(seen), *self.undecided]
        old = self.before.unreadable
        unreadable = [old.rles[i] for i in self._not_brought(old)]
        unreadable += [rle for tile in self.returned for rle in tile.unreadable]
        return Joined(
            objects=self._instances(list(zip(self.rles, self.classes, strict=True))),
            undecided=self._instances(undecided),
            unreadable=self._instances([(rle, 0) for rle in unreadable]),
            unseen=(self.before.unseen & ~seen) | (unread & ~read),
        )

    def _still_undecided(self, seen: BoolArray) -> list[tuple[bytes, int]]:
        """What was undecided before, without the objects that were looked at by now."""
        undecided = []
        for i, label in enumerate(self.before.undecided.labels.tolist()):
            mask = self.before.undecided.mask(i)
            rest = mask & ~seen
            if rest.sum() > (1 - COVERED) * mask.sum():
                undecided.append((_encode(rest), label))
        return undecided

    def _instances(self, objects: Sequence[tuple[bytes, int]]) -> Instances:
        return Instances(
            size_hw=self.proposed.instances.size_hw,
            rles=tuple(rle for rle, _ in objects),
            labels=np.array([label for _, label in objects], np.int64),
        )

    def _add(self, rle: bytes, label: int, holders: frozenset[int]) -> None:
        self.rles.append(rle)
        self.classes.append(label)
        self.holders.append(holders)


def _objects(instances: Instances) -> Counter[tuple[bytes, int]]:
    return Counter(zip(instances.rles, instances.labels.tolist(), strict=True))


def _encode(mask: BoolArray) -> bytes:
    return Instances.from_dense(mask[None]).rles[0]


def _paste(tile: ReturnedTile, j: int, size_hw: tuple[int, int]) -> BoolArray:
    """A tile's object in the image's coordinates."""
    mask = np.zeros(size_hw, np.bool_)
    top, left, bottom, right = tile.tile.box
    mask[top:bottom, left:right] = tile.returned.instances.mask(j)
    return mask


def _cut(mask: BoolArray, box: Box) -> BoolArray:
    return mask[box[0] : max(box[2], box[0]), box[1] : max(box[3], box[1])]


def _clear(mask: BoolArray, box: Box, other: Box) -> None:
    """Makes False, in a mask of ``box``, what lies in another box."""
    top, left, bottom, right = common_box(box, other)
    if top < bottom and left < right:
        mask[top - box[0] : bottom - box[0], left - box[1] : right - box[1]] = False


def _iou(a: BoolArray, b: BoolArray) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0
