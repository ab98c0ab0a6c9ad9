"""Which images a person should look at: those of which the model is least sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labelloop.instances import Instances
from labelloop.project.project import ImageRecord
from labelloop.review.tiles import TileView, review_tiles


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """An image that could be reviewed.

    Attributes:
        image: Which.
        predicted: What the model sees in it, scores 0.05 and up, in the project's classes.
    """

    image: ImageRecord
    predicted: Instances


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """An image that was chosen.

    Attributes:
        image: Which.
        proposed: The objects that will be shown.
        views: Its tiles.
        confidence: Of the whole image, 0..1.
    """

    image: ImageRecord
    proposed: Instances
    views: tuple[TileView, ...]
    confidence: float


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


def least_confident(candidates: Sequence[Candidate], *, max_tasks: int, min_score: float) -> list[Choice]:
    """Whole images, the least confident first, as many as fit so many tasks; at least one.

    Args:
        candidates: May be empty.
        max_tasks: An image costs as many tasks as it has tiles.
        min_score: Objects scored lower are not shown.
    """
    sure = [confidence(candidate.predicted, min_score) for candidate in candidates]
    chosen: list[Choice] = []
    tasks = 0
    for i in sorted(range(len(candidates)), key=lambda i: (sure[i], candidates[i].image.id)):
        proposed = candidates[i].predicted.above(min_score)
        views = review_tiles(proposed)
        if chosen and tasks + len(views) > max_tasks:
            continue
        tasks += len(views)
        chosen.append(Choice(image=candidates[i].image, proposed=proposed, views=views, confidence=sure[i]))
        if tasks >= max_tasks:
            break
    return chosen
