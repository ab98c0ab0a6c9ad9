import dataclasses

import pytest
import torch
import torch.nn.functional as F

from labelloop.errors import TrainingError
from labelloop.models.mask2former_criterion import (
    CriterionConfig,
    QueryOutput,
    QueryTarget,
    query_losses,
    sample_masks,
    uncertain_points,
)
from labelloop.models.protocol import Amount

FEW = CriterionConfig(points=400)


def target_of(*boxes, weights=None, ignored=None, size=32):
    """Rectangles (top, left, bottom, right) as a target, and one more that is ignored."""
    masks = torch.zeros(len(boxes), size, size, dtype=torch.uint8)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 255
    hidden = None
    if ignored is not None:
        hidden = torch.zeros(size, size, dtype=torch.uint8)
        hidden[ignored[0] : ignored[2], ignored[1] : ignored[3]] = 255
    return QueryTarget(
        masks=masks,
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        weights=torch.ones(len(boxes)) if weights is None else torch.tensor(weights),
        ignored=hidden,
        extent_xy=torch.ones(2),
    )


def output_of(*boxes, spare=2, size=8, sure=4.0):
    """An output whose first queries see these rectangles (px of a grid of this size), the others nothing."""
    masks = torch.full((1, len(boxes) + spare, size, size), -sure)
    for mask, (top, left, bottom, right) in zip(masks[0], boxes, strict=False):
        mask[top:bottom, left:right] = sure
    classes = torch.randn(1, len(boxes) + spare, 2, generator=torch.Generator().manual_seed(0))
    return QueryOutput(classes_BQK=classes.requires_grad_(), masks_BQHW=masks.requires_grad_())


def losses(outputs, targets, config=FEW, whole=None):
    torch.manual_seed(0)
    return query_losses(outputs, targets, config, whole)


ONE, TWO, THREE = (0, 0, 12, 12), (16, 16, 28, 28), (0, 20, 8, 32)
SEEN = [tuple(side // 4 for side in box) for box in (ONE, TWO, THREE)]


def test_the_order_of_the_objects_does_not_matter():
    output = output_of(*SEEN)
    straight = losses([output, output], [target_of(ONE, TWO, THREE, weights=[1.0, 0.5, 0.8])])
    turned = losses([output, output], [target_of(THREE, ONE, TWO, weights=[0.8, 1.0, 0.5])])
    for name, loss in straight.items():
        assert float(turned[name].detach()) == pytest.approx(float(loss.detach()), rel=1e-5)


def test_every_output_of_the_decoder_is_taught():
    first, last = output_of(*SEEN), output_of(*SEEN)
    sum(losses([first, last], [target_of(ONE, TWO)]).values()).backward()
    assert first.masks_BQHW.grad.abs().sum() > 0
    assert last.classes_BQK.grad.abs().sum() > 0


@pytest.mark.parametrize("sure", [0.2, 0.7, 1.0])
def test_the_class_loss_is_least_where_the_score_is_how_sure_the_label_is(sure):
    def class_loss(score: float) -> float:
        output = output_of(SEEN[0], spare=0)
        classes = torch.tensor([[[score, 1 - score]]]).clamp(min=1e-6).log()
        output = dataclasses.replace(output, classes_BQK=classes)
        return float(losses([output], [target_of(ONE, weights=[sure])])["class"].detach())

    scores = [s / 10 for s in range(11)]
    assert min(scores, key=class_loss) == pytest.approx(sure)


def test_an_object_of_weight_zero_teaches_what_no_object_teaches():
    output = output_of(*SEEN[:2])
    without = losses([output], [target_of(ONE)])
    found = losses([output], [target_of(ONE, TWO, weights=[1.0, 0.0])])
    assert torch.equal(found["class"], without["class"])
    (found["mask"] + found["dice"]).backward()
    assert output.masks_BQHW.grad[0, 0].abs().sum() > 0
    assert output.masks_BQHW.grad[0, 1].abs().sum() == 0


def test_a_doubtful_object_takes_no_query_from_a_sure_one():
    output = output_of(SEEN[0])  # one query sees what both objects are
    for weights, kept in (([1.0, 0.1], 0), ([0.1, 1.0], 1)):
        target = target_of(ONE, (0, 0, 11, 12), weights=weights)
        classes = torch.zeros(1, 3, 2, requires_grad=True)
        losses([dataclasses.replace(output, classes_BQK=classes)], [target])["class"].backward()
        assert classes.grad[0, 0, 0] < 0  # towards the object
        assert float(target.weights[kept]) == 1.0
        assert classes.grad[0, 0, 0] == classes.grad[0].min()


def test_masks_count_as_much_as_their_objects_are_sure():
    grads = []
    for weights in ([1.0, 1.0], [1.0, 0.25]):
        output = output_of(*SEEN[:2])
        losses([output], [target_of(ONE, TWO, weights=weights)])["mask"].backward()
        grads.append(output.masks_BQHW.grad[0].abs().sum((1, 2)))
    both, doubtful = grads
    assert float(doubtful[1] / doubtful[0]) == pytest.approx(0.25 * float(both[1] / both[0]), rel=1e-4)


def test_a_query_on_an_ignored_object_is_neither_an_object_nor_none():
    output = output_of(*SEEN[:2])
    losses([output], [target_of(ONE, ignored=TWO)])["class"].backward()
    assert output.classes_BQK.grad[0, 1].abs().sum() == 0
    assert all(output.classes_BQK.grad[0, q].abs().sum() > 0 for q in (0, 2, 3))


def test_an_object_that_lies_on_an_ignored_one_is_learnt_all_the_same():
    output = output_of(*SEEN[:1])
    plain = losses([output], [target_of(ONE)])
    found = losses([output], [target_of(ONE, ignored=ONE)])
    assert all(torch.equal(found[name], plain[name]) for name in ("mask", "dice"))
    found["class"].backward()
    assert output.classes_BQK.grad[0, 0, 0] < 0


def test_an_ignored_object_that_no_query_sees_changes_nothing():
    output = output_of(*SEEN[:2])
    plain = losses([output, output], [target_of(ONE, TWO)])
    found = losses([output, output], [target_of(ONE, TWO, ignored=THREE)])
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_where_a_mask_is_undecided_an_ignored_object_takes_its_pixels_out():
    grads = []
    for ignored in (None, (4, 4, 16, 16)):
        output = output_of((1, 1, 4, 7))
        target = target_of((4, 4, 16, 28), ignored=ignored)
        target.masks[0, 4:16, 4:16] = 128  # its left half may be something else
        found = losses([output], [target])
        (found["mask"] + found["dice"]).backward()
        grads.append(output.masks_BQHW.grad[0, 0].abs())
    with_them, without = grads
    assert without[2, 2] < 0.03 * with_them[2, 2]
    assert without[2, 5] > 0.5 * with_them[2, 5] > 0


@pytest.mark.parametrize("level", [127, 200, 60])
def test_a_pixel_on_an_ignored_object_counts_by_how_decided_its_mask_is(level):
    grads = []
    for ignored in (None, (0, 0, 32, 32)):
        output, target = output_of((0, 0, 8, 8)), target_of((0, 0, 32, 32), ignored=ignored)
        target.masks[:] = level
        losses([output], [target])["mask"].backward()
        grads.append(output.masks_BQHW.grad[0, 0, 2:6, 2:6])  # not at the border
    plain, counted = grads
    assert torch.allclose(counted, plain * (abs(2 * level - 255) / 255), rtol=1e-3)


def test_more_objects_than_queries_are_a_loud_error():
    with pytest.raises(TrainingError, match="more objects") as error:
        losses([output_of(SEEN[0], spare=0)], [target_of(ONE, TWO)])
    assert "2 objects, 1 queries" in str(error.value)


def test_images_without_objects_teach_that_there_is_none():
    output = output_of(*SEEN)
    found = losses([output], [target_of()])
    sum(found.values()).backward()
    assert float(found["mask"].detach()) == float(found["dice"].detach()) == 0
    assert (output.classes_BQK.grad[0, :, 1] < 0).all()


def test_losses_are_float32_and_the_same_under_autocast():
    output = output_of(*SEEN)
    plain = losses([output], [target_of(ONE, TWO, ignored=THREE)])
    with torch.autocast("cpu", torch.bfloat16):
        narrow = losses([output], [target_of(ONE, TWO, ignored=THREE)])
    for name, loss in plain.items():
        assert loss.dtype == narrow[name].dtype == torch.float32
        assert torch.equal(loss, narrow[name])


@pytest.mark.parametrize("shared", [True, False])
def test_bytes_are_sampled_as_floats_are(shared):
    torch.manual_seed(0)
    masks = torch.randint(0, 256, (3, 7, 11), dtype=torch.uint8)
    points = torch.rand(1 if shared else 3, 50, 2)
    wanted = F.grid_sample(
        masks[:, None].float() / 255, 2 * points.expand(3, -1, -1)[:, :, None] - 1, align_corners=False
    )
    assert torch.allclose(sample_masks(masks, points), wanted[:, 0, :, 0], atol=1e-6)


def test_points_are_chosen_where_the_mask_is_least_sure():
    logits = (torch.arange(64) - 31.5).expand(1, 64, 64)  # sure everywhere but in the middle
    torch.manual_seed(0)
    points = uncertain_points(logits, torch.ones(1, 1, 2), CriterionConfig(points=1000))
    assert points.shape == (1, 1000, 2)
    from_middle = (points[0, :, 0] - 0.5).abs()
    assert from_middle[:750].max() < 0.2  # three times as many drawn, a quarter of them kept
    assert from_middle[750:].max() > 0.4  # the rest anywhere


@pytest.mark.parametrize("ignored", [None, (0, 0, 32, 32)], ids=["all counts", "some queries are left out"])
def test_a_part_with_half_of_what_a_step_holds_has_half_of_its_own_loss(ignored):
    outputs = [output_of(*SEEN), output_of(*SEEN)]
    target = target_of(ONE, TWO, weights=[1.0, 0.6], ignored=ignored)
    alone = losses(outputs, [target])
    half = losses(outputs, [target], whole=Amount(images=2, objects=3.2))
    for name, loss in alone.items():
        assert float(half[name].detach()) == pytest.approx(float(loss.detach()) / 2, rel=1e-6)


def test_the_padding_of_a_batch_is_no_part_of_an_image():
    """An image in a batch that is twice as wide learns what it learns alone, whatever the padding holds."""
    alone = output_of(*SEEN)
    masks = alone.masks_BQHW.detach()
    padded = F.pad(torch.cat([masks, masks[..., -1:]], -1), (0, 7), value=50.0)
    wide = dataclasses.replace(target_of(ONE, TWO), extent_xy=torch.tensor([0.5, 1.0]))
    config = dataclasses.replace(FEW, importance=0.0)
    a = losses([alone], [target_of(ONE, TWO)], config)
    b = losses([dataclasses.replace(alone, masks_BQHW=padded)], [wide], config)
    assert float(b["dice"].detach()) == pytest.approx(float(a["dice"].detach()), rel=0.05)
