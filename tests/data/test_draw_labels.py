from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.data.label_draw import LabelDraw, draw_labels
from labelloop.project.project import ImageRecord


def images_of(groups: list[str | None]) -> list[ImageRecord]:
    return [
        ImageRecord(i, Path(f"{i}.png"), f"{i}.png", (9, 9), "train", group, 0, -1, None, f"{i:04}")
        for i, group in enumerate(groups)
    ]


def drawn(groups: list[str | None], seed: int = 0) -> LabelDraw:
    images = images_of(groups)
    return draw_labels(images, {i.id for i in images}, budget=None, seed=seed, validation_share=0.2)


@given(
    st.lists(st.sampled_from([None, "a", "b", "c", "d", "e"]), min_size=20, max_size=80), st.integers(0, 5)
)
def test_every_labelled_image_is_in_one_part_and_no_group_trains_and_validates(groups, seed):
    draw = drawn(groups, seed)
    assert sorted(image.id for image in (*draw.train, *draw.val, *draw.pool)) == list(range(len(groups)))
    shared = {i.group for i in draw.train} & {i.group for i in draw.val} - {None}
    assert not shared or len(set(groups)) == 1
    assert draw.train
    assert len(draw.val) >= 4


@pytest.mark.parametrize(
    ("sizes", "parts"), [((20, 20, 20), (40, 20, 0)), ((30, 30), (30, 12, 18)), ((60,), (48, 12, 0))]
)
def test_a_group_validates_whole_unless_it_is_too_large(sizes, parts):
    draw = drawn([str(group) for group, size in enumerate(sizes) for _ in range(size)])
    assert (len(draw.train), len(draw.val), len(draw.pool)) == parts
