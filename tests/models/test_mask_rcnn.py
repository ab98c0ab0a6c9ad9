import dataclasses

import numpy as np
import pytest
import torch

from labelloop.models.catalog import build_model
from labelloop.models.inputs import resized
from labelloop.models.mask_rcnn import fit_to
from labelloop.models.protocol import Target, to_instances
from labelloop.models.regions import covered_share, roi_target, rpn_target
from labelloop.models.roi_heads import HeadConfig, _box_losses


@pytest.fixture
def model(stats):
    torch.manual_seed(0)
    return build_model("mask-rcnn-lite", stats, pretrained=False)


@pytest.fixture
def unknown():
    """The target of an image that nobody has looked at."""

    def make(height: int, width: int) -> Target:
        return Target(
            masks=torch.full((1, height, width), 255, dtype=torch.uint8),
            labels=torch.zeros(1, dtype=torch.int64),
            weights=torch.ones(1),
            ignore=torch.ones(1, dtype=torch.bool),
        )

    return make


def test_a_few_steps_on_one_image_find_its_discs(stats, discs):
    torch.manual_seed(0)
    model = build_model("mask-rcnn-lite", stats)
    target = discs([(20, 20, 9), (44, 40, 12)])
    image = (target.masks.amax(0).float() / 255 * 0.8 + 0.1).expand(3, -1, -1).contiguous()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    for _ in range(60):
        loss = sum(model.loss([image, image], [target, target]).values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    found = to_instances(model.predict([image], min_score=0.5)[0])
    truth = target.masks.numpy() > 0
    masks = found.to_dense()
    ious = [max((m & t).sum() / (m | t).sum() for m in masks) for t in truth]
    assert min(ious) > 0.6


@pytest.mark.parametrize("name", ["mask-rcnn-r50", "torchvision-mask-rcnn-r50-v2"])
def test_normalisations_stay_those_of_the_pretraining(stats, discs, name):
    torch.manual_seed(0)
    model = build_model(name, stats, pretrained=False).module()
    before = {key: value.clone() for key, value in model.state_dict().items() if "running_" in key}
    target = discs([(20, 20, 9)])
    model.loss([torch.rand(3, 64, 64)], [target])  # one image: its own statistics would be poor ones
    after = model.state_dict()
    assert before
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_images_without_objects_give_finite_losses(model, discs):
    image = torch.rand(3, 64, 64)
    losses = model.loss([image, image], [discs([]), discs([(30, 30, 10)])])
    assert all(torch.isfinite(loss) for loss in losses.values())
    only_empty = model.loss([image], [discs([])])
    assert all(torch.isfinite(loss) for loss in only_empty.values())
    assert float(only_empty["mask"].detach()) == 0


def test_a_step_whose_every_proposal_is_left_out_has_finite_losses_and_gradients(model, discs):
    """One image, its one object ignored and as large as the image: no box is to be learnt from."""
    ignored = dataclasses.replace(discs([(32, 32, 60)]), ignore=torch.tensor([True]))
    losses = model.loss([torch.rand(3, 64, 64)], [ignored])
    sum(losses.values()).backward()
    assert float(losses["box"].detach()) == float(losses["mask"].detach()) == 0
    for loss in losses.values():
        assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_step_that_shows_nothing_but_unknown_area_teaches_nothing(stats, unknown):
    model = build_model("mask-rcnn-lite", dataclasses.replace(stats, input_scale=1.0), pretrained=False)
    losses = model.loss([torch.rand(3, 64, 64)], [unknown(64, 64)])  # no padding, which is background
    sum(losses.values()).backward()
    assert {float(loss.detach()) for loss in losses.values()} == {0.0}
    assert all((p.grad == 0).all() for p in model.rpn.parameters())


def test_an_ignored_object_is_neither_positive_nor_background(model, discs):
    target = discs([(32, 32, 14)])
    ignored = dataclasses.replace(target, ignore=torch.tensor([True]))
    boxes = torch.tensor([[18.0, 18.0, 46.0, 46.0], [0.0, 0.0, 8.0, 8.0]])
    roi = roi_target(ignored, (1.0, 1.0))
    assert len(roi.boxes) == 0
    torch.manual_seed(0)
    kept, labels, _ = model.roi_heads._sample(boxes, roi)
    assert kept.tolist() == [[0.0, 0.0, 8.0, 8.0]]
    assert labels.tolist() == [0]


def test_a_weight_of_zero_takes_an_object_out_of_the_mask_loss(model, discs):
    target = discs([(32, 32, 14)])
    image = torch.rand(3, 64, 64)
    weightless = dataclasses.replace(target, weights=torch.zeros(1))
    torch.manual_seed(0)
    assert float(model.loss([image], [target])["mask"].detach()) > 0
    torch.manual_seed(0)
    assert float(model.loss([image], [weightless])["mask"].detach()) == 0


@pytest.mark.parametrize("sure", [0.2, 0.7, 1.0])
def test_the_class_loss_is_least_where_the_score_is_how_sure_the_label_is(sure):
    labels, weights = torch.tensor([1, 0]), torch.tensor([sure, 1.0])

    def class_loss(score: float) -> float:
        logits = torch.tensor([[1 - score, score], [0.999, 0.001]]).clamp(min=1e-6).log()
        zeros = torch.zeros(2, 8), torch.zeros(2, 4)
        return float(_box_losses(logits, zeros[0], labels, zeros[1], weights, HeadConfig())[0])

    scores = [s / 10 for s in range(11)]
    assert min(scores, key=class_loss) == pytest.approx(sure)


def test_anchors_are_not_taught_on_objects_that_are_less_likely_than_not(model, discs):
    target = discs([(20, 20, 9), (44, 44, 9)])
    doubtful = dataclasses.replace(target, weights=torch.tensor([1.0, 0.3]))
    found = rpn_target(roi_target(doubtful, (1.0, 1.0)))
    assert found["boxes"].tolist() == [[11.0, 11.0, 30.0, 30.0]]
    assert found["unsure_boxes"].tolist() == [[35.0, 35.0, 54.0, 54.0]]


def test_covered_share_is_the_part_of_a_box_that_an_ignored_box_covers():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    assert covered_share(boxes, torch.tensor([[5.0, 0.0, 100.0, 10.0]])).tolist() == [0.5, 0.0]
    assert covered_share(boxes, torch.zeros(0, 4)).tolist() == [0.0, 0.0]


def test_of_a_box_that_leaves_the_image_only_what_is_inside_has_to_be_covered():
    boxes = torch.tensor([[-30.0, 10.0, 10.0, 20.0], [60.0, 60.0, 100.0, 68.0], [70.0, 0.0, 90.0, 10.0]])
    ignored, image = torch.tensor([[0.0, 0.0, 64.0, 64.0]]), torch.tensor([0.0, 0.0, 64.0, 64.0])
    assert covered_share(boxes, ignored, inside=image).tolist() == [1, 1, 0]  # the last is outside of it
    assert covered_share(boxes, ignored).tolist() == pytest.approx([0.25, 0.05, 0])
    assert covered_share(boxes, boxes[:0], ignored, inside=image).tolist() == [1, 1, 0]  # as an unsure one


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_no_anchor_is_background_where_all_that_it_shows_is_unknown(model, unknown, scale):
    high, wide = 64 * scale, 96 * scale
    corner, padding = [wide - 8, high - 8, wide + 30, high + 30], [wide, 0, wide + 9, 9]
    anchors = torch.tensor([[-20.0, 10, 10, 40], corner, [20, 20, 40, 40], padding])
    target = rpn_target(roi_target(unknown(64, 96), (scale, scale)))
    labels, _ = model.rpn.assign_targets_to_anchors([anchors], [target])
    assert labels[0].tolist() == [-1, -1, -1, 0]  # padding is background


def test_what_is_known_beside_an_unknown_region_is_taught(unknown):
    target = unknown(64, 64)
    target.masks[0, 32:, 32:] = 0  # one tile of four came back
    ignored = roi_target(target, (2.0, 2.0)).ignore_boxes
    known, half_known, unknown_box = (80, 80, 120, 120), (40, 80, 80, 120), (30, 40, 110, 60)
    boxes = torch.tensor([known, half_known, unknown_box], dtype=torch.float32)
    assert covered_share(boxes, ignored).tolist() == pytest.approx([0, 0.6, 1])


def test_an_ignored_object_counts_by_its_box(discs):
    target = dataclasses.replace(discs([(32, 32, 24)]), ignore=torch.ones(1, dtype=torch.bool))
    assert roi_target(target, (1.0, 1.0)).ignore_boxes.tolist() == [[8.0, 8.0, 57.0, 57.0]]


def test_fit_to_brings_the_median_object_to_the_wanted_size_and_room_for_the_fullest_image(stats):
    crowded = dataclasses.replace(stats, objects_per_image=(200.0, 400.0), diameter_px=(5.0, 10.0, 20.0))
    config = fit_to(crowded, target_diameter_px=40.0, head=HeadConfig())
    assert config.input_scale == 2.0  # not enlarged more than twice
    assert config.head.detections_per_image >= 800
    assert config.head.boxes_per_image == 400
    assert config.proposals_test[1] >= config.head.detections_per_image
    large = fit_to(
        dataclasses.replace(stats, diameter_px=(100.0, 160.0, 300.0)),
        target_diameter_px=40,
        head=HeadConfig(),
    )
    assert large.input_scale == 0.25
    assert list(large.anchor_sides) == sorted(large.anchor_sides)


@pytest.mark.parametrize(
    ("median", "scale"),
    [(104.0, 0.5), (40.0, 1.3), (30.0, 1.5), (20.0, 1.6), (10.0, 2.0)],
    ids=["shrunk", "enlarged", "no more than half as large again", "small ones to 32 px", "at most twice"],
)
def test_images_are_enlarged_as_far_as_it_pays(stats, median, scale):
    sized = dataclasses.replace(stats, diameter_px=(median / 2, median, median * 2))
    config = fit_to(sized, target_diameter_px=52.0, head=HeadConfig())
    assert config.input_scale == pytest.approx(scale)


def test_half_precision_and_full_precision_see_about_the_same(model):
    image = torch.rand(3, 64, 64)
    plain = model.predict([image], min_score=0.0)[0]
    with torch.autocast("cpu", torch.bfloat16):
        narrow = model.predict([image], min_score=0.0)[0]
    assert np.isclose(plain.scores[:5].mean(), narrow.scores[:5].mean(), atol=0.05)


@pytest.mark.parametrize("name", ["mask-rcnn-lite", "mask2former-lite"])
def test_a_network_answers_alike_whoever_resizes_the_image(stats, name):
    large = dataclasses.replace(stats, diameter_px=(160.0, 208.0, 256.0), box_side_px=(160.0, 208.0, 256.0))
    torch.manual_seed(0)
    model = build_model(name, large, pretrained=False)
    assert model.grid_scale == 52 / 208
    image = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(image[None], (640, 768), mode="bilinear")[0]
    small, _ = resized(image, model.grid_scale)
    (whole,) = model.predict([image], min_score=0.0)
    (seen,) = model.predict([small], min_score=0.0, resized_by=model.grid_scale)
    assert (whole.size_hw, seen.size_hw) == ((640, 768), tuple(small.shape[1:]))
    assert seen.class_probabilities[:5] == pytest.approx(whole.class_probabilities[:5], abs=1e-3)
    areas = [np.array([c.sum() / 255 for c in p.crops[:5]]) for p in (whole, seen)]
    assert areas[1] / model.grid_scale**2 == pytest.approx(areas[0], rel=0.1)


def test_a_network_learns_alike_whoever_resizes_the_image(stats):
    large = dataclasses.replace(stats, diameter_px=(160.0, 208.0, 256.0), box_side_px=(160.0, 208.0, 256.0))
    torch.manual_seed(0)
    model = build_model("mask-rcnn-lite", large, pretrained=False)
    yy, xx = np.mgrid[:640, :640]
    masks = torch.from_numpy(np.where((yy - 300) ** 2 + (xx - 340) ** 2 < 104**2, 255, 0).astype(np.uint8))
    target = Target(
        masks=masks[None],
        labels=torch.zeros(1, dtype=torch.int64),
        weights=torch.ones(1),
        ignore=torch.zeros(1, dtype=torch.bool),
    )
    image = (masks / 255).expand(3, -1, -1).contiguous()
    small, _ = resized(image, 0.25)
    coarse = dataclasses.replace(target, masks=(small[:1] * 255).to(torch.uint8))
    losses = []
    for pair, told in (((image, target), 1.0), ((small, coarse), 0.25)):
        torch.manual_seed(1)
        losses.append(model.loss([pair[0]], [pair[1]], resized_by=told))
    for part, value in losses[0].items():
        assert float(losses[1][part].detach()) == pytest.approx(float(value.detach()), rel=0.1, abs=0.02)
