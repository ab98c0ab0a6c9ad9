from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from made_records import run_record


def begin(project: Project, name: str) -> None:
    (project.runs_dir / name).mkdir(parents=True)
    project.save_run(run_record(name, state="running"))


def finish(project: Project, name: str) -> None:
    project.save_run(replace(project.run(name), state="finished", promoted="guided", result={}))


def test_the_newest_finished_run_is_the_one_that_finished_last(tmp_path: Path) -> None:
    project = Project.init(tmp_path, ProjectConfig(name="screen"))
    begin(project, "interrupted")
    begin(project, "between")
    finish(project, "between")
    finish(project, "interrupted")  # resumed
    assert project.run().name == "interrupted"
    assert [run.name for run in project.finished_runs()] == ["between", "interrupted"]
    assert [run.name for run in project.runs()] == ["interrupted", "between"]


def test_a_run_whose_folder_was_deleted_is_finished_and_cannot_be_used(tmp_path: Path) -> None:
    project = Project.init(tmp_path, ProjectConfig(name="screen"))
    for name in ("first", "second"):
        begin(project, name)
        finish(project, name)
    (project.runs_dir / "second").rmdir()
    assert project.run().name == "first"
    assert [run.name for run in project.finished_runs(deleted=True)] == ["first", "second"]
