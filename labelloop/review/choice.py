"""What is chosen for review: an image, what will be shown of it, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from labelloop.instances import Instances
from labelloop.project.project import ImageRecord
from labelloop.review.tiles import TileView


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """An image that was chosen.

    Attributes:
        image: Which.
        proposed: The objects that will be shown.
        known: So many of them, the first, are labels already.
        views: The tiles of it that will be asked about.
        confidence: Of the whole image, 0..1.
        chosen: For the ledger, per task: ``arm``, ``why``, and predicted ``minutes`` as
            ``budget.effort.Minutes`` has them.
    """

    image: ImageRecord
    proposed: Instances
    known: int = 0
    views: tuple[TileView, ...]
    confidence: float
    chosen: tuple[dict[str, Any], ...]


def confidence(predicted: Instances, min_score: float) -> float:
    """How sure a model is of an image, 0..1: one less the share of its decisions expected to be wrong.

    A detection of score s is there with probability s, if the score is one: showing it is wrong with 1 - s,
    and not showing it with s; min(s, 1 - s) in all. The sum over all detections is divided by the number of
    those shown. (Least confidence sampling, Settles 2009, Active Learning Literature Survey, equation 1, for
    each object.)
    """
    if predicted.scores is None or len(predicted) == 0:
        return 1.0
    scores = predicted.scores.astype(np.float64)
    shown = max(1, int((scores >= min_score).sum()))
    return float(np.clip(1 - np.minimum(scores, 1 - scores).sum() / shown, 0, 1))
