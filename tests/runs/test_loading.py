"""The model of a run is loaded when something is left to predict; errors come as early as they can."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from labelloop.errors import TrainingError, UsageError
from labelloop.models.catalog import build_model
from labelloop.models.data_stats import DataStats
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.runs.checkpoint import save_tensors
from labelloop.runs.files import RunFiles, write_json
from labelloop.runs.loading import load_model
from made_records import run_record

MODEL = "mask-rcnn-lite"
STATS = DataStats(
    classes=("cell",),
    image_size_hw=(64, 64),
    diameter_px=(8.0, 12.0, 20.0),
    box_side_px=(8.0, 12.0, 20.0),
    objects_per_image=(4.0, 8.0),
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """With a finished run whose weights are not there."""
    project = Project.init(tmp_path, ProjectConfig(name="runs", classes=("cell",)))
    project.save_run(run_record(model=MODEL, promoted="supervised", result=None))
    config = {"model": MODEL, "stats": asdict(STATS), "request": {"method": "supervised"}}
    write_json(files(project).config, config)
    return project


def files(project: Project) -> RunFiles:
    return RunFiles(folder=project.runs_dir / "r")


def test_weights_that_are_missing_are_named_before_anything_is_predicted(project: Project) -> None:
    with pytest.raises(TrainingError, match="is missing") as caught:
        load_model(project)
    assert caught.value.value == str(files(project).weights("supervised"))
    assert caught.value.way_out == "Train again."


def test_what_a_run_says_of_its_model_needs_no_network_and_damaged_weights_are_named_with_it(
    project: Project,
) -> None:
    files(project).weights("supervised").write_bytes(b"not weights")
    loaded = load_model(project)
    assert (loaded.run, loaded.which, loaded.classes, loaded.min_score) == ("r", "supervised", ("cell",), 0.5)
    with pytest.raises(TrainingError) as caught:
        _ = loaded.model
    assert caught.value.value == str(files(project).weights("supervised"))
    assert caught.value.way_out == "Train again."


def test_a_device_that_is_not_there_is_an_error_even_where_nothing_is_predicted(project: Project) -> None:
    files(project).weights("supervised").write_bytes(b"")
    with pytest.raises(UsageError, match="no such device"):
        load_model(project, device="cuda:99")


def test_the_network_is_loaded_once(project: Project) -> None:
    network = build_model(MODEL, STATS, pretrained=False).module()
    save_tensors(files(project).weights("supervised"), {"model": network.state_dict()})
    loaded = load_model(project, device="cpu")
    assert loaded.model is loaded.model
    assert not loaded.model.module().training
