"""One step of training, in this process or as a part of a team."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_fabric import Fabric

from labelloop.data.view_settings import GeometryConfig, PhotometryConfig
from labelloop.distill.batches import Batch, BatchPlan
from labelloop.distill.recipe import OptimiserConfig
from labelloop.distill.stages import Learner, StagePlan, train_step
from labelloop.team import ALONE, Team

STEP = 4


def one_step(
    learner: Learner, mine: Sequence[Batch], *, labelled: int, unlabelled: int = 0, parts: int = 1,
    team: Team = ALONE, **changes: Any,
) -> dict[str, float]:  # fmt: skip
    """Teaches what is in the batches.

    Args:
        learner: Is changed.
        mine: What this process sees of the step.
        labelled: Images in all parts.
        unlabelled: Likewise.
        parts: Of the whole step.
        team: The processes.
        changes: Of the StagePlan.
    """
    batches = BatchPlan(
        seed=0,
        stage="burn-in" if unlabelled else "labels",
        labelled={},
        labelled_ids=(),
        labelled_batch=labelled,
        unlabelled_ids=(),
        unlabelled_batch=unlabelled,
        pseudo=None,
        geometry=GeometryConfig(),
        weak=PhotometryConfig(),
        strong=PhotometryConfig(),
        parts=parts,
    )
    usual = {
        "start": 0, "stop": 10, "schedule": 10, "ema_decay": None, "ema_from": None, "online": None,
        "unlabelled_weight": 0.0, "small_area_px": 0.0, "optimiser": OptimiserConfig(),
    }  # fmt: skip
    plan = StagePlan(batches=batches, **{**usual, **changes})
    return train_step(STEP, mine, plan, learner, Fabric(accelerator="cpu", devices=1), team)
