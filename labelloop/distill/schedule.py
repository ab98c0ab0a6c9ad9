"""How many steps each stage gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from labelloop.distill.recipe import Recipe

SHORTEST_STUDENT = 3  # steps, one for each of its stages


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps of a run.

    Attributes:
        teacher: Steps of the teacher on labels.
        supervised: Steps of the supervised model, which is the baseline; equal to ``teacher`` where that very
            model is the teacher, and trained apart where its best schedule is longer.
        burn_in: Steps of the student with the frozen teacher.
        distillation: Steps of the student with its moving average as teacher.
        fine_tune: Last steps of the student, on labels alone.
        cached_images: Unlabelled images whose pseudo-labels are made once.
    """

    teacher: int
    supervised: int
    burn_in: int
    distillation: int
    fine_tune: int
    cached_images: int

    @property
    def student(self) -> int:
        """Steps of the student in all."""
        return self.burn_in + self.distillation + self.fine_tune

    @property
    def apart(self) -> bool:
        """Whether the supervised model is trained apart from the teacher."""
        return self.supervised != self.teacher

    @property
    def iterations(self) -> int:
        """Steps of the run as ``--iterations`` counts them: teacher and student."""
        return self.teacher + self.student

    @property
    def length(self) -> str:
        """As ``--iterations`` takes it to train the same again: ``1000+200`` where there is a student."""
        return f"{self.teacher}+{self.student}" if self.student else f"{self.teacher}"


def best_supervised_steps(n_labels: int, table: Sequence[tuple[int, int]]) -> int:
    """Length of the best supervised schedule for so many labels, interpolated in the logarithm of the labels.

    Args:
        n_labels: Labelled images.
        table: (labels, steps), found on validation images; beyond its ends the nearest entry counts.
    """
    rows = sorted(table)
    if n_labels <= rows[0][0]:
        return rows[0][1]
    for (few, short), (many, long) in pairwise(rows):
        if n_labels <= many:
            share = math.log(n_labels / few) / math.log(many / few)
            return round(short + share * (long - short))
    return rows[-1][1]


def shared_from(recipe: Recipe, n_labels: int) -> int:
    """The fewest iterations with which the teacher is the supervised baseline too.

    A run of so many takes less time than one of fewer, whose baseline is trained apart.
    """
    best = best_supervised_steps(n_labels, recipe.supervised_steps)
    return math.ceil(best / (1 - recipe.least_student_share))


def guided_schedule(recipe: Recipe, *, iterations: int, n_labels: int, pool: int) -> Schedule:
    """The stages of a guided run.

    Args:
        recipe: Shares of the stages.
        iterations: Teacher and student together; at least 4.
        n_labels: Labelled images to learn from.
        pool: Unlabelled images.
    """
    best = best_supervised_steps(n_labels, recipe.supervised_steps)
    teacher = best if iterations >= shared_from(recipe, n_labels) else iterations * recipe.teacher_share
    teacher = max(min(round(teacher), best, iterations - SHORTEST_STUDENT), 1)
    return with_student(recipe, teacher=teacher, student=iterations - teacher, n_labels=n_labels, pool=pool)


def with_student(recipe: Recipe, *, teacher: int, student: int, n_labels: int, pool: int) -> Schedule:
    """The stages of a guided run whose student has so many steps, ``SHORTEST_STUDENT`` or more.

    The baseline has its best schedule, or as many steps as teacher and student together.
    """
    best = best_supervised_steps(n_labels, recipe.supervised_steps)
    fine_tune = round(student * recipe.fine_tune_share)
    burn_in = max(round(student * recipe.burn_in_share), 1)
    distillation = max(student - fine_tune - burn_in, 0)
    burn_in = student - fine_tune - distillation
    seen = (burn_in + distillation) * recipe.unlabelled_batch
    return Schedule(
        teacher=teacher,
        supervised=max(min(best, teacher + student), teacher),
        burn_in=burn_in,
        distillation=distillation,
        fine_tune=fine_tune,
        cached_images=min(recipe.cached_images, pool, max(seen // recipe.looks_per_label, 1)),
    )


def supervised_schedule(recipe: Recipe, *, iterations: int | None, n_labels: int) -> Schedule:
    """The one stage of a supervised run: as long as asked for, else as long as is best."""
    steps = iterations or best_supervised_steps(n_labels, recipe.supervised_steps)
    return Schedule(teacher=steps, supervised=steps, burn_in=0, distillation=0, fine_tune=0, cached_images=0)


@dataclass(frozen=True, kw_only=True)
class Scheduling:
    """What the stages of a run follow from, but for its length.

    Attributes:
        recipe: Shares of the stages.
        n_labels: Labelled images to learn from.
        pool: Unlabelled images, or parts of images.
        supervised: Whether only the supervised model is trained.
        teacher: Steps of the teacher where they are asked for; else they follow from the iterations.
    """

    recipe: Recipe
    n_labels: int
    pool: int
    supervised: bool = False
    teacher: int | None = None

    @property
    def best_supervised(self) -> int:
        """Steps on labels that are best for so many labels."""
        return best_supervised_steps(self.n_labels, self.recipe.supervised_steps)

    @property
    def shared_from(self) -> int:
        """The fewest iterations with the best supervised schedule; a few less may take longer."""
        return self.best_supervised if self.supervised else shared_from(self.recipe, self.n_labels)

    def of(self, iterations: int | None) -> Schedule:
        """The stages of so many iterations, or of the recipe's."""
        if self.supervised:
            return supervised_schedule(self.recipe, iterations=iterations, n_labels=self.n_labels)
        length = iterations or self.recipe.iterations
        if self.teacher is not None:
            return self.with_student(self.teacher, length - self.teacher)
        return guided_schedule(self.recipe, iterations=length, n_labels=self.n_labels, pool=self.pool)

    def with_student(self, teacher: int, student: int) -> Schedule:
        """The stages of a guided run of so many steps of each."""
        return with_student(
            self.recipe, teacher=teacher, student=student, n_labels=self.n_labels, pool=self.pool
        )
