from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import delete

from labelloop.data.synthetic_set import write_micrographs
from labelloop.distill.train import TrainRequest, train
from labelloop.instances import Instances
from labelloop.progress import Silent
from labelloop.project.adding import add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import LabelRow, PredictionRow
from labelloop.retraining import gate_trained, last_gate, new_labels, proposer, retrain


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Labelled images of which one came back from review after the only run, and images for validation."""
    made = Project.init(tmp_path / "screen", ProjectConfig(name="screen", classes=("organoid",)))
    for split, count in (("train", 3), ("val", 6)):
        labels = tmp_path / f"{split}.json"
        write_micrographs(tmp_path / split, count, seed=count, labels=labels, size_hw=(96, 96))
        add_labels(made, str(labels), images=str(tmp_path / split), split=split)
    write_micrographs(tmp_path / "pool", 1, seed=9, labels=None, size_hw=(96, 96))
    add_images(made, [str(tmp_path / "pool")])
    train(made, TrainRequest(method="supervised", iterations=2, name="first"))
    [image] = made.images(labelled=False)
    with made.ledger.write() as session:
        labels_row = LabelRow(
            image_id=image.id, revision=1, source="review:round-1", n_objects=0,
            instances=encode_instances(Instances(size_hw=image.size_hw)),
        )  # fmt: skip
        session.add(labels_row)
    return made


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


def test_a_run_that_a_person_trained_is_left_to_the_person(project: Project) -> None:
    trained = retrain(project, Silent())
    train(project, TrainRequest(method="supervised", iterations=2, name="by-hand"))
    gate_trained(project, Silent())
    decided = last_gate(project)
    assert decided is not None
    assert decided["new"] == trained
    assert proposer(project) in ("first", trained)
