from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labelloop.project.config import ProjectConfig
from labelloop.project.looks import count_look, looks
from labelloop.project.project import Project
from labelloop.project.tables import LookRow
from made_records import run_record


def test_looks_are_counted_in_order_with_what_was_seen(tmp_path: Path) -> None:
    project = Project.init(tmp_path, ProjectConfig(name="a"))
    for name in ("first", "second"):
        project.save_run(run_record(name))
    metrics = {"coco_ap": {"value": 0.5, "low": None, "high": None, "n": 3}, "other": {"value": 1}}
    assert count_look(project, run="first", which="guided", n_images=3, metrics=metrics) == 1
    assert count_look(project, run="second", which="guided", n_images=3, metrics=metrics) == 2
    assert count_look(project, run="first", which="guided", n_images=3, metrics=metrics) == 2  # as before
    seen = looks(Project.open(tmp_path))
    assert [look.run for look in seen] == ["first", "second"]
    assert seen[0].metrics == {"coco_ap": metrics["coco_ap"]}


def test_a_look_that_two_commands_take_at_once_is_counted_once(tmp_path: Path) -> None:
    project = Project.init(tmp_path, ProjectConfig(name="a"))
    project.save_run(run_record("first"))
    metrics = {"coco_ap": {"value": 0.5}}
    with ThreadPoolExecutor() as threads, project.ledger.write() as session:
        session.add(LookRow(run="first", which="guided", n_images=3, metrics=metrics))
        session.flush()  # the ledger is locked
        other = threads.submit(
            count_look, Project.open(tmp_path), run="first", which="guided", n_images=3, metrics=metrics
        )
        time.sleep(0.5)  # it has looked at the ledger by now, and waits to write
        session.commit()
        assert other.result() == 1
    assert len(looks(project)) == 1
