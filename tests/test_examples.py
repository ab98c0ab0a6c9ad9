"""The examples run as they are written, with small data and few steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*command: str, **environment: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples") / "my data"
    counts = ("--labelled", "3", "--unlabelled", "3", "--test", "2", "--side", "96")
    run(sys.executable, str(EXAMPLES / "make_synthetic_data.py"), str(folder), *counts)
    return folder


def test_the_first_project_runs_through_the_command_line(data: Path, tmp_path: Path) -> None:
    script = str(EXAMPLES / "first_project.sh")
    output = run("bash", script, str(data), str(tmp_path / "project"), TRAIN="--iterations 4")
    assert "Masks and pictures are in" in output
    assert (tmp_path / "project" / "masks" / "predictions.json").is_file()
    assert len(list((tmp_path / "project" / "masks" / "overlay").glob("*.png"))) == 6


def test_the_same_runs_in_python(data: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    script = str(EXAMPLES / "train_in_python.py")
    output = run(sys.executable, script, str(data), str(project), "--iterations", "4")
    assert "guided: AP" in output
    assert (project / "overlay.png").is_file()
