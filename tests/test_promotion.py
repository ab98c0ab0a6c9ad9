"""A newer run against the one in use: predictions are written by hand, so the answer is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.data.synthetic import organoid_micrograph
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import ProjectError
from labelloop.formats.coco import coco_dataset
from labelloop.instances import Instances
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import PredictionRow
from labelloop.promotion import gate_of_runs

SIDE = 96


def add(project: Project, folder: Path, count: int, *, seed: int, split: str) -> None:
    """Adds made micrographs with their truth."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    made = [organoid_micrograph(rng, size_hw=(SIDE, SIDE), n_objects=4) for _ in range(count)]
    names = [f"{folder.name}_{i}.png" for i in range(count)]
    for name, (pixels, _) in zip(names, made, strict=True):
        Image.fromarray(pixels).save(folder / name)
    document = coco_dataset([(n, (SIDE, SIDE)) for n in names], [m[1] for m in made], ("organoid",))
    labels = folder / "labels.json"
    labels.write_text(json.dumps(document))
    add_labels(project, LabelSource(path=str(labels), images=str(folder)), split=split)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """3 labelled and 6 validation images, and two runs; each test writes what they see anew."""
    tmp_path = tmp_path_factory.mktemp("promotion")
    made = Project.init(tmp_path / "project", ProjectConfig(name="tiny", classes=("organoid",)))
    add(made, tmp_path / "train", 3, seed=1, split="train")
    add(made, tmp_path / "val", 6, seed=2, split="val")
    for seed, name in enumerate(("old", "new")):
        train(made, TrainRequest(method="supervised", iterations=2, seed=seed, name=name))
    return made


def predict(project: Project, run: str, found: Sequence[float], split: str = "val", fold: str = "") -> None:
    """The run sees the first objects of each image, this share of them, and nothing else."""
    images = project.images(split=split, labelled=True)
    labels = project.labels([image.id for image in images])
    with project.ledger.write() as session:
        for image, share in zip(images, found, strict=True):
            truth = labels[image.id].select(range(round(share * len(labels[image.id]))))
            seen = Instances(
                size_hw=truth.size_hw,
                rles=truth.rles,
                labels=truth.labels,
                scores=np.full(len(truth), 0.9, np.float32),
            )
            session.merge(
                PredictionRow(
                    run=run, which=f"supervised{fold}", image_id=image.id, instances=encode_instances(seen)
                )
            )


GOOD, POOR = (1, 1, 0.75, 1, 1, 1), (0.25, 0.5, 0.25, 0.5, 0.25, 0.5)


def test_a_run_that_validation_shows_worse_does_not_take_the_place(project: Project) -> None:
    predict(project, "old", GOOD)
    predict(project, "new", POOR)
    decision = gate_of_runs(project, new="new", old="old")
    assert decision is not None
    assert (decision.promote, decision.verdict, decision.difference.n) == (False, "worse", 6)
    assert decision.difference.value is not None
    assert decision.difference.high is not None
    assert decision.difference.value < decision.difference.high < 0
    assert "on 6 images" in decision.reason


ABOUT_AS_GOOD = (1, 0.75, 1, 0.75, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "promoted"),
    [(GOOD, ABOUT_AS_GOOD, False), (ABOUT_AS_GOOD, GOOD, True), (GOOD, GOOD, True)],
    ids=["worse on the images", "better on the images", "the same"],
)
def test_where_the_images_cannot_tell_the_better_run_on_them_is_used_or_else_the_new_one(
    project: Project, old: Sequence[float], new: Sequence[float], *, promoted: bool
) -> None:
    predict(project, "old", old)
    predict(project, "new", new)
    decision = gate_of_runs(project, new="new", old="old")
    assert decision is not None
    assert (decision.promote, decision.verdict) == (promoted, "undecided")


def test_images_that_either_run_has_learnt_say_nothing(project: Project) -> None:
    predict(project, "old", GOOD)
    predict(project, "new", POOR)
    first, *others = project.images(split="val")
    record = project.run("old")
    for learnt, left in ([first.id], 5), ([image.id for image in others], 1):
        project.save_run(replace(record, config={**record.config, "train_images": learnt}))
        decision = gate_of_runs(project, new="new", old="old")
        assert decision is not None
        assert decision.difference.n == left
    assert decision.verdict == "undecided"  # one image has no interval
    learnt = [image.id for image in (first, *others)]
    project.save_run(replace(record, config={**record.config, "train_images": learnt}))
    assert gate_of_runs(project, new="new", old="old") is None
    project.save_run(record)


def test_without_validation_images_two_runs_with_folds_are_compared_out_of_fold(project: Project) -> None:
    new = project.run("new")
    learnt = [image.id for image in project.images(labelled=True)]
    project.save_run(replace(new, config={**new.config, "train_images": learnt}))
    predict(project, "old", (1, 1, 1), "train", fold="/fold-1")
    predict(project, "new", (0.25, 0.5, 0.25), "train", fold="/fold-1")
    decision = gate_of_runs(project, new="new", old="old")
    assert decision is not None
    assert (decision.promote, decision.verdict, decision.difference.n) == (False, "worse", 3)
    project.save_run(new)


def test_what_was_seen_out_of_fold_is_in_the_classes_of_the_project(project: Project) -> None:
    record, images = project.run("new"), project.images(labelled=True)
    stats = {**record.config["stats"], "classes": ["debris", "organoid"]}
    learnt = [image.id for image in images]
    project.save_run(replace(record, config={**record.config, "train_images": learnt, "stats": stats}))
    for run in ("old", "new"):
        predict(project, run, (1, 1, 1), "train", fold="/fold-1")
    with pytest.raises(ProjectError, match="debris"):
        gate_of_runs(project, new="new", old="old")
    project.save_run(record)
