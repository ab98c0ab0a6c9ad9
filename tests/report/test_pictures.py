"""Truth and prediction of an image in the report."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from labelloop.instances import Instances
from labelloop.project.project import ImageRecord
from labelloop.report.comparison import FOUND, MADE_UP, NOT_COUNTED
from labelloop.report.measured import MeasuredImage, outcomes_of
from labelloop.report.pictures import colour_key, draw_outcome, picture_pair


def test_what_is_unknown_is_drawn_once_however_many_classes_it_is_a_crowd_of(tmp_path: Path) -> None:
    path = tmp_path / "field.png"
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(path)
    masks = np.zeros((2, 40, 60), np.bool_)
    masks[0, 5:15, 5:15] = masks[1, :, 30:] = True
    truth = replace(Instances.from_dense(masks), crowd=np.array([False, True]))
    everywhere = Instances(
        size_hw=truth.size_hw,
        rles=(truth.rles[0], *[truth.rles[1]] * 3),
        labels=np.array([0, 0, 1, 2]),
        crowd=np.array([False, True, True, True]),
    )
    predicted = Instances.from_dense(masks[:1], scores=[0.9])

    def drawn(labels: Instances) -> str:
        image = MeasuredImage(name="field.png", truth=labels, predicted=predicted, path=path)
        (outcome,) = outcomes_of([image], n_classes=3, min_score=0.5).images
        return str(picture_pair("best", outcome))

    assert "1 of 1 object found" in drawn(everywhere)
    assert drawn(everywhere) == drawn(truth)


def test_what_is_predicted_where_the_truth_is_unknown_is_drawn_as_neither_found_nor_made_up() -> None:
    masks = np.zeros((3, 40, 60), np.bool_)
    masks[0, 5:15, 5:15] = masks[1, :, 30:] = masks[2, 20:30, 40:50] = True
    truth = replace(Instances.from_dense(masks[:2]), crowd=np.array([False, True]))
    predicted = Instances.from_dense(masks[[0, 2]], scores=[0.9, 0.8])
    image = MeasuredImage(name="field.png", truth=truth, predicted=predicted, path=None)
    (outcome,) = outcomes_of([image], n_classes=1, min_score=0.5).images
    _, drawn = draw_outcome(np.full((40, 60), 90, np.uint8), outcome)
    colours = {tuple(int(v) for v in colour) for colour in drawn.reshape(-1, 3)}
    assert {FOUND, NOT_COUNTED} <= colours
    assert MADE_UP not in colours
    on_crowd = {tuple(int(v) for v in colour) for colour in drawn[:, 30:].reshape(-1, 3)}
    assert FOUND not in on_crowd
    assert "unknown" in colour_key([outcome])
    sure = replace(outcome, hit=np.array([True, True]))
    assert "unknown" not in colour_key([sure])


def test_no_outlines_are_drawn_on_a_file_that_has_changed_since_it_was_added(tmp_path: Path) -> None:
    path = tmp_path / "field.png"
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    record = ImageRecord(1, path, path.name, (40, 60), "test", None, 0, -1, None, sha256)
    nothing = Instances(size_hw=(40, 60), scores=np.zeros(0, np.float32))
    image = MeasuredImage(name="field.png", truth=nothing, predicted=nothing, path=path, record=record)
    (outcome,) = outcomes_of([image], n_classes=1, min_score=0.5).images
    assert "<img" in str(picture_pair("best", outcome))
    Image.fromarray(np.full((40, 60), 30, np.uint8)).save(path)
    assert "The image is not shown: the file has changed" in str(picture_pair("best", outcome))
