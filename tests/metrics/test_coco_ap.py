"""COCO AP equals pycocotools', and resamples equal the images they stand for."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from labelloop.instances import Instances
from labelloop.metrics.coco_ap import average_precision, rank
from labelloop.metrics.matching import IOU_THRESHOLDS
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.panel import evaluate


def coco_entries(images: list[Instances], **more: Any) -> list[dict[str, Any]]:
    """Annotations of these images with image ids and annotation ids from 1."""
    entries = []
    for image_id, instances in enumerate(images, 1):
        for i, rle in enumerate(instances.coco_rles()):
            entry = {
                "id": len(entries) + 1,
                "image_id": image_id,
                "category_id": int(instances.labels[i]),
                "segmentation": rle,
                "bbox": instances.boxes_xywh[i].tolist(),
                "area": float(instances.areas[i]),
                "iscrowd": int(instances.crowd[i]),
            }
            if instances.scores is not None:
                entry["score"] = float(instances.scores[i])
            entries.append(entry | more)
    return entries


def dataset(truth: list[Instances], n_classes: int) -> dict[str, Any]:
    return {
        "info": {},
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": t.size_hw[0], "width": t.size_hw[1]}
            for i, t in enumerate(truth, 1)
        ],
        "categories": [{"id": c, "name": str(c)} for c in range(n_classes)],
        "annotations": coco_entries(truth),
    }


def pycocotools_precision(
    truth: list[Instances], predicted: list[Instances], n_classes: int, max_dets: int
) -> np.ndarray:
    """The precision array (10, 101, classes) for all areas and this maxDets."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset(truth, n_classes)
        coco.createIndex()
        found = coco.loadRes(coco_entries(predicted))
        evaluation = COCOeval(coco, found, "segm")
        evaluation.params.maxDets = [1, 10, max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
    precision: np.ndarray = evaluation.eval["precision"][:, :, :, 0, -1]
    return precision


def own_ap(truth: list[Instances], predicted: list[Instances], n_classes: int) -> np.ndarray:
    table = PairTable.build(truth, predicted, n_classes=n_classes)
    return average_precision(rank(table), np.ones((1, len(truth)), np.int32))[0]


def assert_equals_pycocotools(truth: list[Instances], predicted: list[Instances], n_classes: int) -> None:
    table = PairTable.build(truth, predicted, n_classes=n_classes)
    precision = pycocotools_precision(truth, predicted, n_classes, table.max_dets)
    own = own_ap(truth, predicted, n_classes)
    for t in range(len(IOU_THRESHOLDS)):
        defined = precision[t][precision[t] > -1]
        expected = defined.mean() if defined.size else np.nan
        np.testing.assert_allclose(own[t], expected, atol=1e-9)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_images=st.integers(1, 6),
    most=st.integers(0, 12),
    n_classes=st.integers(1, 4),
    crowds=st.booleans(),
    ties=st.booleans(),
)
def test_it_equals_pycocotools_on_random_scenes(
    random_scenes: Callable[..., Any],
    seed: int, n_images: int, most: int, n_classes: int, crowds: bool, ties: bool,
) -> None:  # fmt: skip
    truth, predicted = random_scenes(
        seed, n_images=n_images, most=most, n_classes=n_classes, crowds=crowds, ties=ties
    )
    if sum(map(len, predicted)) == 0:  # pycocotools cannot load an empty list of results
        return
    assert_equals_pycocotools(truth, predicted, n_classes)


def test_a_recall_that_equals_a_recall_point_is_pycocotools(
    scene: Callable[..., Instances],
) -> None:
    squares = [(3 * (i // 20), 3 * (i % 20), 2, 2) for i in range(400)]
    truth = scene(squares[:100], size_hw=(60, 60))
    mixed = [square for pair in zip(squares[:100], squares[100:200], strict=True) for square in pair]
    predicted = scene(mixed, np.linspace(1, 0.1, 200), size_hw=(60, 60))
    assert_equals_pycocotools([truth], [predicted], 1)  # each of the points 0.01, 0.02 .. 1 is a recall


def test_nothing_is_cut_where_an_image_holds_more_than_a_hundred_objects(
    scene: Callable[..., Instances],
) -> None:
    rng = np.random.default_rng(0)
    grid = [(y, x, 3, 3) for y in range(0, 64, 4) for x in range(0, 64, 4)]
    truth = [scene(grid, size_hw=(64, 64))]
    predicted = [scene(grid, rng.random(len(grid)), size_hw=(64, 64))]
    panel = evaluate(truth, predicted, n_classes=1)
    assert panel.max_dets == 256
    assert panel.metrics["coco_ap"].value == 1.0
    assert_equals_pycocotools(truth, predicted, 1)


def test_it_equals_faster_coco_eval(random_scenes: Callable[..., Any]) -> None:
    from faster_coco_eval import COCO as FasterCOCO
    from faster_coco_eval import COCOeval_faster

    truth, predicted = random_scenes(5, n_images=20, most=10, n_classes=2, crowds=False, ties=False)
    for entry in (labels := dataset(truth, 2))["annotations"]:
        entry["segmentation"] = {**entry["segmentation"], "counts": entry["segmentation"]["counts"].decode()}
    with contextlib.redirect_stdout(io.StringIO()):
        coco = FasterCOCO(labels)
        evaluation = COCOeval_faster(coco, coco.loadRes(coco_entries(predicted)), "segm")
        evaluation.params.maxDets = [1, 10, 100]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    own = own_ap(truth, predicted, 2)
    np.testing.assert_allclose([own.mean(), own[0], own[5]], evaluation.stats[:3], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), crowds=st.booleans())
def test_a_resample_has_the_ap_of_the_images_drawn(
    random_scenes: Callable[..., Any], seed: int, crowds: bool
) -> None:
    truth, predicted = random_scenes(seed, n_images=6, n_classes=2, crowds=crowds, ties=False)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(6, [1 / 6] * 6, size=5).astype(np.int32)
    drawn = average_precision(rank(PairTable.build(truth, predicted, n_classes=2)), times)
    for row, copies in zip(drawn, times, strict=True):
        images = np.repeat(np.arange(6), copies)
        expected = own_ap([truth[i] for i in images], [predicted[i] for i in images], 2)
        np.testing.assert_allclose(row, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "thresholds_reached"),
    [
        pytest.param(49, 0, id="just below 0.50"),
        pytest.param(50, 1, id="0.50 exactly"),
        pytest.param(74, 5, id="just below 0.75"),
        pytest.param(76, 6, id="just above 0.75"),
        pytest.param(100, 10, id="the same mask"),
    ],
)
def test_a_detection_counts_at_the_thresholds_that_its_iou_reaches(
    scene: Callable[..., Instances], rows: int, thresholds_reached: int
) -> None:
    truth = [scene([(0, 0, 100, 10)], size_hw=(100, 10))]
    predicted = [scene([(0, 0, rows, 10)], [0.9], size_hw=(100, 10))]
    expected = [1.0] * thresholds_reached + [0.0] * (10 - thresholds_reached)
    assert own_ap(truth, predicted, 1).tolist() == expected


def test_a_class_without_truth_does_not_lower_the_mean(scene: Callable[..., Instances]) -> None:
    truth = [scene([(0, 0, 9, 9)], labels=[0])]
    predicted = [scene([(0, 0, 9, 9), (20, 20, 9, 9)], [0.9, 0.8], labels=[0, 1])]
    assert own_ap(truth, predicted, 2).mean() == 1.0


def test_a_detection_in_a_crowd_is_no_false_alarm(scene: Callable[..., Instances]) -> None:
    truth = [scene([(0, 0, 9, 9), (20, 0, 20, 40)], crowd=[False, True])]
    predicted = [scene([(25, 5, 8, 8), (25, 20, 8, 8), (0, 0, 9, 9)], [0.9, 0.8, 0.7])]
    assert own_ap(truth, predicted, 1).mean() == 1.0
