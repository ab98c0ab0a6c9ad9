"""The page of measured predictions: whole, safe to open, small, and the same for the same data."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.errors import OutputError
from labelloop.project.project import RunRecord
from labelloop.report.metric_tables import comparison_table
from labelloop.report.model_sections import comparison_section
from labelloop.report.page import measurement_page, write_report_of_files
from labelloop.report.project_facts import Measurement
from made_records import run_record

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;.png'


@pytest.fixture
def measurement(images, document_of) -> Measurement:
    return Measurement(document=document_of(images), images=tuple(images), classes=("organoid",))


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(measurement, check_page) -> None:
    found = check_page(measurement_page(measurement, title="theirs.json"))
    assert found.named("h1")[0].text == "theirs.json"
    assert [h.text for h in found.named("h2")] == [
        "How good the predictions are", "Best, middle and worst images", "Counts, sizes and scores",
        "Settings and versions",
    ]  # fmt: skip
    assert len(found.named("img")) == 12
    assert len([svg for svg in found.named("svg") if svg.attributes.get("role") == "img"]) == 3


def test_names_from_outside_are_only_ever_text(measurement, document_of, check_page) -> None:
    images = tuple(replace(image, name=HOSTILE) for image in measurement.images)
    document = document_of(images, groups=[HOSTILE, HOSTILE, HOSTILE, "b", "b", "b"], class_names=[HOSTILE])
    document["notes"] = [HOSTILE]
    document["metrics"]["<b>new</b>"] = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 6, "unit": HOSTILE}
    hostile = Measurement(document=document, images=images, classes=(HOSTILE,))
    page = measurement_page(hostile, title=HOSTILE)
    found = check_page(page)
    assert found.named("h1")[0].text == HOSTILE
    assert all(image.attributes["src"].startswith("data:") for image in found.named("img"))
    assert "<script" not in page
    assert "<b>new" not in page


def test_a_name_that_is_no_unicode_is_shown_with_its_bytes(measurement, tmp_path) -> None:
    written = write_report_of_files(
        tmp_path / "report.html",
        measurement.document,
        measurement.images,
        title="x\udcff.json",
        classes=measurement.classes,
    )
    assert "x\\udcff.json" in written.read_text(encoding="utf-8")


def test_the_same_data_give_the_same_bytes(measurement) -> None:
    pages = {measurement_page(measurement, title="x", written=date(2026, 1, 2)) for _ in range(2)}
    assert len(pages) == 1
    assert "2026-01-02" in pages.pop()


def test_few_images_are_said_to_be_unreliable(measurement) -> None:
    assert "n = 6: unreliable" in measurement_page(measurement, title="x")
    sure = {name: {**e, "n": 300, "reliable": True} for name, e in measurement.document["metrics"].items()}
    document = {**measurement.document, "metrics": sure, "n_images": 300, "by": {}}
    many = replace(measurement, document=document)
    assert "unreliable" not in measurement_page(many, title="x")


def test_an_interval_without_width_says_so_and_makes_no_others_unreliable(measurement) -> None:
    sure = {name: {**e, "n": 300, "reliable": True} for name, e in measurement.document["metrics"].items()}
    sure["merges_per_100"] = {"value": 0.0, "low": 0.0, "high": 0.0, "n": 300, "reliable": False}
    document = {**measurement.document, "metrics": sure, "n_images": 300, "by": {}}
    page = measurement_page(replace(measurement, document=document), title="x")
    assert page.count("unreliable") == 1
    assert "the same in all images: unreliable" in page


def test_an_interval_of_few_images_says_so_and_makes_no_others_unreliable(measurement) -> None:
    sure = {name: {**e, "n": 300, "reliable": True} for name, e in measurement.document["metrics"].items()}
    sure["boundary_error"] = {
        "value": 2.0,
        "low": 1.0,
        "high": 3.0,
        "n": 300,
        "reliable": False,
        "unit": "px",
    }
    document = {**measurement.document, "metrics": sure, "n_images": 300, "by": {}}
    page = measurement_page(replace(measurement, document=document), title="x")
    assert page.count("unreliable") == page.count("few images tell of it: unreliable") > 0
    assert "few groups: unreliable" not in page


def _of_many(document: dict, **changed: dict) -> dict:
    """The document as if many images had been measured, but for some metrics."""
    sure = {name: {**e, "n": 300, "reliable": True} for name, e in document["metrics"].items()}
    metrics = {**sure, **{name: {**sure[name], **changes} for name, changes in changed.items()}}
    return {**document, "metrics": metrics, "n_images": 300, "by": {}}


def _lead(outline) -> str:
    return next(e.text for e in outline.named("p") if e.attributes.get("class") == "lead")


def _cards(outline) -> list[str]:
    return [e.text for e in outline.named("dd")][:3]  # they come before any other list


def test_the_first_sentence_and_the_cards_give_intervals_and_say_that_images_are_few(
    measurement, check_page
) -> None:
    found = check_page(measurement_page(measurement, title="x"))
    recall = measurement.document["metrics"]["recall_50"]
    low, high = (round(100 * recall[end]) for end in ("low", "high"))
    lead = _lead(found)
    assert f"are found (95 % interval {low} to {high}\N{NO-BREAK SPACE}%)" in lead
    assert "n = 6: unreliable" in lead
    cards = _cards(found)
    assert all("95 %: " in card and "n = 6: unreliable" in card for card in cards)


def test_the_first_sentence_and_the_cards_mark_nothing_where_images_are_many(measurement, check_page) -> None:
    document = _of_many(measurement.document)
    found = check_page(measurement_page(replace(measurement, document=document), title="x"))
    assert "unreliable" not in _lead(found)
    assert not any("unreliable" in card for card in _cards(found))


def test_of_many_images_only_the_number_that_few_tell_of_is_marked(measurement, check_page) -> None:
    few = {"low": 0.4, "high": 0.6, "reliable": False}
    document = _of_many(measurement.document, precision_50=few, pq=few)
    found = check_page(measurement_page(replace(measurement, document=document), title="x"))
    assert "are right (40 to 60\N{NO-BREAK SPACE}%, unreliable)" in _lead(found)
    assert _lead(found).count("unreliable") == 1
    assert ["unreliable" in card for card in _cards(found)] == [False, False, True]


def test_one_image_has_no_interval_and_the_first_sentence_says_so(
    measurement, document_of, check_page
) -> None:
    one = replace(measurement, images=measurement.images[3:4], document=document_of(measurement.images[3:4]))
    found = check_page(measurement_page(one, title="x"))
    assert "of the objects are found (no interval from 1 image)" in _lead(found)
    assert all("no interval from 1 image" in card for card in _cards(found))


def test_the_worst_group_of_each_metric_is_named(measurement, document_of, check_page) -> None:
    groups = ["plate a", "plate a", "plate b", "plate b", "plate c", "plate c"]  # the last images are worst
    document = document_of(measurement.images, groups=groups)
    page = check_page(measurement_page(replace(measurement, document=document), title="x"))
    table = next(e.text for e in page.named("table") if "worst group" in e.text)
    worst = document["by"]["worst_group"]["recall_50"]
    assert worst["group"] == "plate c"
    assert f"Objects found (recall)plate c{worst['value']:.3f}" in table
    without = measurement_page(measurement, title="x")
    assert "worst group" not in without


def test_the_limits_of_small_and_medium_objects_stand_at_their_table(measurement, check_page) -> None:
    page = check_page(measurement_page(measurement, title="x"))
    small, medium = (int(limit) for limit in measurement.document["size_thirds_px"])
    caption = next(e.text for e in page.named("caption") if "By size" in e.text)
    assert f"small up to {small} px, medium up to {medium} px" in caption


def test_a_precision_is_given_the_score_from_which_it_holds(measurement, check_page) -> None:
    scores = {"score_for_precision": {"0.8": 0.6121, "0.9": 0.87, "0.95": None}}
    document = {**measurement.document, "scores": scores}
    page = check_page(measurement_page(replace(measurement, document=document), title="x"))
    table = next(e.text for e in page.named("table") if "Scores to rely on" in e.text)
    assert "at least 80 % rightat least 90 % rightat least 95 % right" in table
    assert "score from0.6130.870cannot be shown" in table  # rounded up: from 0.612 on it would not hold
    assert "score from" not in measurement_page(measurement, title="x")


def test_a_difference_of_few_images_is_starred_and_no_other() -> None:
    sure = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 90}
    models = {"recall_50": sure, "boundary_error": sure}
    differences = {"recall_50": sure, "boundary_error": {**sure, "reliable": False}}
    shown = str(comparison_table("Paired", models, models, differences, [*models]))
    assert shown.count(" *<") == 1
    assert "* from too few images" in shown
    assert "*" not in str(comparison_table("Paired", models, models, models, [*models]))


def test_predictions_without_any_share_are_said_to_be_measured(measurement) -> None:
    page = measurement_page(
        replace(measurement, document={**measurement.document, "metrics": {}}, images=()), title="x"
    )
    assert "The predictions were measured, on 6 images." in page


def test_a_metric_without_a_value_says_why_and_is_no_number(measurement, check_page) -> None:
    reason = "true objects overlap one another"
    metrics = {
        **measurement.document["metrics"],
        "aji": {"value": None, "low": None, "high": None, "reason": reason},
    }
    page = measurement_page(
        replace(measurement, document={**measurement.document, "metrics": metrics}), title="x"
    )
    text = check_page(page).named("main")[0].text
    assert reason in text
    assert "None" not in text
    assert "nan" not in text


@pytest.mark.parametrize("kind", ["gone", "damaged", "unknown", "another size"])
def test_images_that_cannot_be_read_leave_a_line_and_the_numbers(
    measurement, tmp_path, check_page, kind
) -> None:
    path = tmp_path / "broken.png"
    if kind == "damaged":
        path.write_bytes(b"\x89PNG\r\n\x1a\n no more")
    elif kind == "another size":
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(path)
    broken = tuple(replace(i, path=None if kind == "unknown" else path) for i in measurement.images)
    page = measurement_page(replace(measurement, images=broken), title="x")
    found = check_page(page)
    assert found.named("img") == []
    assert page.count("The image is not shown: ") == 6
    assert "4 of 5 objects found" in page


def test_no_image_at_all_leaves_out_what_would_show_one(measurement, document_of, check_page) -> None:
    nothing = Measurement(document=document_of([]), images=(), classes=("organoid",))
    found = check_page(measurement_page(nothing, title="x"))
    assert [h.text for h in found.named("h2")] == ["How good the predictions are", "Settings and versions"]


def test_nothing_predicted_is_a_page_too(measurement, document_of, check_page) -> None:
    images = tuple(replace(i, predicted=i.predicted.select([])) for i in measurement.images)
    page = measurement_page(
        Measurement(document=document_of(images), images=images, classes=("a",)), title="x"
    )
    check_page(page)
    assert "0 of 5 objects found, 5 missed, 0 false positives" in page


def test_large_images_are_made_small_and_many_keep_the_page_below_the_limit(
    tmp_path: Path, measured_image, document_of, check_page
) -> None:
    rng = np.random.default_rng(0)
    images = []
    for i in range(300):
        image = measured_image(None, f"well-{i}.png", missed=i % 4, made_up=i % 3)
        images.append(replace(image, path=tmp_path / "noise.png"))
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    page = measurement_page(
        Measurement(document=document_of(images), images=tuple(images), classes=("a",)), title="x"
    )
    assert len(page.encode()) < 5_000_000
    for shown in check_page(page).named("img"):
        data = base64.b64decode(shown.attributes["src"].partition(",")[2])
        width, height = Image.open(io.BytesIO(data)).size
        assert max(width, height) <= 480
        assert (str(width), str(height)) == (shown.attributes["width"], shown.attributes["height"])


def test_the_file_is_written_where_it_is_wanted_and_nowhere_else(measurement, tmp_path: Path) -> None:
    options = {"title": "x", "classes": measurement.classes}
    out = tmp_path / "new" / "page.html"
    assert write_report_of_files(out, measurement.document, measurement.images, **options) == out
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--report"):
        write_report_of_files(
            tmp_path / "file" / "page.html", measurement.document, measurement.images, **options
        )


def _run(gate: dict | None, *, verified: bool, estimate: dict) -> RunRecord:
    models = {part: {"coco_ap50": estimate} for part in ("supervised", "guided", "difference")}
    return run_record(result={"split": "val", "verified": verified, "gate": gate, **models})


@pytest.mark.parametrize(
    ("gate", "verified", "says"),
    [
        ({"reason": "one image"}, True, "by validation images."),
        ({"reason": "one image"}, False, "though the validation images could not tell."),
        (None, False, "without images to choose by."),
    ],
)
def test_a_promotion_says_what_stands_behind_it(gate, verified, says) -> None:
    run = _run(gate, verified=verified, estimate={"value": 0.5, "low": 0.4, "high": 0.6, "n": 90})
    assert says in "".join(map(str, comparison_section(run) or []))


@pytest.mark.parametrize(("n", "says"), [(12, "n = 12: unreliable"), (480, "few groups: unreliable")])
def test_an_unreliable_interval_names_what_there_is_too_little_of(n, says) -> None:
    run = _run(
        None, verified=False, estimate={"value": 0.5, "low": 0.4, "high": 0.6, "n": n, "reliable": False}
    )
    assert says in "".join(map(str, comparison_section(run) or []))


@pytest.mark.parametrize(
    ("before", "after", "says"), [(-1.0, 0.95, ""), (-1.0, -0.05, "better"), (0.1, 2.0, "worse")]
)
def test_a_bias_that_went_past_zero_is_neither_better_nor_worse(before, after, says) -> None:
    gain = after - before
    old, new = (
        {"count_bias": {"value": v, "low": v - 0.1, "high": v + 0.1, "n": 90}} for v in (before, after)
    )
    difference = {"count_bias": {"value": gain, "low": gain - 0.3, "high": gain + 0.3, "n": 90}}
    page = str(comparison_table("On all", old, new, difference, ["count_bias"]))
    assert [word for word in ("better", "worse") if f">{word}<" in page] == ([says] if says else [])
