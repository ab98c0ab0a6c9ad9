from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.errors import OutputError
from labelloop.instances import Instances
from labelloop.report.comparison import (
    FOUND,
    MADE_UP,
    MISSED,
    ComparedModel,
    ComparisonRow,
    draw_comparison,
    found_by,
    write_comparison,
)


def squares(*lefts: int, scores: list[float] | None = None) -> Instances:
    masks = np.zeros((len(lefts), 60, 100), bool)
    for mask, left in zip(masks, lefts, strict=True):
        mask[20:40, left : left + 20] = True
    return Instances.from_dense(masks, scores=scores, size_hw=(60, 100))


def row() -> ComparisonRow:
    teacher = squares(5, 75, scores=[0.9, 0.8])
    student = squares(6, 40, scores=[0.9, 0.8])
    pixels = np.full((60, 100), 120, np.uint8)
    return ComparisonRow(
        name="field.png", pixels_8bit=pixels, truth=squares(5, 40), predicted=(teacher, student)
    )


MODELS = (
    ComparedModel(title="teacher", subtitle="AP 40.0"),
    ComparedModel(title="student", subtitle="AP 60.0"),
)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == np.array(colour, np.uint8)).all(-1).any())


def test_each_annotation_is_met_once_and_by_the_best_scored() -> None:
    predicted = squares(5, 6, 80, scores=[0.5, 0.9, 0.7])
    assert found_by(predicted, squares(5, 40)).tolist() == [-1, 0, -1]
    assert found_by(predicted, squares()).tolist() == [-1, -1, -1]


def test_found_missed_and_made_up_have_their_colours_in_each_models_column() -> None:
    picture = draw_comparison([row(), row()], MODELS, panel_px=300)[:300]
    teacher, student = picture[:, 624:924], picture[:, 932:]
    assert has(teacher, FOUND)
    assert has(teacher, MISSED)
    assert has(teacher, MADE_UP)
    assert has(student, FOUND)
    assert not has(student, MISSED)
    assert not has(student, MADE_UP)


def test_picture_is_written_as_png_into_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "comparison.png"
    write_comparison(path, [row()], MODELS, panel_px=200)
    with Image.open(path) as picture:
        assert picture.size[0] > 800


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_comparison(tmp_path / "file" / "comparison.png", [row()], MODELS)


def test_rows_must_hold_a_prediction_per_model() -> None:
    with pytest.raises(ValueError, match="2 models"):
        draw_comparison(
            [ComparisonRow(name="", pixels_8bit=row().pixels_8bit, truth=squares(), predicted=())], MODELS
        )
