"""Whole runs of the real model on made images, a few steps long."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import labelloop.distill.train as train_module
import labelloop.distill.trainer as trainer_module
from labelloop.data.label_draw import draw_labels, parse_label_budget
from labelloop.data.parts import image_of
from labelloop.distill import naming
from labelloop.distill.recipe import find_recipe
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import ImageError, OutputError, TrainingError, UsageError
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.project import Project
from labelloop.runs.checkpoint import load_predictions
from labelloop.runs.files import RunFiles
from labelloop.runs.loading import load_model
from labelloop.whole_files import partial_of

SHORT = TrainRequest(iterations=6)


def weights(project: Project, run: str, which: str) -> dict[str, torch.Tensor]:
    return torch.load(project.runs_dir / run / f"{which}.pt", weights_only=True)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def finished(project):
    return train(project, dataclasses.replace(SHORT, name="first"))


def test_result_has_the_contracts_fields_and_both_models_on_the_same_images(project, finished):
    assert finished["labels"] == {"requested": "all", "used": 3, "pool": 7}
    assert finished["iterations"] == 6
    assert finished["promoted"] == "guided"  # nothing verifies it: no validation images
    assert finished["verified"] is False
    assert finished["split"] == "test"
    assert finished["supervised"]["coco_ap"]["n"] == finished["guided"]["coco_ap"]["n"] == 2
    assert set(finished["difference"]) == set(finished["guided"])
    assert {"teacher", "student", "evaluation"} <= set(finished["seconds"])
    assert json.loads((project.runs_dir / "first" / "metrics.json").read_text()) == finished


def test_one_validation_image_says_too_little_for_a_run_to_be_verified(project, write_set, tmp_path):
    folder = write_set("val", 1, seed=8, truth=True)
    add_labels(project, LabelSource(path=str(tmp_path / "val.json"), images=str(folder)), split="val")
    result = train(project, dataclasses.replace(SHORT, name="one"))
    assert (result["split"], result["verified"]) == ("val", False)
    assert "no interval from 1 image" in result["gate"]["reason"]


def test_the_same_request_gives_the_same_weights_bit_for_bit(project, finished):
    train(project, dataclasses.replace(SHORT, name="again"))
    for which in ("supervised", "guided"):
        assert same(weights(project, "first", which), weights(project, "again", which))


def test_a_student_keeps_the_backbone_of_its_teacher_if_that_is_asked_for(project, finished, tmp_path):
    recipe = tmp_path / "kept.toml"
    recipe.write_text("student_backbone_lr_factor = 0.0\n")
    train(project, dataclasses.replace(SHORT, name="kept", recipe=str(recipe)))
    for run, kept in (("first", False), ("kept", True)):
        teacher, student = (weights(project, run, which) for which in ("teacher", "guided"))
        bodies = [{k: v for k, v in model.items() if ".body." in k} for model in (teacher, student)]
        assert same(*bodies) is kept
        assert not same(teacher, student)


def test_another_seed_gives_other_weights(project, finished):
    train(project, dataclasses.replace(SHORT, name="other", seed=1))
    assert not same(weights(project, "first", "guided"), weights(project, "other", "guided"))


def test_an_image_that_was_moved_away_is_named_before_the_first_step(project, tmp_path):
    image = project.images(split="test")[0].path
    image.rename(tmp_path / "elsewhere.png")
    with pytest.raises(TrainingError, match="no longer where they were") as caught:
        train(project, SHORT)
    assert caught.value.value == str(image)
    assert project.runs() == []


def another_image(path: Path, *, side: int = 96) -> None:
    """Writes noise where an image lay."""
    noise = np.random.default_rng(7).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(noise).save(path)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_labelled_images_that_have_changed_are_named_before_the_first_step(
    project, write_set, tmp_path, split
):
    add_labels(
        project,
        LabelSource(path=str(tmp_path / "more.json"), images=str(write_set("more", 2, seed=8, truth=True))),
        split=split,
    )
    images = project.images(split=split, labelled=True)[-2:]
    for image in images:
        another_image(image.path)
    with pytest.raises(ImageError, match="have changed since they were added") as caught:
        train(project, SHORT)
    assert caught.value.value == f"{images[0].path} and 1 more"
    assert "labelloop add images" in caught.value.way_out
    assert project.runs() == []


class StagesUntil(Silent):
    """Keeps the stages with their totals, and is interrupted where one starts."""

    def __init__(self, last: str) -> None:
        self.last, self.told = last, {}

    def start(self, stage: str, total: int) -> None:
        self.told[stage] = total
        if stage == self.last:
            raise KeyboardInterrupt


def test_a_run_counts_the_files_that_it_looks_at_before_its_first_step(project):
    stages = StagesUntil("pseudo-labels")
    with pytest.raises(KeyboardInterrupt):
        train(project, dataclasses.replace(SHORT, name="cut"), stages)
    assert stages.told["checking files"] == 5
    assert stages.told["looking for images"] == 4
    for image in project.images(labelled=True):
        image.path.touch()  # they may have been written since
    stages = StagesUntil("pseudo-labels")
    with pytest.raises(KeyboardInterrupt):
        train(project, TrainRequest(resume=True, name="cut"), stages)
    assert stages.told["checking files"] == 5


def test_images_of_the_pool_that_have_another_size_now_end_the_run(project):
    paths = [image.path for image in project.images(labelled=False)]
    for path in paths:
        another_image(path, side=64)
    with pytest.raises(ImageError, match="it had 96 x 96 px, and has 64 x 64 px now") as caught:
        train(project, SHORT)
    assert caught.value.value in map(str, paths)


def test_a_few_images_of_the_pool_that_are_gone_are_said_and_left_out(project, write_set, watching, tmp_path):
    add_images(project, [str(write_set("more", 8, seed=4, truth=False))])
    gone = project.images(labelled=False)[5]
    gone.path.unlink()
    result = train(project, dataclasses.replace(SHORT, name="rest"), watching)
    assert result["labels"]["pool"] == 14
    assert any("1 of 12 images of the pool are left out" in said for said in watching.told)
    assert any(str(gone.path) in said for said in watching.told)


def test_a_pool_of_which_much_is_gone_is_a_clear_error_before_the_first_step(project):
    for image in project.images(labelled=False)[:2]:
        image.path.unlink()
    with pytest.raises(TrainingError, match="no longer where they were") as caught:
        train(project, SHORT)
    assert "and 1 more" in caught.value.value
    assert project.runs() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_at_the_start_leaves_the_name_free(project, monkeypatch):
    folder = project.runs_dir / "full"
    request = dataclasses.replace(SHORT, name="full", iterations=4)
    with monkeypatch.context() as context:
        make = naming.make_run_folder

        def make_full(*arguments):
            name = make(*arguments)
            partial_of(folder / "config.json").symlink_to("/dev/full")
            return name

        context.setattr(train_module, "make_run_folder", make_full)
        with pytest.raises(OutputError, match="cannot be written") as caught:
            train(project, request)
    assert "--resume" not in str(caught.value)
    assert not folder.exists()
    assert train(project, request)["run"] == "full"


def test_the_promoted_model_loads_and_predicts(project, finished):
    loaded = load_model(project)
    assert (loaded.run, loaded.which, loaded.classes) == ("first", "guided", ("organoid",))
    assert loaded.model.predict([torch.rand(3, 64, 64)])[0].size_hw == (64, 64)


def test_a_large_field_of_the_pool_is_labelled_and_learnt_by_parts(project, tmp_path, write_set):
    add_images(project, [str(write_set("field", 1, seed=5, truth=False, size=1100))])
    recipe = tmp_path / "many.toml"
    recipe.write_text("looks_per_label = 2\n")
    train(project, dataclasses.replace(SHORT, name="parts", iterations=40, recipe=str(recipe)))
    field = max(project.images(split="train"), key=lambda image: image.size_hw)
    labelled = load_predictions(RunFiles(folder=project.runs_dir / "parts").pseudo_labels("teacher"))
    of_field = [p.size_hw for part, p in labelled.items() if image_of(part) == field.id]
    assert len(of_field) >= 3
    assert max(max(size_hw) for size_hw in of_field) < 600


def test_the_reference_keeps_the_student_and_the_default_its_average(project, monkeypatch):
    kept: dict[str, dict[str, torch.Tensor]] = {}
    save = trainer_module.save_tensors

    def saved(path: Path, document: dict) -> None:
        if path.name == "checkpoint.pt" and document["schedule"] == "student":
            kept.update(student=document["student"], average=document["average"])
        save(path, document)

    monkeypatch.setattr(trainer_module, "save_tensors", saved)
    for recipe, which in (("reference", "student"), ("default", "average")):
        train(project, dataclasses.replace(SHORT, name=recipe, recipe=recipe))
        other = "average" if which == "student" else "student"
        assert same(weights(project, recipe, "guided"), kept[which])
        assert not same(kept[which], kept[other])


@pytest.mark.parametrize("recipe", ["default", "reference", "in turns"])
def test_a_run_killed_at_any_stage_goes_on_to_the_same_weights(project, tmp_path, recipe):
    if recipe == "in turns":
        (tmp_path / "turns.toml").write_text('distillation_labels = "in turns"\n')
        recipe = str(tmp_path / "turns.toml")
    whole = train(project, dataclasses.replace(SHORT, name="whole", recipe=recipe))
    command = [
        sys.executable,
        "-m",
        "labelloop",
        "train",
        "--iterations",
        "6",
        "--name",
        "cut",
        "--recipe",
        recipe,
    ]
    log = project.runs_dir / "cut" / "log.jsonl"
    for kill_at, how in ((2, signal.SIGINT), (4, signal.SIGKILL)):
        resume = ["--resume"] if kill_at > 2 else []
        process = subprocess.Popen([*command, *resume], cwd=project.root, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.read_text().count("\n") >= kill_at:
                process.send_signal(how)
                break
            time.sleep(0.02)
        _, err = process.communicate(timeout=120)
        assert process.returncode in (130, -signal.SIGKILL, 0), err
    resumed = train(project, TrainRequest(resume=True, name="cut"))
    assert same(weights(project, "cut", "guided"), weights(project, "whole", "guided"))
    assert resumed["guided"] == whole["guided"]


def test_labels_of_images_that_were_not_drawn_are_used_nowhere(project):
    """The labels that were not drawn are replaced by nonsense: nothing changes."""
    from labelloop.instances import Instances
    from labelloop.project.ledger import encode_instances
    from labelloop.project.tables import LabelRow

    one = dataclasses.replace(SHORT, labels="1")
    train(project, dataclasses.replace(one, name="before"))
    drawn = json.loads((project.runs_dir / "before" / "config.json").read_text())["train_images"]
    with project.ledger.write() as session:
        for image in project.images(split="train", labelled=True):
            if image.id not in drawn:
                nonsense = Instances.from_dense(np.ones((1, *image.size_hw), bool))
                row = LabelRow(image_id=image.id, revision=9, source="x", n_objects=1)
                row.instances = encode_instances(nonsense)
                session.add(row)
    train(project, dataclasses.replace(one, name="after"))
    for which in ("supervised", "guided"):
        assert same(weights(project, "before", which), weights(project, "after", which))


def test_a_supervised_run_trains_and_promotes_one_model(project):
    result = train(project, dataclasses.replace(SHORT, method="supervised", iterations=2))
    assert result["promoted"] == "supervised"
    assert result["guided"] is None
    assert result["difference"] is None
    assert result["supervised"]["coco_ap"]["n"] == 2


def test_a_project_without_unlabelled_images_still_trains(tmp_path, write_set):
    from labelloop.project.adding import LabelSource, add_labels
    from labelloop.project.config import ProjectConfig

    project = Project.init(tmp_path / "few", ProjectConfig(name="few"))
    write_set("only", 1, seed=5, truth=True)
    add_labels(project, LabelSource(path=str(tmp_path / "only.json"), images=str(tmp_path / "only")))
    result = train(project, dataclasses.replace(SHORT, iterations=4))
    assert result["split"] is None
    assert result["guided"] is None
    assert result["promoted"] == "guided"


def test_training_without_labels_is_a_clear_error(tmp_path, write_set):
    from labelloop.project.adding import add_images
    from labelloop.project.config import ProjectConfig

    project = Project.init(tmp_path / "none", ProjectConfig(name="none", classes=("a",)))
    add_images(project, [str(write_set("bare", 1, seed=5, truth=False))])
    with pytest.raises(TrainingError, match="no training image has labels"):
        train(project, SHORT)
    assert project.runs() == []


def test_time_and_iterations_exclude_each_other(project):
    with pytest.raises(UsageError, match="exclude"):
        train(project, TrainRequest(time_s=60, iterations=5))


def test_a_time_fixes_the_iterations_and_is_kept(project):
    begun = time.monotonic()
    told: list[str] = []
    watching = Silent()
    watching.note = told.append
    result = train(project, TrainRequest(time_s=25.0, name="timed", device="cpu"), watching)
    spent = time.monotonic() - begun
    assert any("poor models" in note and "would be enough" in note for note in told)
    config = json.loads((project.runs_dir / "timed" / "config.json").read_text())
    assert result["iterations"] >= 4
    assert config["schedule"]["teacher"] + result["schedule"]["burn_in"] <= result["iterations"]
    assert spent < 60  # a busy machine may be slower than when it was measured


def test_the_baseline_of_a_guided_run_is_the_supervised_run_of_that_length(project):
    train(project, dataclasses.replace(SHORT, name="run"))
    short = train(project, dataclasses.replace(SHORT, name="sup", method="supervised", iterations=6))
    assert short["iterations"] == 6
    assert same(weights(project, "run", "supervised"), weights(project, "sup", "supervised"))


@pytest.mark.parametrize(
    ("text", "pool", "expected"),
    [("5%", 1481, 75), ("15", 1481, 15), ("all", 10, None), ("0.1%", 10, 1), ("100%", 7, 7)],
)
def test_label_budget_is_a_share_of_the_pool_or_a_count(text, pool, expected):
    assert parse_label_budget(text, pool=pool) == expected


@pytest.mark.parametrize("text", ["0", "-3", "0%", "101%", "some", "", "1.5"])
def test_a_label_budget_that_means_nothing_is_refused(text):
    with pytest.raises(UsageError, match="--labels"):
        parse_label_budget(text, pool=10)


def test_smaller_draws_lie_inside_larger_ones_and_groups_stay_together(project):
    images = project.images(split="train")
    grouped = [image._replace(group="ab"[i % 2]) for i, image in enumerate(images)]
    ids = {image.id for image in images}
    draws = [
        draw_labels(grouped, ids, budget=n, seed=3, validation_share=0.0).train
        for n in range(1, len(images) + 1)
    ]
    for small, large in itertools.pairwise(draws):
        assert [i.id for i in small] == [i.id for i in large[: len(small)]]
    groups = [i.group for i in draws[-1]]
    assert groups == sorted(groups) or groups == sorted(groups, reverse=True)


def test_a_fifth_of_a_large_draw_validates_and_its_groups_are_not_trained_on(project):
    image = project.images()[0]
    many = [image._replace(id=i, sha256=f"{i:03d}", group=f"g{i // 2}") for i in range(30)]
    draw = draw_labels(many, {i.id for i in many}, budget=None, seed=0, validation_share=0.2)
    assert len(draw.val) == 6
    assert not {i.group for i in draw.val} & {i.group for i in draw.train}
    few = draw_labels(many, {i.id for i in many}, budget=19, seed=0, validation_share=0.2)
    assert few.val == ()


def test_an_unknown_recipe_stops_before_anything_is_written(project):
    with pytest.raises(UsageError, match="recipe"):
        train(project, dataclasses.replace(SHORT, recipe="nope"))
    assert not project.runs_dir.exists() or not os.listdir(project.runs_dir)
    assert find_recipe(None).name == "default"
