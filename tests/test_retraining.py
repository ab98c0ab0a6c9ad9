from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import delete

from labelloop.data.synthetic_set import write_micrographs
from labelloop.distill.naming import claimed
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import TrainingError
from labelloop.instances import Instances
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import LabelRow, PredictionRow
from labelloop.proposing import last_gate, proposer
from labelloop.retraining import gate_trained, retrain
from labelloop.review.known import new_labels


def make_screen(tmp_path: Path, first: TrainRequest, **splits: int) -> Project:
    """Labelled images, of which one came back from review after the only run."""
    made = Project.init(tmp_path / "screen", ProjectConfig(name="screen", classes=("organoid",)))
    for split, count in splits.items():
        add_split(made, tmp_path, split, count)
    write_micrographs(tmp_path / "pool", 3, seed=9, labels=None, size_hw=(96, 96))
    add_images(made, [str(tmp_path / "pool")])
    train(made, first)
    review_one(made)
    return made


def add_split(project: Project, tmp_path: Path, split: str, count: int) -> None:
    labels = tmp_path / f"{split}.json"
    write_micrographs(tmp_path / split, count, seed=count, labels=labels, size_hw=(96, 96))
    add_labels(project, LabelSource(path=str(labels), images=str(tmp_path / split)), split=split)


def review_one(project: Project) -> None:
    """One more image of the pool comes back from review: nothing is in it."""
    image, *_ = project.images(labelled=False)
    with project.ledger.write() as session:
        labels_row = LabelRow(
            image_id=image.id, revision=1, source="review:round-1", n_objects=0,
            instances=encode_instances(Instances(size_hw=image.size_hw)),
        )  # fmt: skip
        session.add(labels_row)


FIRST = TrainRequest(method="supervised", iterations=2, name="first")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """With images for validation."""
    return make_screen(tmp_path, FIRST, train=3, val=6)


@pytest.fixture
def unvalidated(tmp_path: Path) -> Project:
    """Without images for validation: the run was made again without parts of its labels."""
    return make_screen(tmp_path, replace(FIRST, folds=2), train=3)


class StoppedInTraining(Silent):
    """Ctrl-C in the middle of a run."""

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        if "loss" in facts:
            raise KeyboardInterrupt


class StoppedAtTheGate(Silent):
    """Ctrl-C when the training is done and what the gate says is not yet stored."""

    def note(self, text: str) -> None:
        if "proposes from now on" in text:
            raise KeyboardInterrupt


def sees(project: Project, run: str, share: float) -> None:
    """The run sees this share of the objects of each validation image, and nothing else."""
    images = project.images(split="val")
    labels = project.labels([image.id for image in images])
    with project.ledger.write() as session:
        session.execute(delete(PredictionRow).where(PredictionRow.run == run))
        for number, image in enumerate(images):
            n = len(labels[image.id])
            truth = labels[image.id].select(range(min(round(share * n) + number % 2, n)))
            seen = Instances(
                size_hw=truth.size_hw,
                rles=truth.rles,
                labels=truth.labels,
                scores=np.full(len(truth), 0.9, np.float32),
            )
            session.add(
                PredictionRow(
                    run=run, which="supervised", image_id=image.id, instances=encode_instances(seen)
                )
            )


@pytest.mark.parametrize("better", [True, False])
def test_a_loop_stopped_between_training_and_gate_asks_the_gate_when_it_goes_on(
    project: Project, *, better: bool
) -> None:
    with pytest.raises(KeyboardInterrupt):
        retrain(project, StoppedAtTheGate())
    assert new_labels(project) == 0  # so nothing trains again
    [trained] = {run.name for run in project.runs() if run.state == "finished"} - {"first"}
    sees(project, "first", 0.2 if better else 0.8)
    sees(project, trained, 0.8 if better else 0.2)
    gate_trained(project, Silent())
    decided = last_gate(project)
    assert decided is not None
    assert (decided["new"], decided["old"], decided["promote"]) == (trained, "first", better)
    assert proposer(project) == (trained if better else "first")


def test_a_run_on_a_few_labels_has_seen_no_others(project: Project) -> None:
    review_one(project)
    assert new_labels(project) == 2
    train(project, TrainRequest(labels="1", method="supervised", iterations=2, name="few"))
    learnt = project.run("few").config["label_revisions"]
    reviewed = {str(image.id) for image in project.images() if image.path.parent.name == "pool"}
    assert new_labels(project) == 2 - len(reviewed & learnt.keys()) > 0
    train(project, TrainRequest(method="supervised", iterations=2, name="whole"))
    assert new_labels(project) == 0


def test_labels_that_come_back_while_the_step_is_measured_are_new(project: Project) -> None:
    class ReviewedMeanwhile(Silent):
        def start(self, stage: str, total: int) -> None:
            if stage == "timing":
                review_one(project)
            elif stage == "teacher":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(project, replace(FIRST, name="timed", iterations=None, time_s=600.0), ReviewedMeanwhile())
    finish(project, "timed")
    assert new_labels(project) == 1


def test_a_run_that_a_person_trained_is_left_to_the_person(project: Project) -> None:
    trained = retrain(project, Silent())
    train(project, TrainRequest(method="supervised", iterations=2, name="by-hand"))
    gate_trained(project, Silent())
    decided = last_gate(project)
    assert decided is not None
    assert decided["new"] == trained
    assert proposer(project) in ("first", trained)


def begin(project: Project, request: TrainRequest) -> None:
    """A person begins a run and stops it."""
    with pytest.raises(KeyboardInterrupt):
        train(project, request, StoppedInTraining())


def learnt(project: Project, run: str) -> set[int]:
    return set(project.run(run).config["train_images"])


@pytest.mark.parametrize("named", [True, False])
def test_a_run_that_a_person_began_is_left_and_all_labels_are_learnt(
    project: Project, *, named: bool
) -> None:
    begin(project, replace(FIRST, labels="1", name="by-hand" if named else None))
    [by_hand] = {run.name for run in project.runs()} - {"first"}
    trained = retrain(project, Silent())
    assert trained not in (None, by_hand)
    assert learnt(project, str(trained)) == {
        image.id for image in project.images(split="train", labelled=True)
    }
    assert project.run(by_hand).state != "finished"


def test_a_run_that_a_person_began_under_the_name_of_one_that_never_began_is_left(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(TrainingError, match="no longer where they were"):
        retrain(project, Silent())
    (tmp_path / "elsewhere").rename(tmp_path / "train")
    begin(project, replace(FIRST, name=None))
    [by_hand] = {run.name for run in project.runs()} - {"first"}
    assert retrain(project, Silent()) not in (None, by_hand)


def test_a_loop_killed_in_the_middle_of_its_training_goes_on_with_it(project: Project) -> None:
    with pytest.raises(KeyboardInterrupt):
        retrain(project, StoppedInTraining())
    [began] = {run.name for run in project.runs()} - {"first"}
    begin(project, replace(FIRST, labels="1", name="by-hand"))
    assert retrain(project, Silent()) == began
    assert project.run(began).state == "finished"


def test_a_run_that_cannot_go_on_is_said_and_another_is_trained(project: Project, watching: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        retrain(project, StoppedInTraining())
    [began] = {run.name for run in project.runs()} - {"first"}
    shutil.rmtree(project.runs_dir / began)
    trained = retrain(project, watching)
    assert trained not in (None, began)
    assert project.run(trained).state == "finished"
    assert any(began in told and "cannot be read" in told for told in watching.told)


def test_a_run_that_another_process_trains_is_said_and_waited_for(project: Project, watching: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        retrain(project, StoppedInTraining())
    [began] = {run.name for run in project.runs()} - {"first"}
    with claimed(project.runs_dir / began):
        assert retrain(project, watching) is None
    assert any(began in told and "another process" in told for told in watching.told)
    assert retrain(project, Silent()) == began


def test_without_validation_images_a_run_that_learnt_fewer_images_does_not_propose(
    unvalidated: Project,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        retrain(unvalidated, StoppedInTraining())
    review_one(unvalidated)
    train(unvalidated, replace(FIRST, folds=0, name="by-hand"))
    trained = retrain(unvalidated, Silent())
    decided = last_gate(unvalidated)
    assert decided is not None
    assert (decided["new"], decided["old"], decided["promote"]) == (trained, "by-hand", False)
    assert "4 images" in decided["reason"]
    assert "5" in decided["reason"]
    assert proposer(unvalidated) == "by-hand"


def test_without_validation_images_a_run_that_learnt_more_images_proposes(unvalidated: Project) -> None:
    assert retrain(unvalidated, Silent()) == proposer(unvalidated) != "first"


def test_validation_images_that_came_after_a_run_with_folds_decide_instead(
    unvalidated: Project, tmp_path: Path
) -> None:
    add_split(unvalidated, tmp_path, "val", 6)
    trained = retrain(unvalidated, Silent())
    assert unvalidated.run(trained).config["folds"] == []


def test_the_first_run_of_all_trains_with_the_defaults_and_proposes(tmp_path: Path) -> None:
    project = Project.init(tmp_path / "screen", ProjectConfig(name="screen", classes=("organoid",)))
    add_split(project, tmp_path, "train", 2)
    assert proposer(project) is None
    with pytest.raises(KeyboardInterrupt):
        retrain(project, StoppedInTraining())
    [run] = project.runs()
    assert run.config["request"] == asdict(TrainRequest(name=run.name))
    finish(project, run.name)
    gate_trained(project, Silent())
    decided = last_gate(project)
    assert decided is not None
    assert (decided["new"], decided["old"], decided["promote"]) == (run.name, None, True)
    assert proposer(project) == run.name


def finish(project: Project, name: str) -> None:
    project.save_run(replace(project.run(name), state="finished", promoted="supervised", result={}))
