"""A run that the loop's gate refused is the newest finished one all the same: whoever uses it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelloop.errors import ProjectError, TrainingError
from labelloop.evaluating import evaluate_run
from labelloop.predict.predict import predict
from labelloop.project.adding import add_images
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import Meta
from labelloop.proposing import GATE, PROPOSER, note_refusal, proposer
from labelloop.status import project_status
from made_records import run_record


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The loop trained ``second``, and its gate refused it."""
    made = Project.init(tmp_path / "screen", ProjectConfig(name="screen", classes=("organoid",)))
    for name in ("first", "second"):
        finish(made, name)
    decided = {"new": "second", "old": "first", "promote": False, "reason": "it is worse by 9 points"}
    with made.ledger.write() as session:
        session.add(Meta(key=PROPOSER, value="first"))
        session.add(Meta(key=GATE, value=json.dumps(decided)))
    return made


def finish(project: Project, name: str) -> None:
    (project.runs_dir / name).mkdir(parents=True)
    project.save_run(run_record(name))


def test_status_shows_the_refusal_and_who_proposes(project: Project) -> None:
    found = project_status(project)
    assert found["promoted_run"] == "second"
    assert (found["loop"]["proposer"], found["loop"]["refused"]) == ("first", "second")
    assert found["loop"]["gate"]["reason"] == "it is worse by 9 points"


def test_a_later_run_of_a_person_is_refused_by_nobody(project: Project, watching: Any) -> None:
    finish(project, "by-hand")
    assert project_status(project)["loop"]["refused"] is None
    note_refusal(project, watching)
    assert watching.told == []
    assert proposer(project) == "first"


def test_status_of_a_project_without_a_loop_names_no_proposer(tmp_path: Path) -> None:
    project = Project.init(tmp_path, ProjectConfig(name="screen"))
    finish(project, "first")
    assert project_status(project)["loop"] == {"proposer": None, "refused": None, "gate": None}
    assert proposer(project) == "first"


@pytest.mark.parametrize("run", [None, "second"])
def test_who_names_no_run_is_told_that_the_one_taken_was_refused(
    project: Project, tmp_path: Path, watching: Any, run: str | None
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    add_images(project, [str(tmp_path / "a.png")])
    with pytest.raises(TrainingError, match="cannot be read"):  # the runs of this test have no files
        predict(project, out=tmp_path / "masks", run=run, progress=watching)
    with pytest.raises(ProjectError, match="no test image"):
        evaluate_run(project, run=run, progress=watching)
    notes = [told for told in watching.told if "refused" in told]
    assert len(notes) == 2 * (run is None)
    assert all("--run first" in told and "worse by 9" in told for told in notes)
