"""From images to masks through the program, as the README walks it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.data.synthetic_set import write_micrographs
from labelloop.project.looks import looks
from labelloop.project.project import Project


def _run(*arguments: object) -> tuple[int, str, str]:
    ran = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    return ran.exit_code, ran.stdout, ran.stderr


def _json(*arguments: object) -> dict:
    code, out, _ = _run(*arguments, "--json")
    assert code == 0, out
    document: dict = json.loads(out)
    return document


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict]]:
    """A project on micrographs made by code, trained for a few steps, and what train printed."""
    folder = tmp_path_factory.mktemp("workflow")
    for seed, (name, count) in enumerate({"labelled": 3, "unlabelled": 3, "test": 3}.items()):
        labels = None if name == "unlabelled" else folder / f"{name}.json"
        write_micrographs(folder / name, count, seed=seed, labels=labels, size_hw=(96, 96))
    root = folder / "screen"
    _json("init", root)
    _json("add", "labels", folder / "labelled.json", "--images", folder / "labelled", "-C", root)
    _json("add", "images", folder / "unlabelled", "-C", root)
    _json("add", "labels", folder / "test.json", "--images", folder / "test", "--split", "test", "-C", root)
    short = ("--labels", "2", "--iterations", "6")
    trained = _json("train", *short, "--name", "first", "-C", root)
    return root, trained


def test_train_prints_the_object_of_the_contract(screen: tuple[Path, dict]) -> None:
    _, trained = screen
    assert {
        "run", "labels", "model", "method", "seed", "iterations", "length", "supervised", "guided",
        "difference", "promoted", "verified", "split", "seconds", "device",
    } <= set(trained)  # fmt: skip
    assert trained["run"] == "first"
    assert trained["labels"] == {"requested": "2", "used": 2, "pool": 6}
    assert (trained["split"], trained["verified"], trained["promoted"]) == ("test", False, "guided")
    for part in ("supervised", "guided", "difference"):
        assert {"value", "low", "high", "n"} <= set(trained[part]["coco_ap"])


def test_evaluate_agrees_with_train_and_predicts_once(screen: tuple[Path, dict]) -> None:
    root, trained = screen
    first = _json("evaluate", "-C", root)
    assert (first["run"], first["which"], first["split"]) == ("first", "guided", "test")
    assert first["metrics"] == trained["guided"]
    code, out, err = _run("evaluate", "-C", root)
    assert code == 0
    assert "coco_ap" in out
    assert "evaluating" not in err  # the ledger knows


def test_evaluate_adds_the_numbers_of_a_protocol_where_it_is_asked_to(screen: tuple[Path, dict]) -> None:
    root, trained = screen
    assert trained["protocol"] is None
    plain = _json("evaluate", "-C", root)
    assert plain["protocol"] is None
    asked = _json("evaluate", "--protocol", "cityscapes", "-C", root)
    assert asked["metrics"] == plain["metrics"]
    assert asked["protocol"]["name"] == "cityscapes"
    assert set(asked["protocol"]["metrics"]) == {"ap", "ap50"}
    _, out, _ = _run("evaluate", "--protocol", "coco", "-C", root)
    assert re.search(r"protocol coco.*\n\s+ap  ", out)
    assert "ar100" in out


def test_evaluate_measures_files_by_a_protocol(tmp_path: Path) -> None:
    write_micrographs(tmp_path / "images", 2, seed=5, labels=tmp_path / "truth.json", size_hw=(96, 96))
    truth = tmp_path / "truth.json"
    result = _json("evaluate", "--predictions", truth, "--labels", truth, "--protocol", "cellpose")
    at_ious = [f"ap{percent}" for percent in range(50, 101, 5)]
    values = {name: found["value"] for name, found in result["protocol"]["metrics"].items()}
    assert values == dict.fromkeys(["ap", *at_ious], 1.0)
    assert _json("evaluate", "--predictions", truth, "--labels", truth)["protocol"] is None


def test_the_report_of_files_has_their_protocol_and_settings_and_the_terminal_the_limits_of_sizes(
    tmp_path: Path,
) -> None:
    write_micrographs(tmp_path / "images", 2, seed=5, labels=tmp_path / "truth.json", size_hw=(96, 96))
    truth, page = tmp_path / "truth.json", tmp_path / "page.html"
    files = ("evaluate", "--predictions", truth, "--labels", truth, "--protocol", "coco", "--report", page)
    result = _json(*files)
    assert result["bootstrap"] == {"replicates": 2000, "seed": 0}
    written = page.read_text(encoding="utf-8")
    for part in ("By the protocol coco", "ar100", "Bootstrap replicates", "truth.json"):
        assert part in written
    small, medium = (int(limit) for limit in result["size_thirds_px"])
    limits = f"small up to {small:,} px, medium up to {medium:,} px"
    assert limits in written
    _, out, _ = _run(*files)
    assert limits in out


def test_a_report_of_files_that_cannot_be_written_names_the_flag_that_there_is(tmp_path: Path) -> None:
    write_micrographs(tmp_path / "images", 2, seed=5, labels=tmp_path / "truth.json", size_hw=(96, 96))
    truth = tmp_path / "truth.json"
    code, _, err = _run("evaluate", "--predictions", truth, "--labels", truth, "--report", truth / "x.html")
    assert code == 1
    assert "--report" in err
    assert "--out" not in err


def test_evaluate_says_above_which_scores_objects_are_right_where_the_run_could_tell(
    screen: tuple[Path, dict], tmp_path: Path
) -> None:
    root, trained = screen
    assert trained["scores"] == {"supervised": None, "guided": None}  # no validation images
    assert _json("evaluate", "-C", root)["scores"] is None
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    project = Project.open(copy)
    record, scores = project.run("first"), {"0.8": 0.61, "0.95": None}
    told = {"guided": {"score_for_precision": scores}, "supervised": None}
    project.save_run(replace(record, result={**trained, "scores": told}))
    assert _json("evaluate", "-C", copy)["scores"]["score_for_precision"] == scores
    _, out, _ = _run("evaluate", "-C", copy)
    assert re.search(r"80%\s+0.61", out)
    assert re.search(r"95%\s+cannot be shown", out)


def test_each_look_at_the_test_images_is_counted(screen: tuple[Path, dict], tmp_path: Path) -> None:
    root, _ = screen
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    before = len(looks(Project.open(copy)))
    assert before >= 2  # train measured both of its models
    _json("evaluate", "-C", copy)  # the same numbers once more
    assert len(looks(Project.open(copy))) == before
    noted = _json("evaluate", "--min-score", "0", "-C", copy)["notes"]
    assert any(f"look {before + 1} at the test images" in note for note in noted)
    assert len(looks(Project.open(copy))) == before + 1


def test_evaluate_says_which_images_the_run_had_learnt(screen: tuple[Path, dict], tmp_path: Path) -> None:
    root, _ = screen
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    assert not any("better than they are" in note for note in _json("evaluate", "-C", copy)["notes"])
    folder = root.parent
    _json(
        "add",
        "labels",
        folder / "labelled.json",
        "--images",
        folder / "labelled",
        "--split",
        "test",
        "-C",
        copy,
    )
    notes = [note for note in _json("evaluate", "-C", copy)["notes"] if "better than they are" in note]
    assert len(notes) == 1
    assert "2 of these images" in notes[0]


def test_a_split_without_labels_says_how_to_add_some(screen: tuple[Path, dict]) -> None:
    root, _ = screen
    code, out, err = _run("evaluate", "--split", "val", "-C", root)
    assert (code, out) == (1, "")
    assert "--split val" in err


def test_predict_writes_masks_and_a_second_call_changes_nothing(
    screen: tuple[Path, dict], tmp_path: Path
) -> None:
    root, _ = screen
    out = tmp_path / "masks"
    report = _json("predict", "--out", out, "--min-score", "0.05", "-C", root)
    assert report["images"] == 6  # the pool, without the test images
    dataset = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert len(dataset["images"]) == 6
    labels = sorted((out / "label-tiff").glob("*.tif"))
    assert len(labels) == 6
    assert tifffile.imread(labels[0]).shape == (96, 96)
    assert len(list((out / "overlay").glob("*.png"))) == 6
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if not path.name.startswith(".")}
    again = _json("predict", "--out", out, "--min-score", "0.05", "-C", root)
    assert again["objects"] == report["objects"]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    objects = sum(int(np.max(tifffile.imread(path))) > 0 for path in labels)
    assert objects <= report["objects"]


def test_predict_takes_files_that_are_named(screen: tuple[Path, dict], tmp_path: Path) -> None:
    root, _ = screen
    test_images = root.parent / "test"
    report = _json("predict", test_images, "--out", tmp_path / "named", "--format", "coco", "-C", root)
    assert report["images"] == 3
    code, _, err = _run("predict", test_images, tmp_path / "typo", "--out", tmp_path / "named", "-C", root)
    assert code == 0
    assert "typo" in err
    (tmp_path / "plate").mkdir()
    code, _, err = _run("predict", tmp_path / "plate", "--out", tmp_path / "x", "-C", root)
    assert (code, "plate" in err, "pool" in err) == (1, True, False)
    code, _, err = _run("predict", "--out", tmp_path / "x", "--format", "magic", "-C", root)
    assert code == 2
    assert "label-tiff" in err


def test_status_knows_the_run(screen: tuple[Path, dict]) -> None:
    root, trained = screen
    found = _json("status", "-C", root)
    assert (found["promoted"], found["promoted_run"]) == ("guided", "first")
    assert found["newest_result"]["guided"]["coco_ap"] == trained["guided"]["coco_ap"]


def test_train_in_words_is_a_table_with_intervals(screen: tuple[Path, dict]) -> None:
    root, _ = screen
    code, out, err = _run("train", "--name", "first", "--resume", "-C", root)  # finished: nothing is trained
    assert code == 0
    assert "already finished" in err
    for part in ("supervised", "guided", "difference", "coco_ap", "Promoted: guided", "not verified"):
        assert part in out


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        pytest.param(["--labels", "many"], "5%", id="no number of labels"),
        pytest.param(["--time", "5m", "--iterations", "9"], "one of them", id="time and iterations"),
        pytest.param(["--model", "resnet"], "mask-rcnn-lite", id="no such model"),
        pytest.param(["--recipe", "magic"], "", id="no such recipe"),
        pytest.param(["--name", "first"], "--resume", id="name is taken"),
        pytest.param(["--device", "abacus"], "cpu", id="no such device"),
    ],
)
def test_train_refuses_what_it_cannot_do(screen: tuple[Path, dict], options: list[str], way_out: str) -> None:
    root, _ = screen
    code, out, err = _run("train", *options, "-C", root)
    assert code == 2
    assert out == ""
    assert way_out in err
