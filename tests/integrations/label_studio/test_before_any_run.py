"""Projects without a run, on the real server: what push reports, and how the loop begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from labelloop.budget.opening import RoundRequest
from labelloop.budget.strategies import Budget
from labelloop.cli.app import app
from labelloop.data.synthetic_set import write_micrographs
from labelloop.distill.request import TrainRequest
from labelloop.instances import Instances
from labelloop.integrations.label_studio.labelling_config import ControlNames
from labelloop.integrations.label_studio.loop import turn
from labelloop.integrations.label_studio.push import push
from labelloop.integrations.label_studio.regions import to_regions
from labelloop.progress import Silent
from labelloop.project.adding import add_images
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project

CLASSES = ("organoid",)
N_IMAGES, SIDE = 3, 96
CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")
ROUND = RoundRequest(budget=Budget(tasks=N_IMAGES))


def said(*arguments: Any) -> str:
    ran = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert ran.exit_code == 0, ran.stderr
    return ran.stdout


@pytest.fixture
def project(label_studio_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Images without labels and no run, tied to a new project on the server."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio_server.token)
    made = Project.init(tmp_path / "screen", ProjectConfig(name="screen", classes=CLASSES))
    write_micrographs(tmp_path / "pool", N_IMAGES, seed=9, labels=None, size_hw=(SIDE, SIDE))
    add_images(made, [str(tmp_path / "pool")])
    said("connect", label_studio_server.url, "-C", made.root)
    return Project.open(made.root)


class Server:
    """What a person can do there."""

    def __init__(self, url: str, token: str, project: int) -> None:
        self.http, self.project = httpx.Client(base_url=url, timeout=60), project
        access = self.http.post("/api/token/refresh/", json={"refresh": token}).json()["access"]
        self.http.headers["authorization"] = f"Bearer {access}"

    def tasks(self) -> list[dict[str, Any]]:
        """By number, with their predictions."""
        asked = {"project": self.project, "fields": "all", "page_size": 100}
        found: list[dict[str, Any]] = self.http.get("/api/tasks", params=asked).json()["tasks"]
        return sorted(found, key=lambda task: int(task["id"]))

    def delete(self, path: str) -> None:
        assert self.http.delete(path).is_success

    def submit(self, task: dict[str, Any], *, empty: bool = False) -> None:
        """One object in the middle, or none."""
        rows, columns = np.ogrid[:SIDE, :SIDE]
        disc = (rows - SIDE / 2) ** 2 + (columns - SIDE / 2) ** 2 < (SIDE / 4) ** 2
        [region] = to_regions(Instances.from_dense(disc[None]), ["manual0000"], CLASSES, CONTROLS)
        body = {"result": [] if empty else [{**region, "origin": "manual"}], "lead_time": 20.0}
        assert self.http.post(f"/api/tasks/{task['id']}/annotations/", json=body).status_code == 201


@pytest.fixture
def server(label_studio_server: Any, project: Project) -> Iterator[Server]:
    tied = project.config.label_studio
    assert tied is not None
    made = Server(label_studio_server.url, label_studio_server.token, tied.project)
    yield made
    made.http.close()


def test_push_counts_and_says_what_it_has_put_right(project: Project, server: Server) -> None:
    first = push(project, ROUND)
    assert (first.opened, first.sent, first.repaired, first.deleted) == (True, N_IMAGES, 0, 0)
    assert "nothing was missing" in said("push", "-C", project.root)
    bare, twice, gone = server.tasks()
    server.delete(f"/api/predictions/{bare['predictions'][0]['id']}/")
    copy = {key: twice["predictions"][0][key] for key in ("result", "score", "model_version")}
    assert server.http.post("/api/predictions/", json={"task": twice["id"], **copy}).is_success
    server.delete(f"/api/tasks/{gone['id']}/")
    words = said("push", "-C", project.root)
    assert "predictions put right: 2" in words
    assert "deleted on the server: 1" in words
    assert "nothing was missing" not in words
    assert [len(task["predictions"]) for task in server.tasks()] == [1, 1]


@pytest.mark.parametrize("options", [("--suspects",), ("--strategy", "random"), ("--run", "no")])
def test_push_says_that_an_open_round_came_before_the_one_that_was_asked_for(
    project: Project, options: tuple[str, ...]
) -> None:
    push(project, ROUND)
    assert "came first" not in said("push", "--budget", "3", "-C", project.root)
    words = said("push", *options, "-C", project.root)
    assert words.startswith("round 1 (auto)")
    assert "came first" in words
    assert "--new-round" in words


def test_push_says_what_the_round_should_cost_with_its_interval(project: Project) -> None:
    cost = push(project, ROUND)
    low, value, high = cost.predicted_minutes_low, cost.predicted_minutes, cost.predicted_minutes_high
    assert low is not None
    assert low < value < high
    words = said("push", "-C", project.root)
    assert f"about {value:.0f} minutes of work ({low:.0f} to {high:.0f})" in words


class StoppedInTraining(Silent):
    def advance(self, steps: int = 1, **facts: float | str) -> None:
        if "loss" in facts:
            raise KeyboardInterrupt


def test_the_loop_begins_with_a_round_and_trains_when_enough_came_back(
    project: Project, server: Server
) -> None:
    opened = turn(project, retrain_after=2)
    assert (opened.round, opened.waiting, opened.trained) == (1, N_IMAGES, None)
    assert (opened.proposer, opened.gate) == (None, None)
    first, second, _ = server.tasks()
    server.submit(first)
    assert turn(project, retrain_after=2).trained is None
    server.submit(second)
    with pytest.raises(KeyboardInterrupt):
        turn(project, retrain_after=2, progress=StoppedInTraining())
    [run] = project.runs()
    assert run.config["request"] == asdict(TrainRequest(name=run.name))
    assert len(run.config["train_images"]) == 2


def test_the_loop_does_not_train_where_nobody_found_an_object(project: Project, server: Server) -> None:
    turn(project, retrain_after=2)
    for task in server.tasks():
        server.submit(task, empty=True)
    last = turn(project, retrain_after=2)
    assert (last.images, last.trained, last.round) == (N_IMAGES, None, None)
    assert project.runs() == []
