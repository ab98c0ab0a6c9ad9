"""A first project in Python, without the command line.

    python examples/train_in_python.py DATA PROJECT [--time 20m | --iterations N] [--synthetic]

DATA is laid out as make_synthetic_data.py makes it; --synthetic makes it first. test/ is optional.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from labelloop.data.checks import check_project
from labelloop.distill.train import TrainRequest, train
from labelloop.durations import parse_duration
from labelloop.images import read_image, render_8bit
from labelloop.overlays import draw_overlay
from labelloop.predict.field import predict_array
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.runs.loading import load_model


class Printed(Silent):
    """Progress as lines: stages and notes are printed, single steps are not."""

    def start(self, stage: str, total: int) -> None:
        print(f"{stage} ({total})", flush=True)

    def note(self, message: str) -> None:
        print(message, flush=True)


def make_project(data: Path, folder: Path) -> Project:
    """A project with the labelled, unlabelled and, if there are any, test images."""
    project = Project.init(folder, ProjectConfig(name=folder.name, classes=("organoid",)))
    add_labels(project, LabelSource(path=str(data / "labelled.json"), images=str(data / "labelled")))
    add_images(project, [str(data / "unlabelled")])
    if (data / "test.json").exists():
        add_labels(
            project, LabelSource(path=str(data / "test.json"), images=str(data / "test")), split="test"
        )
    return project


def main() -> None:
    parser = argparse.ArgumentParser(description="Train labelloop in Python.")
    parser.add_argument("data", type=Path)
    parser.add_argument("project", type=Path)
    parser.add_argument("--time", default="20m", help="such as 90s, 20m")
    parser.add_argument("--iterations", type=int, help="length of the training instead of a time")
    parser.add_argument("--synthetic", action="store_true", help="make synthetic data in DATA first")
    given = parser.parse_args()
    if given.synthetic and not given.data.exists():
        maker = Path(__file__).with_name("make_synthetic_data.py")
        subprocess.run([sys.executable, str(maker), str(given.data)], check=True)

    project = make_project(given.data, given.project)
    for finding in check_project(project).findings:
        print(f"{finding.severity}: {', '.join(finding.images)}: {finding.message}")

    request = TrainRequest(
        labels="all",
        method="guided",
        time_s=None if given.iterations else parse_duration(given.time),
        iterations=given.iterations,
    )
    result = train(project, request, Printed())
    for which in ("supervised", "guided", "difference"):
        if result[which] is not None:
            ap = result[which]["coco_ap"]  # None is what few images cannot tell, with the reason
            number, low, high = (
                "-" if ap[part] is None else f"{ap[part]:.3f}" for part in ("value", "low", "high")
            )
            print(f"{which:>12}: AP {number} [{low}, {high}] on {result['split']} {ap.get('reason', '')}")

    # The promoted model, on any array: here on one unlabelled image.
    loaded = load_model(project)
    image = project.images(split="train", labelled=False)[0]
    pixels = read_image(image.path).pixels
    objects = predict_array(loaded.model, pixels, stats=loaded.stats).above(loaded.min_score)
    print(f"{len(objects)} organoids in {image.file_name}, areas in px: {objects.areas.tolist()}")

    from PIL import Image

    picture = project.root / "overlay.png"
    Image.fromarray(draw_overlay(render_8bit(pixels), objects)).save(picture)
    print(f"drawn in {picture}")


if __name__ == "__main__":
    main()
