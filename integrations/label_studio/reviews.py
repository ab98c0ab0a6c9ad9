"""What an annotation says of the objects that its task had shown, in labelloop's words.

A region that came back as it was sent is not read: its mask is the ledger's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from labelloop.instances import Instances
from labelloop.integrations.label_studio.labelling_config import ControlNames
from labelloop.integrations.label_studio.regions import (
    Region,
    has_same_shape,
    is_untouched,
    read_regions,
    to_regions,
)
from labelloop.project.project import Project
from labelloop.review.edits import KeyedInstances
from labelloop.review.pulled import ReadReview
from labelloop.review.tasks import TaskRecord

_CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")  # any: they are not compared


class Reader:
    """Reads an annotation's regions for the ledger."""

    def __init__(self, project: Project) -> None:
        self._classes = project.config.classes

    def __call__(self, task: TaskRecord, result: Any, shown: KeyedInstances) -> ReadReview:
        """An annotation's ``result`` in labelloop's words; what the task showed says what is untouched."""
        size_hw = task.tile.size_hw
        sent = {region["id"]: region for region in self._sent(task, shown)}
        untouched = _untouched(result, sent)
        rest = [r for r in result if not _is_one_of(r, untouched)] if isinstance(result, list) else result
        read = read_regions(rest, size_hw, self._classes)
        place = {key: i for i, key in enumerate(shown.keys)}
        kept = shown.instances.select([place[key] for key in untouched])
        regions = [
            replace(region, rle=shown.instances.rles[place[region.key]])  # only its label is another
            if region.key in sent and has_same_shape(sent[region.key], region)
            else region
            for region in read.regions
            if region.key not in untouched
        ]
        shown_again = {key: shown.instances.rles[place[key]] for key, _ in read.unusable if key in place}
        review = ReadReview(
            objects=_joined(untouched, kept, regions),
            untouched=frozenset(untouched),
            unusable=tuple(f"task {task.server_id}: {key}: {reason}" for key, reason in read.unusable),
            unknown=shown_again | dict(read.unnamed),
            lost=not place.keys() >= set(read.lost),  # what was shown is unknown where it was shown
        )
        if not review.says_nothing:
            return review
        told = f"task {task.server_id}: nothing of its annotation can be used, so it gives no labels"
        return replace(review, unusable=(*review.unusable, told))

    def _sent(self, task: TaskRecord, shown: KeyedInstances) -> list[dict[str, Any]]:
        """What the task was sent with, also where a push could not note that it was sent."""
        if task.sent is not None:
            return task.sent
        return to_regions(shown.instances, shown.keys, self._classes, _CONTROLS)


def _untouched(result: Any, sent: Mapping[str, dict[str, Any]]) -> list[str]:
    """Keys of the regions that came back once, and as they were sent."""
    back: dict[str, list[Any]] = {}
    for region in result if isinstance(result, list) else ():
        key = region.get("id") if isinstance(region, Mapping) else None
        if isinstance(key, str) and key in sent:
            back.setdefault(key, []).append(region)
    return [key for key, regions in back.items() if len(regions) == 1 and is_untouched(sent[key], regions[0])]


def _is_one_of(region: Any, keys: list[str]) -> bool:
    return isinstance(region, Mapping) and region.get("id") in keys


def _joined(keys: list[str], kept: Instances, regions: list[Region]) -> KeyedInstances:
    labels = [*kept.labels.tolist(), *(region.label for region in regions)]
    return KeyedInstances(
        keys=(*keys, *(region.key for region in regions)),
        instances=Instances(
            size_hw=kept.size_hw,
            rles=(*kept.rles, *(region.rle for region in regions)),
            labels=np.asarray(labels, np.int64),
        ),
    )
