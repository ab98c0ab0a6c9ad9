"""Soft, weighted and ignored targets in the heads of the real detectron2."""

from __future__ import annotations

import dataclasses

import pytest
import torch

pytest.importorskip("detectron2", reason="detectron2 is not installed; labelloop doctor says how to get it")

from labelloop.models.catalog import build_model
from labelloop.models.regions import RoiTarget, roi_target


@pytest.fixture
def model(tiny, stats):
    torch.manual_seed(0)
    return build_model(f"detectron2:{tiny()}", stats)


@pytest.fixture
def storage(model):  # after detectron2 was imported by the model, whose warnings are hidden
    from detectron2.utils.events import EventStorage

    with EventStorage(0):
        yield


def _proposals(boxes, classes, wanted, weights):
    from detectron2.structures import Boxes, Instances

    found = Instances((64, 64))
    found.proposal_boxes = Boxes(torch.tensor(boxes))
    found.gt_classes = torch.tensor(classes)
    found.gt_boxes = Boxes(torch.tensor(wanted))
    found.gt_weights = torch.tensor(weights)
    return found


BOXES = [[10.0, 10.0, 30.0, 30.0], [30.0, 32.0, 50.0, 56.0], [2.0, 2.0, 12.0, 12.0]]
WANTED = [[12.0, 10.0, 31.0, 33.0], [31.0, 30.0, 52.0, 55.0], [2.0, 2.0, 12.0, 12.0]]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("BBOX_REG_LOSS_TYPE: smooth_l1", id="L1"),
        pytest.param("SMOOTH_L1_BETA: 0.1", id="smooth L1"),
        pytest.param("BBOX_REG_LOSS_TYPE: giou", id="giou"),
        pytest.param("BBOX_REG_LOSS_TYPE: diou", id="diou"),
        pytest.param("BBOX_REG_LOSS_TYPE: ciou", id="ciou"),
        pytest.param("{CLS_AGNOSTIC_BBOX_REG: true, USE_SIGMOID_CE: true}", id="sigmoid, boxes of no class"),
    ],
)
def test_losses_of_sure_objects_are_those_of_detectron2(tiny, stats, lines, storage):
    lines = lines if lines.startswith("{") else f"{{{lines}}}"
    head = build_model(f"detectron2:{tiny(f'MODEL: {{ROI_BOX_HEAD: {lines}}}')}", stats)
    from detectron2.modeling.roi_heads import FastRCNNOutputLayers

    predictor = head.network.roi_heads.box_predictor
    torch.manual_seed(1)
    predictions = torch.randn(3, 3), torch.randn(3, predictor.bbox_pred.out_features) * 0.1
    proposals = [_proposals(BOXES, [0, 1, 2], WANTED, [1.0, 1.0, 1.0])]
    ours = predictor.losses(predictions, proposals)
    theirs = FastRCNNOutputLayers.losses(predictor, predictions, proposals)
    assert ours.keys() == theirs.keys()
    for name, loss in theirs.items():
        assert float(ours[name]) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("sure", [0.2, 0.7, 1.0])
def test_the_class_loss_is_least_where_the_score_is_how_sure_the_label_is(model, sure):
    predictor = model.network.roi_heads.box_predictor
    proposals = [_proposals(BOXES[:1], [0], WANTED[:1], [sure])]

    def loss(score: float) -> float:
        logits = torch.tensor([[score, 0.0, 1 - score]]).clamp(min=1e-6).log()
        return float(predictor.losses((logits, torch.zeros(1, 8)), proposals)["loss_cls"])

    assert min((s / 10 for s in range(11)), key=loss) == pytest.approx(sure)


def test_boxes_and_masks_count_as_much_as_their_object_is_sure(model, discs):
    full, half = discs([(32, 32, 14)]), discs([(32, 32, 14)])
    half = dataclasses.replace(half, weights=torch.full((1,), 0.5))
    image = torch.rand(3, 64, 64)
    losses = []
    for target in (full, half):
        torch.manual_seed(0)
        losses.append(model.loss([image], [target]))
    sure, unsure = losses
    assert float(unsure["mask"].detach()) == pytest.approx(0.5 * float(sure["mask"].detach()), rel=1e-4)
    assert float(unsure["box_reg"].detach()) == pytest.approx(0.5 * float(sure["box_reg"].detach()), rel=1e-4)


def test_masks_learn_probabilities(model):
    from labelloop.integrations.detectron2.soft_heads import SoftMasks

    target = RoiTarget(
        boxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]),
        labels=torch.ones(1, dtype=torch.int64),
        weights=torch.ones(1),
        masks=torch.full((1, 64, 64), 102, dtype=torch.uint8),
        mask_scale=(1.0, 1.0),
        ignore_boxes=torch.zeros(0, 4),
    )
    proposals = _proposals([[8.0, 8.0, 40.0, 40.0]], [0], [[8.0, 8.0, 40.0, 40.0]], [1.0])
    proposals.gt_masks = SoftMasks(target, torch.tensor([0, 0]))[torch.tensor([1])]
    head = model.network.roi_heads.mask_head.train()
    head.layers = lambda x: x  # the logits themselves

    def loss(probability: float) -> float:
        logit = torch.logit(torch.tensor(probability))
        return float(head(logit.expand(1, 2, 28, 28), [proposals])["loss_mask"])

    assert min((p / 10 for p in range(1, 10)), key=loss) == pytest.approx(0.4)


def test_proposals_on_an_ignored_object_are_neither_positive_nor_background(model, discs, storage):
    from detectron2.structures import Boxes, Instances

    from labelloop.integrations.detectron2.soft_heads import as_instances

    target = dataclasses.replace(discs([(20, 20, 10), (46, 46, 10)]), ignore=torch.tensor([False, True]))
    wanted = as_instances(roi_target(target, (1.0, 1.0)), (64, 64))
    assert len(wanted) == 1
    proposals = Instances((64, 64))
    proposals.proposal_boxes = Boxes(torch.tensor([[38.0, 38.0, 54.0, 54.0], [0.0, 50.0, 10.0, 60.0]]))
    proposals.objectness_logits = torch.zeros(2)
    (found,) = model.network.roi_heads.label_and_sample_proposals([proposals], [wanted])
    by_box = {
        tuple(b): c for b, c in zip(found.proposal_boxes.tensor.tolist(), found.gt_classes, strict=True)
    }
    assert {box: int(label) for box, label in by_box.items()} == {
        (10.0, 10.0, 31.0, 31.0): 0,
        (0.0, 50.0, 10.0, 60.0): 2,  # the background
    }


def test_anchors_are_labelled_as_detectron2_does_but_for_those_on_ignored_objects(model, discs):
    from detectron2.modeling.proposal_generator import RPN

    from labelloop.integrations.detectron2.soft_heads import as_instances

    rpn = model.network.proposal_generator
    rpn.batch_size_per_image = 10_000  # nothing is left to chance
    features = [torch.zeros(1, 16, 64 // s, 64 // s) for s in (4, 8, 16, 32, 64)]
    anchors = rpn.anchor_generator(features)
    discs_there = discs([(20, 20, 10), (46, 46, 10)])
    wanted = as_instances(roi_target(discs_there, (1.0, 1.0)), (64, 64))
    (ours,), (boxes,) = rpn.label_and_sample_anchors(anchors, [wanted])
    (theirs,), (their_boxes,) = RPN.label_and_sample_anchors(rpn, anchors, [wanted])
    assert torch.equal(ours, theirs)
    assert torch.equal(boxes[ours == 1], their_boxes[ours == 1])
    for name, changed in (
        ("ignored", dataclasses.replace(discs_there, ignore=torch.tensor([False, True]))),
        ("less likely than not", dataclasses.replace(discs_there, weights=torch.tensor([1.0, 0.3]))),
    ):
        target = as_instances(roi_target(changed, (1.0, 1.0)), (64, 64))
        (labels,), _ = rpn.label_and_sample_anchors(anchors, [target])
        everywhere = torch.cat([a.tensor for a in anchors])
        inside = (everywhere >= 36).all(1) & (everywhere <= 57).all(1)
        assert inside.any()
        assert (labels[inside] == -1).all(), name
        assert (labels == 0).any(), name


def test_every_stage_of_a_cascade_leaves_ignored_objects_out_and_keeps_weights(tiny, stats, discs, storage):
    cascade = "MODEL: {ROI_HEADS: {NAME: CascadeROIHeads}, ROI_BOX_HEAD: {CLS_AGNOSTIC_BBOX_REG: true}}"
    heads = build_model(f"detectron2:{tiny(cascade)}", stats).network.roi_heads
    from detectron2.structures import Boxes, Instances

    from labelloop.integrations.detectron2.soft_heads import as_instances

    target = dataclasses.replace(
        discs([(20, 20, 10), (46, 46, 10)]),
        weights=torch.tensor([0.7, 1.0]),
        ignore=torch.tensor([False, True]),
    )
    wanted = as_instances(roi_target(target, (1.0, 1.0)), (64, 64))
    on_object, on_ignored, elsewhere = (
        [11.0, 10.0, 31.0, 31.0], [38.0, 38.0, 54.0, 54.0], [0.0, 50.0, 10.0, 60.0],
    )  # fmt: skip
    proposals = Instances((64, 64))
    proposals.proposal_boxes = Boxes(torch.tensor([on_object, on_ignored, elsewhere]))
    (found,) = heads._match_and_label_boxes([proposals], 2, [wanted])
    assert found.proposal_boxes.tensor.tolist() == [on_object, elsewhere]
    assert found.gt_classes.tolist() == [0, 2]  # 2 is the background
    assert float(found.gt_weights[0]) == pytest.approx(0.7)
