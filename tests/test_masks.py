import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import paste_masks_in_image

from labelloop.masks import resample_mask


@given(
    seed=st.integers(0, 10_000),
    side=st.integers(2, 28),
    x0=st.floats(-10, 40),
    y0=st.floats(-10, 40),
    w=st.floats(1, 60),
    h=st.floats(1, 60),
)
def test_crops_lie_in_the_image_and_hold_probabilities(seed, side, x0, y0, w, h):
    mask = np.random.default_rng(seed).random((side, side), dtype=np.float32)
    crop, top, left = resample_mask(mask, (x0, y0, x0 + w, y0 + h), (48, 40))
    assert crop.dtype == np.uint8
    assert crop.size >= 1
    assert 0 <= top <= top + crop.shape[0] <= 48
    assert 0 <= left <= left + crop.shape[1] <= 40


def test_a_mask_on_its_own_grid_comes_back_as_it_is():
    mask = (np.random.default_rng(0).random((9, 13)) > 0.5).astype(np.float32)
    crop, top, left = resample_mask(mask, (4, 6, 17, 15), (30, 30))
    image = np.zeros((30, 30), np.uint8)
    image[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    assert np.array_equal(image[6:15, 4:17], mask * 255)
    assert image.sum() == mask.sum() * 255


def test_resampling_agrees_with_torchvision_up_to_a_pixel_at_the_rim():
    yy, xx = np.mgrid[:28, :28]
    mask = (((yy - 13.5) ** 2 + (xx - 13.5) ** 2) < 13**2).astype(np.float32)
    box = (10.0, 20.0, 70.0, 62.0)
    crop, top, left = resample_mask(mask, box, (100, 100))
    ours = np.zeros((100, 100), bool)
    ours[top : top + crop.shape[0], left : left + crop.shape[1]] = crop > 127
    theirs = paste_masks_in_image(torch.from_numpy(mask)[None, None], torch.tensor([box]), (100, 100))
    theirs = theirs[0, 0].numpy() > 0.5
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95  # its boxes are a pixel wider


def test_what_a_box_is_trained_on_is_what_it_paints():
    """A disc cut into a box's grid and painted back is the disc: no half-pixel drift between the two."""
    from labelloop.models.regions import RoiTarget, masks_in_boxes

    yy, xx = np.mgrid[:64, :64]
    disc = (((yy - 30) ** 2 + (xx - 34) ** 2) <= 14**2).astype(np.uint8) * 255
    box = torch.tensor([[20.0, 16.0, 49.0, 45.0]])
    target = RoiTarget(
        boxes=box,
        labels=torch.ones(1, dtype=torch.int64),
        weights=torch.ones(1),
        masks=torch.from_numpy(disc)[None],
        mask_scale=(1.0, 1.0),
        ignore_boxes=torch.zeros(0, 4),
    )
    grid = masks_in_boxes(box, torch.zeros(1, dtype=torch.int64), target, 28)[0].numpy()
    crop, top, left = resample_mask(grid, box[0].numpy(), (64, 64))
    painted = np.zeros((64, 64), bool)
    painted[top : top + crop.shape[0], left : left + crop.shape[1]] = crop > 127
    assert (painted & (disc > 0)).sum() / (painted | (disc > 0)).sum() > 0.98
