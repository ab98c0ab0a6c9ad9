"""When a training writes checkpoints, and what it makes of weights that do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from labelloop.distill.assembly import trainer_of
from labelloop.distill.schedule import Schedule
from labelloop.distill.small_trainer import SmallTraining, small_trainer
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import TrainingError
from labelloop.models.catalog import build_model
from labelloop.progress import Silent
from labelloop.runs import files as run_files
from labelloop.runs.checkpoint import save_tensors
from labelloop.runs.files import RunFiles

CORE_NET = str(Path(__file__).parents[2] / "examples" / "extending" / "core_net.py")


class Watching(Silent):
    """Counts the steps of a run, and how many different checkpoints were there after them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.steps = 0
        self.checkpoints: set[int] = set()

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        if "loss" in facts:
            self.steps += steps
            if self.file.exists():
                self.checkpoints.add(self.file.stat().st_mtime_ns)


def test_what_a_checkpoint_takes_decides_when_the_next_one_is_made(project, monkeypatch):
    monkeypatch.setattr(run_files, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(run_files, "CHECKPOINT_PAUSE", 1e6)
    watching = Watching(project.runs_dir / "run" / "checkpoint.pt")
    train(project, TrainRequest(name="run", iterations=5, method="supervised"), watching)
    assert watching.steps == 5
    assert (
        len(watching.checkpoints) == 2
    )  # the first one, of which nobody knew what it takes, and the last one


def save_weights_of_two_classes(file: Path, trainer) -> None:
    stats = replace(trainer.stats, classes=("a", "b"))
    save_tensors(file, {"model": build_model(CORE_NET, stats, pretrained=False).module().state_dict()})


def test_a_teacher_that_another_version_has_trained_is_a_clear_error(project, interrupted):
    interrupted(project, TrainRequest(model=CORE_NET, iterations=8, name="cut"), "teacher")
    config = project.run("cut").config
    trainer = trainer_of(project, config, Schedule(**config["schedule"]), "cut", Silent(), parts=1)
    file = trainer.files.weights("teacher")
    save_weights_of_two_classes(file, trainer)
    with pytest.raises(TrainingError, match="does not fit") as caught:
        trainer.student_learner()
    assert caught.value.value == str(file)


def test_a_small_model_that_starts_from_weights_of_another_network_is_a_clear_error(project, tmp_path):
    images, base = project.images(labelled=True, split="train"), RunFiles(folder=tmp_path / "base")
    trainer = small_trainer(
        images,
        project.labels([image.id for image in images]),
        SmallTraining(model=CORE_NET, steps=1, seed=0, device="cpu", start=base),
        classes=("organoid",),
        files=RunFiles(folder=tmp_path / "small"),
        progress=Silent(),
    )
    save_weights_of_two_classes(base.weights("supervised"), trainer)
    with pytest.raises(TrainingError, match="does not fit") as caught:
        trainer.labels_learner()
    assert caught.value.value == str(base.weights("supervised"))
