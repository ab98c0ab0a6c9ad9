"""How long an evaluation takes, beside pycocotools and faster-coco-eval, and how often its intervals hold.

    python tests/benchmarks/bench_metrics.py speed
    python tests/benchmarks/bench_metrics.py coverage --images 20 50 200 --repetitions 500
    python tests/benchmarks/bench_metrics.py coverage --scenes discs --images 50 --repetitions 500

``speed``: 670 images of 512 x 512 px with 40 discs each, a tenth missed, 15 % spurious, 2000 replicates.

``coverage``: images that differ in density and difficulty: cells that lie apart (with merged and split ones),
or discs that overlap. The truth is the value on a large population. For each metric, and for the paired
difference to a second model that loses some predictions, it prints the share of 95 % intervals that hold the
truth, and the shares that lie wholly above and below it.

Equality with stardist and cellpose: see tests/metrics/test_references.py.
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
from labelloop.metrics.bootstrap import Resampling
from labelloop.metrics.matched import METRICS, SURPLUS, MatchedModel
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.panel import best_f1_score_threshold, difference, evaluate, resample

Scenes = list[tuple[Instances, Instances]]


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
    call = lambda parts: evaluate(truth, predicted, n_classes=1, replicates=2000, parts=parts)  # noqa: E731
    panel, own_wall, cpu = timed(lambda: call(False))
    own = panel.metrics["coco_ap"].value
    print(f"evaluate, {len(METRICS)} metrics, 2000 replicates  {own_wall:6.2f} s wall {cpu:6.2f} s cpu")
    for name, estimate in panel.metrics.items():
        print(f"    {name:17} {estimate.as_dict()}")
    _, wall, cpu = timed(lambda: call(True))
    print(f"the same, and by thirds of sizes       {wall:6.2f} s wall {cpu:6.2f} s cpu")
    _, wall, cpu = timed(lambda: evaluate(truth, predicted, n_classes=1, replicates=0, parts=False))
    print(f"evaluate without intervals             {wall:6.2f} s wall {cpu:6.2f} s cpu")
    _, wall, cpu = timed(lambda: difference(truth, predicted, predicted, n_classes=1, replicates=2000))
    print(f"difference of two models               {wall:6.2f} s wall {cpu:6.2f} s cpu")
    best, wall, cpu = timed(lambda: best_f1_score_threshold(truth, predicted, n_classes=1))
    print(f"best_f1_score_threshold                {wall:6.2f} s wall {cpu:6.2f} s cpu  {best:.4f}")
    tools = (("faster-coco-eval", FasterCOCO, COCOeval_faster), ("pycocotools", COCO, COCOeval))
    for name, coco_class, eval_class in tools:
        ap, wall, cpu = timed(lambda c=coco_class, e=eval_class: coco_tool_ap(c, e, truth, predicted))
        ratio = f"{wall / own_wall:.1f} times as long as the panel"
        print(f"{name:16} AP alone, no interval {wall:6.2f} s wall {cpu:6.2f} s cpu  AP {ap:.6f}, {ratio}")
        assert own is not None
        assert abs(own - ap) < 1e-6


def overlapping_discs(rng: np.random.Generator) -> tuple[Instances, Instances]:
    """An image of discs; images differ in density and in how hard they are."""
    return scene(
        rng,
        n=int(rng.poisson(rng.gamma(3, 3))),
        side=96,
        radius=(4, 9),
        jitter=rng.uniform(0.05, 0.2),
        miss=rng.beta(2, 10),
    )


def cells_apart(rng: np.random.Generator, *, side: int = 96, pitch: int = 16) -> tuple[Instances, Instances]:
    """An image of ellipses in the fields of a board; predictions never leave their field, but merges do."""
    jitter, miss = rng.uniform(0.05, 0.2), rng.beta(2, 10)
    merge, split = rng.beta(1, 15, 2)
    taken = rng.random((side // pitch, side // pitch)) < rng.beta(3, 3)
    y, x = np.mgrid[:side, :side]

    def ellipse(centre: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 <= 1

    true, found, scores = [], [], []
    left = -1  # the field of what was found last
    for row, column in np.argwhere(np.ones_like(taken)):
        field = (y // pitch == row) & (x // pitch == column)
        centre = (np.array([row, column]) + 0.5) * pitch - 0.5 + rng.uniform(-1.5, 1.5, 2)
        radii = rng.uniform(4, 7, 2)
        if not taken[row, column]:
            if rng.random() < 0.03:  # spurious
                found.append(ellipse(centre, radii * 0.8) & field)
                scores.append(rng.beta(2, 4))
            continue
        true.append(ellipse(centre, radii) & field)
        if rng.random() < miss:
            continue
        moved = centre + rng.normal(0, 6 * jitter, 2)
        mask = ellipse(moved, radii * np.exp(rng.normal(0.03, jitter, 2))) & field
        halves = [mask & (x < centre[1]), mask & (x >= centre[1])] if rng.random() < split else [mask]
        here = row * len(taken) + column
        if column and left == here - 1 and len(halves) == 1 and rng.random() < 4 * merge:  # with the left one
            halves = [mask | found.pop()]
            scores.pop()
        left = here if len(halves) == 1 else -1
        found += halves
        scores += [rng.beta(6, 2)] * len(halves)

    def instances(masks: list[npt.NDArray[np.bool_]], of: list[float] | None) -> Instances:
        return Instances.from_dense(np.asarray(masks), None, of, size_hw=(side, side))

    return instances(true, None), instances(found, scores)


def lossy(rng: np.random.Generator, predicted: Instances) -> Instances:
    """Another model: some predictions lost, in some images more, and other scores."""
    kept = predicted.select(rng.random(len(predicted)) >= rng.beta(1, 9))
    assert kept.scores is not None
    scores = np.clip(kept.scores + rng.normal(0, 0.1, len(kept)), 0, 1).astype(np.float32)
    return Instances(size_hw=kept.size_hw, rles=kept.rles, labels=kept.labels, scores=scores)


def coverage(kind: str, sizes: list[int], repetitions: int, population: int) -> None:
    """Prints how often the intervals hold the population's value."""
    rng = np.random.default_rng(1)
    scenes = [{"cells": cells_apart, "discs": overlapping_discs}[kind](rng) for _ in range(population)]
    truth, predicted = [t for t, _ in scenes], [p for _, p in scenes]
    other = [lossy(rng, p) for p in predicted]
    tables = [PairTable.build(truth, side, n_classes=1) for side in (predicted, other)]
    exact = [MatchedModel.of(table, 0.5).point() for table in tables]
    for n in sizes:
        held: dict[tuple[str, str], list[int]] = {}
        for repetition in range(repetitions):
            images = np.zeros(population, np.bool_)
            images[rng.choice(population, n, replace=False)] = True
            models = [
                MatchedModel.of(t.select(images[t.det_image], images[t.truth_image], images), 0.5)
                for t in tables
            ]
            resampling = Resampling.of(n, None, replicates=500, seed=repetition)
            a, b = (model.point() for model in models)
            drawn_a, drawn_b = resample(models, resampling)
            for name in METRICS:
                for what, value, drawn, true in (
                    ("one", a[name], drawn_a[name], exact[0][name]),
                    ("difference", a[name] - b[name], drawn_a[name].minus(drawn_b[name]),
                     exact[0][name] - exact[1][name]),
                ):  # fmt: skip
                    found = resampling.estimate(value, drawn, undefined="", surplus=name in SURPLUS)
                    if found.low is not None and found.high is not None:
                        outcome = int(found.low > true) - int(found.high < true)
                        held.setdefault((name, what), []).append(outcome)
        print(f"{kind}, n = {n}, {repetitions} repetitions: held (above, below); the same for differences")
        for name in METRICS:
            parts = [np.asarray(held[name, what]) for what in ("one", "difference") if (name, what) in held]
            shares = [f"{(h == 0).mean():.3f} ({(h > 0).mean():.3f} {(h < 0).mean():.3f})" for h in parts]
            print(f"    {name:17} {exact[0][name]:8.3f}  " + "    ".join(shares))


def main() -> None:
    """Runs what the command line asks for."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("what", choices=("speed", "coverage"))
    parser.add_argument("--images", type=int, nargs="+", default=None, help="Numbers of images.")
    parser.add_argument("--objects", type=int, default=40, help="True objects in an image (speed).")
    parser.add_argument("--scenes", choices=("cells", "discs"), default="cells", help="Of coverage.")
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--population", type=int, default=4000)
    arguments = parser.parse_args()
    if arguments.what == "speed":
        for n_images in arguments.images or [670]:
            speed(n_images, arguments.objects)
    else:
        sizes = arguments.images or [20, 50, 200]
        coverage(arguments.scenes, sizes, arguments.repetitions, arguments.population)


if __name__ == "__main__":
    main()
