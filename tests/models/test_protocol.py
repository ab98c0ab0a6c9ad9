import dataclasses

import numpy as np
import pytest
import torch

from labelloop.models.catalog import build_model
from labelloop.models.protocol import Prediction, rank_by_mask_quality
from labelloop.predict.field import mask_cut


def predicted(scores, quality):
    n = len(scores)
    return Prediction(
        size_hw=(20, 20),
        labels=np.arange(n, dtype=np.int64),
        scores=np.asarray(scores, np.float32),
        quality=np.asarray(quality, np.float32),
        crops=tuple(np.full((2, i + 1), 255, np.uint8) for i in range(n)),
        offsets_yx=np.asarray([(i, i) for i in range(n)], np.int64).reshape(-1, 2),
    )


def test_a_sharp_mask_ranks_before_a_blurred_one_that_scored_higher():
    ranked = rank_by_mask_quality(predicted([0.9, 0.8, 0.3], [0.5, 1.0, 0.9]), min_score=0.0)
    assert ranked.labels.tolist() == [1, 0, 2]
    assert np.allclose(ranked.scores, [0.8, 0.45, 0.27])
    assert [crop.shape for crop in ranked.crops] == [(2, 2), (2, 1), (2, 3)]
    assert ranked.offsets_yx.tolist() == [[1, 1], [0, 0], [2, 2]]
    assert np.allclose(ranked.quality, [1.0, 0.5, 0.9])


def test_what_is_worth_less_than_the_least_score_is_left_out():
    assert rank_by_mask_quality(predicted([0.9, 0.06], [1.0, 0.8]), min_score=0.05).labels.tolist() == [0]
    assert len(rank_by_mask_quality(predicted([], []), min_score=0.05)) == 0


def test_the_mask_that_a_score_was_made_of_is_the_mask_that_is_kept():
    plain = predicted([0.9], [0.5])
    assert mask_cut(plain) < 0.5  # the IoU of a mask is best there
    assert mask_cut(dataclasses.replace(plain, class_scores=np.array([0.95], np.float32))) == 0.5


def test_a_score_that_holds_the_quality_of_the_mask_already_is_not_weighed_twice():
    plain = predicted([0.9, 0.8], [0.5, 1.0])
    published = dataclasses.replace(plain, class_scores=np.array([0.95, 0.85], np.float32))
    assert rank_by_mask_quality(plain, min_score=0.0).scores.tolist() == pytest.approx([0.8, 0.45])
    ranked = rank_by_mask_quality(published, min_score=0.0)
    assert ranked.scores.tolist() == pytest.approx([0.9, 0.8])
    assert ranked.class_scores.tolist() == pytest.approx([0.95, 0.85])


@pytest.fixture(params=["mask-rcnn-lite", "mask2former-lite"])
def model(request, stats):
    torch.manual_seed(0)
    return build_model(request.param, stats, pretrained=False)


def test_images_of_different_sizes_share_a_batch_and_keep_their_coordinates(model):
    small, large = torch.rand(3, 40, 56), torch.rand(3, 96, 64)
    predictions = model.predict([small, large], min_score=0.0)
    assert [p.size_hw for p in predictions] == [(40, 56), (96, 64)]
    for p in predictions:
        for crop, (y, x) in zip(p.crops, p.offsets_yx, strict=True):
            assert 0 <= y <= y + crop.shape[0] <= p.size_hw[0]
            assert 0 <= x <= x + crop.shape[1] <= p.size_hw[1]


def test_prediction_leaves_the_mode_as_it_was_and_no_gradients(model):
    model.train()
    model.predict([torch.rand(3, 48, 48)])
    assert model.training
    assert all(p.grad is None for p in model.parameters())
