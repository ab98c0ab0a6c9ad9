"""Recipes of benchmarks train on their data sets' layouts in small: all stages, interrupted and resumed.

Some are trained on here by the one network that a laptop runs in seconds. The networks of the recipes need a
minute and more each; what ``labelloop recipes`` says of their state was written down after

    LABELLOOP_RECIPES=all python -m pytest tests/recipes/test_miniatures.py

which trains on every data set, and one recipe for each format of labels and network.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.distill.train import TrainRequest, train
from labelloop.models.catalog import build_model
from labelloop.models.data_stats import DataStats
from labelloop.progress import Silent
from labelloop.recipes.catalog import list_benchmarks
from labelloop.recipes.datasets import find_dataset
from labelloop.recipes.starting import make_ready, require_benchmark

SMALLER = "labelled_batch = 1\nunlabelled_batch = 1\nsupervised_batch = 1\n"
ONE_OF_EACH = {
    (find_dataset(b.dataset).format, b.model): b.name for b in reversed(list_benchmarks()) if not b.missing
}
STATS = DataStats(
    classes=("organoid",),
    image_size_hw=(64, 64),
    diameter_px=(12.0, 20.0, 30.0),
    box_side_px=(12.0, 20.0, 30.0),
    objects_per_image=(3.0, 5.0),
)
FOR_ALL = pytest.mark.skipif(
    os.environ.get("LABELLOOP_RECIPES") != "all", reason="minutes long; asked for with LABELLOOP_RECIPES=all"
)
REST = ("coco", "ade20k", "orgasegment", "m-orgaquant-clean")
ONE_OF_EACH_DATASET = {b.dataset: b.name for b in reversed(list_benchmarks())}


class InterruptedIn(Silent):
    """Sends this process an interrupt at the first step of a stage."""

    def __init__(self, stage: str) -> None:
        self.wanted = stage
        self.stage = ""

    def start(self, name, total):
        self.stage = name

    def advance(self, steps=1, **facts):
        if self.stage == self.wanted:
            signal.raise_signal(signal.SIGINT)


def write_list(benchmark, data):
    """The published list that a benchmark needs, for the miniature's images."""
    name, _, share = benchmark.labels.partition("@")
    if share:
        (data / name).write_text(json.dumps({f"{float(share.rstrip('%'))}": {"0": [0, 1]}}))
    elif name.endswith(".txt"):
        (data / name).write_text("aachen_000001_000019_gtFine_instanceIds.png\n")


def random_weights(model: str, folder: Path) -> Path:
    """Weights of a backbone as its network takes them, since no hub can be asked for pretrained ones."""
    if model.endswith("-r50"):
        path = folder / "resnet50.pth"
        torch.save(timm.create_model("resnet50").state_dict(), path)
        return path
    network: Any = build_model(model, STATS, pretrained=False).module()
    network.network.backbone.body.save_pretrained(folder / model)
    return folder / model


def trained(tmp_path, miniature, name, model):
    """The result of a recipe's training that was interrupted and resumed, and the run's configuration."""
    benchmark = require_benchmark(name)
    data, root = tmp_path / "data", tmp_path / "project"
    miniature(benchmark.dataset.removesuffix("-clean"), data)
    write_list(benchmark, data)
    recipe = tmp_path / "small.toml"
    recipe.write_text(f'base = "{name}"\n{SMALLER}')
    ready = make_ready(benchmark, data, root=root, labels=None, model=model, progress=Silent())
    request = TrainRequest(labels=ready.labels, model=model, recipe=str(recipe), iterations=4, name="cut")
    with pytest.raises(KeyboardInterrupt):
        train(ready.project, request, InterruptedIn("supervised"))
    command = [
        "train",
        "--recipe",
        recipe,
        "--data",
        data,
        "--model",
        model,
        "--resume",
        "-C",
        root,
        "--json",
    ]
    resumed = CliRunner().invoke(app, [*map(str, command)], catch_exceptions=False)
    return json.loads(resumed.stdout), ready.project.run("cut").config


def check(result, config):
    """All stages of the reference's algorithm were run, with its settings."""
    assert (result["run"], result["iterations"]) == ("cut", 4)
    schedule = result["schedule"]
    assert (schedule["teacher"], schedule["supervised"], schedule["fine_tune"]) == (1, 4, 0)
    assert sorted([schedule["burn_in"], schedule["distillation"]]) == [1, 2]  # as the recipe shares them
    assert schedule["cached_images"] == 0
    recipe = config["recipe"]
    assert (recipe["ema_decay"], recipe["pseudo"]["min_score"], recipe["unlabelled_weight"]) == (
        0.9996,
        0.7,
        2.0,
    )
    assert recipe["fresh_student"]
    assert not recipe["pseudo"]["soft_masks"]


def check_protocol(result, protocol, root):
    """Train and evaluate measure by the recipe's protocol, beside the panel."""
    command = ["evaluate", "--split", result["split"], "-C", str(root), "--json"]
    measured = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert measured["protocol"]["name"] == result["protocol"]["name"] == protocol
    assert measured["protocol"]["metrics"] == result["protocol"][measured["which"]]
    assert result["protocol"]["difference"]["ap50"]["n"] == measured["n_images"]


@pytest.mark.parametrize(
    "dataset", ["cityscapes", "m-orgaquant", *(pytest.param(name, marks=FOR_ALL) for name in REST)]
)
def test_a_recipe_trains_on_its_data_set(tmp_path, miniature, dataset):
    name = ONE_OF_EACH_DATASET[dataset]
    result, config = trained(tmp_path, miniature, name, "mask-rcnn-lite")
    check(result, config)
    check_protocol(result, require_benchmark(name).protocol, tmp_path / "project")
    assert result["split"] == ("val" if dataset.startswith(("orgasegment", "m-orgaquant")) else "test")
    assert result["labels"]["used"] == (2 if dataset == "m-orgaquant" else 1)


def test_no_recipe_claims_a_state_that_no_test_can_show():
    claimed = [b for b in list_benchmarks() if b.state == "runs on a made miniature"]
    assert all((find_dataset(b.dataset).format, b.model) in ONE_OF_EACH for b in claimed)


@FOR_ALL
@pytest.mark.parametrize("name", ONE_OF_EACH.values())
def test_a_recipe_trains_its_own_network(tmp_path, miniature, name):
    model = require_benchmark(name).model
    check(*trained(tmp_path, miniature, name, f"{model}:{random_weights(model, tmp_path)}"))
