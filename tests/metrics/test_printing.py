"""What ``labelloop evaluate`` prints of a panel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.cli.evaluate import show_evaluation
from labelloop.instances import Instances
from labelloop.metrics.files import read_pair
from labelloop.metrics.matched import METRICS
from labelloop.metrics.panel import evaluate


def square(left: int, side: int = 10) -> list[list[int]]:
    return [[left, 5, left + side, 5, left + side, 5 + side, left, 5 + side]]


def write(path: Path, n_images: int, categories: tuple[str, ...]) -> Path:
    """Images with one square of each category, the first one of 10 px, the next ones larger."""
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 99} for i in range(n_images)],
        "categories": [{"id": c, "name": name} for c, name in enumerate(categories, 1)],
        "annotations": [
            {
                "id": 10 * i + c,
                "image_id": i,
                "category_id": c,
                "segmentation": square(25 * c - 20, 8 + 2 * c),
            }
            for i in range(n_images)
            for c in range(1, len(categories) + 1)
        ],
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    return write(tmp_path / "both.json", 12, ("organoid", "debris"))


def test_every_metric_is_printed_with_its_unit(two_classes: Path) -> None:
    printed = run("--predictions", two_classes, "--labels", two_classes)
    lines = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert set(METRICS) <= set(lines)
    assert lines["boundary_error"].split()[-1] == "px"
    assert lines["misses_per_100"].rstrip().endswith("per 100 true objects")
    head = printed.splitlines()[0]
    assert "12 images, score >= 0.50, maxDets 100, 95 % intervals (n = 12: unreliable)" in head


def test_of_one_image_no_intervals_are_promised(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", 1, ("organoid",))
    head = run("--predictions", one, "--labels", one).splitlines()[0]
    assert head.rstrip().endswith("maxDets 100, no intervals")


def test_classes_are_printed_by_name(two_classes: Path) -> None:
    printed = run("--predictions", two_classes, "--labels", two_classes)
    rows = [line.split() for line in printed.splitlines() if line.startswith(("  organoid", "  debris"))]
    assert [row[:2] for row in rows] == [["organoid", "1.000"], ["debris", "1.000"]]


def test_of_enough_images_only_what_never_varies_is_called_unreliable(tmp_path: Path) -> None:
    many = write(tmp_path / "many.json", 50, ("organoid",))
    document = json.loads(many.read_text())
    del document["annotations"][0]
    found = tmp_path / "found.json"
    found.write_text(json.dumps(document))
    printed = run("--predictions", found, "--labels", many)
    lines = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert "n = 50" not in printed
    assert "95 % intervals (* unreliable)" in printed.splitlines()[0]
    assert "*" not in lines["misses_per_100"]
    assert "0.000 [0.000, 0.000] *" in lines["merges_per_100"]
    assert printed.count("* unreliable: too few images or groups tell of it, or it is the same in all") == 1
    assert "Classes" not in printed


def test_images_of_one_group_are_said_to_be_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = read_pair(*[write(tmp_path / "l.json", 60, ("organoid",))] * 2)
    found = [Instances(size_hw=truth.size_hw) if i % 2 else truth for i, truth in enumerate(pair.predicted)]
    panel = evaluate(pair.truth, found, n_classes=1, groups=["p1"] * 60)
    show_evaluation({"predictions": "p.json", **panel.as_dict(), "protocol": None})
    printed = capsys.readouterr().out
    assert "60 images, score >= 0.50, maxDets 100, 95 % intervals (n = 1 group: unreliable)" in printed
    assert "note: all images are of one group: intervals say nothing about others" in printed
    assert "] *" not in printed


def test_the_worst_groups_are_those_of_the_metrics_that_have_a_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = read_pair(*[write(tmp_path / "l.json", 4, ("organoid",))] * 2)
    nothing = [Instances(size_hw=truth.size_hw) for truth in pair.truth]
    panel = evaluate(pair.truth, nothing, n_classes=1, groups=list("aabb"))
    show_evaluation({"predictions": "p.json", **panel.as_dict(), "protocol": None})
    worst = capsys.readouterr().out.partition("Worst groups")[2]
    assert [line.split()[0] for line in worst.splitlines() if "0.000" in line] == ["coco_ap50", "f1_50", "pq"]


def test_json_holds_all_metrics_of_all_parts(two_classes: Path) -> None:
    document: dict[str, Any] = json.loads(
        run("--predictions", two_classes, "--labels", two_classes, "--json")
    )
    assert set(document["metrics"]) == set(METRICS)
    assert set(document["by"]["class"]) == {"organoid", "debris"}
    assert set(document["by"]["class"]["debris"]) == set(document["by"]["size"]["small"]) == set(METRICS)
    assert document["metrics"]["boundary_error"]["unit"] == "px"
    assert document["metrics"]["coco_ap"]["reliable"] is False
