"""The whole path on synthetic organoids: project, check, training, prediction, pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labelloop.data.checks import check_project
from labelloop.data.synthetic import SyntheticConfig
from labelloop.data.synthetic_set import CLASS_NAME, write_micrographs
from labelloop.errors import LabelloopError, UsageError
from labelloop.images import render_8bit
from labelloop.progress import Progress, Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import FILE_NAME, ProjectConfig
from labelloop.project.project import Project
from labelloop.project.recorded import read_recorded
from labelloop.report.comparison import ComparedModel, ComparisonRow, write_comparison

if TYPE_CHECKING:
    from labelloop.runs.loading import LoadedModel

DEFAULT_FOLDER = "labelloop-demo"
DEFAULT_TIME_S = 480.0
RUN = "demo"

_SETTINGS = "demo.json"
_AFTER_TRAINING_S = 15.0  # prediction and pictures
_MIN_TRAINING_S = 20.0
_WHICH = ("supervised", "guided")


@dataclass(frozen=True, kw_only=True)
class DemoSize:
    """How much data a demo makes.

    Attributes:
        labelled: Training images with labels.
        unlabelled: Training images without.
        val: Labelled images by which the better model and its threshold are chosen.
        test: Images that measure the models.
        size_hw: Of each, px.
        shown: Rows of the picture: the first test images.
    """

    labelled: int = 4
    unlabelled: int = 120
    val: int = 48
    test: int = 48
    size_hw: tuple[int, int] = (144, 144)
    shown: int = 5

    @property
    def counts(self) -> dict[str, int]:
        """Images of each part."""
        return {
            "labelled": self.labelled,
            "unlabelled": self.unlabelled,
            "val": self.val,
            "test": self.test,
        }


# Few large objects in small images: steps are quick.
_MICROGRAPHS = SyntheticConfig(objects=(8, 16), radius_px=(19.0, 36.0))  # objects in 256 x 256 px


def demo(
    folder: Path | None = None,
    *,
    time_s: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    size: DemoSize | None = None,
    iterations: int | None = None,
) -> dict[str, Any]:
    """Shows labelloop at work, without a network, a server or a GPU.

    Every step leaves its results in the folder. A repeated call goes on where the last one was interrupted;
    a finished demo is not trained again.

    Args:
        folder: New, empty, or of an earlier demo; ``labelloop-demo`` in the current folder if None.
        time_s: Of the whole demo, about; 8 minutes if None.
        seed: Of the micrographs and of the training.
        progress: Told of everything that takes time.
        size: How much data is made.
        iterations: Length of the training instead of a time.

    Returns:
        ``folder``; ``micrographs`` (counts); ``check`` (counts of findings by kind); ``train`` (what
        ``train`` returns, measured on the validation images); ``test`` (both models on the test images,
        ``compare_models``); ``predictions`` and ``pictures`` (paths); ``seconds`` of this call; ``trained``
        (whether this call trained).

    Raises:
        UsageError: The folder holds something else, or a demo with another seed or size.
        OutputError: Something cannot be written.
    """
    started = time.monotonic()
    progress, size = progress or Silent(), size or DemoSize()
    folder = (folder or Path.cwd() / DEFAULT_FOLDER).absolute()
    _settle(folder, {"seed": seed, **size.counts})
    project = _project(folder)
    _fill(project, size, seed, progress)
    report = check_project(project, progress=progress)
    left = (time_s or DEFAULT_TIME_S) - (time.monotonic() - started) - _AFTER_TRAINING_S
    trained, result = _train(
        project, seed, None if iterations else max(left, _MIN_TRAINING_S), iterations, progress
    )
    test = _measure(project, progress)
    predictions = _predict(project, progress)
    picture = folder / "comparison.png"
    _draw(project, test, size.shown, picture, progress)
    return {
        "folder": str(folder),
        "micrographs": size.counts,
        "check": report.counts,
        "train": result,
        "test": test,
        "predictions": str(predictions / "predictions.json"),
        "pictures": [str(picture), *map(str, sorted((predictions / "overlay").glob("*.png")))],
        "trained": trained,
        "seconds": round(time.monotonic() - started, 1),
    }


def _settle(folder: Path, settings: dict[str, int]) -> None:
    """Makes the folder a demo's, or sees that it is one with these settings."""
    path = folder / _SETTINGS
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            known = None
        if known != settings:
            raise UsageError(
                "there is a demo with other settings",
                value=folder,
                way_out="Choose another folder, or delete it.",
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("this folder holds other files", value=folder, way_out="Choose a new folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings) + "\n", encoding="utf-8")
    except OSError as error:
        raise LabelloopError(
            f"the demo's folder cannot be made ({error.strerror})",
            value=folder,
            way_out="Choose a place that can be written.",
        ) from error


def _project(folder: Path) -> Project:
    if (folder / FILE_NAME).exists():
        return Project.open(folder)
    return Project.init(folder, ProjectConfig(name="demo", classes=(CLASS_NAME,)))


def _fill(project: Project, size: DemoSize, seed: int, progress: Progress) -> None:
    """Draws the micrographs and adds them; what is there already stays as it is."""
    place = project.root / "micrographs"
    for number, (name, count) in enumerate(size.counts.items()):
        labels = None if name == "unlabelled" else place / f"{name}.json"
        write_micrographs(
            place / name,
            count,
            seed=1000 * seed + number,
            labels=labels,
            size_hw=size.size_hw,
            config=_MICROGRAPHS,
            progress=progress,
        )
    add_images(project, [str(place / "unlabelled")], progress=progress)
    for name, split in (("labelled", "train"), ("val", "val"), ("test", "test")):
        images = str(place / name)
        add_labels(project, LabelSource(path=f"{images}.json", images=images), split=split, progress=progress)


def _train(
    project: Project, seed: int, time_s: float | None, iterations: int | None, progress: Progress
) -> tuple[bool, dict[str, Any]]:
    """Trains, or goes on with training, or finds it done; whether this call trained, and the result."""
    from labelloop.distill.train import TrainRequest, train

    state = {run.name: run.state for run in project.runs()}.get(RUN)
    if state == "finished":
        progress.note(f"the demo in {project.root} is trained already; training is not repeated")
    request = TrainRequest(
        labels="all",
        method="guided",
        time_s=None if state else time_s,
        iterations=None if state else iterations,
        seed=seed,
        name=RUN,
        resume=state is not None,
    )
    return state != "finished", train(project, request, progress)


def _measure(project: Project, progress: Progress) -> dict[str, Any]:
    """Both models on the test images; a repeated call finds its predictions in the ledger."""
    from labelloop.evaluating import compare_models

    return compare_models(project, run=RUN, split="test", progress=progress)


def _predict(project: Project, progress: Progress) -> Path:
    """Masks of the test images by the promoted model: predictions.json, label TIFFs and overlays."""
    from labelloop.predict.predict import predict

    out = project.root / "predictions"
    images = [str(image.path) for image in project.images(split="test")]
    predict(project, images, out=out, run=RUN, formats=("coco", "label-tiff", "overlay"), progress=progress)
    return out


def _draw(
    project: Project,
    scores: Mapping[str, Any],
    shown: int,
    path: Path,
    progress: Progress,
) -> None:
    """The picture of the first test images with truth, baseline and guided model."""
    from labelloop.evaluating import seen_by
    from labelloop.runs.loading import load_model

    models: dict[str, LoadedModel] = {which: load_model(project, RUN, which=which) for which in _WHICH}
    images = project.images(split="test", labelled=True)[:shown]
    truth = project.labels([image.id for image in images])
    seen = [seen_by(project, model, images, progress) for model in models.values()]
    rows = []
    for image, *predicted in zip(images, *seen, strict=True):
        pixels = read_recorded(image).pixels
        rows.append(
            ComparisonRow(
                name=image.file_name,
                pixels_8bit=render_8bit(pixels),
                truth=truth[image.id],
                predicted=tuple(predicted),
            )
        )
    titles = {"supervised": "supervised baseline", "guided": "guided model"}
    columns = [
        ComparedModel(title=titles[which], subtitle=_score(scores.get(which)), min_score=model.min_score)
        for which, model in models.items()
    ]
    write_comparison(path, rows, columns)


def _score(metrics: Mapping[str, Any] | None) -> str:
    """AP with its interval, in points; empty where there is none."""
    estimate: Mapping[str, float | None] = (metrics or {}).get("coco_ap") or {}
    value, low, high = (estimate.get(key) for key in ("value", "low", "high"))
    if value is None:
        return ""
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"AP {100 * value:.1f}{interval}"
