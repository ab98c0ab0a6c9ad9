"""Runs that are made again without a part of their labels, and judged by what is seen in that part."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from sqlalchemy import select

from labelloop.cli.train import show_training
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import UsageError
from labelloop.evaluating import predict_known_images
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.ledger import decode_instances
from labelloop.project.tables import PredictionRow
from labelloop.runs.loading import load_model

CORE_NET = str(Path(__file__).parents[2] / "examples" / "extending" / "core_net.py")
SHORT = TrainRequest(model=CORE_NET, iterations=4, folds=2, name="folds")


def seen_in_folds(project, which):
    """By image id, what a model of the folds of the run saw."""
    statement = select(PredictionRow).where(PredictionRow.which.like(f"{which}/fold-%"))
    with project.ledger.read() as session:
        return {row.image_id: decode_instances(row.instances) for row in session.scalars(statement)}


def test_labelled_images_measure_and_choose_and_the_test_images_stay_sealed(project, capsys):
    result = train(project, SHORT)
    assert (result["split"], result["verified"]) == ("out-of-fold", True)
    assert result["labels"]["used"] == 3  # none of them is kept back
    images = sorted(image.id for image in project.images(labelled=True, split="train"))
    for which in ("supervised", "guided"):
        assert result[which]["coco_ap"]["n"] == 3
        assert result["scores"][which] is not None
        assert sorted(seen_in_folds(project, which)) == images
    assert "images" in result["gate"]["reason"]
    assert result["promoted"] == ("guided" if result["gate"]["promote"] else "supervised")
    assert "folds" in result["seconds"]
    assert not list((project.runs_dir / "folds").glob("fold-*"))
    show_training(result)
    said = capsys.readouterr().out
    assert "On out-of-fold images, with 95 % intervals" in said
    undecided = result["gate"]["verdict"] == "undecided"  # three images seldom tell
    assert (f"(not verified: {result['gate']['reason']}" if undecided else "(verified on out-of-fold") in said
    # The models themselves are those of a run without folds.
    train(project, dataclasses.replace(SHORT, folds=0, name="plain"))
    for which in ("supervised", "guided"):
        folds, plain = (
            torch.load(project.runs_dir / run / f"{which}.pt", weights_only=True)["model"]
            for run in ("folds", "plain")
        )
        assert all(torch.equal(folds[key], plain[key]) for key in plain)


def test_an_image_is_seen_by_the_model_that_the_other_labels_make(project, tmp_path):
    (tmp_path / "one_size.toml").write_text("view_px = 64\nintensity_percentile = [0.0, 100.0]\n")
    asked = dataclasses.replace(SHORT, folds=3, method="supervised", recipe=str(tmp_path / "one_size.toml"))
    train(project, asked)
    seen, images = seen_in_folds(project, "supervised"), project.images(labelled=True, split="train")
    for held in images:
        names = [image.file_name for image in images if image.id != held.id]
        (tmp_path / "others.txt").write_text("\n".join(names))
        name = f"without-{held.id}"
        train(project, dataclasses.replace(asked, labels=str(tmp_path / "others.txt"), folds=0, name=name))
        (expected,) = predict_known_images(project, load_model(project, name), [held], Silent())
        assert len(expected) > 0
        assert expected.rles == seen[held.id].rles
        assert expected.scores.tolist() == seen[held.id].scores.tolist()


class InterruptedIn(Silent):
    """Interrupts when a stage begins."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def start(self, stage: str, total: int) -> None:
        if stage.startswith(self._stage):
            raise KeyboardInterrupt


def test_a_run_interrupted_again_and_again_in_its_folds_goes_on_to_the_same_numbers(project):
    whole = train(project, dataclasses.replace(SHORT, name="whole"))
    with pytest.raises(KeyboardInterrupt):
        train(project, SHORT, InterruptedIn("fold 1 of 2: teacher"))
    for stage in ("evaluating guided/fold-1", "fold 2 of 2: burn-in"):
        with pytest.raises(KeyboardInterrupt):
            train(project, TrainRequest(resume=True), InterruptedIn(stage))
    resumed = train(project, TrainRequest(resume=True))
    assert resumed["run"] == "folds"
    for part in ("supervised", "guided", "difference", "gate", "min_score"):
        assert resumed[part] == whole[part]


def test_where_validation_images_decide_folds_are_refused(project, tmp_path, write_set):
    write_set("val", 1, seed=8, truth=True)
    add_labels(
        project, LabelSource(path=str(tmp_path / "val.json"), images=str(tmp_path / "val")), split="val"
    )
    with pytest.raises(UsageError, match="validation images"):
        train(project, SHORT)
    assert project.runs() == []


def test_one_fold_is_no_cut(project):
    with pytest.raises(UsageError, match="2 folds or more"):
        train(project, dataclasses.replace(SHORT, folds=1))
