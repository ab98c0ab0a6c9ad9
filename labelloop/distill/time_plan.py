"""``--time``: how long a run takes with what its steps cost, and how many steps fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from labelloop.distill.schedule import SHORTEST_STUDENT, Schedule, Scheduling
from labelloop.errors import TrainingError

MARGIN = 0.95  # of the time is planned with; the rest is for what was not measured
NAMED_SHARE = 0.1  # of the shortest run, from which on a person is told what measuring the models takes


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


@dataclass(frozen=True, kw_only=True)
class TimePlan:
    """How long the runs of one recipe take on some data.

    Attributes:
        scheduling: Recipe and data.
        costs: Measured in as many processes.
        processes: That share the work.
    """

    scheduling: Scheduling
    costs: Costs
    processes: int = 1

    @property
    def measuring_s(self) -> float:
        """Seconds of measuring the models at the end."""
        return self.costs.evaluation / self.processes * (1 if self.scheduling.supervised else 2)

    def seconds(self, schedule: Schedule) -> float:
        """How long a schedule takes, from the start of the processes to the last model's measures."""
        recipe, costs = self.scheduling.recipe, self.costs
        labelled_steps = schedule.teacher + (schedule.supervised if schedule.apart else 0)
        seconds = costs.start + labelled_steps * costs.supervised_step + self.measuring_s
        if self.scheduling.supervised:
            return seconds
        # Each kind has a forward pass of its own; the process with the most images decides.
        both = math.ceil((recipe.labelled_batch + recipe.unlabelled_batch) / self.processes)
        seconds += schedule.student * both * costs.single_step
        seconds += schedule.cached_images * recipe.pseudo.pixels_per_image * costs.prediction / self.processes
        online = schedule.burn_in + schedule.distillation if schedule.cached_images == 0 else 0
        if schedule.cached_images > 0 and recipe.distillation_labels == "online":
            online = schedule.distillation
        look = costs.prediction if costs.online is None else costs.online
        return seconds + online * math.ceil(recipe.unlabelled_batch / self.processes) * look

    def fit(self, seconds: float, *, trainings: int = 1, spent: float = 0.0) -> int:
        """The largest number of iterations whose schedule ends in time.

        Args:
            seconds: What is left for all trainings.
            trainings: Of so many iterations each.
            spent: Seconds that are over, for the error.

        Raises:
            TrainingError: Not even the shortest run does.
        """
        each = seconds / trainings

        def ends_in_time(iterations: int) -> bool:
            return self._planned(iterations) <= each * MARGIN

        # From either start on more iterations take longer; the second may take less than some before it.
        starts = (1,) if self.scheduling.supervised else (4, self.scheduling.shared_from)
        low = max((start for start in starts if ends_in_time(start)), default=0)
        if low:
            return _largest(ends_in_time, low)
        least = min(map(self._planned, starts))
        left = f"{max(each, 0):.0f} s are left"
        left += f" for each of {trainings} trainings" if trainings > 1 else ""
        takes = f"a step takes {self.costs.supervised_step:.1f} s"
        if self.measuring_s > NAMED_SHARE * least:
            takes += f" and measuring the models {self.measuring_s:.0f} s"
        raise TrainingError(
            "the time is too short for a run",
            value=f"{left}, {takes}",
            way_out=f"Give --time {math.ceil((spent + trainings * least / MARGIN) / 60)}m or more.",
        )

    def enough_seconds(self) -> float:
        """The least time in which the labels get their best supervised schedule."""
        return self._planned(self.scheduling.shared_from) / MARGIN

    def refit_student(self, teacher: int, seconds: float) -> Schedule:
        """The schedule that ends in time when the teacher has been trained, a baseline apart included.

        Args:
            teacher: Its steps.
            seconds: What is left; too little leaves the shortest student.
        """

        def of(student: int) -> Schedule:
            return self.scheduling.with_student(teacher, student)

        def ends_in_time(student: int) -> bool:
            return self.seconds(of(student)) - teacher * self.costs.supervised_step <= seconds * MARGIN

        if not ends_in_time(SHORTEST_STUDENT):
            return of(SHORTEST_STUDENT)
        return of(_largest(ends_in_time, SHORTEST_STUDENT))

    def _planned(self, iterations: int) -> float:
        return self.seconds(self.scheduling.of(iterations))


def _largest(holds: Callable[[int], bool], low: int) -> int:
    """The largest number that something holds for; it holds for ``low``, and for all up to some number."""
    high = low * 2
    while holds(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
