"""``--time``: what a step costs here and now."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from labelloop.data.parts import Part
from labelloop.data.view_settings import GeometryConfig
from labelloop.data.views import draw_geometry
from labelloop.distill.batches import fitted, make_batches
from labelloop.distill.stages import train_step
from labelloop.distill.time_plan import Costs
from labelloop.distill.trainer import Trainer
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord

TIMED_STEPS = 7  # of each kind; the first one warms up
UNTRAINED_MIN_SCORE = 0.99  # below it a model of a few steps may see hundreds of objects
DRAWN_VIEWS = 500  # of which the mean size is taken


def measure_costs(trainer: Trainer, evaluated: Sequence[ImageRecord], progress: Progress) -> Costs:
    """Times a few steps of a model that is thrown away; all processes of the trainer's team do so at once.

    Args:
        trainer: Of the run.
        evaluated: The images that will measure each of the models.
        progress: Told of every step.
    """
    plan, learner = trainer.labels_plan(100), trainer.labels_learner()
    plan = replace(plan, batches=fitted(plan.batches, learner.student, trainer.load))
    team, rates = trainer.team, trainer.recipe.student_optimiser
    each = replace(plan.batches, labelled_batch=team.size, parts=team.size)
    single = replace(plan, batches=each, optimiser=rates)
    kinds = ((plan, learner), (single, trainer.labels_learner(rates)))
    progress.start("timing", 2 * TIMED_STEPS)
    spent: tuple[list[float], list[float]] = ([], [])
    for step in range(TIMED_STEPS):
        for (kind, model), seconds in zip(kinds, spent, strict=True):
            begun = time.perf_counter()
            parts = team.share(range(kind.batches.parts))
            batches = make_batches(kind.batches, trainer.load, step, parts)
            train_step(step, batches, kind, model, trainer.fabric, team)
            seconds.append(time.perf_counter() - begun)
            progress.advance(1)
    part = sorted(trainer.pool, key=lambda part: math.prod(part.size_hw))[len(trainer.pool) // 2]
    views = trainer.recipe.pseudo.pixels_per_image
    begun = time.perf_counter()
    trainer.load(part.id)  # which reads all of its image
    read = (time.perf_counter() - begun) / math.prod(part.image.size_hw)
    begun = time.perf_counter()
    trainer.labelling.see(learner.average, [part.id], min_score=UNTRAINED_MIN_SCORE)
    seen = (time.perf_counter() - begun) / views / math.prod(part.size_hw)
    progress.finish()
    drawn = trainer.labelling.parts("teacher") or trainer.pool
    return Costs(
        supervised_step=statistics.fmean(spent[0][1:]),  # the mean: a few large images cost most of the time
        single_step=statistics.fmean(spent[1][1:]),
        prediction=seen * statistics.fmean(math.prod(part.size_hw) for part in trainer.pool)
        + read * read_px_per_part(drawn) / views,
        evaluation=(seen + read) * sum(math.prod(image.size_hw) for image in evaluated),
        online=seen * px_per_view(trainer.pool, trainer.recipe.geometry),
    )


def read_px_per_part(parts: Sequence[Part]) -> float:
    """Pixels that are read for a part where each image is read once for all of its parts."""
    images = {part.image.id: math.prod(part.image.size_hw) for part in parts}
    return sum(images.values()) / len(parts)


def px_per_view(parts: Sequence[Part], geometry: GeometryConfig) -> float:
    """Pixels of the views that are drawn of parts of the pool, in the mean."""
    rng = np.random.default_rng(0)
    some = rng.integers(0, len(parts), DRAWN_VIEWS)
    views = (draw_geometry(rng, parts[i].size_hw, geometry).view_hw for i in some)
    return statistics.fmean(map(math.prod, views))
