"""How long an evaluation takes, beside pycocotools and faster-coco-eval, and how often its intervals hold.

    python tests/benchmarks/bench_metrics.py speed
    python tests/benchmarks/bench_metrics.py coverage --images 20 50 200 --repetitions 300

``speed``: 670 images of 512 x 512 px with 40 discs each, a tenth missed, 15 % spurious, 1000 replicates.
``coverage``: discs whose density and difficulty differ from image to image; the truth is the value on a large
population, and the share of 95 % intervals that hold it is printed for each metric, with the shares that lie
wholly below and above it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances
from labelloop.metrics.panel import METRICS, best_f1_score_threshold, difference, evaluate


def discs(circles: npt.NDArray[np.float64], side: int, scores: npt.NDArray[np.float64] | None) -> Instances:
    """Circles (n, 3) of centre row, centre column and radius, px, as masks."""
    masks = np.zeros((side, side, len(circles)), np.uint8, order="F")
    for i, (y, x, r) in enumerate(circles):
        rows = slice(max(0, int(y - r)), int(y + r) + 2)
        columns = slice(max(0, int(x - r)), int(x + r) + 2)
        yy, xx = np.mgrid[rows.start : min(rows.stop, side), columns.start : min(columns.stop, side)]
        masks[rows, columns, i] = (yy - y) ** 2 + (xx - x) ** 2 <= r * r
    return Instances.from_dense(np.moveaxis(masks, -1, 0), None, scores, size_hw=(side, side))


def scene(
    rng: np.random.Generator, *, n: int, side: int, radius: tuple[float, float], jitter: float, miss: float
) -> tuple[Instances, Instances]:
    """True discs, and predictions with jittered centres and radii, misses and spurious ones."""
    true = np.column_stack([rng.uniform(0, side, (n, 2)), rng.uniform(*radius, n)])
    found = true[rng.random(n) >= miss]
    found = found + rng.normal(0, jitter, found.shape) * found[:, 2:]
    found[:, 2] = np.maximum(found[:, 2], 1.5)
    spurious = true[rng.random(n) < 0.15] * [0, 0, 1] + [1, 1, 0] * rng.uniform(0, side, (1, 3))
    scores = np.concatenate([rng.beta(5, 2, len(found)), rng.beta(2, 4, len(spurious))])
    return discs(true, side, None), discs(np.concatenate([found, spurious]), side, scores)


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall seconds, seconds of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def coco_entries(images: list[Instances]) -> list[dict[str, Any]]:
    """COCO annotations of one class, image ids from 1."""
    return [
        {
            "id": image_id * 100_000 + i, "image_id": image_id, "category_id": 1, "iscrowd": 0,
            "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
            "bbox": box.tolist(), "area": float(area), "score": float(score),
        }
        for image_id, instances in enumerate(images, 1)
        for i, (rle, box, area, score) in enumerate(
            zip(
                instances.coco_rles(),
                instances.boxes_xywh,
                instances.areas,
                np.ones(len(instances)) if instances.scores is None else instances.scores,
                strict=True,
            )
        )
    ]  # fmt: skip


def coco_tool_ap(
    coco_class: Any, eval_class: Any, truth: list[Instances], predicted: list[Instances]
) -> float:
    """AP by a tool with pycocotools' interface."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_class()
        coco.dataset = {
            "info": {},
            "images": [{"id": i, "height": 512, "width": 512} for i in range(1, len(truth) + 1)],
            "categories": [{"id": 1, "name": "disc"}],
            "annotations": coco_entries(truth),
        }
        coco.createIndex()
        evaluation = eval_class(coco, coco.loadRes(coco_entries(predicted)), "segm")
        evaluation.params.maxDets = [1, 10, 100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def speed(n_images: int, n_objects: int) -> None:
    """Prints times and the APs that must be equal."""
    from faster_coco_eval import COCO as FasterCOCO
    from faster_coco_eval import COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    scenes = [
        scene(rng, n=n_objects, side=512, radius=(8, 25), jitter=0.1, miss=0.1) for _ in range(n_images)
    ]
    truth, predicted = [t for t, _ in scenes], [p for _, p in scenes]
    print(f"{n_images} images, {sum(map(len, truth))} true objects, {sum(map(len, predicted))} predictions")
    panel, wall, cpu = timed(lambda: evaluate(truth, predicted, n_classes=1))
    own = panel.metrics["coco_ap"].value
    print(f"evaluate, 11 metrics, 1000 replicates  {wall:6.2f} s wall {cpu:6.2f} s cpu  AP {own:.6f}")
    for name, estimate in panel.metrics.items():
        print(f"    {name:13} {estimate.value:8.4f} [{estimate.low:.4f}, {estimate.high:.4f}]")
    _, wall, cpu = timed(lambda: evaluate(truth, predicted, n_classes=1, replicates=0))
    print(f"evaluate without intervals             {wall:6.2f} s wall {cpu:6.2f} s cpu")
    _, wall, cpu = timed(lambda: difference(truth, predicted, predicted, n_classes=1))
    print(f"difference of two models               {wall:6.2f} s wall {cpu:6.2f} s cpu")
    best, wall, cpu = timed(lambda: best_f1_score_threshold(truth, predicted, n_classes=1))
    print(f"best_f1_score_threshold                {wall:6.2f} s wall {cpu:6.2f} s cpu  {best:.4f}")
    tools = (("faster-coco-eval", FasterCOCO, COCOeval_faster), ("pycocotools", COCO, COCOeval))
    for name, coco_class, eval_class in tools:
        call = lambda c=coco_class, e=eval_class: coco_tool_ap(c, e, truth, predicted)  # noqa: E731
        ap, wall, cpu = timed(call)
        print(f"{name:16} AP alone, no interval {wall:6.2f} s wall {cpu:6.2f} s cpu  AP {ap:.6f}")
        assert own is not None
        assert abs(own - ap) < 1e-6


def coverage(sizes: list[int], repetitions: int, population: int) -> None:
    """Prints how often the intervals hold the population's value."""
    rng = np.random.default_rng(1)
    truth, predicted = [], []
    for _ in range(population):
        t, p = scene(
            rng,
            n=int(rng.poisson(rng.gamma(3, 3))),  # images differ in density ...
            side=96,
            radius=(4, 9),
            jitter=rng.uniform(0.05, 0.2),  # ... and in how hard they are
            miss=rng.beta(2, 10),
        )
        truth.append(t)
        predicted.append(p)
    exact = evaluate(truth, predicted, n_classes=1, replicates=0)
    print("population", {name: round(exact.metrics[name].value or 0.0, 4) for name in METRICS})
    for n in sizes:
        outcome: dict[str, list[int]] = {name: [] for name in METRICS}
        widths: dict[str, list[float]] = {name: [] for name in METRICS}
        for repetition in range(repetitions):
            drawn = rng.choice(population, n, replace=False)
            panel = evaluate(
                [truth[i] for i in drawn], [predicted[i] for i in drawn], n_classes=1,
                replicates=500, seed=repetition,
            )  # fmt: skip
            for name, estimate in panel.metrics.items():
                value, low, high = exact.metrics[name].value, estimate.low, estimate.high
                assert value is not None
                if low is not None and high is not None:
                    outcome[name].append(int(low > value) - int(high < value))
                    widths[name].append(high - low)
        print(f"n = {n}: held, (wholly below, wholly above), mean width; {repetitions} repetitions")
        for name in METRICS:
            hits = np.asarray(outcome[name])
            below, above = np.mean(hits == -1), np.mean(hits == 1)
            held, width = np.mean(hits == 0), np.mean(widths[name])
            print(f"    {name:13} {held:.3f} ({below:.3f}, {above:.3f}) {width:.4f}")


def main() -> None:
    """Runs what the command line asks for."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("what", choices=("speed", "coverage"))
    parser.add_argument("--images", type=int, nargs="+", default=None, help="Numbers of images.")
    parser.add_argument("--objects", type=int, default=40, help="True objects in an image (speed).")
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--population", type=int, default=4000)
    arguments = parser.parse_args()
    if arguments.what == "speed":
        for n_images in arguments.images or [670]:
            speed(n_images, arguments.objects)
    else:
        coverage(arguments.images or [20, 50, 200], arguments.repetitions, arguments.population)


if __name__ == "__main__":
    main()
