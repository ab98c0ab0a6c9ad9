import numpy as np
import pytest
import torch
import torch.nn.functional as F

from labelloop.models.protocol import to_instances
from labelloop.models.query_masks import LEAST_PROBABILITY, query_prediction


def smooth(n, height, width, seed=0):
    coarse = torch.randn(n, 1, 5, 5, generator=torch.Generator().manual_seed(seed)) * 4
    return F.interpolate(coarse, (height, width), mode="bicubic")[:, 0]


def sure(n, classes=1):
    logits = torch.zeros(n, classes + 1)
    logits[:, 0] = 10.0
    return logits


def painted(prediction, i):
    full = np.zeros(prediction.size_hw, np.float32)
    (y, x), crop = prediction.offsets_yx[i], prediction.crops[i]
    full[y : y + crop.shape[0], x : x + crop.shape[1]] = crop / 255
    return full


@pytest.mark.parametrize("size_hw", [(64, 96), (50, 75), (128, 192)])
def test_crops_are_the_full_size_interpolation(size_hw):
    masks = smooth(12, 16, 24)
    classes = torch.linspace(6, 1, 12)[:, None] * torch.tensor([[1.0, 0.0]])  # ordered by score
    cells = (24 / size_hw[1], 16 / size_hw[0])
    found = query_prediction(classes, masks, cells_per_px_xy=cells, size_hw=size_hw, min_score=0.0)
    full = F.interpolate(masks[:, None], size_hw, mode="bilinear")[:, 0].sigmoid().numpy()
    means = np.array([(f[f > 0.5]).mean() for f in full])
    scores = classes.softmax(-1)[:, 0].numpy() * means
    order = np.argsort(-scores)
    assert len(found) == 12
    assert np.allclose(found.scores, scores[order], atol=1e-5)
    assert np.allclose(found.quality, 2 * means[order] - 1, atol=1e-5)
    for i, wanted in enumerate(full[order]):
        seen = painted(found, i)
        inside = wanted > LEAST_PROBABILITY
        assert np.abs(seen - wanted)[inside].max() <= 0.5 / 255 + 1e-5
        assert (seen[~inside] <= LEAST_PROBABILITY + 0.01).all()


def test_a_far_object_costs_no_more_than_its_own_neighbourhood():
    masks = torch.full((300, 64, 64), -8.0)
    for i in range(300):
        y, x = i // 20 * 4, i % 20 * 3
        masks[i, y : y + 3, x : x + 3] = 8.0
    found = query_prediction(
        sure(300), masks, cells_per_px_xy=(0.25, 0.25), size_hw=(256, 256), min_score=0.0
    )
    assert len(found) == 300
    assert max(crop.size for crop in found.crops) <= 24 * 24


def test_overlap_is_kept():
    masks = torch.full((2, 16, 16), -8.0)
    masks[0, 2:10, 2:10] = 8.0
    masks[1, 6:14, 6:14] = 8.0
    found = query_prediction(sure(2), masks, cells_per_px_xy=(0.25, 0.25), size_hw=(64, 64), min_score=0.0)
    dense = to_instances(found).to_dense()
    assert (dense[0] & dense[1]).sum() == pytest.approx(16 * 16, rel=0.2)


def test_a_query_is_one_object_of_its_likeliest_class():
    masks = torch.full((1, 8, 8), 5.0)
    found = query_prediction(
        torch.tensor([[1.0, 1.2, 0.0]]), masks, cells_per_px_xy=(0.25, 0.25), size_hw=(32, 32), min_score=0.0
    )
    assert found.labels.tolist() == [1]


def test_unlikely_empty_and_padding_masks_are_left_out():
    masks = torch.full((3, 16, 16), -8.0)
    masks[0, 2:4, 2:4] = 8.0  # unlikely
    masks[1, 12:, 12:] = 8.0  # in the padding: the image ends after 32 px
    classes = torch.tensor([[0.0, 5.0], [9.0, 0.0], [9.0, 0.0]])
    found = query_prediction(classes, masks, cells_per_px_xy=(0.25, 0.25), size_hw=(32, 32), min_score=0.05)
    assert len(found) == 0
    assert found.offsets_yx.shape == (0, 2)
