"""Rates of edits of a model's objects in a pool, from past reviews and from what labelled images hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labelloop.budget.doubt import ImageDoubt
from labelloop.budget.expected_edits import EditRates, Floats, exposure, missed_prior
from labelloop.budget.timed_tasks import edit_records
from labelloop.project.project import Project


def pool_rates(project: Project, run: str, doubts: Sequence[ImageDoubt], min_score: float) -> EditRates:
    """How often objects of a run's model will be edited, and how many it misses.

    Args:
        project: Whose reviews and labels.
        run: Whose model.
        doubts: What it sees in images of the pool.
        min_score: Objects scored lower are not shown.
    """
    prior = missed_prior(objects_known(project), *_mean_look(doubts, min_score))
    return EditRates.fit(edit_records(project, run), prior)


def objects_known(project: Project) -> list[int]:
    """How many objects each training image holds of which all is known."""
    labels = project.labels([image.id for image in project.images(split="train", labelled=True)])
    return [len(instances) for instances in labels.values() if not instances.crowd.any()]


def _mean_look(doubts: Sequence[ImageDoubt], min_score: float) -> tuple[float, Floats]:
    """True objects that are shown of a mean image, a score being their chance; and its exposure."""
    if not doubts:
        return 0.0, exposure(0.0, 0.0, 0)
    seen = [float(doubt.scores[doubt.scores >= min_score].sum()) for doubt in doubts]
    exposures = [
        exposure(doubt.unshown(min_score), float(doubt.unmatched.sum()), doubt.shown(min_score))
        for doubt in doubts
    ]
    return float(np.mean(seen)), np.mean(exposures, axis=0)
