"""Runs that are gone on with after their project has changed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from labelloop.distill.assembly import id_ranges
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import TrainingError
from labelloop.formats.coco import coco_dataset
from labelloop.instances import Instances
from labelloop.project.adding import add_images, add_labels
from labelloop.project.project import Project

CORE_NET = str(Path(__file__).parents[2] / "examples" / "extending" / "core_net.py")
SHORT = TrainRequest(model=CORE_NET, iterations=8)


def weights(project: Project, run: str, which: str) -> dict[str, torch.Tensor]:
    return torch.load(project.runs_dir / run / f"{which}.pt", weights_only=True)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def test_images_that_were_added_since_do_not_change_a_run(project, interrupted, write_set):
    train(project, dataclasses.replace(SHORT, name="whole"))
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    add_images(project, [str(write_set("later", 6, seed=9, truth=False))])
    train(project, resume)
    assert same(weights(project, "cut", "guided"), weights(project, "whole", "guided"))


def test_a_learnt_image_that_validates_since_does_not_end_a_run(project, interrupted, tmp_path):
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    add_labels(project, str(tmp_path / "labelled.json"), images=str(tmp_path / "labelled"), split="val")
    assert train(project, resume)["run"] == "cut"


def test_a_class_that_labels_have_got_since_is_measured(project, interrupted, tmp_path, write_set):
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    write_set("debris", 1, seed=4, truth=False)
    spot = Instances.from_dense(np.ones((1, 96, 96), np.bool_))
    document = coco_dataset([("debris_0.png", (96, 96))], [spot], ("debris",))
    (tmp_path / "debris.json").write_text(json.dumps(document))
    toml = project.root / "labelloop.toml"
    toml.write_text(toml.read_text().replace('["organoid"]', '["organoid", "debris"]'))
    grown = Project.open(project.root)
    add_labels(grown, str(tmp_path / "debris.json"), images=str(tmp_path / "debris"), split="val")
    result = train(grown, resume)
    assert result["split"] == "val"
    assert result["guided"]["recall_50"]["value"] == 0.0


def test_a_fold_with_all_the_objects_is_refused_before_the_first_step(project, tmp_path, write_set):
    write_set("empty", 3, seed=8, truth=False)
    names = [(f"empty_{i}.png", (96, 96)) for i in range(3)]
    nothing = [Instances.from_dense(np.zeros((0, 96, 96), np.bool_))] * 3
    (tmp_path / "empty.json").write_text(json.dumps(coco_dataset(names, nothing, ("organoid",))))
    bare = Project.init(tmp_path / "bare", project.config)
    add_labels(bare, str(tmp_path / "empty.json"), images=str(tmp_path / "empty"))
    one = json.loads((tmp_path / "labelled.json").read_text())
    one["images"] = one["images"][:1]
    one["annotations"] = [a for a in one["annotations"] if a["image_id"] == one["images"][0]["id"]]
    (tmp_path / "one.json").write_text(json.dumps(one))
    add_labels(bare, str(tmp_path / "one.json"), images=str(tmp_path / "labelled"))
    with pytest.raises(TrainingError, match="one fold holds all objects"):
        train(bare, dataclasses.replace(SHORT, folds=2))
    assert bare.runs() == []


def test_a_student_without_distillation_is_the_guided_model(project, tmp_path):
    recipe = tmp_path / "burn-in.toml"
    recipe.write_text('base = "reference"\nburn_in_share = 1.0\nfine_tune_share = 0.0\n')
    train(project, dataclasses.replace(SHORT, name="burn-in", recipe=str(recipe)))
    assert not same(weights(project, "burn-in", "guided"), weights(project, "burn-in", "teacher"))


def test_ids_are_kept_as_ranges():
    assert id_ranges([5, 1, 2, 3, 9, 8]) == [[1, 3], [5, 5], [8, 9]]
    assert id_ranges([]) == []
