"""``--time``: what a step costs here and now, and how many fit."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from labelloop.data.parts import Part
from labelloop.data.view_settings import GeometryConfig
from labelloop.data.views import draw_geometry
from labelloop.distill.batches import fitted, make_batches
from labelloop.distill.recipe import Recipe
from labelloop.distill.schedule import (
    SHORTEST_STUDENT,
    Schedule,
    best_supervised_steps,
    shared_from,
    with_student,
)
from labelloop.distill.stages import train_step
from labelloop.distill.trainer import Trainer
from labelloop.errors import TrainingError
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord

TIMED_STEPS = 7  # of each kind; the first one warms up
UNTRAINED_MIN_SCORE = 0.99  # below it a model of a few steps may see hundreds of objects
DRAWN_VIEWS = 500  # of which the mean size is taken
MARGIN = 0.95  # of the time is planned with; the rest is for what was not measured
NAMED_SHARE = 0.1  # of the shortest run, from which on a person is told what measuring the models takes
POOR_SHARE = 0.25  # of the best supervised steps, below which a person is told; a choice, not a result


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds, measured.

    Attributes:
        supervised_step: A training step of the teacher, shared by all processes.
        single_step: A step of the student on one image per process.
        prediction: Of one view of an image of the pool, in each of the processes at once; images cost as much
            as they have pixels.
        evaluation: Of the images that measure a model, as if one process did it.
        start: Until all processes are there.
        online: Of what the teacher sees in a step where it labels online: a crop. None in older runs, which
            took a whole image for it.
    """

    supervised_step: float
    single_step: float
    prediction: float
    evaluation: float
    start: float = 0.0
    online: float | None = None

    def at_pace(self, factor: float) -> Costs:
        """The costs of what is still to come where everything takes ``factor`` times as long."""
        return Costs(
            supervised_step=self.supervised_step * factor,
            single_step=self.single_step * factor,
            prediction=self.prediction * factor,
            evaluation=self.evaluation * factor,
            online=None if self.online is None else self.online * factor,
        )


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


def planned_seconds(
    recipe: Recipe, schedule: Schedule, costs: Costs, *, supervised: bool, processes: int = 1
) -> float:
    """How long a schedule will take.

    Args:
        recipe: Of the run.
        schedule: Its steps.
        costs: Measured in as many processes.
        supervised: Whether only the supervised model is trained.
        processes: That share the work.
    """
    labelled_steps = schedule.teacher + (schedule.supervised if schedule.apart else 0)
    seconds = costs.start + labelled_steps * costs.supervised_step
    seconds += costs.evaluation / processes * (1 if supervised else 2)
    if supervised:
        return seconds
    # Each kind has a forward pass of its own; the process with the most images decides.
    both = math.ceil((recipe.labelled_batch + recipe.unlabelled_batch) / processes)
    seconds += schedule.student * both * costs.single_step
    seconds += schedule.cached_images * recipe.pseudo.pixels_per_image * costs.prediction / processes
    online = schedule.burn_in + schedule.distillation if schedule.cached_images == 0 else 0
    if schedule.cached_images > 0 and recipe.distillation_labels == "online":
        online = schedule.distillation
    look = costs.prediction if costs.online is None else costs.online
    return seconds + online * math.ceil(recipe.unlabelled_batch / processes) * look


def fit_iterations(
    recipe: Recipe,
    schedule: Callable[[int], Schedule],
    costs: Costs,
    *,
    n_labels: int,
    seconds: float,
    supervised: bool,
    processes: int = 1,
    trainings: int = 1,
    spent: float = 0.0,
) -> int:
    """The largest number of iterations whose schedule ends in time.

    Args:
        recipe: Of the run.
        schedule: The stages of so many iterations.
        costs: Measured.
        n_labels: Labelled images to learn from.
        seconds: What is left for all trainings.
        supervised: Whether only the supervised model is trained.
        processes: That share the work.
        trainings: Of so many iterations each.
        spent: Seconds that are over, for the error.

    Raises:
        TrainingError: Not even the shortest run does.
    """
    each = seconds / trainings

    def planned(iterations: int) -> float:
        return planned_seconds(
            recipe, schedule(iterations), costs, supervised=supervised, processes=processes
        )

    def ends_in_time(iterations: int) -> bool:
        return planned(iterations) <= each * MARGIN

    # From either start on more iterations take longer, but the second may take less time than some before it.
    starts = (1,) if supervised else (4, shared_from(recipe, n_labels))
    low = max((start for start in starts if ends_in_time(start)), default=0)
    if low == 0:
        least = min(planned(start) for start in starts)
        measuring = costs.evaluation / processes * (1 if supervised else 2)
        left = f"{max(each, 0):.0f} s are left" + (
            f" for each of {trainings} trainings" if trainings > 1 else ""
        )
        takes = f"a step takes {costs.supervised_step:.1f} s"
        if measuring > NAMED_SHARE * least:
            takes += f" and measuring the models {measuring:.0f} s"
        raise TrainingError(
            "the time is too short for a run",
            value=f"{left}, {takes}",
            way_out=f"Give --time {math.ceil((spent + trainings * least / MARGIN) / 60)}m or more.",
        )
    return _largest(ends_in_time, low)


def enough_seconds(
    recipe: Recipe,
    schedule: Callable[[int], Schedule],
    costs: Costs,
    *,
    n_labels: int,
    supervised: bool,
    processes: int = 1,
) -> float:
    """The least time in which the labels get their best supervised schedule; arguments as of a fit."""
    iterations = (
        best_supervised_steps(n_labels, recipe.supervised_steps)
        if supervised
        else shared_from(recipe, n_labels)
    )
    planned = planned_seconds(recipe, schedule(iterations), costs, supervised=supervised, processes=processes)
    return planned / MARGIN


def refit_student(
    recipe: Recipe,
    teacher: int,
    costs: Costs,
    *,
    n_labels: int,
    pool: int,
    seconds: float,
    processes: int = 1,
) -> Schedule:
    """The schedule that ends in time, its baseline trained apart included, when the teacher has been trained.

    Args:
        recipe: Of the run.
        teacher: Its steps.
        costs: Of what is still to come.
        n_labels: Labelled images that are learnt.
        pool: Unlabelled images, or parts of images.
        seconds: What is left; too little leaves the shortest student.
        processes: That share the work.
    """

    def of(student: int) -> Schedule:
        return with_student(recipe, teacher=teacher, student=student, n_labels=n_labels, pool=pool)

    def ends_in_time(student: int) -> bool:
        planned = planned_seconds(recipe, of(student), costs, supervised=False, processes=processes)
        return planned - teacher * costs.supervised_step <= seconds * MARGIN

    if not ends_in_time(SHORTEST_STUDENT):
        return of(SHORTEST_STUDENT)
    return of(_largest(ends_in_time, SHORTEST_STUDENT))


def _largest(holds: Callable[[int], bool], low: int) -> int:
    """The largest number that something holds for; it holds for ``low``, and for all up to some number."""
    high = low * 2
    while holds(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
