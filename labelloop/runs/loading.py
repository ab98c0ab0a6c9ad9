"""Finished runs: their models, ready to predict.

What a run says of its model is in its record; the network itself, and torch with it, is loaded when it is
first asked for: what the ledger holds already needs neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelloop.errors import ProjectError, TrainingError, UsageError
from labelloop.models.data_stats import DataStats
from labelloop.project.project import Project
from labelloop.runs.files import RunFiles

if TYPE_CHECKING:
    import torch

    from labelloop.models.protocol import InstanceModel


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A trained model.

    Attributes:
        network: Loads it.
        stats: The labelled data it was fitted to.
        classes: Class names; the index is the label.
        min_score: Its working threshold: best F1 on validation, else 0.5.
        run: The run.
        which: guided or supervised.
    """

    network: Callable[[], InstanceModel]
    stats: DataStats
    classes: tuple[str, ...]
    min_score: float
    run: str
    which: str

    @cached_property
    def model(self) -> InstanceModel:
        """In evaluation mode, on its device.

        Raises:
            TrainingError: Its weights are damaged.
        """
        return self.network()


def choose_device(name: str) -> torch.device:
    """The device of this name; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        UsageError: There is no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name.startswith("cuda"):
        with suppress(RuntimeError):  # torch's, of a name that it does not understand
            device = torch.device(name)
            if (device.index or 0) < gpus:
                return device
    known = f"auto, cpu, or cuda:0 to cuda:{gpus - 1}" if gpus else "auto or cpu"
    raise UsageError("there is no such device here", value=name, way_out=f"Use --device {known}.")


def stats_from_dict(document: dict[str, Any]) -> DataStats:
    """DataStats after a way through JSON."""
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in document.items()}
    return DataStats(**values)


def read_run_config(folder: Path) -> dict[str, Any]:
    """What was decided before the run's first step.

    Raises:
        TrainingError: The run's folder is gone or damaged.
    """
    path = RunFiles(folder=folder).config
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"the run's configuration cannot be read ({type(error).__name__})",
            value=path,
            way_out="Train again.",
        ) from error
    return config


def restore_model(
    files: RunFiles, which: str, *, model: str, stats: DataStats, device: torch.device
) -> InstanceModel:
    """A model with the weights that a run stored.

    Raises:
        TrainingError: The weights are missing or damaged.
    """
    import torch

    from labelloop.models.catalog import build_model
    from labelloop.runs.checkpoint import fitting, load_tensors

    built = build_model(model, stats, pretrained=False)
    with fitting(files.weights(which)):
        built.module().load_state_dict(load_tensors(files.weights(which))["model"])
    built.module().to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    return built


def load_model(
    project: Project, run: str | None = None, *, which: str | None = None, device: str = "auto"
) -> LoadedModel:
    """The promoted model of the newest finished run, or another.

    Args:
        project: Where to look.
        run: A run's name; None for the newest finished one.
        which: guided or supervised; None for the one that the run promoted.
        device: auto, cpu or cuda.

    Raises:
        UsageError: There is no such run.
        ProjectError: It has not finished.
        TrainingError: Its files are missing, or its configuration is damaged.
    """
    record = project.run(run)
    if record.state != "finished" or record.promoted is None:
        raise ProjectError(
            "the run has not finished",
            value=record.name,
            way_out=f"Run {project.resume_command(record.name, Path.cwd())}.",
        )
    chosen = which or record.promoted
    files = RunFiles(folder=project.runs_dir / record.name)
    config = read_run_config(files.folder)
    if chosen == "guided" and config["request"]["method"] == "supervised":
        raise UsageError(
            "the run has no guided model", value=record.name, way_out="Train with --method guided."
        )
    if not files.weights(chosen).is_file():
        raise TrainingError(
            "a file of the run is missing", value=files.weights(chosen), way_out="Train again."
        )
    if device not in ("auto", "cpu"):
        choose_device(device)  # a wrong name is an error even where nothing is left to predict
    stats = stats_from_dict(config["stats"])
    thresholds = (record.result or {}).get("min_score", {})
    return LoadedModel(
        network=lambda: restore_model(
            files, chosen, model=config["model"], stats=stats, device=choose_device(device)
        ),
        stats=stats,
        classes=stats.classes,
        min_score=float(thresholds.get(chosen, 0.5)),
        run=record.name,
        which=chosen,
    )
