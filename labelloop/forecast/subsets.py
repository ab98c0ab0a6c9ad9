"""Which subsets of a project's labels a learning curve is made of, and what measures them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labelloop.data.groups import units_of
from labelloop.data.label_draw import draw_labels
from labelloop.distill.recipe import find_recipe
from labelloop.distill.schedule import best_supervised_steps
from labelloop.forecast.checks import FEWEST_SIZES
from labelloop.plurals import plural
from labelloop.project.project import ImageRecord, Project

SMALLEST = 4  # images in a subset
RANGE = 8  # the largest subset has at most so many times the images of the smallest
MEASURED_AT_MOST = 60  # images; more cost more time than the models do


@dataclass(frozen=True, kw_only=True)
class CurveSettings:
    """How points are made.

    The defaults take a quarter of an hour of one core with 15 labels, twice that with 75.

    Attributes:
        model: A name of ``list_models``.
        base_steps: Of the first model of each seed, on its smallest subset. All others of the seed start from
            it, as their subsets hold that one: they are trained well in a fraction of the time.
        share: Of the steps that ``train`` gives the supervised model of so many labels: as there, more labels
            get more steps, or their worth would not be seen.
        least_steps: From the base on, at least.
        sizes: Of subsets, at most; 4 or more, or there is no forecast.
        seeds: Draws of nested subsets.
        folds: Parts of the labelled images where the project has no validation images; each seed measures on
            the next.
        device: auto, cpu or cuda.
    """

    model: str = "mask-rcnn-lite"
    base_steps: int = 300
    share: float = 0.4
    least_steps: int = 100
    sizes: int = 4
    seeds: int = 2
    folds: int = 4
    device: str = "auto"

    def steps(self, n_images: int) -> int:
        """Steps of the model of so many labels, those of its base not counted."""
        whole = best_supervised_steps(n_images, find_recipe(None).supervised_steps)
        return max(round(self.share * whole) - self.base_steps, self.least_steps)


@dataclass(frozen=True, kw_only=True)
class PointPlan:
    """A model that is to be trained and measured.

    Attributes:
        seed: Of the draw and of the training.
        base: Images that the model it starts from learnt; all of them are in ``train`` too.
        train: Images to learn from.
        measured: Images to measure on, none of them or of their groups in ``train``.
        split: ``val`` or ``out of fold``.
    """

    seed: int
    base: tuple[ImageRecord, ...]
    train: tuple[ImageRecord, ...]
    measured: tuple[ImageRecord, ...]
    split: str


def plan_points(project: Project, settings: CurveSettings) -> list[PointPlan]:
    """Which models are to be trained; none where labels are too few: ``why_no_plan`` says why.

    The sizes are the same for every seed. Subsets of one seed are nested and measured on the same images.

    Args:
        project: Whose labels.
        settings: How many sizes and seeds.
    """
    labelled, val = _labelled(project)
    sides = [_sides(labelled, val, seed, settings.folds) for seed in range(settings.seeds)]
    sizes = subset_sizes(min((len(train) for train, _ in sides), default=0), settings.sizes)
    holding = _holding(project, labelled)
    plans = []
    for seed, (candidates, measured) in enumerate(sides):
        order = _order(candidates, seed)
        plans += [
            PointPlan(
                seed=seed,
                base=tuple(order[: sizes[0]]),
                train=tuple(order[:size]),
                measured=tuple(measured),
                split="val" if val else "out of fold",
            )
            for size in sizes
            if any(image.id in holding for image in order[: sizes[0]])
        ]
    return plans


def why_no_plan(project: Project, settings: CurveSettings) -> str | None:
    """Why ``plan_points`` plans nothing, as the end of a sentence; None where it plans something.

    Args:
        project: Whose labels.
        settings: As there.
    """
    if plan_points(project, settings):
        return None
    labelled, val = _labelled(project)
    holding = _holding(project, labelled)
    have, n = plural(len(labelled), "labelled image"), len(labelled)
    if not labelled:
        return "no training image has labels (labelloop add labels adds some)"
    if not holding:
        return f"none of the {have} holds an object"
    if n == 1:
        return f"only one image is labelled, and a curve needs {FEWEST_SIZES} sizes of subsets"
    if len(units_of(labelled)) == 1 and not val:
        return f"all {have} are of one group, and without validation images a group of its own has to measure"
    sides = [_sides(labelled, val, seed, settings.folds) for seed in range(settings.seeds)]
    left = min(len(train) for train, _ in sides)
    if not subset_sizes(left, settings.sizes):
        beside = "" if val else " beside those that measure"
        return (
            f"a curve needs {FEWEST_SIZES} sizes of subsets, so {SMALLEST + FEWEST_SIZES - 1} labelled images"
            f" to learn from, and there are {left}{beside}"
        )
    return f"only {len(holding)} of the {have} hold objects, and the smallest subsets have none of these"


def subset_sizes(available: int, count: int) -> list[int]:
    """Rising sizes of subsets, evenly spaced in the logarithm, the largest of all that is available.

    Args:
        available: Labelled images to draw from.
        count: Sizes at most; fewer where images are few, none where there is no room for four.
    """
    smallest = max(SMALLEST, round(available / RANGE))
    if available < smallest + FEWEST_SIZES - 1:
        return []
    return sorted({round(size) for size in np.geomspace(smallest, available, count).tolist()})


def _labelled(project: Project) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Images with labels: to train on, and to validate."""
    return project.images(split="train", labelled=True), project.images(split="val", labelled=True)


def _holding(project: Project, labelled: Sequence[ImageRecord]) -> set[int]:
    """Numbers of the images that hold objects."""
    found = project.iter_labels([image.id for image in labelled])
    return {image_id for image_id, _, labels in found if labels.holds_objects}


def _sides(
    labelled: Sequence[ImageRecord], val: Sequence[ImageRecord], seed: int, folds: int
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Images to draw from, and images to measure on; whole groups on either side."""
    if val:
        return list(labelled), _order(val, 0)[:MEASURED_AT_MOST]
    kept: list[list[ImageRecord]] = [[] for _ in range(folds)]
    for members in sorted(units_of(_order(labelled, 0)), key=len, reverse=True):
        min(kept, key=len).extend(members)
    measured = kept[seed % folds]
    out = {image.id for image in measured}
    return [image for image in labelled if image.id not in out], measured[:MEASURED_AT_MOST]


def _order(images: Sequence[ImageRecord], seed: int) -> list[ImageRecord]:
    """The order in which a seed draws these images: any number of them lies inside any larger one."""
    if not images:
        return []
    draw = draw_labels(images, {i.id for i in images}, budget=None, seed=seed, validation_share=0.0)
    return list(draw.train)
