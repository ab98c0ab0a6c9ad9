"""Groups: those that are given, else the file of several pages or channels."""

from __future__ import annotations

from pathlib import Path

from labelloop.data.folds import cut_folds
from labelloop.data.groups import groups_of, units_of
from labelloop.data.label_draw import draw_labels
from labelloop.project.project import ImageRecord


def page(number: int, content: str, of_page: int = 0, group: str | None = None) -> ImageRecord:
    name = f"stack {content}.tif"
    return ImageRecord(number, Path(name), name, (8, 8), "train", group, of_page, -1, None, content)


STACKS = [page(2 * file + which, f"{file:064x}", which) for file in range(20) for which in range(2)]


def test_pages_of_a_file_are_a_group_where_none_is_given_and_an_image_alone_has_none() -> None:
    a, b = "a" * 64, "b" * 64
    images = [page(1, a), page(2, a, 1), page(3, b), page(4, b, 1, "donor"), page(5, "c" * 64, 0, "donor")]
    of_a = f"stack {a}.tif (aaaaaaaa)"
    assert groups_of(images) == [of_a, of_a, None, "donor", "donor"]
    assert [[image.id for image in unit] for unit in units_of(images)] == [[1, 2], [3], [4, 5]]


def test_files_of_one_name_are_groups_of_their_own() -> None:
    images = [page(i, content * 64, i % 2)._replace(file_name="x.tif") for i, content in enumerate("aabb")]
    assert len(set(groups_of(images))) == 2


def test_no_file_trains_and_validates() -> None:
    ids = {image.id for image in STACKS}
    for seed in range(5):
        draw = draw_labels(STACKS, ids, budget=None, seed=seed, validation_share=0.2)
        assert len(draw.val) == 8
        assert not {image.sha256 for image in draw.train} & {image.sha256 for image in draw.val}


def test_no_file_is_cut_by_folds() -> None:
    folds = cut_folds(STACKS, 5, seed=0)
    for fold in folds:
        rest = {image.sha256 for other in folds if other is not fold for image in other}
        assert not {image.sha256 for image in fold} & rest
