"""What the benchmarks' recipes say, and what starting one does before the first step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.cli.train import show_training
from labelloop.data.parts import whole
from labelloop.data.pool import ImageLoader
from labelloop.distill.asked_labels import asked_labels
from labelloop.distill.recipe import find_recipe, packaged_names
from labelloop.distill.schedule import guided_schedule
from labelloop.errors import ModelError, UsageError
from labelloop.metrics.protocols import PROTOCOLS
from labelloop.models.catalog import list_models
from labelloop.progress import Silent
from labelloop.project.project import ImageRecord, Project
from labelloop.recipes.catalog import KINDS, STATES, find_benchmark, list_benchmarks
from labelloop.recipes.datasets import DATASETS
from labelloop.recipes.starting import labels_of, make_ready, require_benchmark

BENCHMARKS = list_benchmarks()


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


# -- what they say ------------------------------------------------------------------------------------------


def test_every_row_of_the_issue_has_a_recipe():
    rows = {(b.dataset, round(100 * b.fraction, 3)) for b in BENCHMARKS}
    shares = {
        "cityscapes": (5, 10, 20, 30), "coco": (0.4, 1, 2, 5, 10), "ade20k": (10,),
        "orgasegment": (1, 2, 5, 10), "m-orgaquant": (1, 2, 5, 10), "m-orgaquant-clean": (1, 2, 5, 10),
    }  # fmt: skip
    assert rows == {(dataset, share) for dataset, of in shares.items() for share in of}
    assert set(shares) == {dataset.name for dataset in DATASETS}


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.name)
def test_a_recipe_says_all_that_it_must(benchmark):
    assert benchmark.name == f"{benchmark.dataset}-{100 * benchmark.fraction:g}-{benchmark.model}"
    assert benchmark.protocol in PROTOCOLS
    assert benchmark.hardware
    assert benchmark.state in (*STATES, None)
    assert bool(benchmark.published) != bool(benchmark.unpublished)
    for published in (*([benchmark.published] if benchmark.published else []), *benchmark.later):
        assert published.kind in KINDS
        assert 1 < published.value < 100
        assert published.source
    if benchmark.state is not None:
        assert benchmark.model in {model.name for model in list_models()}


def test_a_model_that_is_not_here_is_said_to_be_missing():
    absent = replace(BENCHMARKS[0], model="no-such-model")
    assert absent.missing == "the model no-such-model is not in this labelloop"


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.name)
def test_a_recipe_takes_labels_by_the_probability_of_the_class_as_the_reference_does(benchmark):
    pseudo = find_recipe(benchmark.name).pseudo
    assert (pseudo.score, pseudo.min_score) == ("class", 0.7)


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("guided-cityscapes", (90_000, 50_000, 40_000)),
        ("guided-coco", (368_750, 50_000, 318_750)),
        ("guided-ade20k", (160_000, 50_000, 110_000)),
    ],
)
def test_the_algorithm_has_the_lengths_and_settings_of_its_authors_code(name, steps):
    recipe = find_recipe(name)
    schedule = guided_schedule(recipe, iterations=recipe.iterations, n_labels=100, pool=10**5)
    assert (schedule.teacher, schedule.burn_in, schedule.distillation) == steps
    assert schedule.fine_tune == schedule.cached_images == 0
    assert not schedule.apart
    assert (recipe.labelled_batch, recipe.unlabelled_batch, recipe.supervised_batch) == (16, 16, 16)
    assert (recipe.unlabelled_weight, recipe.ema_decay, recipe.repeat_threshold) == (2.0, 0.9996, 10.0)
    assert (recipe.pseudo.min_score, recipe.pseudo.min_area_px) == (0.7, 80.0)
    assert recipe.fresh_student
    assert recipe.pool_includes_labelled
    assert not recipe.known_views
    rates = recipe.optimiser  # Mask2Former of the paper's sizes takes a tenth of the rate: the authors' 1e-4
    assert (rates.lr, rates.backbone_lr_factor, rates.weight_decay) == (1e-3, 0.1, 0.05)
    assert rates.clip_norm == 0.01


@pytest.mark.parametrize("name", ["reference", *packaged_names()])
def test_the_average_of_a_fresh_student_forgets_where_it_began(name):
    recipe = find_recipe(name)
    schedule = guided_schedule(recipe, iterations=recipe.iterations, n_labels=15, pool=100)
    assert recipe.fresh_student
    assert recipe.keeps_student
    assert recipe.ema_decay_over(schedule.distillation) ** schedule.distillation < 0.05


@pytest.mark.parametrize("name", ["guided-coco", "guided-cityscapes", "guided-ade20k"])
def test_published_recipes_show_networks_images_as_they_are(tmp_path, name):
    pixels = np.random.default_rng(0).integers(60, 181, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "dim.png")
    image = ImageRecord(1, tmp_path / "dim.png", "dim.png", (40, 50), "train", None, 0, -1, None, "0")
    recipe = find_recipe(name)
    shown = ImageLoader([whole(image)], intensity_percentile=recipe.intensity_percentile)(1)
    np.testing.assert_allclose(shown, np.moveaxis(pixels, -1, 0) / 255, atol=1e-6)
    assert recipe.input_scale == 1.0


def test_organoids_are_as_large_and_as_bright_as_the_model_wants_them():
    assert find_recipe("guided-organoids").intensity_percentile == (0.5, 99.5)
    assert find_recipe("guided-organoids").input_scale == 0.0


def test_the_rate_on_coco_drops_at_the_authors_steps():
    steps = find_recipe("guided-coco").supervised_steps[0][1]
    assert [round(drop * steps) for drop in find_recipe("guided-coco").optimiser.drops] == [327_778, 355_092]


def test_images_of_ade20k_are_zoomed_to_the_sizes_of_mask2formers_configuration():
    assert [512 * zoom for zoom in find_recipe("guided-ade20k").geometry.zoom] == [320, 1280]


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda b: b.name)
def test_the_hardware_of_one_backbone_is_not_said_to_do_for_another(benchmark):
    if "S4M" in benchmark.hardware and not benchmark.model.endswith("-r50"):
        assert "are for ResNet-50" in benchmark.hardware
        assert "--accumulate" in benchmark.hardware


def test_every_packaged_recipe_has_settings_that_can_be_used():
    assert {find_recipe(name).name for name in packaged_names()} == set(packaged_names())


PRESUMED = {"cityscapes-10": 33.9, "coco-1": 34.1, "coco-2": 38.2, "coco-5": 41.6, "coco-10": 43.1}


@pytest.mark.parametrize("row", PRESUMED)
def test_a_number_whose_backbone_no_source_names_is_told_but_not_given_to_one(row):
    of_row = [b for b in BENCHMARKS if b.name.startswith(f"{row}-mask2former")]
    assert all(b.published is None or b.published.value != PRESUMED[row] for b in of_row)
    told = next(b.unpublished for b in of_row if b.model == "mask2former-dinov2-l")
    assert str(PRESUMED[row]) in told
    assert "not named" in told


def test_recipes_lists_what_the_contract_says():
    rows = json.loads(run("recipes", "--json").stdout)
    assert len(rows) == len(BENCHMARKS)
    assert list(rows[0])[:6] == ["name", "dataset", "fraction", "architecture", "published", "state"]
    best = next(row for row in rows if row["name"] == "coco-0.4-mask2former-dinov2-l")
    assert (best["published"]["value"], best["published"]["kind"]) == (31.0, "paper")
    assert rows[0].keys() >= {"labels", "protocol", "hardware", "later", "missing", "unpublished", "note"}


def test_each_row_of_the_table_shows_a_recipes_published_number_and_its_state():
    lines = run("recipes").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines if line.split()}
    assert max(map(len, lines)) <= 80  # the width of a new terminal
    assert lines[0].split() == ["recipe", "published", "state"]
    for benchmark in BENCHMARKS:
        number = "-" if benchmark.published is None else f"{benchmark.published.value} "
        assert rows[benchmark.name].split(maxsplit=1)[1].startswith(number)
        assert rows[benchmark.name].endswith(benchmark.state)


def test_labels_that_are_not_the_share_of_the_row_are_told_of_where_the_recipe_is_shown_and_started(
    tmp_path, miniature, watching
):
    by_name = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    assert "473" in by_name["coco-0.4-mask2former-r50"].note
    note = by_name["m-orgaquant-5-mask-rcnn-r50"].note
    assert note == by_name["m-orgaquant-5-mask2former-r50"].note
    assert f"m-orgaquant-5: {note}" in " ".join(run("recipes").stdout.split())
    assert f"{92 / 1540:.1%}".replace("%", " %") in note
    miniature("m-orgaquant", tmp_path / "data")
    (tmp_path / "data" / "COCO_organoids_supervision_1540.txt").write_text("{}")
    ready("m-orgaquant-5-mask-rcnn-r50", tmp_path / "data", tmp_path / "project", watching)
    assert f"note: {note}" in watching.told


def test_numbers_by_a_protocol_say_which_images_they_are_of(capsys):
    number = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    models = {"supervised": {"ap": number}, "guided": {"ap": number}, "difference": {"ap": number}}
    result = {
        "run": "r", "method": "guided", "model": "m", "seed": 0, "iterations": 4, "device": "cpu",
        "labels": {"used": 1, "requested": "1", "pool": 5}, "seconds": {}, "verified": False,
        "promoted": "guided", "protocol": {"name": "coco", **models}, **models,
    }  # fmt: skip
    show_training({**result, "split": "val"})
    said = capsys.readouterr().out
    assert "By the protocol coco, on validation images" in said
    assert "Published numbers are of the test images: labelloop evaluate --split test" in said
    show_training({**result, "split": "test"})
    said = capsys.readouterr().out
    assert "By the protocol coco, on test images" in said
    assert "Published numbers" not in said


# -- own recipes --------------------------------------------------------------------------------------------


def test_a_file_may_change_a_benchmarks_recipe_and_stays_that_benchmark(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text('base = "coco-1-mask2former-r50"\nlabelled_batch = 4\n')
    recipe = find_recipe(str(mine))
    assert (recipe.name, recipe.labelled_batch, recipe.unlabelled_batch) == ("mine", 4, 16)
    assert find_benchmark(str(mine)).name == "coco-1-mask2former-r50"
    assert find_benchmark("guided-coco") is None
    assert find_benchmark("reference") is None


def test_recipes_based_on_one_another_in_a_circle_are_refused(tmp_path):
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text(f'base = "{other}"\n')
    other.write_text(f'base = "{one}"\n')
    with pytest.raises(UsageError, match="circle"):
        find_recipe(str(one))
    assert find_benchmark(str(one)) is None


def test_a_name_that_is_nearly_one_is_answered_with_it():
    with pytest.raises(UsageError, match="coco-1-mask2former-r50"):
        find_recipe("coco-1-mask2former-r5")


# -- starting -----------------------------------------------------------------------------------------------


def ready(benchmark, data, root, progress=None, **changes):
    chosen = {"labels": None, "model": "mask-rcnn-lite"} | changes
    return make_ready(require_benchmark(benchmark), data, root=root, progress=progress or Silent(), **chosen)


@pytest.mark.parametrize(
    ("dataset", "counts"),
    [
        ("cityscapes", (5, 0, 2)),
        ("coco", (5, 0, 2)),
        ("ade20k", (5, 0, 2)),
        ("orgasegment", (5, 2, 2)),
        ("m-orgaquant", (5, 2, 2)),
        ("m-orgaquant-clean", (4, 2, 2)),
    ],
)
def test_the_images_of_a_data_set_come_into_their_splits_once(tmp_path, miniature, dataset, counts):
    miniature(dataset.removesuffix("-clean"), tmp_path / "data")
    name = next(b.name for b in BENCHMARKS if b.dataset == dataset)
    for _ in range(2):
        project = ready(name, tmp_path / "data", tmp_path / "project", labels="1").project
        assert tuple(len(project.images(split=s, labelled=True)) for s in ("train", "val", "test")) == counts
    assert project.config.name == dataset
    assert asked_labels(project, "1", project.images(split="train"), seed=0).budget == 1


@pytest.mark.parametrize(("name", "leaks"), [("m-orgaquant", True), ("m-orgaquant-clean", False)])
def test_no_image_of_the_tests_subset_is_learnt_from_in_the_clean_split(
    tmp_path, miniature, watching, name, leaks
):
    miniature("m-orgaquant", tmp_path / "data")
    row = f"{name}-1-mask-rcnn-r50"
    project = ready(row, tmp_path / "data", tmp_path / name, watching, labels="1").project
    learnt = [image.file_name for image in project.images() if image.split != "test"]
    assert any(file.startswith("Subset_1_") for file in learnt) == leaks
    assert any("leaks" in told for told in watching.told) == leaks


def test_an_image_that_another_split_holds_too_is_told_of(tmp_path, miniature, watching):
    data = tmp_path / "data"
    miniature("m-orgaquant", data)
    learnt, tested = (sorted((data / split).iterdir()) for split in ("train", "test"))
    tested[0].write_bytes(learnt[0].read_bytes())
    project = ready("m-orgaquant-1-mask-rcnn-r50", data, tmp_path / "project", watching, labels="1").project
    assert [len(project.images(split=split)) for split in ("train", "val", "test")] == [4, 2, 2]
    added = "test: 1 image added from annotations/instances_test.json"
    moved = "1 moved from another split, where the project had the same image"
    assert f"{added}, {moved}" in watching.told


def test_what_is_missing_of_a_layout_is_named(tmp_path, miniature):
    miniature("ade20k", tmp_path / "data")
    with pytest.raises(UsageError, match="not have the layout of coco") as caught:
        ready("coco-1-mask2former-r50", tmp_path / "data", tmp_path / "project")
    assert "annotations/instances_train2017.json, train2017" in caught.value.way_out


def test_a_project_of_other_images_is_not_filled_with_a_data_set(tmp_path, miniature):
    miniature("ade20k", tmp_path / "data")
    assert run("init", tmp_path / "mine").exit_code == 0
    with pytest.raises(UsageError, match="not that of ade20k"):
        ready("ade20k-10-mask2former-r50", tmp_path / "data", tmp_path / "mine")
    assert Project.open(tmp_path / "mine").images() == []


def test_a_published_list_is_looked_for_in_the_data_sets_folder(tmp_path):
    benchmark = require_benchmark("cityscapes-5-mask2former-r50")
    with pytest.raises(UsageError, match="GuidedDistillation"):
        labels_of(benchmark, tmp_path)
    with pytest.raises(UsageError, match="--labels 5%"):
        labels_of(benchmark, None)
    (tmp_path / "perc_5.txt").write_text("x\n")
    assert labels_of(benchmark, tmp_path) == str(tmp_path / "perc_5.txt")
    of_shares = require_benchmark("m-orgaquant-10-mask-rcnn-r50")
    (tmp_path / "COCO_organoids_supervision_1540.txt").write_text("{}")
    assert labels_of(of_shares, tmp_path) == str(tmp_path / "COCO_organoids_supervision_1540.txt") + "@10%"
    assert labels_of(require_benchmark("coco-1-mask2former-r50"), None) == "1%"


def test_a_recipe_whose_network_is_not_here_does_not_pretend(tmp_path, miniature):
    absent = replace(require_benchmark("ade20k-10-mask2former-r50"), model="no-such-model")
    data, root = tmp_path / "data", tmp_path / "project"
    miniature("ade20k", data)
    with pytest.raises(ModelError, match="cannot run here"):
        make_ready(absent, data, root=root, labels=None, model=None, progress=Silent())
    assert not root.exists()


def test_data_need_the_recipe_of_a_benchmark(tmp_path):
    for arguments in (("--recipe", "reference"), ()):
        refused = run("train", *arguments, "--data", tmp_path)
        assert refused.exit_code == 2
        assert "labelloop recipes" in refused.stderr


def test_without_a_name_the_project_is_called_after_its_data_set(tmp_path, miniature, monkeypatch):
    miniature("coco", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    project = ready("coco-1-mask2former-r50", Path("data"), None).project
    assert project.root == tmp_path / "labelloop-coco"
