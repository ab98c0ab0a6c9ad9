from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from labelloop.budget.strategies import Budget
from labelloop.budget.suspects_round import STRATEGY, open_suspects_round
from labelloop.data.synthetic_set import write_micrographs
from labelloop.errors import NothingToReviewError
from labelloop.instances import Instances
from labelloop.label_errors import OutOfFoldSettings
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import ImageRecord, Project
from labelloop.project.tables import LabelRow
from labelloop.review.packing import pack_json
from labelloop.review.rounds import RoundRecord
from labelloop.review.tasks import is_known_key, mark_sent, proposals, round_tasks
from labelloop.simulation.simulated_review import review_round

QUICK = OutOfFoldSettings(folds=2, steps=3)


def labelled(folder: Path, name: str, labels: Path, images: Path) -> Project:
    project = Project.init(folder / name, ProjectConfig(name=name, classes=("organoid",)))
    add_labels(project, LabelSource(path=str(labels), images=str(images)))
    return project


@pytest.fixture
def both(tmp_path: Path) -> tuple[Project, Project]:
    """A project whose labels are to be looked at, and one that knows the truth under the same numbers."""
    labels = tmp_path / "labels.json"
    write_micrographs(tmp_path / "images", 4, seed=0, labels=labels, size_hw=(96, 96))
    looked_at, truth = (labelled(tmp_path, name, labels, tmp_path / "images") for name in ("a", "b"))
    with looked_at.ledger.write() as session:  # one image has lost half of its labels
        (image, *_) = looked_at.images()
        objects = looked_at.labels([image.id])[image.id]
        half = objects.select(list(range(len(objects) // 2)))
        session.add(
            LabelRow(
                image_id=image.id,
                revision=2,
                source="lost",
                n_objects=len(half),
                instances=encode_instances(half),
            )
        )
    return looked_at, truth


def test_labels_are_shown_as_they_are_and_corrections_become_the_next_revision(
    both: tuple[Project, Project],
) -> None:
    project, truth = both
    record = open_suspects_round(project, "here", Budget(tasks=10), Silent(), settings=QUICK)
    tasks = round_tasks(project, record.id)
    assert record.strategy == STRATEGY
    assert tasks
    ids = sorted({task.image_id for task in tasks})
    before = project.labels(ids)
    with project.ledger.read() as session:
        shown = proposals(session, record.id, ids)
    for image_id in ids:
        n_before = len(before[image_id])
        assert shown[image_id].instances.rles[:n_before] == before[image_id].rles
        assert [is_known_key(key) for key in shown[image_id].keys].count(True) == n_before
    assert all(task.chosen and task.chosen["arm"] == STRATEGY and task.chosen["why"] for task in tasks)
    review_round(project, truth, record, annotator="perfect", seed=0)
    right = truth.labels(ids)
    for image_id, labels in project.labels(ids).items():
        assert len(labels) == len(right[image_id])
        assert (right[image_id].iou(labels).max(axis=1) > 0.75).all()


@pytest.mark.parametrize("budget", [Budget(tasks=1), Budget(minutes=0.01)])
def test_a_budget_in_tasks_is_kept_and_one_image_is_always_asked_about(
    both: tuple[Project, Project], budget: Budget
) -> None:
    project, _ = both
    opened = open_suspects_round(project, "here", budget, Silent(), settings=QUICK)
    assert len(round_tasks(project, opened.id)) == 1


def test_no_image_is_asked_about_again_unless_its_labels_changed_for_another_reason(
    both: tuple[Project, Project],
) -> None:
    project, truth = both

    def ask(tasks: int = 1, server: str = "here") -> set[int]:
        record = open_suspects_round(project, server, Budget(tasks=tasks), Silent(), settings=QUICK)
        opened.append(record)
        return {task.image_id for task in round_tasks(project, record.id)}

    opened: list[RoundRecord] = []
    [first] = ask()
    suspicious = project.labels([first])[first]
    mark_sent(project, [(task.key, 1, pack_json([])) for task in round_tasks(project, opened[0].id)])
    again: set[int] = set()
    with suppress(NothingToReviewError):
        again |= ask()  # while it waits
    assert first in ask(20, "elsewhere")  # where the project is tied to then
    review_round(project, truth, opened[0], annotator="perfect", seed=0)
    with suppress(NothingToReviewError):
        again |= ask()
    assert first not in again
    with project.ledger.write() as session:
        session.add(
            LabelRow(
                image_id=first,
                revision=9,
                source="as before",
                n_objects=len(suspicious),
                instances=encode_instances(suspicious),
            )
        )
    assert first in ask(20)


def mark_in_part(project: Project, images: Sequence[ImageRecord]) -> None:
    """All of these images becomes unknown area, beside the objects that are known."""
    with project.ledger.write() as session:
        for image in images:
            unknown = Instances.from_dense(np.ones((1, *image.size_hw)))
            crowd = Instances(
                size_hw=image.size_hw, rles=unknown.rles, labels=unknown.labels, crowd=np.ones(1, np.bool_)
            )
            objects = project.labels([image.id])[image.id]
            joined = Instances(
                size_hw=image.size_hw,
                rles=(*objects.rles, *crowd.rles),
                labels=np.concatenate([objects.labels, crowd.labels]),
                crowd=np.concatenate([objects.crowd, crowd.crowd]),
            )
            session.add(
                LabelRow(
                    image_id=image.id,
                    revision=3,
                    source="part",
                    n_objects=1,
                    instances=encode_instances(joined),
                )
            )


def test_images_with_unknown_area_are_left_out(both: tuple[Project, Project]) -> None:
    project, _ = both
    images = project.images()
    mark_in_part(project, images[1:])
    record = open_suspects_round(project, "here", Budget(tasks=10), Silent(), settings=QUICK)
    assert {task.image_id for task in round_tasks(project, record.id)} <= {images[0].id}


def test_where_only_images_with_unknown_area_are_suspicious_this_is_said(
    both: tuple[Project, Project],
) -> None:
    project, _ = both
    mark_in_part(project, project.images())
    with pytest.raises(NothingToReviewError, match="in images with unknown area or crowds"):
        open_suspects_round(project, "here", Budget(tasks=10), Silent(), settings=QUICK)
