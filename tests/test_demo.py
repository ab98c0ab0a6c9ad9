"""The demo's whole path, with a training of a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from labelloop.demo import DemoSize, demo
from labelloop.errors import UsageError
from labelloop.progress import Silent
from labelloop.project.project import Project

TINY = DemoSize(labelled=3, unlabelled=4, val=2, test=3, size_hw=(96, 96), shown=2)


class InterruptedWhileEvaluating(Silent):
    def start(self, stage: str, total: int) -> None:
        if stage == "evaluating guided":
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A demo that was interrupted when training was nearly over, and then called again."""
    folder = tmp_path_factory.mktemp("demo") / "demo folder"
    with pytest.raises(KeyboardInterrupt):
        demo(folder, size=TINY, iterations=6, progress=InterruptedWhileEvaluating())
    return folder, demo(folder, size=TINY)


def test_an_interrupted_demo_goes_on_where_it_was(finished: tuple[Path, dict]) -> None:
    _, result = finished
    assert result["trained"]
    assert result["train"]["iterations"] == 6


def test_a_demo_leaves_a_project_with_a_run_predictions_and_pictures(finished: tuple[Path, dict]) -> None:
    folder, result = finished
    project = Project.find(folder / "predictions")
    assert [
        len(project.images(split=s, labelled=k))
        for s, k in (("train", True), ("train", False), ("val", True), ("test", True))
    ] == [3, 4, 2, 3]
    assert [run.state for run in project.runs()] == ["finished"]
    assert Path(result["predictions"]).is_file()
    assert len(result["pictures"]) == 1 + TINY.test
    for picture in result["pictures"]:
        with Image.open(picture) as image:
            assert min(image.size) >= 96


def test_a_demo_chooses_by_validation_images_and_ends_with_both_models_on_the_test_images(
    finished: tuple[Path, dict],
) -> None:
    train, test = finished[1]["train"], finished[1]["test"]
    assert (train["split"], train["verified"], test["split"]) == ("val", True, "test")
    assert train["gate"] is not None
    for which in ("supervised", "guided", "difference"):
        assert train[which]["coco_ap"]["n"] == TINY.val
        assert test[which]["coco_ap"]["n"] == TINY.test


def test_a_finished_demo_is_not_trained_again(finished: tuple[Path, dict], watching: Any) -> None:
    folder, first = finished
    again = demo(folder, size=TINY, progress=watching)
    assert not again["trained"]
    assert again["train"] == first["train"]
    assert again["test"] == first["test"]
    assert any("trained already" in note for note in watching.told)


def test_a_folder_with_something_else_or_with_another_demo_is_refused(
    finished: tuple[Path, dict], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="other settings"):
        demo(finished[0], size=TINY, seed=3)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="other files"):
        demo(tmp_path, size=TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
