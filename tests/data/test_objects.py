from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from labelloop.data.objects import objects_of
from labelloop.instances import Instances


@given(st_np.arrays(np.bool_, st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 9))))
def test_objects_are_the_masks_cut_to_their_boxes_and_empty_ones_are_left_out(masks):
    instances = Instances.from_dense(masks, size_hw=masks.shape[1:])
    objects = objects_of(instances)
    pasted = np.zeros((len(objects), *masks.shape[1:]), np.bool_)
    for i, (crop, (top, left)) in enumerate(zip(objects.crops, objects.offsets_yx, strict=True)):
        pasted[i, top : top + crop.shape[0], left : left + crop.shape[1]] = crop == 255
        assert crop.any(axis=0)[[0, -1]].all()
        assert crop.any(axis=1)[[0, -1]].all()
    assert np.array_equal(pasted, masks[masks.any(axis=(1, 2))])
