"""Runs that are gone on with after their project has changed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labelloop.distill.assembly import id_ranges
from labelloop.distill.measured import scored_images_of
from labelloop.distill.naming import claimed
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import ImageError, TrainingError, UsageError
from labelloop.formats.coco import coco_dataset
from labelloop.instances import Instances
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.project import Project
from labelloop.runs.files import RunFiles, write_json
from labelloop.runs.loading import read_run_config

CORE_NET = str(Path(__file__).parents[2] / "examples" / "extending" / "core_net.py")
SHORT = TrainRequest(model=CORE_NET, iterations=8)


def weights(project: Project, run: str, which: str) -> dict[str, torch.Tensor]:
    return torch.load(project.runs_dir / run / f"{which}.pt", weights_only=True)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def began_on(project: Project, run: str, device: str) -> None:
    """Changes a run into one of another machine."""
    record = project.run(run)
    config = {**record.config, "device": device}
    project.save_run(dataclasses.replace(record, config=config))
    write_json(RunFiles(folder=project.runs_dir / run).config, config)


def test_images_that_were_added_since_do_not_change_a_run(project, interrupted, write_set):
    train(project, dataclasses.replace(SHORT, name="whole"))
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    add_images(project, [str(write_set("later", 6, seed=9, truth=False))])
    train(project, resume)
    assert same(weights(project, "cut", "guided"), weights(project, "whole", "guided"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_image_that_a_run_has_learnt_does_not_measure_it_though_it_moved_since(
    project, interrupted, tmp_path, watching, split
):
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    learnt = project.run("cut").config["train_images"]
    assert len(learnt) == 3
    add_labels(
        project,
        LabelSource(path=str(tmp_path / "labelled.json"), images=str(tmp_path / "labelled")),
        split=split,
    )
    assert len(project.images(split=split, labelled=True)) == {"val": 3, "test": 5}[split]
    result = train(project, resume, watching)
    assert result["split"] == "test"
    assert (result["verified"], result["gate"]) == (False, None)
    config = project.run("cut").config
    assert [i.path.name for i in scored_images_of(project, config).images] == ["test_0.png", "test_1.png"]
    assert [note for note in watching.told if "learnt" in note] == [
        f"note: 3 {split} images do not measure this run, as it has learnt them"
    ]


def test_a_run_with_folds_is_measured_on_what_it_has_learnt_wherever_that_moved(project, tmp_path):
    train(project, dataclasses.replace(SHORT, method="supervised", iterations=1, folds=3, name="folds"))
    add_labels(
        project,
        LabelSource(path=str(tmp_path / "labelled.json"), images=str(tmp_path / "labelled")),
        split="val",
    )
    scored = scored_images_of(project, project.run("folds").config)
    assert (scored.split, len(scored.images)) == ("out-of-fold", 3)


@pytest.mark.parametrize("folder", ["labelled", "pool"])
def test_a_run_whose_images_were_replaced_since_is_refused_until_they_are_back(
    project, interrupted, tmp_path, folder
):
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    path = tmp_path / folder / f"{folder}_1.png"
    before = path.read_bytes()
    Image.fromarray(np.random.default_rng(7).integers(0, 256, (96, 96), np.uint8)).save(path)
    assert add_images(project, [str(path)]).replaced == 1
    with pytest.raises(TrainingError, match="were replaced by other files since it began") as caught:
        train(project, resume)
    assert caught.value.value == str(path)
    path.write_bytes(before)
    add_images(project, [str(path)])
    assert train(project, resume)["run"] == "cut"


def test_a_run_whose_labelled_images_have_changed_is_refused_before_it_goes_on(project, interrupted):
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    image = project.images(split="train", labelled=True)[0]
    before = image.path.read_bytes()
    Image.fromarray(np.random.default_rng(7).integers(0, 256, (96, 96), np.uint8)).save(image.path)
    with pytest.raises(ImageError, match="have changed since they were added"):
        train(project, resume)
    image.path.write_bytes(before)
    assert train(project, resume)["run"] == "cut"


def test_a_run_that_began_on_a_gpu_goes_on_without_one_where_that_is_asked_for(
    project, interrupted, monkeypatch, watching
):
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    began_on(project, "cut", "cuda:0")
    with pytest.raises(UsageError, match="not that many GPUs") as caught:
        train(project, resume)
    assert caught.value.value == "1 asked for, 0 here"
    assert "--device cpu" in caught.value.way_out
    assert train(project, dataclasses.replace(resume, device="cpu"), watching)["device"] == "cpu"
    assert any("began on cuda:0 and goes on on cpu" in note for note in watching.told)
    assert read_run_config(project.runs_dir / "cut")["device"] == "cpu"
    assert project.run("cut").config["device"] == "cpu"


def test_a_run_that_another_process_trains_keeps_its_device(project, interrupted):
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    began_on(project, "cut", "cuda:0")
    with claimed(project.runs_dir / "cut"), pytest.raises(TrainingError, match="another process"):
        train(project, dataclasses.replace(resume, device="cpu"))
    assert read_run_config(project.runs_dir / "cut")["device"] == "cuda:0"


def test_a_class_that_labels_have_got_since_is_measured(project, interrupted, tmp_path, write_set):
    resume = interrupted(project, dataclasses.replace(SHORT, name="cut"), "pseudo-labels")
    write_set("debris", 1, seed=4, truth=False)
    spot = Instances.from_dense(np.ones((1, 96, 96), np.bool_))
    document = coco_dataset([("debris_0.png", (96, 96))], [spot], ("debris",))
    (tmp_path / "debris.json").write_text(json.dumps(document))
    toml = project.root / "labelloop.toml"
    toml.write_text(toml.read_text().replace('["organoid"]', '["organoid", "debris"]'))
    grown = Project.open(project.root)
    add_labels(
        grown, LabelSource(path=str(tmp_path / "debris.json"), images=str(tmp_path / "debris")), split="val"
    )
    result = train(grown, resume)
    assert result["split"] == "val"
    assert result["guided"]["recall_50"]["value"] == 0.0


def test_a_fold_with_all_the_objects_is_refused_before_the_first_step(project, tmp_path, write_set):
    write_set("empty", 3, seed=8, truth=False)
    names = [(f"empty_{i}.png", (96, 96)) for i in range(3)]
    nothing = [Instances.from_dense(np.zeros((0, 96, 96), np.bool_))] * 3
    (tmp_path / "empty.json").write_text(json.dumps(coco_dataset(names, nothing, ("organoid",))))
    bare = Project.init(tmp_path / "bare", project.config)
    add_labels(bare, LabelSource(path=str(tmp_path / "empty.json"), images=str(tmp_path / "empty")))
    one = json.loads((tmp_path / "labelled.json").read_text())
    one["images"] = one["images"][:1]
    one["annotations"] = [a for a in one["annotations"] if a["image_id"] == one["images"][0]["id"]]
    (tmp_path / "one.json").write_text(json.dumps(one))
    add_labels(bare, LabelSource(path=str(tmp_path / "one.json"), images=str(tmp_path / "labelled")))
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
