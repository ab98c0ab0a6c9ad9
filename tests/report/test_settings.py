"""Every setting that decided the numbers stands on the page, with the versions."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

import labelloop
from labelloop.report.page import measurement_page
from labelloop.report.project_facts import Measurement


@pytest.fixture
def measurement(images, document_of) -> Measurement:
    document = {
        **document_of(images),
        "predictions": str(Path("/home/ada/secret") / "theirs.json"),
        "labels": str(Path("/home/ada/secret") / "truth.json"),
        "bootstrap": {"replicates": 1234, "seed": 5},
        "protocol": None,
    }
    return Measurement(document=document, images=tuple(images), classes=("organoid",))


def _settings(page) -> dict[str, str]:
    """Names and values of the section of settings, which is the last list of facts."""
    section = next(e for e in page.named("section") if e.attributes["id"] == "settings")
    pairs = zip(page.named("dt"), page.named("dd"), strict=True)
    return {name.text: value.text for name, value in pairs if name.text + value.text in section.text}


def test_the_page_of_files_names_them_and_how_they_were_measured(measurement, check_page) -> None:
    page = measurement_page(measurement, title="x")
    found = _settings(check_page(page))
    assert found["Predictions"] == "theirs.json"
    assert found["Truth"] == "truth.json"
    assert found["Classes"] == "organoid"
    assert found["Score that counts as an object"] == "0.5 or more"
    assert found["Intervals"] == "95 %, bootstrap over 6 images"
    assert (found["Bootstrap replicates"], found["Bootstrap seed"]) == ("1,234", "5")
    assert (found["labelloop"], found["Python"]) == (labelloop.__version__, platform.python_version())
    assert found["numpy"] == numpy.__version__
    assert "secret" not in page


def test_groups_that_were_drawn_whole_are_counted(measurement, document_of, check_page) -> None:
    document = document_of(measurement.images, groups=["a", "a", "b", "b", "c", "c"])
    found = _settings(check_page(measurement_page(replace(measurement, document=document), title="x")))
    assert found["Intervals"] == "95 %, bootstrap over 3 groups"
    assert "Predictions" not in found  # a caller without files has none
