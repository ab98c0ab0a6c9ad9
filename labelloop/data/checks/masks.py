"""Masks that are empty, off the image, tiny beside the others, or there twice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labelloop.data.checks.findings import Finding, finding
from labelloop.instances import Instances

_TINY_SHARE = 0.02  # of the median area of the class
_MIN_FOR_MEDIAN = 5  # objects of a class below which nothing is called tiny
_ALWAYS_TINY_PX = 4
_TWICE_IOU = 0.95


def typical_areas(labels: dict[int, Instances]) -> dict[int, float]:
    """The median area of the objects of each class, px; classes with too few objects are left out."""
    if not labels:
        return {}
    areas = np.concatenate([instances.areas[~instances.crowd] for instances in labels.values()])
    classes = np.concatenate([instances.labels[~instances.crowd] for instances in labels.values()])
    median: dict[int, float] = {}
    for label in np.unique(classes):
        of_class = areas[(classes == label) & (areas > 0)]
        if len(of_class) >= _MIN_FOR_MEDIAN:
            median[int(label)] = float(np.median(of_class))
    return median


def check_masks(
    name: str, size_hw: tuple[int, int], instances: Instances, typical_area: dict[int, float]
) -> list[Finding]:
    """What is wrong with the masks of one image.

    Args:
        name: Of the image.
        size_hw: Of the image, px.
        instances: Its newest labels.
        typical_area: Median area by class, px.
    """
    if instances.size_hw != size_hw:
        theirs, ours = instances.size_hw, size_hw
        message = (
            f"the masks were drawn on {theirs[1]} x {theirs[0]} px, the image has {ours[1]} x {ours[0]} px"
        )
        return [finding("mask-off-image", (name,), message)]
    areas = instances.areas
    found = []
    if empty := np.flatnonzero(areas == 0).tolist():
        found.append(finding("mask-empty", (name,), f"{_masks(empty)} empty"))
    limits = np.array(
        [max(_ALWAYS_TINY_PX, _TINY_SHARE * typical_area.get(int(c), 0)) for c in instances.labels]
    )
    if tiny := np.flatnonzero((areas > 0) & (areas < limits) & ~instances.crowd).tolist():
        smallest = int(areas[tiny].min())
        message = f"{_masks(tiny)} far smaller than the others (the smallest has {smallest} px)"
        found.append(finding("mask-tiny", (name,), message))
    for i, j in _twice(instances, areas):
        message = f"masks {i} and {j} are the same object, or nearly"
        found.append(finding("mask-twice", (name,), message))
    return found


def _twice(instances: Instances, areas: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs of masks of one class that cover the same pixels."""
    filled = np.flatnonzero((areas > 0) & ~instances.crowd)
    if len(filled) < 2:
        return []
    some = instances.select(filled)
    same = (some.iou(some) >= _TWICE_IOU) & (some.labels[:, None] == some.labels[None])
    return [(int(filled[i]), int(filled[j])) for i, j in np.argwhere(np.triu(same, 1))]


def _masks(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else "")
    return f"mask {shown} is" if len(indices) == 1 else f"{len(indices)} masks ({shown}) are"
