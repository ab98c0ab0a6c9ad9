"""What a task should cost counts the same things as what it is found to have cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.budget.doubt import image_doubt
from labelloop.budget.proposer import Proposer
from labelloop.budget.strategies import Pick
from labelloop.budget.timed_tasks import edit_records, timed_tasks
from labelloop.instances import Instances
from labelloop.models.catalog import build_model
from labelloop.models.data_stats import DataStats
from labelloop.progress import Silent
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import DoubtRow, ImageRow, LabelRow, PredictionRow, RunRow
from labelloop.review.choice import Choice
from labelloop.review.edits import KeyedInstances
from labelloop.review.partly import partly_reviewed
from labelloop.review.pulled import PulledTask, ReadReview
from labelloop.review.records import store_pull
from labelloop.review.rounds import plan_round
from labelloop.review.tasks import TaskRecord, round_tasks
from labelloop.runs.checkpoint import save_tensors
from labelloop.runs.files import RunFiles, write_json
from made_records import pulled_annotation

SIDE, RADIUS = 512, 12
MODEL, MIN_SCORE = "mask-rcnn-lite", 0.5


def field(n: int) -> Instances:
    """Discs all over a field, each fifth of which is not sure enough to be shown."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    masks = [(y - cy) ** 2 + (x - cx) ** 2 < RADIUS**2 for cy, cx in rng.uniform(0, SIDE, (n, 2))]
    scores = np.where(np.arange(n) % 5 == 0, 0.3, 0.9)
    return Instances.from_dense(np.array(masks), scores=scores)


def add_run(project: Project, seen: Instances, *, unmatched: int = 0) -> None:
    """A run whose model saw this in the project's image; its weights are as they begin.

    Other looks saw so many objects more.
    """
    stats = DataStats(
        classes=project.config.classes,
        image_size_hw=(SIDE, SIDE),
        diameter_px=(12.0, 20.0, 30.0),
        box_side_px=(12.0, 20.0, 30.0),
        objects_per_image=(100.0, 200.0),
    )
    files = RunFiles(folder=project.runs_dir / "r")
    files.folder.mkdir(parents=True)
    model = build_model(MODEL, stats, pretrained=False)
    save_tensors(files.weights("supervised"), {"model": model.module().state_dict()})
    config = {"model": MODEL, "stats": dataclasses.asdict(stats), "request": {"method": "supervised"}}
    write_json(files.config, config)
    doubt = image_doubt(seen, [])
    doubts = {
        "agreement": doubt.agreement.tolist(),
        "unmatched": [1.0] * unmatched,
        "outline": doubt.outline_px,
    }
    run: dict[str, Any] = {"run": "r", "which": "supervised", "image_id": 1}
    with project.ledger.write() as session:
        session.add(
            RunRow(
                name="r", state="finished", method="supervised", model=MODEL, seed=0, promoted="supervised",
                config={}, result=None, started_at=datetime(2026, 1, 1),
            )
        )  # fmt: skip
        session.flush()
        session.add(PredictionRow(**run, instances=encode_instances(seen)))
        session.add(DoubtRow(**run, doubts={"scores": doubt.scores.tolist(), **doubts}))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.init(tmp_path, ProjectConfig(name="field", classes=("cell",)))
    with project.ledger.write() as session:
        session.add(ImageRow(id=1, sha256="a", path="a.png", file_name="a.png", height=SIDE, width=SIDE))
    return project


def proposer_of(project: Project) -> Proposer:
    partly = partly_reviewed(project, "s")
    return Proposer(project, project.images(), partly, run=None, twice=True, progress=Silent())


def as_shown(_task: TaskRecord, _result: Any, shown: KeyedInstances) -> ReadReview:
    return ReadReview(objects=shown, untouched=frozenset(shown.keys))


def ask(project: Project, proposer: Proposer, units: Sequence[int]) -> None:
    """A round about these units, all of it found right by a person."""
    picks = [Pick(index=index, arm="random", why="") for index in units]
    record = plan_round(
        project,
        proposer.choices(picks),
        run=proposer.run,
        which=proposer.which,
        server="s",
        min_score=proposer.min_score,
        strategy="random",
    )
    pulled = [
        PulledTask(key=task.key, server_id=i, annotations=(pulled_annotation(),))
        for i, task in enumerate(round_tasks(project, record.id))
    ]
    store_pull(project, pulled, read=as_shown)


def everything(project: Project, proposer: Proposer) -> Choice:
    """A round about all that can be asked, reviewed: what was chosen of the one image."""
    (choice,) = proposer.choices([Pick(index=i, arm="", why="") for i in range(len(proposer.units))])
    ask(project, proposer, range(len(proposer.units)))
    return choice


def shown_labels(choice: Choice) -> int:
    return sum(int((view.shown < choice.known).sum()) for view in choice.views)


def looks(project: Project) -> float:
    return sum(task.work.objects for task in timed_tasks(project))


@pytest.mark.parametrize("n", [150, 300])
def test_as_many_looks_are_expected_of_tiles_as_are_counted_afterwards(project: Project, n: int) -> None:
    seen = field(n)
    add_run(project, seen)
    proposer = proposer_of(project)
    expected = sum(unit.work.objects for unit in proposer.units)
    everything(project, proposer)
    assert expected == looks(project)
    assert expected > len(seen.above(MIN_SCORE))  # tiles share some


def test_labels_of_a_field_are_looked_at_again_where_a_tile_shows_them(project: Project) -> None:
    add_run(project, field(150))
    first = proposer_of(project)
    ask(project, first, [0, 1])
    before = looks(project)
    second = proposer_of(project)
    assert 0 < len(second.units) < len(first.units)
    expected = sum(unit.work.objects for unit in second.units)
    choice = everything(project, second)
    assert shown_labels(choice) > 0
    assert expected == looks(project) - before


def test_without_a_model_labels_are_looked_at_too(project: Project) -> None:
    add_run(project, field(150))
    ask(project, proposer_of(project), [0, 1])
    before = looks(project)
    with project.ledger.write() as session:
        session.get_one(RunRow, "r").state = "started"
    second = proposer_of(project)
    assert second.run is None
    expected = sum(unit.work.objects for unit in second.units)
    choice = everything(project, second)
    assert expected == shown_labels(choice) == looks(project) - before > 0


def test_what_becomes_of_labels_says_nothing_of_the_model(project: Project) -> None:
    """They have a score of 1, were corrected already, and are right as a rule."""
    add_run(project, field(150))
    ask(project, proposer_of(project), [0, 1])
    before = len(edit_records(project, "r"))
    second = proposer_of(project)
    choice = everything(project, second)
    records = edit_records(project, "r")[before:]
    assert len(records) == len(second.units)
    of_the_model = sum(int((view.shown >= choice.known).sum()) for view in choice.views)
    assert sum(len(record.scores) for record in records) == of_the_model
    assert all((record.scores < 1).all() for record in records)


def test_what_a_model_is_blind_to_costs_what_drawing_it_costs(project: Project) -> None:
    add_run(project, Instances(size_hw=(SIDE, SIDE), scores=np.zeros(0)), unmatched=30)
    (unit,) = proposer_of(project).units
    assert unit.work.edits["added"] == pytest.approx(30, rel=0.01)
    assert unit.minutes.value > 3


def test_an_image_of_many_objects_that_a_model_is_blind_to_is_cut(project: Project) -> None:
    add_run(project, Instances(size_hw=(SIDE, SIDE), scores=np.zeros(0)), unmatched=100)
    units = proposer_of(project).units
    assert len(units) == 4
    assert sum(unit.work.edits["added"] for unit in units) == pytest.approx(100, rel=0.02)
    assert max(unit.work.edits["added"] for unit in units) < 40


@pytest.mark.parametrize(("labelled", "tasks", "drawn"), [(150, 4, 150), (30, 1, 30), (None, 1, 10)])
def test_without_a_model_images_are_cut_where_labelled_ones_hold_too_many_objects_for_a_task(
    project: Project, labelled: int | None, tasks: int, drawn: float
) -> None:
    if labelled is not None:
        add_labelled(project, field(labelled))
    units = [unit for unit in proposer_of(project).units if unit.image.id == 1]
    assert len(units) == tasks
    assert max(unit.work.edits["added"] for unit in units) <= 40
    assert sum(unit.work.edits["added"] for unit in units) == pytest.approx(drawn, rel=0.01)


def add_labelled(project: Project, objects: Instances) -> None:
    """Another image of the project, with these objects as its labels."""
    with project.ledger.write() as session:
        session.add(ImageRow(id=2, sha256="b", path="b.png", file_name="b.png", height=SIDE, width=SIDE))
        session.flush()
        stored = encode_instances(objects)
        session.add(LabelRow(image_id=2, revision=1, source="x", n_objects=len(objects), instances=stored))


def test_the_rest_of_a_field_is_asked_about_also_when_less_is_expected_in_it_by_then(
    project: Project,
) -> None:
    add_run(project, Instances(size_hw=(SIDE, SIDE), scores=np.zeros(0)), unmatched=100)
    first = proposer_of(project)
    ask(project, first, [0, 1, 2])  # nothing was missed there, so the field would not be cut any more
    (rest,) = proposer_of(project).units
    assert rest.view is not None
    assert first.units[3].view is not None
    assert rest.view.tile.box == first.units[3].view.tile.box
