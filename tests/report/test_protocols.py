"""Numbers of published protocols on the page: with words, intervals and classes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labelloop.metrics.protocols import PROTOCOLS, Protocol, evaluate_protocol, protocol_difference
from labelloop.report.metric_words import OTHER
from labelloop.report.model_sections import comparison_section
from labelloop.report.page import measurement_page
from labelloop.report.project_facts import Measurement
from labelloop.report.protocols import words_of_protocol
from made_records import run_record


def _measured(name: Protocol, images, **options) -> dict:
    truth, predicted = [image.truth for image in images], [image.predicted for image in images]
    return evaluate_protocol(name, truth, predicted, n_classes=1, replicates=40, **options).as_dict()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_number_of_a_protocol_has_words_and_stands_on_the_page(
    name: Protocol, images, document_of, check_page
) -> None:
    protocol = _measured(name, images)
    assert [m for m in protocol["metrics"] if words_of_protocol(name)(m).section == OTHER] == []
    document = {**document_of(images), "protocol": protocol}
    measurement = Measurement(document=document, images=tuple(images), classes=("organoid",))
    page = check_page(measurement_page(measurement, title="x"))
    [table] = [e.text for e in page.named("table") if f"By the protocol {name} (" in e.text]
    for metric, estimate in protocol["metrics"].items():
        assert metric in table
        if estimate["value"] is not None:
            assert f"{estimate['value']:.3f}[{estimate['low']:.3f}, {estimate['high']:.3f}]" in table
    without = replace(measurement, document={**document, "protocol": None})
    assert "By the protocol" not in measurement_page(without, title="x")


def test_two_classes_have_a_row_each(images, document_of, check_page) -> None:
    second = [  # half of the images show objects of another class
        replace(image, truth=replace(image.truth, labels=image.truth.labels + 1)) for image in images[:3]
    ]
    both = [*second, *images[3:]]
    truth, predicted = [image.truth for image in both], [image.predicted for image in both]
    names = ("round", "flat")
    protocol = evaluate_protocol(
        "coco", truth, predicted, n_classes=2, replicates=40, class_names=names
    ).as_dict()
    document = {**document_of(images), "protocol": protocol}
    measurement = Measurement(document=document, images=tuple(images), classes=names)
    page = check_page(measurement_page(measurement, title="x"))
    table = next(e.text for e in page.named("table") if "By the protocol coco, by class" in e.text)
    assert "round" in table
    assert "flat" in table


def test_a_run_with_a_protocol_has_its_baseline_its_guided_model_and_the_difference(images) -> None:
    truth, predicted = [image.truth for image in images], [image.predicted for image in images]
    fewer = [found.above(0.8) for found in predicted]
    pair = {
        "name": "coco",
        "supervised": evaluate_protocol("coco", truth, fewer, n_classes=1, replicates=40).as_dict()[
            "metrics"
        ],
        "guided": _measured("coco", images)["metrics"],
        "difference": {
            name: found.as_dict()
            for name, found in protocol_difference(
                "coco", truth, predicted, fewer, n_classes=1, replicates=40
            ).items()
        },
    }
    sure = {"coco_ap50": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 90}}
    result = {"split": "val", "verified": True, "protocol": pair}
    result |= dict.fromkeys(("supervised", "guided", "difference"), sure)
    run = run_record(result=result)
    shown = "".join(map(str, comparison_section(run) or []))
    assert "By the protocol coco (pycocotools), paired" in shown
    assert f"{pair['guided']['ap75']['value']:.3f}" in shown
    result["protocol"] = None
    assert "By the protocol" not in "".join(map(str, comparison_section(replace(run, result=result)) or []))
