"""Exit code 1 where a right command could not be carried out; 2 is for wrong usage alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.project.project import Project
from made_records import run_record


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one image, and labels of it in a class that the project has not."""
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 40, "height": 32}],
        "categories": [{"id": 1, "name": "cyst"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]]}
        ],
    }
    (folder / "labels.json").write_text(json.dumps(document))
    return folder


def test_labels_that_cannot_be_added_are_exit_1(labelloop, project: Path, images: Path) -> None:
    for path in (images / "labels.json", images / "gone.json"):
        ran = labelloop("add", "labels", path, "-C", project, "--json")
        assert ran.code == 1
        assert ran.document["error"]["what"]


def test_a_run_that_has_not_finished_is_exit_1(labelloop, project: Path, images: Path) -> None:
    labelloop("add", "images", images, "-C", project)
    opened = Project.open(project)
    opened.save_run(run_record("cut", state="running"))
    ran = labelloop("predict", "--run", "cut", "--out", images / "out", "-C", project)
    assert (ran.code, "--resume --name cut" in ran.err) == (1, True)
    assert labelloop("predict", "--run", "no", "--out", images / "out", "-C", project).code == 2


def test_nothing_to_resume_is_exit_1_and_a_name_that_no_run_has_is_exit_2(labelloop, project: Path) -> None:
    ran = labelloop("train", "--resume", "-C", project)
    assert (ran.code, "there is no unfinished run" in ran.err) == (1, True)
    assert labelloop("train", "--resume", "--name", "no", "-C", project).code == 2


def test_a_way_out_names_the_project_where_one_is_outside_it(
    labelloop, project: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelloop("add", "images", images, "-C", project)
    opened = Project.open(project)
    opened.save_run(run_record("my run", state="running", config={"request": {"seed": 0}}))
    (opened.runs_dir / "my run").mkdir(parents=True)
    commands = (["predict", "--run", "my run", "--out", "out"], ["train", "--resume", "--seed", "1"])
    for folder, program in ((tmp_path, f"labelloop -C {shlex.quote(str(project))}"), (project, "labelloop")):
        monkeypatch.chdir(folder)
        for command in commands:
            error = labelloop(*command, "-C", project, "--json").document["error"]
            assert f"{program} train --resume --name 'my run'" in error["way_out"]


def test_a_format_list_may_end_with_a_comma_and_names_what_is_none(labelloop, project: Path) -> None:
    asked = labelloop("predict", "--out", "out", "--format", "coco, ,", "-C", project)
    assert (asked.code, "labelloop train" in asked.err) == (1, True)  # no run yet: the format was understood
    empty = labelloop("predict", "--out", "out", "--format", ",", "-C", project)
    assert (empty.code, "no output format is named" in empty.err) == (2, True)


@pytest.mark.parametrize("name", ["gone", "empty"])
def test_paths_in_which_there_is_no_image_are_exit_1(
    labelloop, project: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    for command in (["predict", "--out", tmp_path / "out"], ["add", "images"]):
        assert labelloop(*command, tmp_path / name, "-C", project).code == 1
