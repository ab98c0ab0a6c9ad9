"""Regions that came back and cannot be used, such as those of a class that the project lacks.

Somebody left an object there, so the area is not background and the object is not deleted: the area is
unknown, which training ignores and no metric counts, until the annotation can be read.
"""

from __future__ import annotations

import numpy as np

from labelloop.instances import BoolArray, Instances
from labelloop.review.edits import Edit, KeyedInstances, find_edits
from labelloop.review.pulled import ReadReview
from labelloop.review.tasks import TaskRecord


def made_edits(task: TaskRecord, shown: KeyedInstances, review: ReadReview) -> list[Edit]:
    """What a person did in a task, without what came of it that is unknown.

    Args:
        task: Which; that an object was accepted is reported by the task that owns it.
        shown: What it showed, in its coordinates.
        review: What came back.
    """
    if review.says_nothing:
        return []
    found = find_edits(shown, _with_unknown_keys(review), untouched=review.untouched)
    return [
        edit
        for edit in found
        if review.unknown.keys().isdisjoint(edit.after)
        and (edit.kind != "accepted" or task.owned.issuperset(edit.before))
    ]


def _with_unknown_keys(review: ReadReview) -> KeyedInstances:
    """What came back with its unknown regions as objects, so that what became of each key is seen."""
    objects, unknown = review.objects.instances, review.unknown
    return KeyedInstances(
        keys=(*review.objects.keys, *unknown),
        instances=Instances(
            size_hw=objects.size_hw,
            rles=(*objects.rles, *unknown.values()),
            labels=np.concatenate([objects.labels, np.zeros(len(unknown), np.int64)]),
        ),
    )


def unknown_areas(task: TaskRecord, proposed: KeyedInstances, review: ReadReview) -> tuple[bytes, ...]:
    """Run lengths, in the whole image, of what is unknown in a task.

    An object that belongs to the task is unknown as a whole, also where other tiles show it.

    Args:
        task: Which.
        proposed: What its round proposed in the image.
        review: What came back.
    """
    if not review.unknown:
        return ()
    top, left, bottom, right = task.tile.box
    parts = Instances(
        size_hw=task.tile.size_hw,
        rles=tuple(review.unknown.values()),
        labels=np.zeros(len(review.unknown), np.int64),
    )
    areas: list[BoolArray] = []
    for number, key in enumerate(review.unknown):
        area: BoolArray = np.zeros(proposed.instances.size_hw, np.bool_)
        if key in task.owned:
            area |= proposed.instances.mask(proposed.keys.index(key))
        area[top:bottom, left:right] |= parts.mask(number)
        areas.append(area)
    return Instances.from_dense(np.asarray(areas)).rles
