"""``--accumulate``: a step in parts, and the GPU whose memory is too small without."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import TrainingError, UsageError

CORE_NET = Path(__file__).parents[2] / "examples" / "extending" / "core_net.py"
TOO_LARGE = """

def _too_large(self, images, targets):
    if len(images) > 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return _loss(self, images, targets)


_loss, CoreNet.loss = CoreNet.loss, _too_large
"""


@pytest.fixture
def model(tmp_path):
    """A network that has no memory for two images at once."""
    path = tmp_path / "large_net.py"
    path.write_text(CORE_NET.read_text() + TOO_LARGE)
    return str(path)


def test_a_step_that_a_gpu_has_no_memory_for_names_the_flag_with_which_it_has(project, model):
    command = ["train", "--method", "supervised", "--model", model, "-C", str(project.root), "--json"]
    runner = CliRunner()
    for length in (["--iterations", "2"], ["--time", "2m"]):
        refused = runner.invoke(app, [*command, *length], catch_exceptions=False)
        assert refused.exit_code == 1
        error = json.loads(refused.stdout)["error"]
        assert "Tried to allocate 2.00 GiB" in error["value"]
        assert "--accumulate 2" in error["way_out"]
    done = runner.invoke(app, [*command, "--iterations", "2", "--accumulate", "2"], catch_exceptions=False)
    run = project.run(json.loads(done.stdout)["run"])
    assert (run.config["parts"], run.config["recipe"]["accumulate"]) == (2, 2)


def test_the_parts_of_a_run_are_the_recipes_where_none_are_asked_for(project, tmp_path, model):
    (tmp_path / "parts.toml").write_text("accumulate = 2\n")
    asked = TrainRequest(
        model=model, method="supervised", iterations=1, recipe=str(tmp_path / "parts.toml"), name="two"
    )
    train(project, asked)
    assert project.run("two").config["parts"] == 2
    with pytest.raises(TrainingError, match="Tried"):
        train(project, dataclasses.replace(asked, accumulate=1, name="one"))


def test_a_step_without_a_part_is_refused(project):
    with pytest.raises(UsageError, match="at least one part"):
        train(project, TrainRequest(accumulate=0))


def test_other_errors_of_a_model_keep_their_traceback(project, tmp_path):
    path = tmp_path / "broken_net.py"
    path.write_text(CORE_NET.read_text() + TOO_LARGE.replace("OutOfMemoryError", "nn.NoSuchError"))
    with pytest.raises(AttributeError):
        train(project, TrainRequest(model=str(path), method="supervised", iterations=1))
    assert issubclass(torch.OutOfMemoryError, RuntimeError)
