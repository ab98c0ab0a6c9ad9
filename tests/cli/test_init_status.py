from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from labelloop.instances import Instances
from labelloop.plurals import plural
from labelloop.project.config import LabelStudioConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, LabelRow, Meta
from labelloop.proposing import GATE, PROPOSER
from labelloop.review.choice import Choice
from labelloop.review.known import pull_cursor
from labelloop.review.packing import pack_json
from labelloop.review.rounds import move_rounds, plan_round, set_states
from labelloop.review.tasks import SKIPPED, mark_sent, round_tasks
from labelloop.review.tiles import whole_view
from labelloop.status import project_status
from made_records import run_record


def test_the_next_command_can_be_pasted_where_the_folder_has_a_space(labelloop, tmp_path: Path) -> None:
    root = tmp_path / "my screen"
    assert f"cd '{root}', then" in " ".join(labelloop("init", root).out.split())


def test_a_terminal_of_another_encoding_ends_no_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "labelloop", "init", str(tmp_path / "s"), "--name", "Zellkörper"]
    ran = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (ran.returncode, b"Zellk\\xf6rper" in ran.stdout) == (0, True)


def test_init_writes_what_it_was_told(labelloop, tmp_path: Path) -> None:
    root = tmp_path / "mein Schirm µ"
    ran = labelloop(
        "init", root, "--classes", "organoid, debris", "--pixel-size", "0.65", "--name", "Ö", "--json"
    )
    assert ran.code == 0
    assert ran.document == {
        "root": str(root),
        "name": "Ö",
        "classes": ["organoid", "debris"],
        "pixel_size_um": 0.65,
    }
    assert Project.open(root).config.pixel_size_um == 0.65


@pytest.mark.parametrize(
    "options", [["--pixel-size", "0"], ["--pixel-size", "nan"], ["--classes", "a,a"], ["--classes", "a,,b"]]
)
def test_init_makes_nothing_of_wrong_settings(labelloop, tmp_path: Path, options: list[str]) -> None:
    ran = labelloop("init", tmp_path / "p", *options)
    assert ran.code == 2
    assert not (tmp_path / "p").exists()


def test_init_leaves_a_project_alone(labelloop, project: Path) -> None:
    before = (project / "labelloop.toml").read_bytes()
    assert labelloop("init", project, "--name", "other").code == 1
    assert (project / "labelloop.toml").read_bytes() == before


def _add(project: Project, name: str, split: str, n_objects: int | None) -> None:
    with project.ledger.write() as session:
        row = ImageRow(sha256=name, path=name, file_name=name, height=8, width=8, split=split)
        session.add(row)
        session.flush()
        for revision in range(1, 3 if n_objects is not None else 1):
            session.add(
                LabelRow(
                    image_id=row.id,
                    revision=revision,
                    source="test",
                    n_objects=(n_objects or 0) * revision,
                    instances=encode_instances(Instances.from_dense(np.zeros((0, 8, 8)))),
                )
            )


def test_status_of_an_empty_project_says_what_to_do(labelloop, project: Path) -> None:
    found = labelloop("status", "-C", project, "--json").document
    assert found["images"] == {"total": 0, "labelled": 0, "unlabelled": 0, "val": 0, "test": 0}
    assert (found["runs"], found["promoted"], found["rounds"], found["minutes_spent"]) == ([], None, 0, 0)
    assert any("add labels" in step for step in found["next"])


def test_status_counts_splits_and_newest_revisions(labelloop, project: Path) -> None:
    opened = Project.open(project)
    for name, split, objects in [
        ("a", "train", 3), ("b", "train", None), ("c", "train", None), ("d", "val", 1), ("e", "test", 0),
    ]:  # fmt: skip
        _add(opened, name, split, objects)
    found = labelloop("status", "-C", project, "--json").document
    assert found["images"] == {"total": 5, "labelled": 1, "unlabelled": 2, "val": 1, "test": 1}
    assert found["objects"] == 8  # the second revisions count
    assert "1 labelled and 2 unlabelled" in labelloop("status", "-C", project).out


def _offers(project: Project, command: str) -> list[str]:
    return [step for step in project_status(project)["next"] if f"labelloop {command}" in step]


@pytest.mark.parametrize("labelled", [0, 3])
def test_status_offers_review_before_the_first_run_where_labels_are_few(
    project: Path, *, labelled: int
) -> None:
    opened = Project.open(project)
    assert not _offers(opened, "connect")  # there is nothing to ask about
    for number in range(5):
        _add(opened, str(number), "train", 1 if number < labelled else None)
    assert _offers(opened, "connect")
    opened.set_label_studio(LabelStudioConfig(url="http://127.0.0.1:8080", project=1))
    assert not _offers(opened, "connect")
    assert _offers(opened, "push")
    for number in range(20):
        _add(opened, f"more {number}", "train", 1)
    assert not _offers(opened, "push")  # a training is worth more
    assert _offers(opened, "train")


def test_status_shows_runs_and_how_to_resume(labelloop, project: Path) -> None:
    opened = Project.open(project)
    estimate = {"value": 0.6712, "low": 0.6331, "high": 0.7049, "n": 15}
    result = {
        "split": "test",
        "verified": False,
        "supervised": {"coco_ap": estimate, "pq": estimate},
        "guided": {
            "coco_ap": {"value": None, "low": None, "high": None, "n": 15, "reason": "no true object"}
        },
        "difference": {"coco_ap": {**estimate, "value": 0.02, "low": -0.011, "high": 0.05}},
    }
    opened.save_run(run_record("done", result=result))
    opened.save_run(run_record("cut", state="running"))
    for name in ("done", "cut"):
        (opened.runs_dir / name).mkdir(parents=True)
    found = labelloop("status", "-C", project, "--json").document
    assert (found["promoted"], found["promoted_run"], found["unfinished"]) == ("guided", "done", ["cut"])
    assert found["newest_result"]["supervised"] == {"coco_ap": estimate}
    shown = labelloop("status", "-C", project).out
    assert "0.671 [0.633, 0.705]" in shown
    assert "+0.020 [-0.011, +0.050]" in shown
    assert "no true object" in shown
    assert f"labelloop -C {project} train --resume --name cut" in shown


def test_status_offers_a_training_where_corrections_wait_for_one(labelloop, project: Path) -> None:
    opened = Project.open(project)
    _add(opened, "a.png", "train", 2)
    opened.save_run(run_record())
    (opened.runs_dir / "r").mkdir(parents=True)
    assert not any(
        " train " in line for line in labelloop("status", "-C", project, "--json").document["next"]
    )
    with opened.ledger.write() as session:
        labels = session.scalars(select(LabelRow)).first()
        session.add(
            LabelRow(
                image_id=labels.image_id,
                revision=9,
                source="review:1",
                n_objects=0,
                instances=labels.instances,
            )
        )
    steps = labelloop("status", "-C", project, "--json").document["next"]
    assert any("train --labels all   (" in line for line in steps)


def test_status_says_that_the_gate_refused_the_newest_run(labelloop, project: Path) -> None:
    opened = Project.open(project)
    for name in ("first", "second"):
        opened.save_run(run_record(name))
        (opened.runs_dir / name).mkdir(parents=True)
    assert "proposes" not in labelloop("status", "-C", project).out
    decided = {"new": "second", "old": "first", "promote": False, "reason": "it is worse"}
    with opened.ledger.write() as session:
        session.add(Meta(key=PROPOSER, value="first"))
        session.add(Meta(key=GATE, value=json.dumps(decided)))
    assert "first proposes; the gate refused second: it is worse" in labelloop("status", "-C", project).out


def test_runs_whose_folders_were_deleted_are_not_offered_any_more(labelloop, project: Path) -> None:
    opened = Project.open(project)
    for name, state in (("kept", "finished"), ("newest", "finished"), ("cut", "running")):
        opened.save_run(run_record(name, state=state, config={"request": {}}))
        (opened.runs_dir / name).mkdir(parents=True)
    for name in ("newest", "cut"):
        shutil.rmtree(opened.runs_dir / name)
    found = labelloop("status", "-C", project, "--json").document
    assert (found["promoted_run"], found["unfinished"]) == ("kept", [])
    assert [run["there"] for run in found["runs"]] == [True, False, False]
    assert not any("--resume" in line for line in found["next"])
    assert "cut: not finished" in (shown := labelloop("status", "-C", project).out)
    assert shown.count("its folder was deleted") == 2
    assert opened.run().name == "kept"
    assert "no unfinished run" in labelloop("train", "-C", project, "--resume").err


def _ask(
    project: Project, server: LabelStudioConfig, *names: str, sent: int | None = None, **minutes: float
) -> None:
    """A round on a server, which the project is tied to afterwards; of its tasks all or some are sent."""
    cost = {"value": 2.0, "low": 1.0, "high": 4.0, **minutes}
    nothing = Instances(size_hw=(8, 8))
    choices = [
        Choice(
            image=image, proposed=nothing, views=(whole_view(nothing),), confidence=0.5,
            chosen=({"arm": "auto", "minutes": cost},),
        )
        for image in project.images() if image.file_name in names
    ]  # fmt: skip
    project.set_label_studio(server)
    record = plan_round(
        project, choices, run=None, which=None, server=server.server_name, min_score=0.5, strategy="auto"
    )
    tasks = round_tasks(project, record.id)[:sent]
    mark_sent(project, [(task.key, number, pack_json([])) for number, task in enumerate(tasks)])


@pytest.mark.parametrize("sent", [0, 1])
def test_status_says_to_go_on_with_a_push_that_was_cut_off(labelloop, project: Path, sent: int) -> None:
    opened = Project.open(project)
    for name in ("a", "b", "c"):
        _add(opened, name, "train", None)
    _ask(opened, LabelStudioConfig(url="http://127.0.0.1:8080", project=1), "a", "b", "c", sent=sent)
    found = labelloop("status", "-C", project, "--json").document
    assert (found["waiting"]["tasks"], found["waiting"]["minutes"]) == (sent, 2.0 * sent)
    steps = [step for step in found["next"] if "push" in step or "pull" in step]
    assert (
        steps[0] == f"labelloop push   (continues: {plural(3 - sent, 'task is', 'tasks are')} not sent yet)"
    )
    assert steps[1:] == ["labelloop pull   (1 task waits for review)"] * sent


def test_status_counts_what_waits_where_the_project_is_tied_to_and_says_the_rest(
    labelloop, project: Path
) -> None:
    opened = Project.open(project)
    for name in ("a", "b", "c"):
        _add(opened, name, "train", None)
    old, new = (LabelStudioConfig(url="http://127.0.0.1:8080", project=number) for number in (1, 2))
    _ask(opened, old, "a", "b")
    _ask(opened, new, "c")
    found = labelloop("status", "-C", project, "--json").document
    waiting = found["waiting"]
    assert (waiting["tasks"], waiting["minutes"]) == (1, 2.0)
    assert waiting["elsewhere"] == {"http://127.0.0.1:8080#1": 2}
    assert [step for step in found["next"] if "pull" in step] == [
        "labelloop pull   (1 task waits for review)"
    ]
    shown = labelloop("status", "-C", project).out
    assert "1 task waits, about 2 minutes" in shown
    assert "2 tasks wait at http://127.0.0.1:8080#1, which the project is not tied to now" in shown


def test_status_says_the_interval_of_the_minutes_that_wait(labelloop, project: Path) -> None:
    opened = Project.open(project)
    for name in ("a", "b", "c"):
        _add(opened, name, "train", None)
    server = LabelStudioConfig(url="http://127.0.0.1:8080", project=1)
    _ask(opened, server, "a")  # as versions planned it that did not keep what intervals have in common
    waiting = labelloop("status", "-C", project, "--json").document["waiting"]
    assert (waiting["minutes"], waiting["minutes_low"], waiting["minutes_high"]) == (2.0, None, None)
    assert "about 2 minutes of work\n" in labelloop("status", "-C", project).out
    set_states(opened, {task.key: SKIPPED for task in round_tasks(opened, 1)})
    _ask(opened, server, "b", "c", value=20.0, low=10.0, high=40.0, shared=0.0)
    waiting = labelloop("status", "-C", project, "--json").document["waiting"]
    assert waiting["minutes"] == 40.0
    assert 20 < waiting["minutes_low"] < 40 < waiting["minutes_high"] < 80  # they do not err together
    ends = f"({waiting['minutes_low']:.0f} to {waiting['minutes_high']:.0f})"
    assert f"about 40 minutes of work {ends}\n" in labelloop("status", "-C", project).out


def test_rounds_go_on_where_their_server_is_found_at_another_address(labelloop, project: Path) -> None:
    opened = Project.open(project)
    _add(opened, "a", "train", None)
    old, new = (LabelStudioConfig(url=f"http://127.0.0.1:{port}", project=1) for port in (8080, 8081))
    _ask(opened, old, "a")
    with opened.ledger.write() as session:
        session.add(Meta(key=f"pull:{old.server_name}", value="here"))
    move_rounds(opened, old.server_name, new.server_name)
    opened.set_label_studio(new)
    found = labelloop("status", "-C", project, "--json").document
    assert (found["waiting"]["tasks"], found["waiting"]["elsewhere"]) == (1, {})
    cursors = [pull_cursor(opened, f"pull:{each.server_name}") for each in (old, new)]
    assert cursors == [None, "here"]


def test_nothing_is_pulled_from_where_the_project_is_not_tied_to_any_more(labelloop, project: Path) -> None:
    opened = Project.open(project)
    _add(opened, "a", "train", None)
    _ask(opened, LabelStudioConfig(url="http://127.0.0.1:8080", project=1), "a")
    opened.set_label_studio(LabelStudioConfig(url="http://127.0.0.1:9090", project=1))
    found = labelloop("status", "-C", project, "--json").document
    assert (found["waiting"]["tasks"], found["waiting"]["minutes"]) == (0, 0.0)
    assert not any(" pull " in step for step in found["next"])


COMMANDS = [
    ["status"],
    ["check"],
    ["train", "--iterations", "1"],
    ["evaluate"],
    ["predict", "--out", "masks"],
    ["export", "--format", "label-studio", "--out", "tasks"],
    ["push"],
    ["pull"],
    ["report"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=[command[0] for command in COMMANDS])
def test_classes_that_moved_are_one_line_with_the_way_out(labelloop, tmp_path: Path, command) -> None:
    root = tmp_path / "screen"
    assert labelloop("init", root, "--classes", "organoid,debris").code == 0
    opened = Project.open(root)
    _add(opened, "a", "train", 0)
    two = Instances.from_dense(np.ones((2, 8, 8)), [0, 1])
    with opened.ledger.write() as session:
        for row in session.scalars(select(LabelRow)):
            row.instances = encode_instances(two)
    assert labelloop("status", "-C", root).code == 0
    path = root / "labelloop.toml"
    path.write_text(path.read_text().replace('["organoid", "debris"]', '["debris"]'))
    ran = labelloop(*command, "-C", root)
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert "debris, not organoid, debris" in line
    assert "the classes in labelloop.toml, in this order: organoid, debris" in line


def test_the_doctor_names_classes_that_moved(labelloop, project: Path) -> None:
    opened = Project.open(project)
    _add(opened, "a", "train", 0)
    with opened.ledger.write() as session:
        for row in session.scalars(select(LabelRow)):
            row.instances = encode_instances(Instances.from_dense(np.ones((1, 8, 8)), [0]))
    Project.open(project)
    path = project / "labelloop.toml"
    path.write_text(path.read_text().replace('["organoid"]', '["debris", "organoid"]'))
    found = labelloop("doctor", "-C", project, "--json").document
    assert any("debris, organoid, not organoid" in line["found"] for line in found["findings"])
