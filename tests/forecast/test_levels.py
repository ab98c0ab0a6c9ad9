"""Which finished runs set the height of a learning curve."""

from __future__ import annotations

import pytest

from labelloop.forecast.levels import levels_of
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from made_records import run_record


def finish(
    project: Project,
    name: str,
    value: float,
    *,
    split: str = "val",
    images: int = 3,
    val: tuple[int, ...] = (8, 9),
    **asked: object,
) -> None:
    metrics = {"coco_ap": {"value": value, "low": value - 0.098, "high": value + 0.098, "n": 5}}
    config = {"train_images": list(range(images)), "val_images": list(val), "request": asked}
    result = {"split": split, "guided": metrics, "supervised": None}
    project.save_run(run_record(name, config=config, result=result))


def test_heights_are_the_runs_that_validation_measured_oldest_first(tmp_path):
    project = Project.init(tmp_path, ProjectConfig(name="levels", classes=("organoid",)))
    assert levels_of(project, "coco_ap") == []
    finish(project, "a", 0.5, images=3)
    finish(project, "b", 0.6, images=5)
    finish(project, "c", 0.9, split="test", images=6)
    levels = levels_of(project, "coco_ap")
    assert [(level.run, level.n_images, level.value) for level in levels] == [("a", 3, 0.5), ("b", 5, 0.6)]
    assert levels[0].se == pytest.approx(0.05)
    assert levels_of(project, "pq") == []


def test_runs_that_were_asked_for_otherwise_than_the_newest_set_no_height(tmp_path):
    project = Project.init(tmp_path, ProjectConfig(name="levels", classes=("organoid",)))
    finish(project, "short", 0.4, time_s=60.0)
    finish(project, "first", 0.5, time_s=1200.0, seed=1)
    finish(project, "second", 0.6, time_s=1200.0, labels="5%")
    assert [level.run for level in levels_of(project, "coco_ap")] == ["first", "second"]


def test_runs_know_whether_they_were_measured_on_the_same_images(tmp_path):
    project = Project.init(tmp_path, ProjectConfig(name="levels", classes=("organoid",)))
    finish(project, "a", 0.5, val=(7, 8))
    finish(project, "b", 0.5, val=(8, 7))
    finish(project, "c", 0.5, val=(7, 8, 9))
    a, b, c = (level.measured for level in levels_of(project, "coco_ap"))
    assert a == b != c
