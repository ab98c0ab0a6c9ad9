"""Recipes of benchmarks train on their data sets' layouts in small, by the command line.

Each goes through teacher, guided burn-in and distillation, is interrupted inside one of them, and continued.
Some are trained on here by the one network that a laptop runs in seconds. The networks of the recipes need a
minute and more each; what ``labelloop recipes`` says of their state was written down after

    LABELLOOP_RECIPES=all python -m pytest tests/recipes/test_miniatures.py

which trains on every data set, with every network that a recipe has for it. One recipe stands for those that
have another share of the labels and are the same otherwise. Its batches are of one image and its stages of a
few steps; it is started by its own name, with batches as published, with the small network alone.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.distill.recipe import find_recipe
from labelloop.distill.schedule import guided_schedule
from labelloop.models.catalog import build_model
from labelloop.models.data_stats import DataStats
from labelloop.progress import Silent
from labelloop.project.project import Project
from labelloop.recipes.catalog import list_benchmarks
from labelloop.recipes.starting import require_benchmark

TEACHER, ALL = 3, 9  # steps
SMALLER = (
    "labelled_batch = 1\nunlabelled_batch = 1\nsupervised_batch = 1\n"
    f"supervised_steps = [[1, {TEACHER}]]\niterations = {ALL}\n"
)
STANDS_FOR_ALL = {(b.dataset, b.model): b.name for b in reversed(list_benchmarks())}
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
HERE = {"cityscapes": "burn-in", "m-orgaquant": "distillation"}
REST = {"coco": "teacher", "ade20k": "distillation", "orgasegment": "burn-in", "m-orgaquant-clean": "teacher"}
ONE_OF_EACH_DATASET = {b.dataset: b.name for b in reversed(list_benchmarks())}


class InterruptedIn(Silent):
    """Sends this process an interrupt after the first step of a stage; the next step is its last one."""

    def __init__(self, stage: str) -> None:
        self.wanted = stage
        self.stage = ""

    def start(self, name, total):
        self.stage = name

    def advance(self, steps=1, **facts):
        if self.stage == self.wanted:
            self.stage = ""
            signal.raise_signal(signal.SIGINT)


def stages_of(name: str) -> dict[str, range]:
    """The steps of each stage of a recipe in small, counted as checkpoints count them."""
    recipe = dataclasses.replace(find_recipe(name), supervised_steps=((1, TEACHER),), iterations=ALL)
    planned = guided_schedule(recipe, iterations=ALL, n_labels=1, pool=5)
    assert (planned.teacher, planned.supervised, planned.fine_tune) == (TEACHER, TEACHER, 0)
    student = range(planned.student)
    return {
        "teacher": range(TEACHER),
        "burn-in": student[: planned.burn_in],
        "distillation": student[planned.burn_in :],
    }


def in_turn() -> list[Any]:
    """Each recipe that stands for others, with a stage of three steps or more, so that one can be inside."""
    chosen = []
    for turn, name in enumerate(STANDS_FOR_ALL.values()):
        long = [stage for stage, steps in stages_of(name).items() if len(steps) >= 3]
        chosen.append(pytest.param(name, long[turn % len(long)], id=name))
    return chosen


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


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def trained(tmp_path, monkeypatch, miniature, name, model, stage):
    """The result of a recipe's training that was interrupted in a stage and resumed, and its settings."""
    benchmark = require_benchmark(name)
    data, root = tmp_path / "data", tmp_path / "project"
    miniature(benchmark.dataset.removesuffix("-clean"), data)
    write_list(benchmark, data)
    recipe = tmp_path / "small.toml"
    recipe.write_text(f'base = "{name}"\n{SMALLER}')
    command = ["train", "--recipe", recipe, "--data", data, "--model", model, "--name", "cut", "-C", root]

    @contextmanager
    def interrupted():
        yield InterruptedIn(stage)

    with monkeypatch.context() as patch:
        patch.setattr("labelloop.cli.train.shown_progress", interrupted)
        assert run(*command).exit_code == 130
    project = Project.open(root)
    checkpoint = torch.load(project.runs_dir / "cut" / "checkpoint.pt", weights_only=True)
    steps = stages_of(name)[stage]
    assert checkpoint["schedule"] == ("teacher" if stage == "teacher" else "student")
    assert checkpoint["step"] == steps.start + 2 < steps.stop
    resumed = run(*command, "--resume", "--json")
    return json.loads(resumed.stdout), project.run("cut").config


def check(name, result, config):
    """All stages of the reference's algorithm were run, with its settings."""
    assert (result["run"], result["iterations"]) == ("cut", ALL)
    schedule, stages = result["schedule"], stages_of(name)
    assert (schedule["teacher"], schedule["supervised"], schedule["fine_tune"]) == (TEACHER, TEACHER, 0)
    assert schedule["burn_in"] == len(stages["burn-in"]) >= 1
    assert schedule["distillation"] == len(stages["distillation"]) >= 3
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
    measured = json.loads(run("evaluate", "--split", result["split"], "-C", root, "--json").stdout)
    assert measured["protocol"]["name"] == result["protocol"]["name"] == protocol
    assert measured["protocol"]["metrics"] == result["protocol"][measured["which"]]
    assert result["protocol"]["difference"]["ap50"]["n"] == measured["n_images"]


@pytest.mark.parametrize(
    ("dataset", "stage"),
    [*HERE.items(), *(pytest.param(*of_rest, marks=FOR_ALL) for of_rest in REST.items())],
)
def test_a_recipe_trains_on_its_data_set(tmp_path, monkeypatch, miniature, dataset, stage):
    name = ONE_OF_EACH_DATASET[dataset]
    result, config = trained(tmp_path, monkeypatch, miniature, name, "mask-rcnn-lite", stage)
    check(name, result, config)
    check_protocol(result, require_benchmark(name).protocol, tmp_path / "project")
    assert result["split"] == ("val" if dataset.startswith(("orgasegment", "m-orgaquant")) else "test")
    assert result["labels"]["used"] == (2 if dataset == "m-orgaquant" else 1)


@pytest.mark.parametrize("benchmark", list_benchmarks(), ids=lambda b: b.name)
def test_a_recipe_is_in_all_but_its_labels_the_one_that_stands_for_it_in_these_tests(benchmark):
    other = require_benchmark(STANDS_FOR_ALL[benchmark.dataset, benchmark.model])
    settings = [dataclasses.replace(find_recipe(name), name="") for name in (benchmark.name, other.name)]
    assert settings[0] == settings[1]
    assert benchmark.protocol == other.protocol
    kinds = [labels_kind(of.labels) for of in (benchmark, other)]
    assert kinds[0] == kinds[1]
    assert not (benchmark.state and benchmark.missing)


def labels_kind(labels: str) -> tuple[bool, bool]:
    """Whether labels are a list, and whether they are a share."""
    return (".txt" in labels, labels.endswith("%"))


def test_recipes_are_interrupted_in_each_of_their_stages():
    assert {stage for of in in_turn() for stage in of.values[1:]} == {"teacher", "burn-in", "distillation"}


@FOR_ALL
@pytest.mark.parametrize(("name", "stage"), in_turn())
def test_a_recipe_trains_its_own_network(tmp_path, monkeypatch, miniature, name, stage):
    model = require_benchmark(name).model
    weights = random_weights(model, tmp_path)
    check(name, *trained(tmp_path, monkeypatch, miniature, name, f"{model}:{weights}", stage))


@FOR_ALL
@pytest.mark.parametrize("name", ONE_OF_EACH_DATASET.values())
def test_a_recipe_starts_by_its_name_with_batches_as_published(tmp_path, miniature, name):
    benchmark = require_benchmark(name)
    miniature(benchmark.dataset.removesuffix("-clean"), tmp_path / "data")
    write_list(benchmark, tmp_path / "data")
    started = run(
        "train", "--recipe", name, "--data", tmp_path / "data", "--model", "mask-rcnn-lite",
        "--iterations", "1+3", "--accumulate", "8", "-C", tmp_path / "project", "--json",
    )  # fmt: skip
    result = json.loads(started.stdout)
    config = Project.open(tmp_path / "project").run(result["run"]).config
    assert (config["parts"], config["recipe"]["labelled_batch"], config["recipe"]["unlabelled_batch"]) == (
        8,
        16,
        16,
    )
    assert result["schedule"]["teacher"] == 1
