"""Instances.crop decodes run lengths by itself: pycocotools is the truth."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labelloop.instances import Instances


@given(
    hnp.arrays(
        np.bool_,
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=40),
        elements=st.booleans(),
        fill=st.booleans(),
    )
)
def test_a_crop_is_the_mask_within_its_box(masks: np.ndarray) -> None:
    instances = Instances.from_dense(masks)
    for i, (left, top, right, bottom) in enumerate(instances.boxes_xyxy.astype(int)):
        crop, crop_top, crop_left = instances.crop(i)
        if not masks[i].any():
            assert crop.size == 0
            continue
        assert (crop_top, crop_left) == (top, left)
        assert np.array_equal(crop, masks[i][top:bottom, left:right])


def test_long_runs_of_a_large_image_are_decoded() -> None:
    mask = np.zeros((1, 3000, 2500), bool)
    mask[0, 100:2900, 7:2000] = True
    crop, top, left = Instances.from_dense(mask).crop(0)
    assert (top, left) == (100, 7)
    assert crop.shape == (2800, 1993)
    assert crop.all()
