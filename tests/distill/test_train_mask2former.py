"""A whole guided run of mask2former-lite through the program, a few steps long."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import torch
from typer.testing import CliRunner

from labelloop.cli.app import app


def run(*arguments: object) -> dict:
    ran = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.stdout
    document: dict = json.loads(ran.stdout)
    return document


def test_a_run_that_was_interrupted_goes_on_to_the_same_weights_and_predicts(project, tmp_path):
    recipe = tmp_path / "short.toml"
    recipe.write_text("supervised_steps = [[15, 1]]\nfine_tune_share = 0.34\n[pseudo]\nviews = 1\n")
    command = ["train", "--model", "mask2former-lite", "--iterations", "4", "--recipe", recipe]
    command += ["-C", project.root]
    whole = run(*command, "--name", "whole")
    log = project.runs_dir / "cut" / "log.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "labelloop", *map(str, command), "--name", "cut"],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_text().count("\n") >= 2:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.02)
    _, err = process.communicate(timeout=120)
    assert process.returncode in (130, 0), err
    resumed = run("train", "--resume", "--name", "cut", "-C", project.root)
    for which in ("supervised", "guided"):
        first, second = (
            torch.load(project.runs_dir / name / f"{which}.pt", weights_only=True)["model"]
            for name in ("whole", "cut")
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert resumed["guided"] == whole["guided"]
    stages = {json.loads(line)["stage"] for line in log.read_text().splitlines()}
    assert stages >= {"teacher", "burn-in", "distillation", "fine-tuning"}
    predicted = run("predict", tmp_path / "test", "--out", tmp_path / "out", "-C", project.root)
    assert predicted["run"] == "cut"
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]) == 2
