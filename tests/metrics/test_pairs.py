"""The pairs of masks that have a pixel in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.metrics import pairs
from labelloop.metrics.pairs import PairTable


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), at_once=st.integers(1, 40))
def test_many_objects_are_compared_in_parts_with_the_same_pairs(
    random_scenes: Callable[..., Any], seed: int, at_once: int
) -> None:
    truth, predicted = random_scenes(seed, n_images=3, n_classes=2, crowds=True, ties=False)
    at_once_all = PairTable.build(truth, predicted, n_classes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "MOST_OVERLAPS", at_once)
        in_parts = PairTable.build(truth, predicted, n_classes=2)
    for name, column in vars(at_once_all).items():
        np.testing.assert_array_equal(getattr(in_parts, name), column, err_msg=name)
