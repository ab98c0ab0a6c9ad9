"""Models of the real detectron2 behind InstanceModel."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import sys
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2", reason="detectron2 is not installed; labelloop doctor says how to get it")

from labelloop.distill.recipe import OptimiserConfig
from labelloop.distill.stages import make_optimiser
from labelloop.errors import ModelError
from labelloop.models.catalog import build_model
from labelloop.models.protocol import InstanceModel, Target, to_instances

CASCADE = """
MODEL:
  ROI_HEADS: {NAME: CascadeROIHeads}
  ROI_BOX_HEAD: {CLS_AGNOSTIC_BBOX_REG: true}
"""
C4 = """
MODEL:
  BACKBONE: {NAME: build_resnet_backbone}
  RESNETS: {OUT_FEATURES: [res4]}
  ANCHOR_GENERATOR: {SIZES: [[32, 64, 128]]}
  RPN: {IN_FEATURES: [res4]}
  ROI_HEADS: {NAME: Res5ROIHeads, IN_FEATURES: [res4]}
  ROI_MASK_HEAD: {NUM_CONV: 0}
"""


def _image_of(target: Target) -> torch.Tensor:
    return (target.masks.amax(0).float() / 255 * 0.8 + 0.1).expand(3, -1, -1).contiguous()


def _learn(model: InstanceModel, target: Target, steps: int) -> list[float]:
    image = _image_of(target)
    parameters = [p for p in model.module().parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, 2e-3)
    losses = []
    for _ in range(steps):
        loss = sum(model.loss([image, image], [target, target]).values())
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
    return losses


def test_a_few_steps_on_one_image_find_its_discs(tiny, stats, discs):
    torch.manual_seed(0)
    model = build_model(f"detectron2:{tiny()}", stats)
    target = discs([(20, 20, 9), (44, 40, 12)])
    _learn(model, target, 80)
    masks = to_instances(model.predict([_image_of(target)], min_score=0.4)[0]).to_dense()
    ious = [max((m & t).sum() / (m | t).sum() for m in masks) for t in target.masks.numpy() > 0]
    assert min(ious) > 0.6


@pytest.mark.parametrize("further", ["", CASCADE, C4], ids=["FPN", "cascade", "C4"])
def test_every_kind_of_heads_takes_weights_ignored_and_empty_images(tiny, stats, discs, further):
    torch.manual_seed(0)
    model = build_model(f"detectron2:{tiny(further)}", stats)
    target = dataclasses.replace(
        discs([(20, 20, 9), (44, 40, 12), (50, 12, 8)]),
        labels=torch.tensor([0, 1, 0]),
        weights=torch.tensor([1.0, 0.6, 1.0]),
        ignore=torch.tensor([False, False, True]),
    )
    losses = model.loss([_image_of(target), torch.rand(3, 64, 64)], [target, discs([])])
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    learning = [p for p in model.module().parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    empty = model.loss([torch.rand(3, 64, 64)] * 2, [discs([])] * 2)
    assert all(torch.isfinite(loss) for loss in empty.values())


def test_a_weight_of_zero_and_an_ignored_object_teach_no_mask(tiny, stats, discs):
    torch.manual_seed(0)
    model = build_model(f"detectron2:{tiny(CASCADE)}", stats)
    target = discs([(32, 32, 14)])
    image = [_image_of(target)] * 2
    assert float(model.loss(image, [target] * 2)["mask"].detach()) > 0
    for changed in (
        dataclasses.replace(target, weights=torch.zeros(1)),
        dataclasses.replace(target, ignore=torch.tensor([True])),
    ):
        assert float(model.loss(image, [changed] * 2)["mask"].detach()) == 0


def test_images_of_different_sizes_keep_their_coordinates_and_the_mode_stays(tiny, stats):
    torch.manual_seed(0)
    model = build_model(f"detectron2:{tiny()}", stats)
    model.train()
    predictions = model.predict([torch.rand(3, 40, 56), torch.rand(3, 96, 64)], min_score=0.0)
    assert model.training
    assert [p.size_hw for p in predictions] == [(40, 56), (96, 64)]
    for p in predictions:
        assert len(p) > 0
        assert (np.diff(p.scores) <= 0).all()
        for crop, (y, x) in zip(p.crops, p.offsets_yx, strict=True):
            assert 0 <= y <= y + crop.shape[0] <= p.size_hw[0]
            assert 0 <= x <= x + crop.shape[1] <= p.size_hw[1]


def test_half_precision_gives_losses_in_full_precision(tiny, stats, discs):
    torch.manual_seed(0)
    model = build_model(f"detectron2:{tiny()}", stats)
    target = discs([(32, 32, 14)])
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss([_image_of(target)] * 2, [target] * 2)
        model.predict([_image_of(target)], min_score=0.0)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_an_answer_that_is_not_finite_makes_the_loss_so(tiny, stats, discs):
    model = build_model(f"detectron2:{tiny()}", stats)
    with torch.no_grad():
        model.network.proposal_generator.rpn_head.conv.weight.fill_(torch.nan)
    target = discs([(32, 32, 14)])
    model.eval()
    total = sum(model.loss([_image_of(target)] * 2, [target] * 2).values())
    assert not torch.isfinite(total)
    total.backward()  # a step sees that by the loss or by the gradient
    assert not model.training


def test_crowded_images_get_more_of_everything_and_anchors_span_the_objects(tiny, stats):
    crowded = dataclasses.replace(stats, objects_per_image=(200.0, 400.0))
    model = build_model(f"detectron2:{tiny()}", crowded)
    heads, rpn = model.network.roi_heads, model.network.proposal_generator
    assert heads.batch_size_per_image == 400
    assert heads.box_predictor.test_topk_per_image >= 800
    assert rpn.post_nms_topk[False] >= heads.box_predictor.test_topk_per_image
    sides = [float((a[:, 2] - a[:, 0]).max()) for a in rpn.anchor_generator.cell_anchors]
    assert sides == sorted(sides)
    assert len(sides) == 5


def test_without_weights_nothing_is_frozen_and_norms_learn(tiny, stats):
    model = build_model(f"detectron2:{tiny()}", stats)
    assert all(p.requires_grad for p in model.parameters())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


def test_weights_come_from_the_file_that_the_configuration_names(tiny, stats, tmp_path, caplog):
    three = dataclasses.replace(stats, classes=("a", "b", "c"))
    torch.manual_seed(0)
    source = build_model(f"detectron2:{tiny()}", three).network
    torch.save({"model": source.state_dict()}, tmp_path / "source.pth")
    name = f"detectron2:{tiny('MODEL: {WEIGHTS: source.pth}', 'with_weights')}"
    with caplog.at_level(logging.INFO, "labelloop"):
        loaded = build_model(name, stats).network
    theirs = source.state_dict()
    ours = {key.replace(".body.", "."): value for key, value in loaded.state_dict().items()}
    different = {key for key in ours if key not in theirs or not torch.equal(ours[key], theirs[key])}
    assert {key.rsplit(".", 1)[0] for key in different} == {
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_head.predictor",
    }
    assert f"{len(ours) - len(different)} of {len(ours)} tensors come from" in caplog.text
    assert not loaded.backbone.bottom_up.body.stem.conv1.weight.requires_grad  # FREEZE_AT as configured
    (tmp_path / "source.pth").unlink()  # a trained network has its own
    fresh = build_model(name, stats, pretrained=False).network
    assert not torch.equal(
        fresh.backbone.bottom_up.body.stem.conv1.weight, source.backbone.bottom_up.stem.conv1.weight
    )
    fresh.load_state_dict(loaded.state_dict())


@pytest.mark.parametrize("further", ["", C4], ids=["FPN", "C4"])
def test_a_backbone_that_was_loaded_learns_slower(tiny, stats, tmp_path, further):
    source = build_model(f"detectron2:{tiny(further)}", stats)
    torch.save({"model": source.network.state_dict()}, tmp_path / "source.pth")
    lines = further or "MODEL:"
    path = tiny(lines.replace("MODEL:", "MODEL:\n  WEIGHTS: source.pth"), "with_weights")
    model = build_model(f"detectron2:{path}", stats)
    config = OptimiserConfig()
    rates = {
        id(p): group["lr"] for group in make_optimiser(model, config).param_groups for p in group["params"]
    }
    slow = config.lr * config.backbone_lr_factor
    for name, p in model.named_parameters():
        if p.requires_grad:
            of_body = name.startswith("network.backbone") and ".res" in name
            assert rates[id(p)] == (slow if of_body else config.lr), name
    assert len(model.predict([torch.rand(3, 64, 64)], min_score=0.0)[0]) > 0


def test_weights_that_cannot_be_had_are_named(tiny, stats, tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    gone = tiny("MODEL: {WEIGHTS: nowhere.pth}", "gone")
    with pytest.raises(ModelError, match="not there") as error:
        build_model(f"detectron2:{gone}", stats)
    assert error.value.value == "nowhere.pth"
    closed = tiny("MODEL: {WEIGHTS: 'http://127.0.0.1:9/closed.pkl'}", "closed")
    with pytest.raises(ModelError, match="could not be found or downloaded") as error:
        build_model(f"detectron2:{closed}", stats)
    assert "Without a network" in error.value.way_out


@pytest.mark.parametrize("name", ["other.pth", "other.pkl", "other.pyth"])
def test_files_without_weights_are_refused(tiny, stats, tmp_path, name):
    (tmp_path / "other.pth").write_bytes(b"no weights")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps([1, 2]))
    torch.save({"epoch": 3}, tmp_path / "other.pyth")
    with pytest.raises(ModelError, match="could not be found or downloaded"):
        build_model(f"detectron2:{tiny(f'MODEL: {{WEIGHTS: {name}}}', 'named')}", stats)


def test_an_empty_file_is_no_configuration(stats, tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    with pytest.raises(ModelError, match="not a configuration"):
        build_model(f"detectron2:{tmp_path / 'empty.yaml'}", stats)


@pytest.mark.parametrize(
    ("further", "says"),
    [
        pytest.param("MODEL: {MASK_ON: false}", "MASK_ON", id="boxes alone"),
        pytest.param("MODEL: {META_ARCHITECTURE: PanopticFPN}", "META_ARCHITECTURE", id="panoptic"),
        pytest.param("MODEL: {NO_SUCH: 3}", "NO_SUCH", id="unknown key"),
        pytest.param("MODEL: {ROI_HEADS: {NAME: NoSuchHeads}}", "NoSuchHeads", id="unknown heads"),
        pytest.param("MODEL: [", "configuration", id="no yaml"),
        pytest.param("INPUT: {FORMAT: L}", "colour", id="grey"),
    ],
)
def test_what_is_no_mask_rcnn_is_refused_with_its_reason(tiny, stats, further, says):
    with pytest.raises(ModelError, match=says):
        build_model(f"detectron2:{tiny(further)}", stats)


@pytest.mark.parametrize("variant", ["", ":no/such_model", ":no_such.yaml"])
def test_a_name_that_stands_for_no_configuration_says_what_would(stats, variant):
    with pytest.raises(ModelError, match="configuration") as error:
        build_model(f"detectron2{variant}", stats)
    assert "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x" in error.value.way_out


def test_a_name_of_the_zoo_is_found_without_importing_the_zoo():
    zoo = Path(str(files("detectron2"))) / "model_zoo" / "configs"
    if not zoo.is_dir():
        pytest.skip("this detectron2 came without its zoo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from labelloop.integrations.detectron2.configs import config_file, read_config

        path = config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x")
        assert read_config(path).MODEL.RESNETS.DEPTH == 50
    assert "detectron2.model_zoo" not in sys.modules
