"""Folds: every image in one, groups whole, the seed decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelloop.data.folds import cut_folds
from labelloop.errors import ProjectError
from labelloop.project.project import ImageRecord


def records(groups: list[str | None]) -> list[ImageRecord]:
    return [
        ImageRecord(i, Path(f"{i}.png"), f"{i}.png", (8, 8), "train", group, 0, -1, None, f"{i:064x}")
        for i, group in enumerate(groups)
    ]


@pytest.mark.parametrize(("count", "folds", "expected"), [(10, 5, 5), (3, 5, 3), (11, 2, 2), (4, 1, 2)])
def test_every_image_is_in_one_fold_and_folds_are_even(count: int, folds: int, expected: int) -> None:
    cut = cut_folds(records([None] * count), folds, seed=0)
    assert sorted(image.id for fold in cut for image in fold) == list(range(count))
    assert len(cut) == expected
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_groups_are_never_cut() -> None:
    cut = cut_folds(records(["a", "b", "c", "a", "b", "c", "d", None]), 3, seed=0)
    for group in "abcd":
        assert sum(any(image.group == group for image in fold) for fold in cut) == 1


def test_the_seed_decides_the_folds() -> None:
    images = records([None] * 20)
    one, again, other = (
        [[i.id for i in fold] for fold in cut_folds(given, 5, seed=seed)]
        for given, seed in ((images, 0), (images[::-1], 0), (images, 1))
    )
    assert one == again
    assert one != other


def test_one_image_or_one_group_cannot_be_compared_with_others() -> None:
    for groups in ([], [None], ["a", "a", "a"]):
        with pytest.raises(ProjectError, match="Label more images"):
            cut_folds(records(groups), 5, seed=0)
