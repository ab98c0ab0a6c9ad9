"""A run's files: what writing them costs, and what is left where it fails."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from labelloop.errors import OutputError, TrainingError
from labelloop.runs.checkpoint import fitting, load_tensors, save_tensors
from labelloop.runs.files import checkpoint_due


@pytest.mark.parametrize(("took_s", "least_s"), [(0.0, 60.0), (0.1, 60.0), (2.0, 60.0), (20.0, 600.0)])
def test_checkpoints_take_a_thirtieth_of_a_run_at_most(took_s, least_s):
    assert not checkpoint_due(least_s, took_s)
    assert checkpoint_due(least_s + 0.01, took_s)


def test_writing_tensors_holds_no_copy_of_all_of_them(tmp_path):
    document = {"student": [torch.full((1 << 18,), float(i)) for i in range(16)], "step": 3}  # 16 MiB
    tracemalloc.start()
    save_tensors(tmp_path / "checkpoint.pt", document)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    stored = load_tensors(tmp_path / "checkpoint.pt")
    assert stored["step"] == 3
    assert all(torch.equal(a, b) for a, b in zip(stored["student"], document["student"], strict=True))


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files cannot be longer than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [1, 5_000, 300_000, 401_500])
def test_a_disk_that_is_full_half_way_leaves_the_checkpoint_of_before_and_says_so(tmp_path, size):
    path = tmp_path / "checkpoint.pt"
    save_tensors(path, {"step": 1})
    with room_for(size), pytest.raises(OutputError, match="cannot be written") as caught:
        save_tensors(path, {"step": 2, "student": torch.zeros(100_000)})
    assert "--resume" in caught.value.way_out
    assert load_tensors(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_weights_of_a_network_that_is_built_otherwise_now_are_an_error_that_a_loop_can_take(tmp_path):
    with pytest.raises(TrainingError, match="does not fit") as caught, fitting(tmp_path / "guided.pt"):
        torch.nn.Linear(2, 3).load_state_dict(torch.nn.Linear(2, 2).state_dict())
    assert "Train again" in caught.value.way_out
