"""What became of the objects of each image, and which images are the best and the worst."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.report.measured import best_middle_worst, images_of, outcomes_of


def test_objects_are_found_missed_and_made_up_as_they_were_drawn(images) -> None:
    found = outcomes_of(images, n_classes=1, min_score=0.5).images
    assert [int(o.missed.sum()) for o in found] == [0, 0, 1, 1, 2, 3]
    assert [int(o.made_up.sum()) for o in found] == [0, 1, 0, 1, 1, 2]
    assert [int(o.hit.sum()) for o in found] == [5, 5, 4, 4, 3, 2]
    assert [o.predicted for o in found] == [5, 6, 4, 5, 4, 4]
    assert found[0].quality == pytest.approx(1.0)
    assert found[3].quality == pytest.approx(4 / (4 + 0.5 + 0.5))


def test_predictions_below_the_working_score_are_not_shown(images) -> None:
    (outcome,) = outcomes_of([images[0]], n_classes=1, min_score=0.9).images
    assert len(outcome.shown) == 1
    assert int(outcome.missed.sum()) == 4


def test_a_crowd_is_neither_missed_nor_counted(images) -> None:
    truth = images[2].truth  # its first disc is missed
    crowd = replace(images[2], truth=replace(truth, crowd=np.array([True, False, False, False, False])))
    (outcome,) = outcomes_of([crowd], n_classes=1, min_score=0.5).images
    assert (outcome.true, int(outcome.missed.sum()), outcome.quality) == (4, 0, pytest.approx(1.0))


def test_areas_are_in_square_micrometres_only_where_every_pixel_size_is_known(images) -> None:
    px = outcomes_of(images, n_classes=1, min_score=0.5)
    assert px.unit == "px"
    half = [replace(image, pixel_size_um=0.5) for image in images]
    um = outcomes_of(half, n_classes=1, min_score=0.5)
    assert um.unit == "µm"
    np.testing.assert_allclose(um.true_area, px.true_area / 4)
    assert outcomes_of([half[0], *images[1:]], n_classes=1, min_score=0.5).unit == "px"


def test_scores_that_are_always_right_have_a_share_of_one(images) -> None:
    found = outcomes_of([images[0]], n_classes=1, min_score=0.5)
    assert (found.right == 1).all()
    assert int(found.in_bin.sum()) == 5
    assert (np.diff(found.mean_score) > 0).all()


def test_the_best_the_middle_and_the_worst_are_each_there_once(images) -> None:
    many = [replace(image, name=f"{n}-{image.name}") for n in range(2) for image in images]
    outcomes = outcomes_of(many, n_classes=1, min_score=0.5).images
    picked = best_middle_worst(outcomes, 2)
    assert [kind for kind, _ in picked] == ["best"] * 2 + ["middle"] * 2 + ["worst"] * 2
    qualities = [outcome.quality for _, outcome in picked]
    assert qualities == sorted(qualities, reverse=True)
    assert len({outcome.image.name for _, outcome in picked}) == 6
    assert qualities[0] == max(o.quality for o in outcomes)
    assert qualities[-1] == min(o.quality for o in outcomes)


@pytest.mark.parametrize("n", range(6))
def test_few_images_are_each_shown_once(images, n: int) -> None:
    outcomes = outcomes_of(images[:n], n_classes=1, min_score=0.5).images
    picked = best_middle_worst(outcomes, 2)
    assert len(picked) == n
    assert len({outcome.image.name for _, outcome in picked}) == n


@pytest.mark.parametrize("n", range(2, 8))
def test_of_two_or_more_images_the_last_is_called_the_worst(images, n: int) -> None:
    many = [replace(image, name=f"{i}-{image.name}") for i in range(2) for image in images]
    picked = best_middle_worst(outcomes_of(many[:n], n_classes=1, min_score=0.5).images, 2)
    assert (picked[0][0], picked[-1][0]) == ("best", "worst")


def test_an_image_without_anything_is_not_ranked(images) -> None:
    nothing = Instances(size_hw=images[0].truth.size_hw)
    empty = replace(images[0], name="empty", truth=nothing, predicted=nothing)
    outcomes = outcomes_of([empty, images[0]], n_classes=1, min_score=0.5).images
    assert [outcome.image.name for _, outcome in best_middle_worst(outcomes, 2)] == [images[0].name]


def test_pixels_are_found_beside_the_labels_and_in_their_folder_of_images(images, tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "b.png").touch()
    (tmp_path / "data" / "a.png").touch()
    one = images[0]
    found = images_of(
        ["plate/a.png", "b.png", "c.png"], [one.truth] * 3, [one.predicted] * 3, folders=[tmp_path / "data"]
    )
    paths = [None if image.path is None else image.path.name for image in found]
    assert paths == ["a.png", "b.png", None]


def test_a_name_that_no_file_can_have_has_no_pixels(images, tmp_path: Path) -> None:
    one = images[0]
    for name in (f"{'x' * 300}.png", f"{'y/' * 3000}a.png", "a\0.png"):
        (found,) = images_of([name], [one.truth], [one.predicted], folders=[tmp_path])
        assert found.path is None


def test_scores_in_percent_have_no_bins(images) -> None:
    percent = [
        replace(image, predicted=replace(image.predicted, scores=100 * image.predicted.scores))
        for image in images
    ]
    found = outcomes_of(percent, n_classes=1, min_score=50)
    assert (len(found.mean_score), len(found.right), len(found.in_bin)) == (0, 0, 0)
    assert [int(o.hit.sum()) for o in found.images] == [5, 5, 4, 4, 3, 2]
