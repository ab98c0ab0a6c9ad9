"""Trainings that several processes share: how they are started, stopped, killed and gone on with."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from labelloop.distill.assembly import trainer_of
from labelloop.distill.measuring import Asked, measured_costs
from labelloop.distill.schedule import Schedule
from labelloop.distill.train import TrainRequest, train
from labelloop.distill.trainer import Trainer
from labelloop.errors import UsageError
from labelloop.processes import started
from labelloop.progress import Silent
from labelloop.project.project import Project
from labelloop.runs.loading import read_run_config
from labelloop.team import ALONE

CORE_NET = str(Path(__file__).parents[2] / "examples" / "extending" / "core_net.py")


def weights(project: Project, run: str) -> dict[str, torch.Tensor]:
    return torch.load(project.runs_dir / run / "guided.pt", weights_only=True)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def start(project: Project, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "labelloop", "train", *arguments, "-C", str(project.root)]
    return subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fresh(name: str, recipe: str) -> list[str]:
    return ["--model", CORE_NET, "--iterations", "16", "--recipe", recipe, "--devices", "2", "--name", name]


def wait_for_steps(project: Project, run: str, count: int, process: subprocess.Popen[str]) -> None:
    log = project.runs_dir / run / "log.jsonl"
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") >= count:
            return
        time.sleep(0.01)


def launched(project: Project, *arguments: str) -> list[tuple[int, str, str]]:
    """Two processes as torchrun starts them; their exit codes and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [start(project, *arguments, RANK=rank, LOCAL_RANK=rank, **place) for rank in ("0", "1")]
    said = [process.communicate(timeout=300) for process in both]
    return [(process.returncode, *texts) for process, texts in zip(both, said, strict=True)]


@pytest.fixture
def recipe(tmp_path) -> str:
    path = tmp_path / "short.toml"
    path.write_text("supervised_steps = [[15, 5]]\n[pseudo]\nviews = 1\n")
    return str(path)


def test_a_run_that_a_scheduler_stops_goes_on_under_a_launcher_to_the_same_weights(project, recipe):
    whole = start(project, *fresh("whole", recipe))
    _, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    cut = start(project, *fresh("cut", recipe))
    wait_for_steps(project, "cut", 3, cut)
    cut.send_signal(signal.SIGUSR1)
    _, err = cut.communicate(timeout=300)
    assert cut.returncode == 130
    assert err.splitlines()[-1].endswith(" train --resume --name cut --devices 2 continues it.")
    assert (project.runs_dir / "cut" / "checkpoint.pt").exists()
    leader, other = launched(project, "--resume", "--name", "cut", "--json")
    assert (leader[0], other[0]) == (0, 0), leader[2] + other[2]
    assert '"run": "cut"' in leader[1]
    assert other[1:] == ("", "")
    assert [r.name for r in project.runs()] == ["whole", "cut"]
    assert same(weights(project, "cut"), weights(project, "whole"))


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the other process in /proc")
def test_a_run_whose_other_process_is_killed_ends_with_one_line_and_goes_on_alone(project, recipe):
    process = start(project, *fresh("run", recipe))
    wait_for_steps(project, "run", 3, process)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    said = [line for line in err.splitlines() if "error" in line.lower()]
    assert len(said) == 1
    assert "process 2 of 2, signal 9" in said[0]
    assert "--resume --name run" in said[0]
    assert "Traceback" not in err
    assert not list((project.runs_dir / "run").glob("*.partial"))
    result = train(project, TrainRequest(resume=True, name="run"))
    assert (result["devices"], result["iterations"]) == (1, 16)


STOPPED = """
from dataclasses import replace
from pathlib import Path
from labelloop.distill.assembly import trainer_of
from labelloop.runs.loading import read_run_config
from labelloop.distill.schedule import Schedule
from labelloop.processes import take_part
from labelloop.progress import Silent
from labelloop.project.project import Project
project = Project.open(Path(ROOT))
config = read_run_config(project.runs_dir / "run")
with take_part(device_type="cpu") as team:
    schedule = replace(Schedule(**config["schedule"]), teacher=50, supervised=50)
    trainer = trainer_of(project, config, schedule, "cut", Silent(), parts=2, team=team)
    try:
        trainer.run(supervised_only=True)
    except KeyboardInterrupt:
        team.gather(trainer.files.checkpoint.exists())
    team.wait()
"""


def test_nobody_leaves_an_interrupted_run_before_its_checkpoint_is_written(project, tmp_path):
    class Interrupts(Silent):
        def advance(self, steps: int = 1, **facts: float | str) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

    class SlowToStore(Trainer):
        def _checkpoint(self, *state) -> None:
            time.sleep(3)
            super()._checkpoint(*state)

    train(project, TrainRequest(model=CORE_NET, method="supervised", iterations=1, name="run"))
    (project.runs_dir / "cut").mkdir()
    config = read_run_config(project.runs_dir / "run")
    schedule = dataclasses.replace(Schedule(**config["schedule"]), teacher=50, supervised=50)
    program = STOPPED.replace("ROOT", repr(str(project.root)))
    with started(["-c", program], size=2, device_type="cpu", logs=tmp_path, way_out="") as team:
        made = trainer_of(project, config, schedule, "cut", Interrupts(), parts=2, team=team)
        slow = SlowToStore(**{field.name: getattr(made, field.name) for field in dataclasses.fields(made)})
        with pytest.raises(KeyboardInterrupt):
            slow.run(supervised_only=True)
        _, there = team.gather(None)
        team.wait()
    assert there


def test_more_processes_than_images_in_a_step_are_refused_before_anything_is_written(project):
    with pytest.raises(UsageError, match="more processes than images") as caught:
        train(project, TrainRequest(iterations=6, devices=3))
    assert "2 images" in caught.value.value
    assert project.runs() == []


def test_what_a_step_costs_is_measured_in_as_many_processes(project):
    train(project, TrainRequest(model=CORE_NET, method="supervised", iterations=1, name="run"))
    config = read_run_config(project.runs_dir / "run")
    asked = Asked(config=config, schedule=Schedule(**config["schedule"]))
    costs = measured_costs(project, asked, Silent(), processes=2, team=ALONE)
    assert min(dataclasses.astuple(costs)) > 0
    assert not list(project.runs_dir.glob("*.log"))
