"""The curve as text, PNG and HTML: what is drawn where."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from labelloop.errors import OutputError
from labelloop.forecast.answers import Question
from labelloop.forecast.curve_plot import curve_page, curve_text, draw_curve, write_curve
from labelloop.forecast.curves import CurvePoint
from labelloop.forecast.forecast import forecast

SIZES = (4, 8, 16, 32)


def answer(sizes=SIZES, *, labelled=32, target=0.8):
    points = [
        CurvePoint(n_images=n, value=0.95 - 1.2 * n**-0.55 + 0.01 * (seed - 1), seed=seed)
        for seed in range(3)
        for n in sizes
    ]
    return forecast(points, Question(metric="coco_ap50", labelled=labelled, target=target))


def test_text_is_plain_ascii_within_its_width_and_shows_every_size():
    lines = curve_text(answer(), width=64, height=12)
    assert len(lines) == 12 + 3
    assert all(len(line) <= 72 and line.isascii() for line in lines)
    columns = {i for line in lines[:12] for i, mark in enumerate(line) if mark == "o"}
    assert len(columns) == len(SIZES)


def test_text_has_the_middle_above_the_target_only_to_the_right_of_where_it_is_reached():
    drawn = answer()
    lines = curve_text(drawn, width=90, height=24)
    target = next(i for i, line in enumerate(lines) if "--" in line.replace("+-", ""))
    reached = [line[7:].index("=") for line in lines[:target] if "=" in line]
    below = [line[7:].rindex("=") for line in lines[target + 1 : 24] if "=" in line]
    assert reached
    assert below
    assert min(reached) >= max(below) - 1


def test_larger_values_stand_higher():
    lines = curve_text(answer())
    rows = {c: r for r, line in enumerate(lines[:15]) for c, mark in enumerate(line) if mark == "o"}
    heights = [rows[column] for column in sorted(rows)]
    assert heights == sorted(heights, reverse=True)


def test_without_curves_the_points_alone_are_drawn_and_without_points_nothing():
    two = answer((4, 8))
    assert two.band is None
    assert sum(line.count("o") for line in curve_text(two)[:15]) >= 2
    assert curve_text(answer(())) == []


def test_png_is_a_picture_with_and_without_curves():
    for drawn in (answer(), answer((4, 8)), answer(())):
        picture = np.asarray(Image.open(io.BytesIO(draw_curve(drawn))).convert("RGB"))
        assert picture.shape[0] > 300
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_page_needs_no_other_file_and_escapes_words():
    page = curve_page(answer(), ["less <than> & more"])
    assert "data:image/png;base64," in page
    assert "less &lt;than&gt; &amp; more" in page
    assert "http" not in page
    assert page.count("<tr>") == 1 + 12


def test_both_files_are_written_and_a_place_that_cannot_be_is_an_error(tmp_path):
    paths = write_curve(tmp_path / "forecast", answer(), ["words"])
    assert paths["png"].read_bytes().startswith(b"\x89PNG")
    assert "words" in paths["html"].read_text(encoding="utf-8")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_curve(tmp_path / "file", answer(), [])
