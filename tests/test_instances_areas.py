"""Areas of many objects: pycocotools' own call fails on more than 255."""

from __future__ import annotations

import numpy as np
import pytest

from labelloop.instances import Instances


@pytest.mark.parametrize("n", [0, 1, 255, 256, 700])
def test_any_number_of_objects_has_areas(n: int) -> None:
    masks = np.zeros((n, 2, 9), np.uint8)
    for i, mask in enumerate(masks):
        mask[0, : i % 9 + 1] = 1
    areas = Instances.from_dense(masks, size_hw=(2, 9)).areas
    assert areas.tolist() == [i % 9 + 1 for i in range(n)]
    assert areas.dtype == np.int64
