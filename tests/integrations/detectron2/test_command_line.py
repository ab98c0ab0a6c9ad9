"""A model of detectron2 through the program: all stages, interrupted, resumed, and predicting."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

pytest.importorskip("detectron2", reason="detectron2 is not installed; labelloop doctor says how to get it")
if "detectron2" not in entry_points(group="labelloop.architectures").names:
    pytest.skip(
        "labelloop was installed before it offered detectron2: install it again", allow_module_level=True
    )

from json_command import labelloop_json
from labelloop.data.synthetic_set import write_micrographs


def _interrupted(root: Path, model: str, *, at: int) -> None:
    """Trains until the log has so many lines, then interrupts."""
    command = [sys.executable, "-m", "labelloop", "train", "--model", model, "--iterations", "6"]
    log = root / "runs" / "cut" / "log.jsonl"
    process = subprocess.Popen([*command, "--name", "cut"], cwd=root, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") >= at:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.02)
    _, err = process.communicate(timeout=200)
    assert process.returncode in (130, 0), err
    assert "meshgrid" not in err, err  # what PyTorch says of detectron2 is for its developers


@pytest.mark.slow
def test_a_run_that_was_interrupted_gives_the_same_weights_and_predicts(tiny, tmp_path):
    for seed, (name, count) in enumerate({"labelled": 3, "unlabelled": 3, "test": 2}.items()):
        labels = None if name == "unlabelled" else tmp_path / f"{name}.json"
        write_micrographs(tmp_path / name, count, seed=seed, labels=labels, size_hw=(64, 64))
    root = tmp_path / "screen"
    labelloop_json("init", root)
    for name, options in (("labelled", ()), ("test", ("--split", "test"))):
        file, images = tmp_path / f"{name}.json", tmp_path / name
        labelloop_json("add", "labels", file, "--images", images, *options, "-C", root)
    labelloop_json("add", "images", tmp_path / "unlabelled", "-C", root)
    model = f"detectron2:{tiny()}"

    whole = labelloop_json("train", "--model", model, "--iterations", "6", "--name", "whole", "-C", root)
    assert whole["model"] == model
    assert {"teacher", "pseudo-labels", "student", "evaluation"} <= set(whole["seconds"])
    _interrupted(root, model, at=4)
    resumed = labelloop_json("train", "--name", "cut", "--resume", "-C", root)
    assert resumed["guided"] == whole["guided"]
    for which in ("supervised", "guided"):
        a, b = (
            torch.load(root / "runs" / run / f"{which}.pt", weights_only=True)["model"]
            for run in ("whole", "cut")
        )
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)

    report = labelloop_json(
        "predict", "--run", "cut", "--out", tmp_path / "masks", "--format", "coco", "-C", root
    )
    assert report["images"] == 6
    assert len(json.loads((tmp_path / "masks" / "predictions.json").read_text())["images"]) == 6
