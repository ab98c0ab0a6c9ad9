"""Masks to tasks to JSON and back through the ledger: what nobody touched is the same, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.integrations.label_studio.labelling_config import ControlNames
from labelloop.integrations.label_studio.regions import to_regions
from labelloop.integrations.label_studio.reviews import Reader
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow
from labelloop.review.choice import Choice
from labelloop.review.packing import pack_json
from labelloop.review.pulled import PulledTask, PullReport
from labelloop.review.records import store_pull
from labelloop.review.rounds import images_by_id, plan_round
from labelloop.review.tasks import TaskRecord, mark_sent, proposals, round_tasks, shown_by
from labelloop.review.tiles import review_tiles
from made_records import pulled_annotation, run_record

Mask = npt.NDArray[np.bool_]
CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")
CLASSES = ("organoid", "debris")


def objects(seed: int, n: int, size_hw: tuple[int, int]) -> Instances:
    """Discs, rings, pairs of discs and noise, over each other and over the border."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]

    def disc(radius: float) -> Mask:
        y, x = rng.uniform(0, size_hw[0]), rng.uniform(0, size_hw[1])
        return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)

    masks = []
    for _ in range(n):
        kind, radius = rng.integers(4), rng.uniform(0.5, 30)
        mask = disc(radius)
        if kind == 1:
            mask = mask & ~disc(radius / 2)
        elif kind == 2:
            mask = mask | disc(radius)
        elif kind == 3:
            mask = mask & (rng.random(size_hw) < 0.7)
        if mask.any():
            masks.append(mask)
    dense = np.asarray(masks) if masks else np.zeros((0, *size_hw), np.bool_)
    return Instances.from_dense(
        dense, rng.integers(0, 2, len(masks)), rng.random(len(masks)), size_hw=size_hw
    )


class Loop:
    """A project in which images are proposed and reviewed without a server between."""

    def __init__(self, root: Path) -> None:
        self.project = Project.init(root, ProjectConfig(name="lossless", classes=CLASSES))
        self.project.save_run(run_record("run", promoted="supervised"))
        self._number = 0

    def propose(self, instances: Instances, **limits: int) -> list[TaskRecord]:
        """Plans a round of one new image, and notes its tasks as sent, as JSON gives them back."""
        self._number += 1
        row = ImageRow(
            sha256=f"{self._number:064d}", path="a.png", file_name="a.png", height=instances.size_hw[0],
            width=instances.size_hw[1], pixel_size_um=None, group=None,
        )  # fmt: skip
        with self.project.ledger.write() as session:
            session.add(row)
            session.flush()
            image_id = row.id
        views = review_tiles(instances, **limits)
        choice = Choice(
            image=images_by_id(self.project, [image_id])[image_id],
            proposed=instances,
            views=views,
            confidence=0.5,
            chosen=tuple({"arm": "random"} for _ in views),
        )
        record = plan_round(
            self.project,
            [choice],
            run="run",
            which="supervised",
            server="s",
            min_score=0.0,
            strategy="random",
        )
        with self.project.ledger.read() as session:
            proposed = proposals(session, record.id, [image_id])[image_id]
        sent = []
        for number, task in enumerate(round_tasks(self.project, record.id), 1):
            shown = shown_by(task, proposed)
            regions = to_regions(shown.instances, shown.keys, CLASSES, CONTROLS)
            sent.append((task.key, number, pack_json(regions)))
        mark_sent(self.project, sent)
        return round_tasks(self.project, record.id, with_sent=True)

    def review(self, tasks: Sequence[TaskRecord], results: Sequence[list[dict[str, Any]]]) -> PullReport:
        """Pulls one annotation for each of these tasks."""
        pulled = []
        for number, (task, result) in enumerate(zip(tasks, results, strict=True), 1):
            reviewed = pulled_annotation(json.loads(json.dumps(result)), server_id=number)
            pulled.append(PulledTask(key=task.key, server_id=number, annotations=(reviewed,)))
        return store_pull(self.project, pulled, read=Reader(self.project))

    def labels(self, tasks: Sequence[TaskRecord]) -> Instances:
        """The newest labels of the tasks' image."""
        return self.project.labels([tasks[0].image_id])[tasks[0].image_id]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    made = Loop(tmp_path_factory.mktemp("lossless"))
    yield made
    made.project.ledger.engine.dispose()


def same(a: Instances, b: Instances) -> bool:
    def as_set(i: Instances) -> list[tuple[bytes, int]]:
        return sorted(zip(i.rles, i.labels.tolist(), strict=True))

    return as_set(a) == as_set(b)


sizes = st.tuples(st.integers(8, 160), st.integers(8, 160))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 100_000), st.integers(0, 25), sizes, st.integers(3, 60), st.integers(20, 200))
def test_what_nobody_touched_comes_back_bit_for_bit_through_tiles_and_json(
    loop: Loop, seed: int, n: int, size_hw: tuple[int, int], limit: int, side: int
) -> None:
    proposed = objects(seed, n, size_hw)
    tasks = loop.propose(proposed, max_objects=limit, max_side_px=side)
    report = loop.review(tasks, [task.sent or [] for task in tasks])
    labels = loop.labels(tasks)
    assert same(labels, proposed)
    assert not labels.crowd.any()
    assert report.edits["accepted"] == len(proposed) == sum(report.edits.values())
    assert report.unusable == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 100_000), st.integers(1, 12), st.data())
def test_deleting_and_relabelling_some_leaves_the_others_as_they_were(
    loop: Loop, seed: int, n: int, data: st.DataObject
) -> None:
    proposed = objects(seed, n, (90, 120))
    tasks = loop.propose(proposed)
    sent = tasks[0].sent or []
    fate = [data.draw(st.sampled_from(["keep", "delete", "relabel"])) for _ in sent]
    result, expected, labels = [], [], []
    for region, what, i in zip(sent, fate, range(len(proposed)), strict=True):
        label = int(proposed.labels[i])
        if what == "delete":
            continue
        if what == "relabel":
            label = 1 - label
            value = {**region["value"], region["type"]: [CLASSES[label]]}
            region = {**region, "value": value, "origin": "prediction-changed"}
        result.append(region)
        expected.append(i)
        labels.append(label)
    report = loop.review(tasks, [result])
    kept = proposed.select(np.asarray(expected, np.int64))
    assert same(
        loop.labels(tasks), Instances(size_hw=(90, 120), rles=kept.rles, labels=np.asarray(labels, np.int64))
    )
    assert report.edits["relabelled"] == fate.count("relabel")
    assert report.edits["accepted"] == fate.count("keep")
    assert report.edits["deleted"] == fate.count("delete")


def test_the_same_pull_again_changes_nothing(loop: Loop) -> None:
    tasks = loop.propose(objects(3, 10, (100, 100)))
    results = [task.sent or [] for task in tasks]
    loop.review(tasks, results)
    before = loop.labels(tasks)
    again = loop.review(tasks, results)
    assert (again.annotations_new, again.annotations_changed, again.images) == (0, 0, 0)
    assert sum(again.edits.values()) == 0
    assert loop.labels(tasks) == before
