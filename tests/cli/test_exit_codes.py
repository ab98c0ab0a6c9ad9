"""Exit code 1 where a right command could not be carried out; 2 is for wrong usage alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.project.project import Project, RunRecord


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
    begun = RunRecord(
        name="cut", state="running", method="guided", model="m", seed=0, promoted=None, config={}, result=None
    )
    opened.save_run(begun)
    ran = labelloop("predict", "--run", "cut", "--out", images / "out", "-C", project)
    assert (ran.code, "--resume --name cut" in ran.err) == (1, True)
    assert labelloop("predict", "--run", "no", "--out", images / "out", "-C", project).code == 2


@pytest.mark.parametrize("name", ["gone", "empty"])
def test_paths_in_which_there_is_no_image_are_exit_1(
    labelloop, project: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    for command in (["predict", "--out", tmp_path / "out"], ["add", "images"]):
        assert labelloop(*command, tmp_path / name, "-C", project).code == 1
