"""Whether calibrated scores mean what they say, and whether thresholds keep the precision they promise.

    python tests/benchmarks/bench_calibration.py PROJECT RUN... [--which guided] [--repeats 100] [--test]

The ground are the labelled training images that a run has neither learnt nor validated on. Of each repeat's
random halves one fits and the other, which nothing is fitted to, measures: the expected calibration error
(ECE, 15 bins of equally many detections) of raw scores and of calibrated ones, and the precision above each
threshold. ECE is never zero: its ``floor`` is what a perfect calibration would get from so few detections.
``--test`` fits on all of these images and measures on the test split, once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from labelloop.evaluating import predict_known_images
from labelloop.instances import Instances
from labelloop.metrics.calibration import Calibration, threshold_for_precision
from labelloop.metrics.matching import coco_match
from labelloop.metrics.pairs import PairTable
from labelloop.progress import Silent
from labelloop.project.project import ImageRecord, Project
from labelloop.runs.loading import load_model

BINS = 15
TARGETS = (0.8, 0.9, 0.95)
Scenes = list[Instances]


def predicted_images(
    project: Project, run: str, which: str, images: Sequence[ImageRecord]
) -> tuple[Scenes, Scenes]:
    """Truth and predictions of these images; predictions are kept in the project's ledger."""
    loaded = load_model(project, run, which=which, device="cpu")
    labels = project.labels([image.id for image in images])
    return [labels[image.id] for image in images], predict_known_images(project, loaded, images, Silent())


def unseen_images(project: Project, run: str) -> list[ImageRecord]:
    """Labelled training images that the run has neither learnt nor validated on."""
    config = project.run(run).config
    drawn = {*map(int, config["train_images"]), *map(int, config["val_images"])}
    return [image for image in project.images(split="train", labelled=True) if image.id not in drawn]


def judged(truth: Scenes, predicted: Scenes) -> npt.NDArray[np.bool_]:
    """Bool (n,): which predictions are right at IoU 0.5, over all images in their order."""
    return coco_match(PairTable.build(truth, predicted, n_classes=1)).hit[0]


def error(probability: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> float:
    """Expected calibration error in bins of equally many detections."""
    order = np.argsort(probability, kind="stable")
    gaps = [abs(float((probability[b] - right[b]).sum())) for b in np.array_split(order, BINS)]
    return sum(gaps) / len(probability)


def floor(probability: npt.NDArray[np.float64], rng: np.random.Generator) -> float:
    """The error that these probabilities have on average where they are exactly right."""
    return float(np.mean([error(probability, rng.random(len(probability)) < probability) for _ in range(20)]))


def probabilities(calibration: Calibration | None, predicted: Scenes) -> npt.NDArray[np.float64]:
    """Of all predictions, in order; the scores themselves without a calibration."""
    parts = [
        p.scores.astype(np.float64) if calibration is None else calibration.probability(p) for p in predicted
    ]
    return np.concatenate(parts)


def pick(scenes: Scenes, indices: npt.NDArray[np.int64]) -> Scenes:
    """Some of the images."""
    return [scenes[i] for i in indices]


def measure_errors(truth: Scenes, predicted: Scenes, fit_sizes: Sequence[int], repeats: int) -> None:
    """Prints the calibration error on held-out halves by how many images were fitted to."""
    half = len(truth) // 2
    for size in fit_sizes:
        rng = np.random.default_rng(size)
        rows = []
        for _ in range(repeats):
            order = rng.permutation(len(truth))
            fit, held = order[:size], order[half:]
            calibration = Calibration.fit(pick(truth, fit), pick(predicted, fit), n_classes=1)
            shown, right = pick(predicted, held), judged(pick(truth, held), pick(predicted, held))
            calibrated = probabilities(calibration, shown)
            rows.append(
                (error(probabilities(None, shown), right), error(calibrated, right), floor(calibrated, rng))
            )
        raw, calibrated, least = np.mean(rows, axis=0)
        ninth = np.quantile([row[1] for row in rows], 0.9)
        print(
            f"  fitted to {size:3} images: ECE raw {raw:.3f}, calibrated {calibrated:.3f}"
            f" (9 of 10 below {ninth:.3f}), floor {least:.3f}",
            flush=True,
        )


def measure_thresholds(truth: Scenes, predicted: Scenes, fit_sizes: Sequence[int], repeats: int) -> None:
    """Prints how often the precision above a threshold keeps its target on the other half."""
    half = len(truth) // 2
    for size in fit_sizes:
        for target in TARGETS:
            rng = np.random.default_rng(size)
            kept, share = [], []
            for _ in range(repeats):
                order = rng.permutation(len(truth))
                fit, held = order[:size], order[half:]
                threshold = threshold_for_precision(
                    pick(truth, fit), pick(predicted, fit), target, n_classes=1
                )
                if threshold is None:
                    continue
                others = pick(truth, held)
                right = judged(others, [p.above(threshold) for p in pick(predicted, held)])
                kept.append(bool(right.mean() >= target) if len(right) else True)
                share.append(right.sum() / max(sum(map(len, others)), 1))
            broken = (len(kept) - sum(kept)) / repeats
            held_share = f"{np.mean(kept):.2f}" if kept else " -  "
            print(
                f"  fitted to {size:3} images, target {target:.2f}: given in {len(kept) / repeats:.2f} of"
                f" repeats, kept in {held_share} of these, in {1 - broken:.2f} of all; accepts"
                f" {np.mean(share) if share else 0:.2f} of the objects",
                flush=True,
            )


def measure_test(project: Project, run: str, which: str, fitted: tuple[Scenes, Scenes]) -> None:
    """Prints error and precision on the test images."""
    truth, predicted = predicted_images(project, run, which, project.images(split="test", labelled=True))
    calibration, right = Calibration.fit(*fitted, n_classes=1), judged(truth, predicted)
    rng = np.random.default_rng(0)
    calibrated = probabilities(calibration, predicted)
    print(
        f"  test, {len(truth)} images, {len(right)} detections: ECE raw"
        f" {error(probabilities(None, predicted), right):.3f}, calibrated {error(calibrated, right):.3f},"
        f" floor {floor(calibrated, rng):.3f}"
    )
    for target in TARGETS:
        threshold = threshold_for_precision(*fitted, target, n_classes=1)
        if threshold is None:
            print(f"  test, target {target:.2f}: no threshold")
            continue
        accepted = judged(truth, [p.above(threshold) for p in predicted])
        print(
            f"  test, target {target:.2f}: precision {accepted.mean():.3f} of {len(accepted)} above"
            f" {threshold:.3f}, {accepted.sum() / sum(map(len, truth)):.2f} of the objects"
        )


def main() -> None:
    """Reads the command line and measures each run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--which", default="guided", choices=("guided", "supervised"))
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--test", action="store_true")
    arguments = parser.parse_args()
    project = Project.open(arguments.project)
    for run in arguments.runs:
        images = unseen_images(project, run)
        truth, predicted = predicted_images(project, run, arguments.which, images)
        print(
            f"{arguments.project.name} {run} {arguments.which}: {len(truth)} unseen images,"
            f" {sum(map(len, truth))} objects, {sum(map(len, predicted))} detections",
            flush=True,
        )
        if arguments.test:
            measure_test(project, run, arguments.which, (truth, predicted))
            continue
        sizes = sorted({size for size in (8, 15, 30, len(truth) // 2) if size <= len(truth) // 2})
        measure_errors(truth, predicted, sizes, arguments.repeats)
        measure_thresholds(truth, predicted, sizes, arguments.repeats)


if __name__ == "__main__":
    main()
