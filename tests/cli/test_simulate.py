"""``simulate`` and ``push --budget`` through the program."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelloop.data.synthetic_set import write_micrographs
from labelloop.errors import UsageError


@pytest.fixture
def labelled(tmp_path: Path, project: Path, labelloop) -> Path:
    """Six labelled and three test images."""
    for seed, (split, count) in enumerate({"train": 6, "test": 3}.items()):
        labels = tmp_path / f"{split}.json"
        write_micrographs(tmp_path / split, count, seed=seed, labels=labels, size_hw=(96, 96))
        added = labelloop(
            "add", "labels", labels, "--images", tmp_path / split, "--split", split, "-C", project
        )
        assert added.code == 0, added.err
    return project


def test_simulate_prints_the_object_of_the_contract_and_the_same_as_a_table(labelled, labelloop) -> None:
    asked = (
        "simulate", "--strategy", "random", "--rounds", "1", "--budget", "2", "--labels", "2",
        "--time", "30s",
        "-C", labelled,
    )  # fmt: skip
    ran = labelloop(*asked, "--json")
    assert ran.code == 0, ran.out
    assert ran.document["metric"] == "coco_ap"
    assert ran.document["split"] == "test"
    assert ran.document["baseline"] == "random"
    points = ran.document["strategies"]["random"]
    assert [point["round"] for point in points] == [0, 1]
    assert all({"round", "minutes", "images", "value", "low", "high"} <= set(point) for point in points)
    assert [point["images"] for point in points] == [2, 4]
    again = labelloop(*asked)
    assert again.code == 0
    assert "strategy" in again.out
    assert f"{points[1]['value']:.3f}" in again.out


@pytest.mark.parametrize("budget", ["0", "-3", "soon", "0m", "1.5"])
def test_a_budget_that_is_none_is_wrong_usage(labelled, labelloop, budget: str) -> None:
    for command in (("push", f"--budget={budget}"), ("simulate", f"--budget={budget}")):
        ran = labelloop(*command, "-C", labelled, "--json")
        assert ran.code == 2
        assert ran.document["error"]["what"] == "this is not a budget"
        assert ran.document["error"]["value"] == budget


def test_too_few_labels_to_simulate_are_one_line(labelled, labelloop) -> None:
    ran = labelloop("simulate", "--labels", "50", "-C", labelled)
    assert ran.code == 1
    assert "too few labelled images" in ran.err


@pytest.mark.parametrize(
    ("text", "budget"), [("40", {"tasks": 40}), ("90m", {"minutes": 90.0}), ("1h30m", {"minutes": 90.0})]
)
def test_a_number_is_tasks_and_a_duration_is_minutes(text: str, budget: dict) -> None:
    from labelloop.cli.push import parse_budget

    parsed = parse_budget(text)
    assert {"tasks": parsed.tasks, "minutes": parsed.minutes} == {"tasks": None, "minutes": None} | budget
    with pytest.raises(UsageError):
        parse_budget(text + "x")
