"""One step of training: what it refuses, and what it leaves as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from labelloop.data.views import GeometryConfig, PhotometryConfig
from labelloop.distill.batches import Batch, BatchPlan
from labelloop.distill.recipe import OptimiserConfig
from labelloop.distill.stages import Learner, StagePlan, make_optimiser, train_step
from labelloop.errors import NonFiniteLossError
from labelloop.models.protocol import Target
from labelloop.processes import started
from labelloop.team import ALONE, Team


class Cornered(nn.Module):
    """An InstanceModel whose loss is finite everywhere; a dark image's gradient is not: a root at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def module(self):
        return self

    def loss(self, images, targets):
        return {"root": (self.scale * images[0].mean()).pow(2).sqrt().sum()}


def labelled(image_id: int, brightness: float, part: int = 0) -> Batch:
    nothing = Target(
        masks=torch.zeros(0, 8, 8, dtype=torch.uint8),
        labels=torch.zeros(0, dtype=torch.int64),
        weights=torch.zeros(0),
        ignore=torch.zeros(0, dtype=torch.bool),
    )
    pair = (torch.full((3, 8, 8), brightness), nothing)
    return Batch(part=part, labelled=(pair,), weak=(), strong=(), pseudo=(), image_ids=(image_id,))


def a_step(learner: Learner, batch: Batch, *, parts: int = 1, team: Team = ALONE) -> dict[str, float]:
    batches = BatchPlan(
        seed=0,
        stage="labels",
        labelled={},
        labelled_ids=(),
        labelled_batch=parts,
        unlabelled_ids=(),
        unlabelled_batch=0,
        pseudo=None,
        geometry=GeometryConfig(),
        weak=PhotometryConfig(),
        strong=PhotometryConfig(),
        parts=parts,
    )
    plan = StagePlan(
        batches=batches,
        start=0,
        stop=10,
        schedule=10,
        ema_decay=0.9,
        ema_from=None,
        online=None,
        unlabelled_weight=0.0,
        small_area_px=0.0,
        optimiser=OptimiserConfig(),
    )
    return train_step(4, [batch], plan, learner, Fabric(accelerator="cpu", devices=1), team)


def cornered() -> Learner:
    student, average = Cornered(), Cornered()
    return Learner(student, average, make_optimiser(student, OptimiserConfig()))


def require_untouched(learner: Learner) -> None:
    assert learner.student.module().scale.tolist() == [1.0, 1.0, 1.0]
    assert learner.average.module().scale.tolist() == [1.0, 1.0, 1.0]
    assert not learner.optimiser.state


def test_a_gradient_that_is_not_finite_ends_training_before_it_spoils_the_model():
    learner = cornered()
    with pytest.raises(NonFiniteLossError, match="gradient of step 4 is nan") as caught:
        a_step(learner, labelled(17, 0.0))
    assert "[17]" in caught.value.way_out
    assert caught.value.value == "{'root': 0.0}"
    require_untouched(learner)
    a_step(learner, labelled(17, 0.5))
    assert (learner.student.module().scale < 1.0).all()


OTHER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_stages import NonFiniteLossError, a_step, cornered, labelled, require_untouched
from labelloop.processes import take_part
with take_part(device_type="cpu") as team:
    learner = cornered()
    try:
        a_step(learner, labelled(18, 0.0, part=1), parts=2, team=team)
    except NonFiniteLossError:
        require_untouched(learner)
        team.gather("refused")
    team.wait()
"""


def test_a_gradient_that_is_not_finite_in_one_process_ends_the_step_in_all(tmp_path):
    learner = cornered()
    with started(["-c", OTHER], size=2, device_type="cpu", logs=tmp_path, way_out="") as team:
        with pytest.raises(NonFiniteLossError, match="gradient of step 4"):
            a_step(learner, labelled(17, 0.5), parts=2, team=team)
        assert team.gather("refused") == ["refused", "refused"]
        team.wait()
    require_untouched(learner)
