"""Folds: parts of the labelled images that models of the others are measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labelloop.data.groups import units_of
from labelloop.errors import ProjectError
from labelloop.plurals import plural
from labelloop.project.project import ImageRecord


def cut_folds(images: Sequence[ImageRecord], folds: int, *, seed: int) -> list[list[ImageRecord]]:
    """Folds of about as many images each; a group is never cut. The same seed cuts the same folds.

    Args:
        images: With labels.
        folds: How many, 2 or more; fewer come back where there are fewer images or groups.
        seed: Of the shuffling.

    Raises:
        ProjectError: There are fewer than two images or groups.
    """
    units = units_of(sorted(images, key=lambda image: (image.sha256, image.page, image.channel)))
    if len(units) < 2:
        raise ProjectError(
            "labels are checked by models trained on other labelled images, and there are none",
            value=plural(len(units), "labelled image or group", "labelled images or groups"),
            way_out="Label more images, of another group if the project has groups.",
        )
    shuffled = [units[i] for i in np.random.default_rng([seed, 3]).permutation(len(units))]
    cut: list[list[ImageRecord]] = [[] for _ in range(min(max(folds, 2), len(units)))]
    for unit in sorted(shuffled, key=len, reverse=True):  # large groups first: folds come out even
        min(cut, key=len).extend(unit)
    return cut
