"""torchvision's Mask R-CNN behind InstanceModel computes what torchvision's computes."""

from __future__ import annotations

import dataclasses
import logging
import re

import pytest
import torch
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from labelloop.errors import ModelError
from labelloop.models.catalog import build_model

V1, V2 = "torchvision-mask-rcnn-r50", "torchvision-mask-rcnn-r50-v2"
COCO_CLASSES = 91  # with the background


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """torchvision's own models with random weights and learnt statistics, and files of their weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    made = {}
    for name, build in ((V1, maskrcnn_resnet50_fpn), (V2, maskrcnn_resnet50_fpn_v2)):
        model = build(weights=None, weights_backbone=None, num_classes=COCO_CLASSES)
        model.backbone.train()
        with torch.no_grad():
            for _ in range(2):
                model.backbone(torch.randn(2, 3, 64, 64))
        state = model.state_dict()
        if name == V1:  # as torchvision builds it where it loads weights
            body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
            model = MaskRCNN(_resnet_fpn_extractor(body, 3), COCO_CLASSES)
            model.load_state_dict(state)
            overwrite_eps(model, 0.0)
            state = model.state_dict()
        torch.save(state, folder / f"{name}.pth")
        made[name] = model.eval(), folder / f"{name}.pth"
    return made


def _close(ours, reference):
    scale = max(float(reference.abs().max()), 1.0)
    assert float((ours - reference).abs().max()) <= 1e-5 * scale


@pytest.mark.parametrize("name", [V1, V2])
@torch.no_grad()
def test_features_proposals_and_boxes_are_those_of_torchvision(stats, theirs, name):
    reference, file = theirs[name]
    classes = tuple(f"class {i}" for i in range(COCO_CLASSES - 1))
    ours = build_model(f"{name}:{file}", dataclasses.replace(stats, classes=classes)).eval()
    images = torch.rand(2, 3, 96, 64)
    features, expected = ours.backbone(images), reference.backbone(images)
    assert features.keys() == expected.keys()
    for level, feature in features.items():
        _close(feature, expected[level])
    for answers, wanted in zip(
        ours.rpn.head([*expected.values()]), reference.rpn.head([*expected.values()]), strict=True
    ):
        for answer, of_torchvision in zip(answers, wanted, strict=True):
            _close(answer, of_torchvision)
    # The layers with one output per class are replaced; with torchvision's, the boxes are torchvision's.
    ours.roi_heads.box_predictor.load_state_dict(reference.roi_heads.box_predictor.state_dict())
    sizes = [(96, 64), (90, 60)]
    proposals, _ = reference.rpn(ImageList(images, sizes), expected)
    proposals = [p[:60] for p in proposals]
    reference.roi_heads.score_thresh, reference.roi_heads.detections_per_img = 0.0, 15
    found = ours.roi_heads.detect(expected, proposals, sizes, min_score=0.0, limit=15)
    wanted, _ = reference.roi_heads(expected, proposals, sizes)
    for (boxes, scores, labels, _), of_torchvision in zip(found, wanted, strict=True):
        assert len(boxes) > 0
        _close(scores, of_torchvision["scores"])
        _close(boxes, of_torchvision["boxes"])
        assert torch.equal(labels, of_torchvision["labels"])
    pooled = torch.rand(2, 256, 14, 14)
    _close(ours.roi_heads.mask_head(pooled), reference.roi_heads.mask_head(pooled))


@pytest.mark.parametrize("name", [V1, V2])
def test_it_learns_soft_labels_with_new_layers_for_the_classes(stats, discs, theirs, name, caplog):
    _, file = theirs[name]
    with caplog.at_level(logging.INFO, "labelloop"):
        model = build_model(f"{name}:{file}", stats)
    told = re.search(r"(\d+) of (\d+) tensors come from (\S+)", caplog.text)
    assert told is not None
    assert told[3] == str(file)
    assert int(told[2]) - int(told[1]) == 6  # three layers, weight and bias
    assert not any(p.requires_grad for p in model.backbone.body.layer1.parameters())
    assert model.backbone.body.layer2[0].conv1.weight.requires_grad
    target = discs([(20, 20, 9), (44, 40, 12)])
    target = dataclasses.replace(target, weights=torch.tensor([1.0, 0.5]), ignore=torch.tensor([False, True]))
    losses = model.loss([torch.rand(3, 64, 64)] * 2, [target, discs([])])
    assert {"objectness", "proposal", "class", "box", "mask"} == set(losses)
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_old_names_of_the_published_file_are_understood(stats, theirs, tmp_path):
    reference, _ = theirs[V1]
    old = {}
    for key, value in reference.state_dict().items():
        for part, i in [(f"roi_heads.mask_head.{i}.0.", i) for i in range(4)]:
            key = key.replace(part, f"roi_heads.mask_head.mask_fcn{i + 1}.")
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for i in range(4):
            key = key.replace(f"inner_blocks.{i}.0.", f"inner_blocks.{i}.")
            key = key.replace(f"layer_blocks.{i}.0.", f"layer_blocks.{i}.")
        old[key] = value
    assert "rpn.head.conv.weight" in old
    torch.save(old, tmp_path / "old.pth")
    model = build_model(f"{V1}:{tmp_path / 'old.pth'}", stats)
    assert torch.equal(model.rpn.head.conv[0][0].weight, reference.rpn.head.conv[0][0].weight)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "no such file", id="missing"),
        pytest.param(b"text", "no weights", id="no file of torch"),
        pytest.param({"model": 3}, "no state dict", id="no tensors"),
        pytest.param({"a": torch.zeros(1)}, "not the weights of this network", id="another network"),
    ],
)
def test_files_that_are_no_weights_are_refused(stats, tmp_path, content, says):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(ModelError, match=says) as error:
        build_model(f"{V1}:{file}", stats)
    assert str(file) in str(error.value)


def test_weights_of_the_other_version_are_refused(stats, theirs):
    with pytest.raises(ModelError, match="not the weights of this network") as error:
        build_model(f"{V2}:{theirs[V1][1]}", stats)
    assert "v1 and v2" in error.value.way_out
    with pytest.raises(ModelError, match="not the weights of this network"):
        build_model(f"{V1}:{theirs[V2][1]}", stats)


def test_without_file_and_network_the_file_to_fetch_is_named(stats, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy"):  # nothing listens there: no network
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="torchvision's hub") as error:
        build_model(V1, stats)
    assert "maskrcnn_resnet50_fpn_coco" in error.value.value
    assert f"{V1}:FILE" in error.value.way_out
