"""``--time``: what a step costs where several processes share it, measured in as many."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from labelloop.distill.assembly import trainer_of
from labelloop.distill.gpu_memory import full_memory_says
from labelloop.distill.measured import scored_images_of
from labelloop.distill.schedule import Schedule
from labelloop.distill.time_plan import Costs
from labelloop.distill.timing import measure_costs
from labelloop.processes import started
from labelloop.progress import Progress, Silent
from labelloop.project.project import Project
from labelloop.team import Team


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is measured.

    Attributes:
        config: What was decided of the run so far.
        schedule: Any; it decides which stages there are.
    """

    config: Mapping[str, Any]
    schedule: Schedule


def measured_costs(
    project: Project, asked: Asked, progress: Progress, *, processes: int, team: Team
) -> Costs:
    """What steps cost in so many processes; those of a launcher are there, others are started for it.

    Args:
        project: Holds images and labels.
        asked: What is measured.
        progress: Told of every step.
        processes: That will share the run.
        team: Of this process, which leads.
    """
    begun = time.monotonic()
    with ExitStack() as stack:
        if processes > team.size:
            device_type = torch.device(asked.config["device"]).type
            team = stack.enter_context(
                started(
                    ["-m", "labelloop.distill.taking_part", str(project.root), device_type],
                    size=processes,
                    device_type=device_type,
                    logs=Path(stack.enter_context(TemporaryDirectory())),
                    way_out="Give --iterations instead of --time.",
                )
            )
        start = time.monotonic() - begun
        return replace(_costs(project, team.tell(asked), progress, team), start=start)


def help_measure(project: Project, team: Team) -> None:
    """The part of a process that does not lead; the leader tells None where nothing is to be measured."""
    asked: Asked | None = team.tell(None)
    if asked is not None:
        _costs(project, asked, Silent(), team)


def _costs(project: Project, asked: Asked, progress: Progress, team: Team) -> Costs:
    trainer = trainer_of(
        project, asked.config, asked.schedule, "", progress, parts=asked.config["parts"], team=team
    )
    scored = scored_images_of(project, asked.config)
    with full_memory_says(trainer.recipe.accumulate):
        costs = measure_costs(trainer, scored.images if scored else (), progress)
    team.wait()
    return costs
