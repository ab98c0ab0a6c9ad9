"""Sloppy outlines: masks as a hand draws them that does not take the boundary too seriously."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances

ORDERS = (0, 2, 3, 4)  # of the waves along an outline; 0 makes it wider or narrower

Bools = npt.NDArray[np.bool_]


def jittered(instances: Instances, jitter: float, rng: np.random.Generator) -> Instances:
    """The objects with outlines that are off by waves along them.

    Args:
        instances: n objects; each keeps its class and score.
        jitter: Standard deviation of the waves, as a share of the radius of a disc of the object's area.
        rng: The only source of chance.
    """
    if jitter == 0 or not len(instances):
        return instances
    dense = np.zeros((len(instances), *instances.size_hw), np.bool_)
    for i in range(len(instances)):
        crop, top, left = instances.crop(i)
        radius = math.sqrt(max(int(crop.sum()), 1) / math.pi)
        margin = math.ceil(4 * jitter * radius) + 1
        waved = _waved(np.pad(crop, margin), jitter * radius, rng)
        y, x = max(margin - top, 0), max(margin - left, 0)
        window = dense[i, max(top - margin, 0) :, max(left - margin, 0) :]
        part = waved[y : y + window.shape[0], x : x + window.shape[1]]
        window[: part.shape[0], : part.shape[1]] = part
        if not dense[i].any():
            dense[i, top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    drawn = Instances.from_dense(dense, instances.labels, instances.scores)
    return replace(drawn, crowd=instances.crowd)


def _waved(mask: Bools, spread_px: float, rng: np.random.Generator) -> Bools:
    """A mask whose outline moves outward by a sum of waves over the angle round its centre."""
    from scipy.ndimage import distance_transform_edt

    outward = distance_transform_edt(mask) - distance_transform_edt(~mask)
    rows, columns = np.nonzero(mask)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    angle = np.arctan2(y - rows.mean(), x - columns.mean()) if len(rows) else np.zeros(mask.shape)
    moved = np.zeros(mask.shape)
    for order in ORDERS:
        moved += rng.standard_normal() * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(outward + moved * spread_px * math.sqrt(2 / len(ORDERS)) > 0)
