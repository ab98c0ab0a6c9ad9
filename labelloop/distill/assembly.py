"""What a run's configuration stands for: its stages, on its images, with their labels as they were."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from labelloop.data.objects import objects_of
from labelloop.data.parts import Part, parts_of
from labelloop.distill.recipe import Recipe, stored_recipe
from labelloop.distill.schedule import Schedule
from labelloop.distill.trainer import Trainer
from labelloop.errors import TrainingError
from labelloop.models.precision import fabric_precision
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord, Project
from labelloop.runs.files import RunFiles
from labelloop.runs.loading import stats_from_dict
from labelloop.team import ALONE, Team


def trainer_of(
    project: Project,
    config: Mapping[str, Any],
    schedule: Schedule,
    name: str,
    progress: Progress,
    *,
    parts: int,
    team: Team = ALONE,
) -> Trainer:
    """The stages of a run.

    Args:
        project: Holds images and labels.
        config: What was decided before the first step.
        schedule: How long the stages are.
        name: Of the run; empty where nothing is to be kept.
        progress: Told of every stage and step.
        parts: A step's batch is seen in so many parts.
        team: The processes that share the work.

    Raises:
        TrainingError: Images of the run were replaced since it began.
    """
    labelled, pool = images_of_run(project, config)
    train_ids = {image.id for image in labelled}
    stored = project.labels_at(
        {int(i): int(r) for i, r in config["label_revisions"].items() if int(i) in train_ids}
    )
    recipe = stored_recipe(config["recipe"])
    device = team.device(torch.device(config["device"]))
    return Trainer(
        files=RunFiles(folder=project.runs_dir / name),
        model=str(config["model"]),
        stats=stats_from_dict(config["stats"]),
        recipe=recipe,
        schedule=schedule,
        seed=int(config["request"]["seed"]),
        device=device,
        precision=fabric_precision(device),
        labelled={image.id: objects_of(stored[image.id]) for image in labelled},
        images=labelled,
        pool=pool_parts(pool, labelled, recipe),
        progress=progress,
        parts=parts,
        team=team,
    )


def images_of_run(project: Project, config: Mapping[str, Any]) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """The images whose labels a run learns, and its pool, as it began with them.

    Raises:
        TrainingError: Some were replaced since.
    """
    images = {i.id: i for i in project.images(replaced=True)}  # of any split: they may have moved since
    labelled = [images[int(i)] for i in config["train_images"]]
    pool = _pool(config, images)
    replaced = [image.path for image in (*labelled, *pool) if image.replaced]
    if replaced:
        more = f" and {len(replaced) - 1} more" if len(replaced) > 1 else ""
        raise TrainingError(
            "images of the run were replaced by other files since it began",
            value=f"{replaced[0]}{more}",
            way_out="Put the old files back and run labelloop add images on them, or train a new run.",
        )
    return labelled, pool


def id_ranges(ids: Iterable[int]) -> list[list[int]]:
    """Ids as the first and the last of each unbroken row of them, in order."""
    ranges: list[list[int]] = []
    for i in sorted(ids):
        if ranges and ranges[-1][1] == i - 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return ranges


def _pool(config: Mapping[str, Any], images: Mapping[int, ImageRecord]) -> list[ImageRecord]:
    """The unlabelled images that the run began with, however the project has grown since."""
    ranges = config.get("pool_ranges")
    if ranges is None:  # older runs have none
        taken = {*config["train_images"], *config["val_images"]}
        return [i for i in images.values() if i.split == "train" and i.id not in taken and not i.replaced]
    return [images[i] for first, last in ranges for i in range(first, last + 1)]


def pool_parts(
    unlabelled: Sequence[ImageRecord], labelled: Sequence[ImageRecord], recipe: Recipe
) -> list[Part]:
    """The pool as training sees it: parts that hold the largest window of a view.

    Args:
        unlabelled: Images of the pool; where there are none, the labelled ones are the pool.
        labelled: Images that are learnt; they are in the pool of some recipes.
        recipe: Of the run, with the size of its views.
    """
    with_labelled = recipe.pool_includes_labelled or not unlabelled
    images = [*unlabelled, *labelled] if with_labelled else unlabelled
    return parts_of(images, side_px=math.ceil(recipe.geometry.largest_window_px))
