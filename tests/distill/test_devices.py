"""Names of devices, and whether there are as many as a run needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from labelloop.distill.recipe import find_recipe
from labelloop.distill.request import require_work
from labelloop.errors import UsageError
from labelloop.runs.loading import choose_device


@pytest.fixture
def gpus(monkeypatch):
    """As torch says it on a machine with so many GPUs."""

    def there_are(count: int) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: count)

    return there_are


def config(device: str) -> dict:
    recipe = replace(find_recipe(None), supervised_batch=4, labelled_batch=4)
    return {"recipe": recipe.as_dict(), "request": {"method": "guided"}, "device": device}


def test_a_device_is_taken_by_its_name_and_auto_is_a_gpu_where_there_is_one(gpus):
    gpus(2)
    assert [str(choose_device(name)) for name in ("auto", "cpu", "cuda", "cuda:1")] == [
        "cuda", "cpu", "cuda", "cuda:1"
    ]  # fmt: skip
    gpus(0)
    assert str(choose_device("auto")) == "cpu"


@pytest.mark.parametrize("name", ["cuda0", "cuda:2", "cuda:99", "cuda:", "cuda:-1", "gpu", "meta", ""])
def test_what_is_no_device_here_is_refused_at_once(gpus, name):
    gpus(2)
    with pytest.raises(UsageError, match="no such device here") as caught:
        choose_device(name)
    assert caught.value.value == name
    assert caught.value.way_out == "Use --device auto, cpu, or cuda:0 to cuda:1."


def test_without_a_gpu_none_is_offered(gpus):
    gpus(0)
    with pytest.raises(UsageError, match="no such device here") as caught:
        choose_device("cuda:0")
    assert caught.value.way_out == "Use --device auto or cpu."


@pytest.mark.parametrize(
    ("device", "processes", "here", "needed"),
    [("cuda", 2, 1, 2), ("cuda:0", 2, 1, 2), ("cuda:1", 1, 1, 2), ("cuda:0", 1, 0, 1)],
)
def test_as_many_gpus_are_needed_as_processes_or_the_one_that_is_named(
    gpus, monkeypatch, device, processes, here, needed
):
    monkeypatch.delenv("RANK", raising=False)
    gpus(here)
    with pytest.raises(UsageError, match="not that many GPUs") as caught:
        require_work(config(device), processes)
    assert caught.value.value == f"{needed} asked for, {here} here"
    gpus(needed)
    require_work(config(device), processes)
    gpus(0)
    require_work(config("cpu"), processes)


def test_processes_of_a_launcher_bring_gpus_of_other_machines(gpus, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    gpus(1)
    require_work(config("cuda"), 4)
    gpus(0)
    with pytest.raises(UsageError, match="not that many GPUs"):
        require_work(config("cuda"), 4)
