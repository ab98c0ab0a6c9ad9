"""Fields of which some tiles were reviewed: what is known of them, and what can be asked next.

A later round shows what the labels hold already, with the model's objects where nobody has looked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as coco_mask
from sqlalchemy import select

from labelloop.instances import Instances
from labelloop.project.project import Project
from labelloop.project.tables import ReviewTaskRow
from labelloop.review.asked import counts_as_asked
from labelloop.review.counting import came_back
from labelloop.review.joined import Joined
from labelloop.review.tasks import UNSETTLED
from labelloop.review.tiles import TileView

INSIDE = 0.5  # an object is new where so much of it lies in unknown area, and old where in a known object
STILL_UNKNOWN = 0.5  # a tile is worth asking where so much of its own part is unknown

Box = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True, kw_only=True, eq=False)
class PartlyReviewed:
    """A field of which some tiles were reviewed, and no task waits.

    Attributes:
        labels: Its labels now; what is unknown is crowd.
        declined: Boxes of tiles that somebody was asked about and skipped, or deleted, px.
        tile_side_px: Longest side of the tiles that were asked about: larger ones would hold too much that is
            known to be worth asking.
    """

    labels: Instances
    declined: tuple[Box, ...] = ()
    tile_side_px: int | None = None

    @property
    def known(self) -> Instances:
        """The objects that are known, with a score of 1."""
        kept = self.labels.select(~self.labels.crowd)
        return replace(kept, scores=np.ones(len(kept), np.float32))

    def together(self, seen: Instances) -> Instances:
        """The known objects, followed by those of a model that lie where nobody has looked.

        Args:
            seen: What the model would show in the whole field, with scores.
        """
        known, unknown = self.known, Instances.from_dense(Joined.of_labels(self.labels).unseen[None])
        if not len(seen):
            return known
        rles = seen.coco_rles()
        new = np.asarray(coco_mask.iou(rles, unknown.coco_rles(), [1]))[:, 0] > INSIDE
        if len(known):
            covered = np.asarray(coco_mask.iou(rles, known.coco_rles(), [1] * len(known)))
            new &= covered.max(axis=1) <= INSIDE
        added = seen.select(new)
        assert known.scores is not None
        assert added.scores is not None
        return Instances(
            size_hw=seen.size_hw,
            rles=(*known.rles, *added.rles),
            labels=np.concatenate([known.labels, added.labels]),
            scores=np.concatenate([known.scores, added.scores]),
        )

    def worth_asking(self, views: Sequence[TileView]) -> tuple[TileView, ...]:
        """The tiles whose own part is mostly unknown, and was not asked about."""
        unknown = Joined.of_labels(self.labels).unseen
        for top, left, bottom, right in self.declined:
            unknown[top:bottom, left:right] = False
        worth = []
        for view in views:
            top, left, bottom, right = view.tile.core
            if unknown[top:bottom, left:right].mean() >= STILL_UNKNOWN:
                worth.append(view)
        return tuple(worth)


def partly_reviewed(project: Project, server: str) -> dict[int, PartlyReviewed]:
    """The fields that can be asked about again, by image id.

    Args:
        project: Whose images.
        server: As for ``counts_as_asked``.
    """
    boxes: dict[int, list[Box]] = {}
    declined: dict[int, list[Box]] = {}
    waiting: set[int] = set()
    columns = select(ReviewTaskRow.image_id, ReviewTaskRow.state, ReviewTaskRow.tile, came_back())
    with project.ledger.read() as session:
        for image_id, state, tile, reviewed in session.execute(columns.where(counts_as_asked(server))):
            if state in UNSETTLED:
                waiting.add(image_id)
            else:
                settled = boxes if reviewed else declined
                settled.setdefault(image_id, []).append(tuple(tile["box"]))
    sizes = {image.id: image.size_hw for image in project.images(split="train", labelled=True)}
    fields = [
        i
        for i in boxes
        if i in sizes and i not in waiting and not _cover([*boxes[i], *declined.get(i, ())], sizes[i])
    ]
    labels = project.labels(fields)
    return {
        i: PartlyReviewed(
            labels=labels[i],
            declined=tuple(declined.get(i, ())),
            tile_side_px=max(map(_longest_side, [*boxes[i], *declined.get(i, ())])),
        )
        for i in fields
        if labels[i].crowd.any()
    }


def _longest_side(box: Box) -> int:
    top, left, bottom, right = box
    return max(bottom - top, right - left)


def _cover(boxes: Iterable[Box], size_hw: tuple[int, int]) -> bool:
    if (0, 0, *size_hw) in boxes:
        return True
    seen = np.zeros(size_hw, np.bool_)
    for top, left, bottom, right in boxes:
        seen[top:bottom, left:right] = True
    return bool(seen.all())
