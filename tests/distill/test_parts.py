"""A step's batch seen in parts, one after the other or by several processes: the same is learnt."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from labelloop.distill.assembly import trainer_of
from labelloop.distill.schedule import Schedule
from labelloop.progress import Silent
from labelloop.project.project import Project
from labelloop.runs.files import RunFiles
from labelloop.runs.loading import read_run_config

# Its loss is a mean over images, nothing in it is drawn at random, and it has no batch statistics.
CORE_NET = str(Path(__file__).parents[2] / "examples" / "extending" / "core_net.py")
# Sums in another order must not be rounded to bfloat16 where the processor has it.
FLOAT32 = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}


def log_of(project: Project, run: str) -> list[dict]:
    return [json.loads(line) for line in (project.runs_dir / run / "log.jsonl").read_text().splitlines()]


def weights(project: Project, run: str) -> dict[str, torch.Tensor]:
    return torch.load(project.runs_dir / run / "guided.pt", weights_only=True)["model"]


def require_same(project: Project, run: str, other: str) -> None:
    require_same_log(project, run, other, abs=1e-5)
    ours, theirs = weights(project, run), weights(project, other)
    apart = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])
    # AdamW makes a step of full length of a gradient that is nothing but rounding.
    assert (apart > 1e-6).float().mean() < 1e-4


def require_same_log(project: Project, run: str, other: str, **tolerance: float) -> None:
    stages = {line["stage"] for line in log_of(project, run)}
    assert stages == {"teacher", "burn-in", "distillation", "fine-tuning"}
    for ours, theirs in zip(log_of(project, run), log_of(project, other), strict=True):
        assert ours.pop("schedule") == theirs.pop("schedule")
        assert ours.pop("stage") == theirs.pop("stage")
        assert ours == pytest.approx(theirs, **tolerance)


@pytest.fixture
def recipe(tmp_path):
    def write(base: str) -> str:
        (tmp_path / f"{base}.toml").write_text(
            f'base = "{base}"\nlabelled_batch = 2\nunlabelled_batch = 3\nsupervised_batch = 3\n'
            "supervised_steps = [[15, 3]]\nfine_tune_share = 0.25\n"
            "[pseudo]\nviews = 1\nmin_score = 0.5\n[optimiser]\nlr = 1e-5\n"
        )
        return str(tmp_path / f"{base}.toml")

    return write


@pytest.fixture
def shared_run(project, recipe):
    """A finished run that two processes have shared, by its recipe's base."""

    def train(base: str, model: str) -> str:
        command = [sys.executable, "-m", "labelloop", "train", "--model", model, "--recipe", recipe(base)]
        command += [
            "--iterations",
            "8",
            "--devices",
            "2",
            "--device",
            "cpu",
            "-C",
            str(project.root),
            "--json",
        ]
        ran = subprocess.run(
            command, cwd=project.root, env=FLOAT32, capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, ran.stderr
        result = json.loads(ran.stdout)
        assert result["devices"] == 2
        return str(result["run"])

    return train


def train_alone(project: Project, run: str, name: str, *, parts: int) -> None:
    """The same run in one process, in so many parts; its student begins with that run's teacher and labels.

    Rounding in a teacher does not stay rounding: AdamW makes whole steps of gradients that are nothing else,
    and masks are kept as bytes. So each stage is compared from the same beginning.
    """
    files, theirs = RunFiles(folder=project.runs_dir / name), RunFiles(folder=project.runs_dir / run)
    files.folder.mkdir()
    config = read_run_config(theirs.folder)
    trainer = trainer_of(project, config, Schedule(**config["schedule"]), name, Silent(), parts=parts)
    trainer = dataclasses.replace(trainer, precision="32-true")
    trainer.train_teacher()
    shutil.copy(theirs.weights("supervised"), files.weights("supervised"))
    if theirs.pseudo_labels("teacher").exists():
        shutil.copy(theirs.pseudo_labels("teacher"), files.folder)
    trainer.train_student()


def test_two_processes_learn_what_one_learns_in_any_number_of_parts(project, shared_run):
    run = shared_run("default", CORE_NET)
    assert [r.name for r in project.runs()] == [run]
    assert not list((project.runs_dir / run).glob("process-*.log"))
    for parts in (1, 4):
        train_alone(project, run, f"parts-{parts}", parts=parts)
        require_same(project, run, f"parts-{parts}")


def test_a_model_that_draws_at_random_learns_the_same_wherever_its_parts_are_seen(project, shared_run):
    run = shared_run("reference", "mask-rcnn-lite")
    train_alone(project, run, "parts-2", parts=2)
    require_same_log(
        project, run, "parts-2", rel=1e-3
    )  # a pixel more in a pseudo-label is a step in the loss
