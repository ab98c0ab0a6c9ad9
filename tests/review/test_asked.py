"""Which images count as asked about, for the next round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labelloop.instances import Instances
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow
from labelloop.review.asked import asked_boxes
from labelloop.review.choice import Choice
from labelloop.review.edits import KeyedInstances
from labelloop.review.packing import pack_json
from labelloop.review.pulled import PulledTask, ReadReview
from labelloop.review.records import store_pull
from labelloop.review.rounds import plan_round
from labelloop.review.tasks import TaskRecord, mark_sent, round_tasks
from labelloop.review.tiles import whole_view
from made_records import pulled_annotation

TRIAL, LAB = "http://trial#1", "http://lab#1"
NOTHING = Instances(size_hw=(8, 8))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """With four images."""
    project = Project.init(tmp_path / "pool", ProjectConfig(name="pool", classes=("cell",)))
    with project.ledger.write() as session:
        for i in range(1, 5):
            session.add(ImageRow(id=i, sha256=str(i), path="x", file_name="x", height=8, width=8))
    return project


def ask(project: Project, server: str, images: Sequence[int], *, sent: bool = True) -> list[TaskRecord]:
    """A round's tasks, image by image, on the server unless a push was cut off before."""
    choices = [
        Choice(
            image=image,
            proposed=NOTHING,
            views=(whole_view(NOTHING),),
            confidence=0.5,
            chosen=({"arm": "random"},),
        )
        for image in project.images()
        if image.id in images
    ]
    record = plan_round(
        project, choices, run=None, which=None, server=server, min_score=0.5, strategy="random"
    )
    tasks = round_tasks(project, record.id)
    if sent:
        mark_sent(project, [(task.key, task.image_id, pack_json([])) for task in tasks])
    return tasks


def answer(project: Project, task: TaskRecord, *, skipped: bool = False) -> None:
    annotation = pulled_annotation(skipped=skipped)
    pulled = PulledTask(key=task.key, server_id=task.image_id, annotations=(annotation,))
    store_pull(project, [pulled], read=read_as_shown)


def read_as_shown(_task: TaskRecord, _result: Any, shown: KeyedInstances) -> ReadReview:
    return ReadReview(objects=shown, untouched=frozenset(shown.keys))


def delete(project: Project, *tasks: TaskRecord) -> None:
    store_pull(project, [], read=read_as_shown, deleted=[task.key for task in tasks])


@pytest.mark.parametrize("sent", [True, False])
def test_what_waits_on_a_server_that_was_left_can_be_asked_about_again(
    project: Project, *, sent: bool
) -> None:
    ask(project, TRIAL, [1, 2], sent=sent)
    assert set(asked_boxes(project, LAB)) == set()
    assert set(asked_boxes(project, TRIAL)) == {1, 2}


def test_what_was_answered_on_a_server_that_was_left_is_not_asked_about_again(project: Project) -> None:
    reviewed, skipped, _, _ = ask(project, TRIAL, [1, 2, 3, 4])
    answer(project, reviewed)
    answer(project, skipped, skipped=True)
    delete(project, reviewed, skipped)
    assert set(asked_boxes(project, LAB)) == {1, 2}


def test_what_waits_in_an_earlier_round_is_not_asked_about_twice(project: Project) -> None:
    ask(project, LAB, [1])
    ask(project, LAB, [2])
    assert set(asked_boxes(project, LAB)) == {1, 2}


def test_a_round_that_was_deleted_as_a_whole_can_be_asked_about_again(project: Project) -> None:
    delete(project, *ask(project, LAB, [1, 2, 3]))
    assert set(asked_boxes(project, LAB)) == set()


def test_what_was_deleted_of_a_round_with_answers_stays_declined_when_all_of_it_is_cleaned_up(
    project: Project,
) -> None:
    first, *others = ask(project, LAB, [1, 2, 3])
    answer(project, first)
    delete(project, first, *others)
    assert set(asked_boxes(project, LAB)) == {1, 2, 3}


def test_the_only_task_of_a_round_is_declined_when_it_is_deleted(project: Project) -> None:
    delete(project, *ask(project, LAB, [1]))
    assert set(asked_boxes(project, LAB)) == {1}


def test_a_task_that_was_deleted_by_itself_was_declined(project: Project) -> None:
    first, second, third = ask(project, LAB, [1, 2, 3])
    delete(project, second)
    assert set(asked_boxes(project, LAB)) == {1, 2, 3}  # while the round is open
    answer(project, first)
    answer(project, third)
    assert set(asked_boxes(project, LAB)) == {1, 2, 3}


def test_an_open_round_whose_tasks_are_being_deleted_is_not_asked_about_yet(project: Project) -> None:
    first, second = ask(project, LAB, [1, 2])
    delete(project, first)
    assert set(asked_boxes(project, LAB)) == {1, 2}
    delete(project, second)
    assert set(asked_boxes(project, LAB)) == set()
