"""What scores are worth, on images whose predictions are right or wrong by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from labelloop.instances import Instances
from labelloop.metrics.calibration import Calibration
from labelloop.project.project import ImageRecord
from labelloop.runs.scoring import ScoredImages, worth_of_scores

N_IMAGES, SIDE = 30, 40


def squares(places: list[int], scores: list[float] | None = None) -> Instances:
    """Squares of 6 px on a board of 5 x 5 fields."""
    masks = np.zeros((len(places), SIDE, SIDE), bool)
    for mask, place in zip(masks, places, strict=True):
        top, left = 8 * (place // 5), 8 * (place % 5)
        mask[top : top + 6, left : left + 6] = True
    return Instances.from_dense(masks, None, scores, size_hw=(SIDE, SIDE))


def scored(split: str) -> ScoredImages:
    """Ten true objects in each of the images."""
    record = ImageRecord(
        id=1, path=Path("a.png"), file_name="a.png", size_hw=(SIDE, SIDE), split=split, group=None,
        page=0, channel=-1, pixel_size_um=None, sha256="",
    )  # fmt: skip
    truth = tuple(squares(list(range(10))) for _ in range(N_IMAGES))
    return ScoredImages(split=split, images=(record,) * N_IMAGES, truth=truth)


def test_a_score_is_named_above_which_objects_are_right_and_none_where_that_cannot_be_shown() -> None:
    good = [squares([0, 1, 2, 20, 21], [0.9, 0.9, 0.9, 0.3, 0.3])] * N_IMAGES  # the last two are wrong
    bad = [squares([0, 1, 20, 21], [0.9, 0.3, 0.9, 0.3])] * N_IMAGES  # half of them, at any score
    found = worth_of_scores(scored("val"), {"guided": good, "supervised": bad}, n_classes=1)
    assert found["guided"] is not None
    assert found["supervised"] is not None
    assert set(found["guided"]["score_for_precision"]) == {"0.8", "0.9", "0.95"}
    assert all(0.3 < score <= 0.9001 for score in found["guided"]["score_for_precision"].values())
    assert set(found["supervised"]["score_for_precision"].values()) == {None}
    chance = Calibration.from_dict(found["guided"]["calibration"]).probability(good[0])
    assert chance[0] > 0.9
    assert chance[-1] < 0.1


def test_without_validation_images_nothing_is_said_of_scores() -> None:
    seen = {"supervised": [squares([0], [0.9])] * N_IMAGES}
    assert worth_of_scores(scored("test"), seen, n_classes=1) == {"supervised": None}
    assert worth_of_scores(None, seen, n_classes=1) == {"supervised": None}
