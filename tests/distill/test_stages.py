"""One step of training: what it refuses, and what it leaves as it was."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import nn

from labelloop.data.objects import SoftObjects
from labelloop.data.parts import whole
from labelloop.data.pool import ImageLoader
from labelloop.data.view_settings import GeometryConfig, PhotometryConfig
from labelloop.distill.batches import Batch, BatchPlan
from labelloop.distill.pseudo_settings import PseudoLabelConfig
from labelloop.distill.recipe import OptimiserConfig
from labelloop.distill.stages import Learner, StagePlan, make_optimiser, run_stage
from labelloop.errors import NonFiniteLossError
from labelloop.models.protocol import Prediction, Target
from labelloop.processes import started
from labelloop.progress import Silent
from labelloop.project.project import ImageRecord
from labelloop.team import ALONE, Team
from one_step import one_step


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
    return one_step(learner, [batch], labelled=parts, parts=parts, team=team, ema_decay=0.9)


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
sys.path[:] = {[str(Path(__file__).parent), *sys.path]!r}
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


class Seeing(nn.Module):
    """An InstanceModel that sees images at a tenth of their size, and keeps the targets that it is taught.

    It sees what is bright as one object.
    """

    grid_scale = 0.1

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.taught: list[tuple[tuple[int, ...], Target, float]] = []

    def module(self):
        return self

    def loss(self, images, targets, *, resized_by=1.0):
        self.taught += [(tuple(i.shape), t, resized_by) for i, t in zip(images, targets, strict=True)]
        return {"none": (self.scale * images[0].mean()).sum()}

    def predict(self, images, *, min_score=0.05, resized_by=1.0):
        return [self._bright(image[0].numpy() > 0.5) for image in images]

    def _bright(self, bright: np.ndarray) -> Prediction:
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        crop = bright[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Prediction(
            size_hw=bright.shape,
            labels=np.zeros(1, np.int64),
            scores=np.ones(1, np.float32),
            quality=np.ones(1, np.float32),
            crops=(np.where(crop, np.uint8(255), np.uint8(0)),),
            offsets_yx=np.array([[rows[0], columns[0]]]),
        )


@pytest.mark.parametrize("least_area", [0.0, 200**2 - 2000.0, 200**2 + 2000.0])
def test_a_network_that_sees_a_tenth_is_shown_a_tenth_and_areas_count_in_the_pixels_of_images(
    tmp_path, least_area
):
    pixels = np.zeros((1200, 900), np.uint8)
    pixels[300:500, 400:600] = 255
    Image.fromarray(pixels).save(tmp_path / "1.png")
    image = ImageRecord(1, tmp_path / "1.png", "1.png", pixels.shape, "train", None, 0, -1, None, "1")
    objects = SoftObjects(
        size_hw=pixels.shape,
        labels=np.zeros(1, np.int64),
        weights=np.ones(1, np.float32),
        ignore=np.zeros(1, bool),
        crops=(pixels[300:500, 400:600],),
        offsets_yx=np.array([[300, 400]]),
    )
    off = PhotometryConfig(jitter=0.0, gamma=0.0, jitter_p=0.0)
    batches = BatchPlan(
        seed=0,
        stage="burn-in",
        labelled={1: objects},
        labelled_ids=(1,),
        labelled_batch=1,
        unlabelled_ids=(1,),
        unlabelled_batch=1,
        pseudo=None,
        geometry=GeometryConfig(zoom=(1.0, 1.0), crop_px=2000, flips=False),
        weak=off,
        strong=off,
    )
    plan = StagePlan(
        batches=batches,
        start=0,
        stop=1,
        schedule=1,
        ema_decay=None,
        ema_from=None,
        online=PseudoLabelConfig(min_area_px=least_area),
        unlabelled_weight=1.0,
        small_area_px=0.0,
        optimiser=OptimiserConfig(),
    )
    model = Seeing()
    learner = Learner(model, model, make_optimiser(model, OptimiserConfig()))
    load = ImageLoader([whole(image)], intensity_percentile=(0.0, 100.0))
    fabric = Fabric(accelerator="cpu", devices=1)
    run_stage(plan, learner, fabric, load, Silent(), after_step=lambda step, facts: None)
    (view, label, told), (strong, pseudo, also) = model.taught
    assert view == strong == (3, 120, 90)
    assert told == also == 0.1
    assert label.annotated
    assert not pseudo.annotated
    assert int((label.masks > 127).sum()) == 20 * 20
    assert [int((mask > 127).sum()) for mask in pseudo.masks] == [20 * 20] * (least_area < 200**2)


@pytest.mark.parametrize("place", ["body", "backbone.body"])
def test_a_module_named_body_learns_slower_wherever_it_lies(place):
    pretrained, config = nn.Linear(2, 2), OptimiserConfig(backbone_lr_factor=0.1)
    around = pretrained if place == "body" else nn.ModuleDict({"body": pretrained})
    module = nn.ModuleDict({place.split(".")[0]: around, "bodywork": nn.Linear(2, 2)})
    groups = make_optimiser(module, config).param_groups
    rates = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}
    slower = {name for name, p in module.named_parameters() if rates[id(p)] == 0.1 * config.lr}
    assert slower == {f"{place}.weight", f"{place}.bias"}
