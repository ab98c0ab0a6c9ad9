from __future__ import annotations

from pathlib import Path

from labelloop.project.config import ProjectConfig
from labelloop.project.looks import count_look, looks
from labelloop.project.project import Project, RunRecord


def test_looks_are_counted_in_order_with_what_was_seen(tmp_path: Path) -> None:
    project = Project.init(tmp_path, ProjectConfig(name="a"))
    for name in ("first", "second"):
        project.save_run(
            RunRecord(
                name=name,
                state="finished",
                method="guided",
                model="m",
                seed=0,
                promoted="guided",
                config={},
                result=None,
            )
        )
    metrics = {"coco_ap": {"value": 0.5, "low": None, "high": None, "n": 3}, "other": {"value": 1}}
    assert count_look(project, run="first", which="guided", n_images=3, metrics=metrics) == 1
    assert count_look(project, run="second", which="guided", n_images=3, metrics=metrics) == 2
    assert count_look(project, run="first", which="guided", n_images=3, metrics=metrics) == 2  # as before
    seen = looks(Project.open(tmp_path))
    assert [look.run for look in seen] == ["first", "second"]
    assert seen[0].metrics == {"coco_ap": metrics["coco_ap"]}
