"""What a training is asked for, and whether that makes sense."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from labelloop.distill.naming import check_name
from labelloop.distill.recipe import stored_recipe
from labelloop.distill.schedule import SHORTEST_STUDENT
from labelloop.errors import UsageError
from labelloop.plurals import plural
from labelloop.processes import Place, outside_place


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What was asked for.

    Attributes:
        labels: Share of the pool (``5%``), number of images (``15``), ``all``, or a list of the images:
            ``FILE`` or ``FILE@5%``.
        model: A name of ``list_models``.
        method: guided or supervised.
        time_s: Seconds for the whole run; None to go by ``iterations`` or the recipe.
        iterations: Steps of teacher and student together.
        teacher_iterations: Of these the teacher's, as a run that was given a time tells them; None as the
            recipe divides.
        recipe: A recipe's name; None for the default.
        accumulate: Parts in which each process sees its images of a step, one after the other; None as the
            recipe says.
        seed: Of everything random.
        folds: Parts without which the run is made again to see how good it is, 2 or more; 0 for none.
        device: auto, cpu, cuda or cuda:N; a run that goes on keeps its own with auto.
        devices: Processes that share the work on this machine, a GPU or a part of the cores each; 1 where a
            launcher has started several already.
        name: The run's name; None to generate one.
        resume: Go on with an unfinished run: the named one, or the newest.
    """

    labels: str = "all"
    model: str = "mask-rcnn-lite"
    method: str = "guided"
    time_s: float | None = None
    iterations: int | None = None
    teacher_iterations: int | None = None
    recipe: str | None = None
    accumulate: int | None = None
    seed: int = 0
    folds: int = 0
    device: str = "auto"
    devices: int = 1
    name: str | None = None
    resume: bool = False


def check_request(request: TrainRequest, place: Place | None) -> None:
    """Looks at a request by itself, before a project is.

    Args:
        request: What is asked for.
        place: Among the processes that a launcher has started; None without one.

    Raises:
        UsageError: It contradicts itself.
    """
    if request.time_s is not None and request.iterations is not None:
        raise UsageError("--time and --iterations exclude each other", way_out="Give one of them.")
    if place is not None and request.devices not in (1, place.size):
        raise UsageError(
            f"a launcher has started {plural(place.size, 'process', 'processes')}",
            value=f"--devices {request.devices}",
            way_out="Leave --devices out.",
        )
    if request.name is not None:
        check_name(request.name)
    if request.folds == 1 or request.folds < 0:
        raise UsageError(
            "there must be 2 folds or more",
            value=f"--folds {request.folds}",
            way_out="Give 2 or more, or leave --folds out.",
        )
    if request.accumulate is not None and request.accumulate < 1:
        raise UsageError(
            "a step has at least one part",
            value=f"--accumulate {request.accumulate}",
            way_out="Give 1 or more.",
        )
    if request.iterations is not None and request.iterations < 4 and request.method == "guided":
        raise UsageError(
            "a guided run needs at least 4 iterations",
            value=request.iterations,
            way_out="Give more --iterations.",
        )
    if request.teacher_iterations is not None:
        student = (request.iterations or 0) - request.teacher_iterations
        if request.method != "guided" or student < SHORTEST_STUDENT:
            raise UsageError(
                "iterations of teacher and student are for guided runs, with"
                f" {SHORTEST_STUDENT} or more for the student",
                value=f"{request.teacher_iterations}+{student}",
                way_out="Give one number, or more for the student.",
            )


def require_work(config: Mapping[str, Any], processes: int) -> None:
    """Raises a UsageError where a process would have no image, or no GPU, of its own."""
    recipe = stored_recipe(config["recipe"])
    batches = [recipe.supervised_batch]
    if config["request"]["method"] == "guided":
        batches.append(recipe.labelled_batch + recipe.unlabelled_batch)
    if processes > min(batches):
        raise UsageError(
            "there are more processes than images in a step",
            value=f"{plural(processes, 'process', 'processes')}, {plural(min(batches), 'image')}",
            way_out="Use fewer, or a recipe with larger batches: supervised_batch, labelled_batch and"
            " unlabelled_batch.",
        )
    device, gpus = torch.device(config["device"]), torch.cuda.device_count()
    needed = processes if processes > 1 else (device.index or 0) + 1
    if outside_place(os.environ) is not None:
        needed = 1  # of this machine, of a launcher's at least
    if device.type == "cuda" and needed > gpus:
        raise UsageError(
            "there are not that many GPUs",
            value=f"{needed} asked for, {gpus} here",
            way_out="Give fewer --devices, or --device cpu.",
        )
