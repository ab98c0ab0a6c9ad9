from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.budget.audit import FEWEST_TASKS, audit, audit_rounds
from labelloop.budget.timed_tasks import MadeEdit, ReviewedTask
from labelloop.instances import Instances
from labelloop.predict.tiles import Tile
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, RunRow
from labelloop.review.choice import Choice
from labelloop.review.edits import KeyedInstances
from labelloop.review.pulled import PulledTask, ReadReview
from labelloop.review.records import store_pull
from labelloop.review.rounds import plan_round
from labelloop.review.tasks import REVIEWED, TaskRecord, round_tasks
from labelloop.review.tiles import whole_view
from made_records import pulled_annotation

TILE = Tile(box=(0, 0, 9, 9), core=(0, 0, 9, 9), inner=(False, False, False, False))


def task(corrections: int, seconds: float) -> ReviewedTask:
    record = TaskRecord(
        key="k",
        round_id=1,
        image_id=1,
        tile=TILE,
        shown=(),
        owned=frozenset(),
        confidence=0.5,
        chosen=None,
        state=REVIEWED,
        server_id=None,
        sent=None,
    )
    moved = MadeEdit(kind="moved", before=("a",), outline_px=40.0, iou=0.8)
    accepted = MadeEdit(kind="accepted", before=("b",), outline_px=40.0, iou=1.0)
    edits = [moved] * corrections + [accepted] * 3
    return ReviewedTask(
        task=record,
        who="me",
        seconds=seconds,
        maybe_twice=None,
        edits=tuple(edits),
        scores={},
        outline_px=None,
    )


def tasks(rate_per_minute: float, n: int, seed: int) -> Sequence[ReviewedTask]:
    rng = np.random.default_rng(seed)
    minutes = rng.uniform(1, 3, n)
    return [task(int(rng.poisson(rate_per_minute * m)), 60 * m) for m in minutes]


def test_twice_the_corrections_per_minute_are_a_gain_of_two() -> None:
    found = audit([task(8, 120)] * 20, [task(2, 60)] * 20)
    assert found is not None
    assert found.gain == pytest.approx(2.0)
    assert (found.chosen.corrections, found.chosen.minutes) == (160, pytest.approx(40.0))
    assert not found.falls_back


def test_a_choice_that_is_worse_falls_back_and_says_so() -> None:
    found = audit(tasks(2, 40, 0), tasks(6, 20, 1))
    assert found is not None
    assert found.high is not None
    assert found.high < 1
    assert found.falls_back
    assert found.verdict.endswith("a loss; the next round is drawn at random")


@given(st.integers(0, 30))
def test_a_choice_that_is_clearly_better_is_kept(seed: int) -> None:
    found = audit(tasks(9, 60, seed), tasks(3, 20, seed + 1000))
    assert found is not None
    assert not found.falls_back
    assert found.low is not None
    assert found.low > 1


def test_the_interval_holds_the_true_gain_nineteen_times_in_twenty() -> None:
    inside = 0
    for seed in range(200):
        found = audit(tasks(6, 45, seed), tasks(4, 15, seed + 1000), seed=seed)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 1.5 <= found.high
    assert inside / 200 > 0.88


def test_few_tasks_decide_nothing() -> None:
    found = audit([task(0, 60)] * 30, [task(9, 60)] * (FEWEST_TASKS - 1))
    assert found is not None
    assert found.gain is None
    assert not found.falls_back
    assert "too early" in found.verdict


def test_a_task_that_was_left_open_over_lunch_changes_little() -> None:
    random = [task(3, 60)] * 20
    usual = audit([task(3, 60)] * 20, random)
    with_lunch = audit([*[task(3, 60)] * 19, task(3, 3600)], random)
    assert usual is not None
    assert with_lunch is not None
    assert with_lunch.gain is not None
    assert usual.gain == pytest.approx(1.0)
    assert with_lunch.gain > 0.8


def test_without_a_random_arm_there_is_nothing_to_compare_with() -> None:
    assert audit([task(3, 60)] * 20, []) is None
    assert audit([], [task(3, 60)] * 20) is None


@pytest.mark.parametrize(
    ("chosen", "random", "falls_back"), [(39, 40, False), (40, 39, False), (40, 40, True)]
)
def test_a_best_guess_below_one_decides_with_forty_tasks_in_each_arm(
    chosen: int, random: int, falls_back: bool
) -> None:
    worse, drawn = [task(0, 60), task(9, 60)] * 20, [task(0, 60), task(12, 60)] * 20
    found = audit(worse[:chosen], drawn[:random])
    assert found is not None
    assert found.gain is not None
    assert found.high is not None
    assert found.gain < 1 < found.high
    assert found.falls_back == falls_back
    assert "not shown to be a gain" in found.verdict


def test_an_equal_choice_is_kept_in_most_projects_and_a_worse_one_is_not() -> None:
    kept = dict.fromkeys((0.5, 1.0), 0)
    for seed, gain in product(range(40), kept):
        found = audit(tasks(4 * gain, 60, seed), tasks(4, 20, seed + 1000))
        assert found is not None
        kept[gain] += not found.falls_back
    assert kept[1.0] >= 35
    assert kept[0.5] <= 5


def in_random_tasks(task: TaskRecord, _result: Any, _shown: KeyedInstances) -> ReadReview:
    """A person who finds an object in every task that was drawn at random, and nothing in the others."""
    found = np.zeros((1, 8, 8), bool)
    found[0, :4, :4] = task.chosen is not None and task.chosen["arm"] == "random"
    objects = Instances.from_dense(found[found.any(axis=(1, 2))], size_hw=(8, 8))
    keys = tuple(f"{task.key}-{i}" for i in range(len(objects)))
    return ReadReview(objects=KeyedInstances(keys=keys, instances=objects), untouched=frozenset())


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """With a run whose model can propose."""
    project = Project.init(tmp_path, ProjectConfig(name="audited", classes=("cell",)))
    with project.ledger.write() as session:
        session.add(
            RunRow(
                name="r", state="finished", method="supervised", model="m", seed=0, promoted="supervised",
                config={}, result=None, started_at=datetime(2026, 1, 1),
            )
        )  # fmt: skip
    return project


def reviewed_round(
    project: Project, arms: Sequence[dict[str, str]], *, run: str | None = "r", strategy: str = "auto"
) -> None:
    """A round asked for as auto whose tasks were chosen so, each reviewed in a minute."""
    before = len(project.images())
    with project.ledger.write() as session:
        for i in range(before, before + len(arms)):
            name = f"{i}.png"
            session.add(ImageRow(sha256=name, path=name, file_name=name, height=8, width=8))
    empty = Instances(size_hw=(8, 8))
    choices = [
        Choice(image=image, proposed=empty, views=(whole_view(empty),), confidence=0.5, chosen=(chosen,))
        for image, chosen in zip(project.images()[before:], arms, strict=True)
    ]
    record = plan_round(
        project, choices, run=run, which=run and "supervised", server="s", min_score=0.5,
        strategy=strategy, settings={"asked_strategy": "auto"},
    )  # fmt: skip
    reviewed = pulled_annotation(lead_time_s=60.0)
    pulled = [
        PulledTask(key=each.key, server_id=before + i, annotations=(reviewed,))
        for i, each in enumerate(round_tasks(project, record.id))
    ]
    store_pull(project, pulled, read=in_random_tasks)


RANDOM = {"arm": "random", "why": "drawn at random, to compare with"}
AUTO = {"arm": "auto", "why": "doubt"}


def test_a_fall_back_lasts_one_round_and_then_the_choice_is_tried_again(project: Project) -> None:
    said = []
    for arms, strategy in (
        ([RANDOM] * FEWEST_TASKS + [AUTO] * FEWEST_TASKS, "auto"),
        ([RANDOM] * 2, "random"),
        ([RANDOM, AUTO], "auto"),
    ):
        reviewed_round(project, arms, strategy=strategy)
        found = audit_rounds(project, "s")
        assert found is not None
        said.append((found.falls_back, found.random.tasks, found.verdict.partition(": ")[2]))
    assert said == [
        (True, 8, "a loss; the next round is drawn at random"),
        (False, 8, "a loss; the last round was drawn at random, and the next one tries the choice again"),
        (True, 9, "a loss; the next round is drawn at random"),
    ]


def test_a_round_without_a_model_says_nothing_of_what_a_model_doubts(project: Project) -> None:
    reviewed_round(project, [RANDOM] * 9 + [AUTO] * 9, run=None)
    assert audit_rounds(project, "s") is None
    reviewed_round(project, [RANDOM, AUTO, AUTO])
    found = audit_rounds(project, "s")
    assert found is not None
    assert (found.random.tasks, found.chosen.tasks) == (1, 2)


FILL = {"arm": "fill", "why": "drawn from what was left, to fill the budget"}
FILL_BEFORE = {"arm": "random", "why": "drawn at random, to fill the budget"}
EMPTY = {"arm": "empty", "why": "the model sees nothing in it"}


@pytest.mark.parametrize(
    "arm",
    [
        pytest.param(FILL, id="what filled the budget"),
        pytest.param(FILL_BEFORE, id="the same in rounds that called it random"),
        pytest.param(EMPTY, id="images in which nothing is seen"),
    ],
)
def test_only_what_was_chosen_for_its_worth_is_compared_with_what_was_drawn(
    project: Project, arm: dict[str, str]
) -> None:
    reviewed_round(project, [RANDOM] * 3 + [arm] * 4 + [AUTO] * 6)
    found = audit_rounds(project, "s")
    assert found is not None
    assert (found.random.tasks, found.chosen.tasks) == (3, 6)
