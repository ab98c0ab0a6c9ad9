"""What reviews tell about time and edits, out of a real ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from labelloop.budget.timed_tasks import edit_records, reviewed_tasks, timed_tasks
from labelloop.instances import Instances
from labelloop.predict.tiles import Tile
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import DoubtRow, ImageRow, PredictionRow
from labelloop.review.choice import Choice
from labelloop.review.edits import KeyedInstances
from labelloop.review.pulled import PulledAnnotation, PulledTask, ReadReview
from labelloop.review.records import store_pull
from labelloop.review.rounds import plan_round
from labelloop.review.tasks import TaskRecord, round_tasks
from labelloop.review.tiles import TileView, whole_view
from made_records import pulled_annotation, run_record

Mask = npt.NDArray[np.bool_]
SIZE_HW = (100, 200)
MIN_SCORE = 0.5


def disc(y: float, x: float, radius: float = 12) -> Mask:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


# Shown are the first three; of the two below the score threshold one lies left, one right.
SEEN = Instances.from_dense(
    np.array([disc(50, 30), disc(50, 80), disc(50, 170), disc(20, 20), disc(20, 180)]),
    scores=[0.9, 0.7, 0.6, 0.4, 0.25],
)
NEW = disc(85, 60, 10)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.init(tmp_path, ProjectConfig(name="timed", classes=("cell",)))
    project.save_run(run_record("r1"))
    with project.ledger.write() as session:
        for i in range(3):
            path = f"{i}.png"
            row = ImageRow(sha256=path, path=path, file_name=path, height=SIZE_HW[0], width=SIZE_HW[1])
            session.add(row)
            session.flush()
            session.add(
                PredictionRow(run="r1", which="guided", image_id=row.id, instances=encode_instances(SEEN))
            )
    return project


def plan(
    project: Project,
    views: tuple[TileView, ...],
    *,
    image: int = 0,
    model: bool = True,
    arm: str = "random",
    run: str = "r1",
) -> list[TaskRecord]:
    proposed = SEEN.above(MIN_SCORE) if model else Instances(size_hw=SIZE_HW)
    choice = Choice(
        image=project.images()[image],
        proposed=proposed,
        views=views,
        confidence=0.5,
        chosen=tuple({"arm": arm, "why": ""} for _ in views),
    )
    record = plan_round(
        project,
        [choice],
        run=run if model else None,
        which="guided" if model else None,
        server="s",
        min_score=MIN_SCORE,
        strategy="random",
    )
    return round_tasks(project, record.id)


def annotation(
    objects: Mapping[str, Mask], *, seconds: float | None = 30.0, **other: Any
) -> PulledAnnotation:
    pixels = {key: np.flatnonzero(mask).tolist() for key, mask in objects.items()}
    return pulled_annotation(pixels, lead_time_s=seconds, **other)


def read(_task: TaskRecord, result: Any, shown: KeyedInstances) -> ReadReview:
    size_hw = shown.instances.size_hw
    dense = np.zeros((len(result), *size_hw), np.bool_)
    for mask, pixels in zip(dense, result.values(), strict=True):
        mask.ravel()[pixels] = True
    objects = KeyedInstances(keys=tuple(result), instances=Instances.from_dense(dense, size_hw=size_hw))
    before = dict(zip(shown.keys, shown.instances.rles, strict=True))
    after = dict(zip(objects.keys, objects.instances.rles, strict=True))
    untouched = frozenset(key for key in before if after.get(key) == before[key])
    return ReadReview(objects=objects, untouched=untouched)


def pull(project: Project, task: TaskRecord, *annotations: PulledAnnotation) -> None:
    store_pull(project, [PulledTask(key=task.key, server_id=1, annotations=annotations)], read=read)


def whole() -> tuple[TileView, ...]:
    return (whole_view(SEEN.above(MIN_SCORE)),)


def test_a_project_without_reviews_tells_nothing(project: Project) -> None:
    plan(project, whole())
    assert timed_tasks(project) == []
    assert edit_records(project, "r1") == []


def test_the_edits_and_the_time_of_a_task_are_read(project: Project) -> None:
    (task,) = plan(project, whole())
    a, b, _ = task.shown
    pull(project, task, annotation({a: disc(50, 30), b: disc(54, 80), "new": NEW}, seconds=42.5))
    (timed,) = timed_tasks(project)
    assert (timed.who, timed.seconds) == ("ada", 42.5)
    assert timed.work.objects == 3
    assert timed.work.edits == {"moved": 1.0, "deleted": 1.0, "added": 1.0}
    assert timed.work.outline_px == pytest.approx(2 * np.pi * 12, rel=0.02)
    assert timed.work.drawn_px == pytest.approx(2 * np.sqrt(np.pi * NEW.sum()))
    moved_iou = (disc(50, 80) & disc(54, 80)).sum() / (disc(50, 80) | disc(54, 80)).sum()
    assert timed.work.corrected_px == pytest.approx(2 * np.pi * 12 * (1 - moved_iou), rel=0.02)
    assert timed.maybe_twice is None
    (record,) = edit_records(project, "r1")
    assert dict(zip(record.scores.round(2).tolist(), record.fates, strict=True)) == {
        0.9: "accepted",
        0.7: "moved",
        0.6: "deleted",
    }
    assert record.added == 1
    assert record.unshown == pytest.approx(0.65)


@pytest.mark.parametrize(
    ("change", "timed", "edited"),
    [
        pytest.param({"skipped": True}, 0, 0, id="skipped"),
        pytest.param({"bulk": True}, 0, 0, id="accepted in bulk"),
        pytest.param({"seconds": None}, 0, 1, id="no time known"),
        pytest.param({"seconds": 0.0}, 0, 1, id="no time at all"),
        pytest.param({}, 1, 1, id="reviewed"),
    ],
)
def test_what_nobody_looked_at_or_timed_is_left_out(
    project: Project, change: dict[str, Any], timed: int, edited: int
) -> None:
    (task,) = plan(project, whole())
    pull(project, task, annotation({task.shown[0]: disc(50, 30)}, **change))
    assert len(timed_tasks(project)) == timed
    assert len(edit_records(project, "r1")) == edited


def test_only_the_annotation_that_counts_is_read_in_its_last_state(project: Project) -> None:
    (task,) = plan(project, whole())
    a, b, c = task.shown
    first = annotation({a: disc(50, 30)}, seconds=10.0)
    other = annotation({}, seconds=99.0, server_id=2, who="bob", updated_at="2025-01-01T00:00:00Z")
    pull(project, task, first, other)
    everything = {a: disc(50, 30), b: disc(50, 80), c: disc(50, 170)}
    later = annotation(everything, seconds=25.0, updated_at="2026-02-01T00:00:00Z")
    pull(project, task, later, other)
    (timed,) = timed_tasks(project)
    assert (timed.who, timed.seconds, timed.work.edits) == ("ada", 25.0, {})
    pull(project, task, other)
    assert [(timed.who, timed.work.edits) for timed in timed_tasks(project)] == [("bob", {"deleted": 3.0})]


def test_several_objects_that_become_one_are_one_edit_for_time_and_for_rates(project: Project) -> None:
    (task,) = plan(project, whole())
    both = np.zeros(SIZE_HW, np.bool_)
    both[38:63, 18:93] = True  # over the first two of three
    pull(project, task, annotation({"new": both, task.shown[2]: disc(50, 170)}))
    (timed,), (record,) = timed_tasks(project), edit_records(project, "r1")
    assert timed.work.edits == {"merged": 1.0}
    assert sorted(record.fates) == ["accepted", "accepted", "merged"]


def test_what_only_other_looks_saw_is_known_of_a_task_by_its_share_of_the_image(project: Project) -> None:
    doubts = {"scores": [0.9], "agreement": [0.5], "unmatched": [0.5, 0.25], "outline": 10.0, "twice": True}
    with project.ledger.write() as session:
        session.add(DoubtRow(run="r1", which="guided", image_id=1, doubts=doubts))
        session.add(DoubtRow(run="r1", which="supervised", image_id=1, doubts=doubts))
    narrow = Tile(box=(0, 0, 100, 60), core=(0, 0, 100, 40), inner=(False, False, False, True))
    views = (TileView(tile=narrow, shown=np.array([0]), owned=np.array([True])), *whole())
    tasks = plan(project, views)
    for task in tasks:
        pull(project, task, annotation({}))
    assert sorted(record.unmatched for record in edit_records(project, "r1")) == pytest.approx([0.15, 0.75])


def test_tasks_that_were_not_drawn_at_random_count_a_quarter(project: Project) -> None:
    for image, arm in enumerate(("random", "auto", "fill")):
        (task,) = plan(project, whole(), image=image, arm=arm)
        pull(project, task, annotation({key: disc(50, 30) for key in task.shown}))
    assert sorted(record.weight for record in edit_records(project, "r1")) == [0.25, 0.25, 1.0]


def test_rounds_of_earlier_models_tell_less_about_the_one_that_proposes(project: Project) -> None:
    project.save_run(replace(project.run("r1"), name="r2"))
    for image, run in enumerate(("r1", "r2", "r2")):
        (task,) = plan(project, whole(), image=image, run=run)
        pull(project, task, annotation({key: disc(50, 30) for key in task.shown}))
    told = {run: [record.weight for record in edit_records(project, run)] for run in ("r1", "r2", "r3")}
    assert told["r3"] == [1 / 16, 1 / 4, 1 / 4]
    assert told["r2"] == [1 / 4, 1, 1]
    assert told["r1"] == [1, 1 / 4, 1 / 4]


def test_what_was_chosen_tells_no_less_about_another_model_than_what_was_drawn(project: Project) -> None:
    for image, arm in enumerate(("random", "auto")):
        (task,) = plan(project, whole(), image=image, arm=arm)
        pull(project, task, annotation({key: disc(50, 30) for key in task.shown}))
    assert [record.weight for record in edit_records(project, "r2")] == [1 / 4, 1 / 4]


def test_a_tile_counts_the_detections_of_its_own_part_of_the_image(project: Project) -> None:
    left = Tile(box=(0, 0, 100, 110), core=(0, 0, 100, 100), inner=(False, False, False, True))
    right = Tile(box=(0, 90, 100, 200), core=(0, 100, 100, 200), inner=(False, True, False, False))
    views = (
        TileView(tile=left, shown=np.array([0, 1]), owned=np.array([True, True])),
        TileView(tile=right, shown=np.array([1, 2]), owned=np.array([False, True])),
    )
    tasks = {task.tile.box: task for task in plan(project, views)}
    for task in tasks.values():
        pull(project, task, annotation({}))
    records = sorted(edit_records(project, "r1"), key=lambda record: record.unshown)
    assert [record.unshown for record in records] == pytest.approx([0.25, 0.4])
    assert [record.scores.tolist() for record in records] == [
        pytest.approx([0.7, 0.6]),
        pytest.approx([0.9, 0.7]),
    ]
    assert all(reviewed.work.objects == 2 for reviewed in reviewed_tasks(project))


def test_images_drawn_from_nothing_tell_about_time_but_not_about_a_model(project: Project) -> None:
    (task,) = plan(project, (whole_view(Instances(size_hw=SIZE_HW)),), model=False)
    pull(project, task, annotation({"new": NEW, "other": disc(50, 30)}))
    (timed,) = timed_tasks(project)
    assert (timed.who, timed.seconds) == ("ada", 30.0)
    assert (timed.work.objects, timed.work.edits) == (0, {"added": 2.0})
    assert edit_records(project, "r1") == []


def test_several_rounds_are_read_each_with_what_it_proposed(project: Project) -> None:
    for image in range(3):
        (task,) = plan(project, whole(), image=image)
        pull(project, task, annotation({key: disc(50, 30) for key in task.shown[:1]}, seconds=10.0 + image))
    assert sorted(task.seconds for task in timed_tasks(project)) == [10.0, 11.0, 12.0]
    assert [record.fates.count("deleted") for record in edit_records(project, "r1")] == [2, 2, 2]
