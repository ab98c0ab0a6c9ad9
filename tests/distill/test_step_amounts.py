"""A loss per object or query is that of the whole step, in however many parts and processes it is seen."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from labelloop.distill.batches import Batch
from labelloop.distill.pseudo_settings import PseudoLabelConfig
from labelloop.distill.recipe import OptimiserConfig
from labelloop.distill.stages import Learner, make_optimiser
from labelloop.models.mask2former import Mask2Former
from labelloop.models.mask2former_criterion import CriterionConfig
from labelloop.models.protocol import Amount, Prediction, Target
from labelloop.processes import started
from labelloop.team import ALONE, Team
from one_step import one_step
from tiny_mask2former import FIT, tiny_swin

LABELLED = 3
_rand = torch.rand


def same_points(n: int, points: int, xy: int, *, device: torch.device | None = None) -> torch.Tensor:
    """Stands for ``torch.rand``: what is drawn for a mask does not depend on the masks beside it."""
    drawn = _rand(1, points, xy, generator=torch.Generator().manual_seed(points))
    return drawn.expand(n, -1, -1).to(device)


def queries() -> Learner:
    """A Mask2Former of random weights."""
    torch.manual_seed(0)
    fit = replace(FIT, queries=24)
    model = Mask2Former(tiny_swin(fit), fit, CriterionConfig(points=64))
    return Learner(model, model, make_optimiser(model, OptimiserConfig()))


class Dotted(nn.Module):
    """An InstanceModel that sees an object for each tenth of brightness; its loss is a mean over objects."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def module(self):
        return self

    def amount(self, targets):
        return Amount(images=len(targets), objects=sum(float(t.weights.sum()) for t in targets))

    def loss(self, images, targets, *, whole=None):
        whole = whole or self.amount(targets)
        each = [i.mean() * t.weights.sum() for i, t in zip(images, targets, strict=True)]
        return {"dots": (self.scale * torch.stack(each).sum()).sum() / max(whole.objects, 1.0)}

    def predict(self, images, *, min_score=0.05):
        return [self._dots(round(10 * float(image.mean()))) for image in images]

    def _dots(self, n: int) -> Prediction:
        return Prediction(
            size_hw=(64, 64),
            labels=np.zeros(n, np.int64),
            scores=np.full(n, 0.9, np.float32),
            quality=np.ones(n, np.float32),
            crops=(np.full((4, 4), 255, np.uint8),) * n,
            offsets_yx=np.array([[6 * i, 0] for i in range(n)], np.int64).reshape(-1, 2),
        )


def dots() -> Learner:
    student, teacher = Dotted(), Dotted()
    return Learner(student, teacher, make_optimiser(student, OptimiserConfig()))


def discs(n: int, *, weights: float = 1.0, ignored: int = 0) -> Target:
    """So many discs of 4 to 6 px radius in rows, of both classes by turns; the ignored ones are large."""
    yy, xx = np.mgrid[:64, :64]
    masks = np.zeros((n, 64, 64), np.uint8)
    for i in range(n):
        y, x, r = 7 + 12 * (i // 5), 7 + 12 * (i % 5), 4 + i % 3
        if i >= n - ignored:
            y, x, r = 40, 32, 24
        masks[i][(yy - y) ** 2 + (xx - x) ** 2 <= r * r] = 255
    return Target(
        masks=torch.from_numpy(masks),
        labels=torch.arange(n) % 2,
        weights=torch.linspace(weights, 1.0, n) if n else torch.zeros(0),
        ignore=torch.arange(n) >= n - ignored,
    )


def dealt(part: int, parts: int, *, online: bool) -> Batch:
    """A part of three labelled images, crowded, nearly empty and with a crowd, and three unlabelled ones."""
    targets = [discs(20), discs(1), discs(4, ignored=1)]
    pseudo = [discs(12, weights=0.2), discs(0), discs(3, weights=0.5, ignored=1)]
    generator = torch.Generator().manual_seed(5)
    images = [(0.2 + 0.2 * i) * _rand(3, 64, 64, generator=generator) for i in range(6)]
    mine = [slot for slot in range(6) if slot % parts == part]
    unlabelled = [slot - LABELLED for slot in mine if slot >= LABELLED]
    views = tuple(images[LABELLED + i] for i in unlabelled)
    return Batch(
        part=part,
        labelled=tuple((images[slot], targets[slot]) for slot in mine if slot < LABELLED),
        weak=views if online else (),
        strong=views,
        pseudo=() if online else tuple(pseudo[i] for i in unlabelled),
        image_ids=(),
    )


def a_step(learner: Learner, *, parts: int, team: Team = ALONE) -> dict[str, float]:
    online = isinstance(learner.student, Dotted)
    mine = [dealt(part, parts, online=online) for part in team.share(range(parts))]
    learner.student.module().train()
    return one_step(
        learner,
        mine,
        labelled=LABELLED,
        unlabelled=3,
        parts=parts,
        team=team,
        online=PseudoLabelConfig(min_score=0.5, min_area_px=0.0) if online else None,
        unlabelled_weight=2.0,
        optimiser=replace(OptimiserConfig(), clip_norm=1e9),
    )


def gradient(learner: Learner) -> torch.Tensor:
    grads = [p.grad.flatten() for p in learner.student.module().parameters() if p.grad is not None]
    return torch.cat(grads)


def require_same(facts: dict[str, float], grads: torch.Tensor, whole: tuple) -> None:
    wanted, wanted_grads = whole
    assert facts == pytest.approx(wanted, rel=1e-5)
    assert float((grads - wanted_grads).norm() / wanted_grads.norm()) < 1e-4


@pytest.fixture(params=["queries", "dots"])
def make(request, monkeypatch):
    """Makes a learner: of Mask2Former with cached labels, and of a model that labels in the step."""
    monkeypatch.setattr(torch, "rand", same_points)
    return {"queries": queries, "dots": dots}[request.param]


@pytest.fixture
def whole(make):
    """The step's losses and gradient in one part."""
    learner = make()
    facts = a_step(learner, parts=1)
    assert facts["pseudo_labels"] > 1
    return facts, gradient(learner)


@pytest.mark.parametrize("parts", [2, 4, 6])
def test_a_loss_per_object_is_that_of_the_whole_step_in_any_number_of_parts(make, whole, parts):
    learner = make()
    require_same(a_step(learner, parts=parts), gradient(learner), whole)


OTHER = f"""
import sys
sys.path[:] = {[str(Path(__file__).parent), *sys.path]!r}
import torch
from test_step_amounts import a_step, dots, queries, same_points
from labelloop.processes import take_part
torch.set_num_threads(1)
torch.rand = same_points
with take_part(device_type="cpu") as team:
    for parts in (2, 5):
        team.gather(a_step({{learner}}(), parts=parts, team=team))
    team.wait()
"""


def test_two_processes_have_the_losses_of_one_with_the_same_batch(make, whole, tmp_path):
    script = OTHER.format(learner=make.__name__)
    with started(["-c", script], size=2, device_type="cpu", logs=tmp_path, way_out="") as team:
        for parts in (2, 5):
            learner = make()
            facts = a_step(learner, parts=parts, team=team)
            assert team.gather(facts) == [facts, facts]
            require_same(facts, gradient(learner), whole)
        team.wait()
