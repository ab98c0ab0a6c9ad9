"""Images of squares in a grid, and what a good model sees of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from labelloop.instances import Instances

Box = tuple[int, int, int, int]  # top, left, height, width
Squares = Callable[..., Instances]
SIZE = (100, 100)
GRID: tuple[Box, ...] = tuple(
    (5 + 25 * row, 5 + 25 * column, 16, 16) for row in range(4) for column in range(4)
)


@pytest.fixture(scope="session")
def squares() -> Squares:
    """Makes Instances of boxes, with scores, classes and crowds if given."""

    def make(
        boxes: Sequence[Box],
        scores: Sequence[float] | None = None,
        *,
        classes: Sequence[int] | None = None,
        crowd: Sequence[bool] | None = None,
    ) -> Instances:
        masks = np.zeros((len(boxes), *SIZE), np.bool_)
        for mask, (top, left, height, width) in zip(masks, boxes, strict=True):
            mask[max(top, 0) : top + height, max(left, 0) : left + width] = True
        made = Instances.from_dense(masks, classes, scores, size_hw=SIZE)
        crowded = np.zeros(len(boxes), np.bool_) if crowd is None else np.asarray(crowd, np.bool_)
        return Instances(size_hw=SIZE, rles=made.rles, labels=made.labels, scores=made.scores, crowd=crowded)

    return make
