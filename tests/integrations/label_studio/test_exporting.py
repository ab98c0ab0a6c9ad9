"""A project's labels and predictions as a file of tasks."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.instances import Instances
from labelloop.integrations.label_studio.export_writer import write_export
from labelloop.integrations.label_studio.exporting import ExportReport, export_project
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, LabelRow, PredictionRow
from made_records import run_record

H, W = 40, 60


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """With a finished run, and no image yet."""
    made = Project.init(tmp_path / "screen", ProjectConfig(name="screen", classes=("cell",)))
    finish(made, "first")
    return made


def finish(project: Project, name: str) -> None:
    project.save_run(run_record(name, promoted="supervised"))
    (project.runs_dir / name).mkdir(parents=True)


def squares(
    *corners: tuple[int, int], crowd: Instances | None = None, score: float | None = None
) -> Instances:
    """Objects of 8 px by their upper left corners, and an area that is unknown."""
    masks = np.zeros((len(corners), H, W), np.bool_)
    for mask, (y, x) in zip(masks, corners, strict=True):
        mask[y : y + 8, x : x + 8] = True
    scores = None if score is None else [score] * len(corners)
    found = Instances.from_dense(masks, scores=scores)
    if crowd is None:
        return found
    return Instances(
        size_hw=(H, W),
        rles=(*found.rles, *crowd.rles),
        labels=np.zeros(len(found) + len(crowd), np.int64),
        crowd=np.array([False] * len(found) + [True] * len(crowd)),
    )


def add(
    project: Project,
    name: str,
    labels: Instances | None = None,
    predicted: Instances | None = None,
    *,
    run: str = "first",
    split: str = "train",
) -> None:
    with project.ledger.write() as session:
        image = ImageRow(sha256=name, path=name, file_name=name, height=H, width=W, split=split)
        session.add(image)
        session.flush()
        if labels is not None:
            session.add(
                LabelRow(
                    image_id=image.id, revision=1, source="coco:x", n_objects=len(labels),
                    instances=encode_instances(labels),
                )
            )  # fmt: skip
        if predicted is not None:
            session.add(
                PredictionRow(
                    run=run, which="supervised", image_id=image.id, instances=encode_instances(predicted)
                )
            )


def tasks(report: ExportReport) -> dict[str, dict[str, Any]]:
    written = json.loads(report.out.read_text(encoding="utf-8"))
    return {task["data"]["image"].rpartition("=")[2]: task for task in written}


def test_labels_of_an_image_with_unknown_area_are_left_out_and_counted(
    project: Project, tmp_path: Path
) -> None:
    partly = squares((4, 4), crowd=squares((20, 20)))
    add(project, "whole.png", squares((4, 4)), squares((4, 4), score=0.9))
    add(project, "partly.png", partly, squares((4, 4), (20, 20), score=0.9))
    add(project, "unseen.png", partly)
    report = export_project(project, tmp_path / "out")
    assert (report.images, report.labelled, report.predicted, report.partly_labelled) == (3, 1, 2, 2)
    written = tasks(report)
    assert {name: len(task["annotations"]) for name, task in written.items()} == {
        "whole.png": 1, "partly.png": 0, "unseen.png": 0,
    }  # fmt: skip
    assert len(written["partly.png"]["predictions"][0]["result"]) == 2


def test_the_command_says_how_many_labels_it_leaves_out_and_why(project: Project, tmp_path: Path) -> None:
    def export(*more: str) -> str:
        command = ["export", "--format", "label-studio", "--out", str(tmp_path / "out"), "-C"]
        ran = CliRunner().invoke(app, [*command, str(project.root), *more], catch_exceptions=False)
        assert ran.exit_code == 0
        return ran.stdout

    add(project, "whole.png", squares((4, 4)))
    assert "unknown" not in export()
    add(project, "partly.png", squares((4, 4), crowd=squares((20, 20))))
    assert json.loads(export("--json"))["partly_labelled"] == 1
    said = export()
    assert "2 tasks, 1 with labels" in said
    assert "labels left out: 1 " in said
    assert "unknown" in said


def test_images_of_the_pool_with_predictions_are_tasks_and_those_without_are_counted(
    project: Project, tmp_path: Path
) -> None:
    add(project, "labelled.png", squares((4, 4)))
    add(project, "seen.png", predicted=squares((4, 4), score=0.9))
    add(project, "empty.png", predicted=squares(score=0.9))
    add(project, "unseen.png")
    add(project, "test.png", split="test")
    report = export_project(project, tmp_path / "out")
    assert {name: len(task["predictions"]) for name, task in tasks(report).items()} == {
        "labelled.png": 0, "seen.png": 1, "empty.png": 1,
    }  # fmt: skip
    assert (report.run, report.which, report.not_predicted) == ("first", "supervised", 1)


def test_predictions_are_of_the_newest_run_that_is_still_there_and_say_so(
    project: Project, tmp_path: Path
) -> None:
    add(project, "a.png", predicted=squares((4, 4), score=0.9))
    finish(project, "second")
    add(project, "b.png", predicted=squares((4, 4), score=0.9), run="second")

    def versions() -> dict[str, str]:
        found = tasks(export_project(project, tmp_path / "out"))
        return {name: task["predictions"][0]["model_version"] for name, task in found.items()}

    assert versions() == {"b.png": "second-supervised"}
    shutil.rmtree(project.runs_dir / "second")
    assert versions() == {"a.png": "first-supervised"}


def test_the_command_says_whose_predictions_it_writes_and_what_it_leaves_out(
    project: Project, tmp_path: Path
) -> None:
    def export(*more: str) -> str:
        command = ["export", "--format", "label-studio", "--out", str(tmp_path / "out"), "-C"]
        ran = CliRunner().invoke(app, [*command, str(project.root), *more], catch_exceptions=False)
        assert ran.exit_code == 0
        return ran.stdout

    add(project, "labelled.png", squares((4, 4)))
    add(project, "seen.png", predicted=squares((4, 4), score=0.9))
    assert "left out" not in export()
    add(project, "unseen.png")
    document = json.loads(export("--json"))
    assert (document["run"], document["which"], document["not_predicted"]) == ("first", "supervised", 1)
    said = export()
    assert "1 with predictions of first (supervised)" in said
    assert "left out: 1 image of the pool" in said
    shutil.rmtree(project.runs_dir / "first")
    document = json.loads(export("--json"))
    assert (document["run"], document["which"], document["not_predicted"]) == (None, None, 2)


def test_an_export_needs_less_memory_than_its_file_has(project: Project, tmp_path: Path) -> None:
    ragged = Instances.from_dense(np.random.default_rng(0).random((1, 64, 64)) < 0.5)
    seen = Instances(size_hw=ragged.size_hw, rles=ragged.rles, labels=ragged.labels, scores=np.ones(1, "f4"))
    add(project, "first.png", ragged, seen)
    export_project(project, tmp_path / "out")  # what is kept for the next time is not counted
    for number in range(60):
        add(project, f"{number}.png", ragged, seen)
    tracemalloc.start()
    report = export_project(project, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.images == len(tasks(report)) == 61
    assert peak < report.out.stat().st_size


def test_the_file_is_one_json_document_as_any_writer_would_write_it(project: Project, tmp_path: Path) -> None:
    for number in range(45):
        add(project, f"{number} ü.png", squares((number % 30, number)) if number % 3 else None,
            squares((4, 4), score=0.9) if number % 2 else None)  # fmt: skip
    report = export_project(project, tmp_path / "out")
    text = report.out.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), ensure_ascii=False)
    assert (report.images, report.labelled, report.predicted) == (37, 30, 22)
    names = [f"{number}%20%C3%BC.png" for number in range(45) if number % 3 or number % 2]
    assert list(tasks(report)) == names


def test_an_export_that_is_stopped_leaves_the_file_of_before(project: Project, tmp_path: Path) -> None:
    def stopped() -> Iterator[tuple[str, Instances, None]]:
        yield "a.png", squares((4, 4)), None
        raise KeyboardInterrupt

    add(project, "a.png", squares((4, 4)))
    report = export_project(project, tmp_path / "out")
    before = report.out.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_export(report.out, stopped(), ("cell",))
    assert report.out.read_bytes() == before
    assert list(report.out.parent.iterdir()) == [report.out]
