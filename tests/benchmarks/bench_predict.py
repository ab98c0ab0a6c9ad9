"""Throughput of predict_images against the bare model's forward on the same images, by turns in one process.

    python tests/benchmarks/bench_predict.py FOLDER [--project DIR] [--images 48] [--rounds 3] [--threads 1]

The model is the newest finished run of the project; without one mask-rcnn-lite with untrained heads, which
sees hundreds of objects everywhere. Prints JSON: images per second of wall time, and the ratio by wall and by
processor time of all threads (the steadier one on a busy machine).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from labelloop.images import normalise, percentiles, read_image
from labelloop.models.catalog import build_model
from labelloop.models.data_stats import DataStats
from labelloop.models.precision import autocast_for
from labelloop.models.protocol import InstanceModel
from labelloop.predict.field import BATCH_IMAGES, MIN_SCORE
from labelloop.predict.items import PredictItem
from labelloop.predict.pool import predict_images
from labelloop.project.project import Project
from labelloop.runs.loading import load_model


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--project", type=Path)
    parser.add_argument("--formats", default="coco")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    paths = sorted(path for path in arguments.folder.iterdir() if path.is_file())[: arguments.images]
    model, stats = _model(arguments.project, paths, arguments.device)
    rounds = [
        (_bare(model, paths, stats), _whole(model, paths, stats, arguments.formats.split(",")))
        for _ in range(arguments.rounds + 1)
    ][1:]  # the first warms up
    print(
        json.dumps(
            {
                "images": len(paths),
                "bare_images_per_s": [round(len(paths) / bare[0], 2) for bare, _ in rounds],
                "predict_images_per_s": [round(len(paths) / whole[0], 2) for _, whole in rounds],
                "ratio_wall": round(statistics.median(bare[0] / whole[0] for bare, whole in rounds), 3),
                "ratio_processor": round(statistics.median(bare[1] / whole[1] for bare, whole in rounds), 3),
            },
            indent=1,
        )
    )


def _model(project: Path | None, paths: list[Path], device: str) -> tuple[InstanceModel, DataStats]:
    if project is not None:
        loaded = load_model(Project.open(project), device=device)
        return loaded.model, loaded.stats
    torch.manual_seed(0)
    stats = _stats(paths)
    model = build_model("mask-rcnn-lite", stats)
    model.module().to(device)
    return model, stats


def _stats(paths: list[Path]) -> DataStats:
    height, width = read_image(paths[0]).size_hw
    return DataStats(
        classes=("organoid",),
        image_size_hw=(height, width),
        diameter_px=(20, 40, 70),
        box_side_px=(22, 45, 80),
        objects_per_image=(10, 30),
    )


def _bare(model: InstanceModel, paths: list[Path], stats: DataStats) -> tuple[float, float]:
    """Wall and processor seconds of the model alone, on images that lie ready in memory."""
    device = next(model.module().parameters()).device
    images = []
    for path in paths:
        pixels = read_image(path).pixels
        images.append(torch.from_numpy(normalise(pixels, *percentiles(pixels, stats.intensity_percentile))))
    images.sort(key=lambda image: image.shape)  # as predict_images does: little of a batch is padding
    started = time.perf_counter(), time.process_time()
    for first in range(0, len(images), BATCH_IMAGES):
        batch = [image.to(device) for image in images[first : first + BATCH_IMAGES]]
        with autocast_for(device):
            model.predict(batch, min_score=MIN_SCORE)
    return time.perf_counter() - started[0], time.process_time() - started[1]


def _whole(
    model: InstanceModel, paths: list[Path], stats: DataStats, formats: list[str]
) -> tuple[float, float]:
    """Wall and processor seconds of all: hashing, reading, normalising, predicting, storing, writing."""
    items = [PredictItem(path=path, name=path.name) for path in paths]
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter(), time.process_time()
        predict_images(
            model,
            items,
            out=Path(out),
            formats=formats,
            stats=stats,
            classes=stats.classes,
            run="bench",
            which="bare",
        )
        return time.perf_counter() - started[0], time.process_time() - started[1]


if __name__ == "__main__":
    main()
