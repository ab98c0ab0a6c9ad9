"""Published numbers: COCO's as pycocotools prints them, cellpose's as the panel has them, and intervals."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from labelloop.cli.evaluate import ProtocolName
from labelloop.instances import Instances
from labelloop.metrics.panel import evaluate
from labelloop.metrics.protocols import PROTOCOLS, Protocol, evaluate_protocol, protocol_difference

SIDE = 150
STATS = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5, "ar100": 8}
Images = list[Instances]


def rectangles(rng: np.random.Generator, count: int) -> np.ndarray:
    """Tops, lefts, heights and widths; areas of 32 x 32 and 96 x 96 px are frequent."""
    sides = rng.choice([8, 20, 31, 32, 33, 64, 95, 96, 97, 130], (count, 1)) + rng.integers(-1, 2, (count, 2))
    sides[rng.random(count) < 0.4] = rng.choice([32, 96])
    return np.concatenate([rng.integers(0, SIDE - 20, (count, 2)), sides], axis=1)


def painted(rows: np.ndarray) -> np.ndarray:
    masks = np.zeros((len(rows), SIDE, SIDE), np.uint8)
    for mask, (top, left, height, width) in zip(masks, rows, strict=True):
        mask[max(top, 0) : top + height, max(left, 0) : left + width] = 1
    return masks


def random_images(rng: np.random.Generator, n_images: int, n_classes: int) -> tuple[Images, Images]:
    """Objects of all sizes, crowds, ties, and now and then more than 100 detections of a class."""
    truth, predicted = [], []
    for _ in range(n_images):
        true = rectangles(rng, int(rng.integers(0, 7)))
        copies = true[rng.integers(0, len(true), rng.integers(0, 2 * len(true)))] if len(true) else true
        found = copies + rng.integers(-2, 3, copies.shape)
        found = np.concatenate([found, rectangles(rng, int(rng.integers(0, 3)))])
        if rng.random() < 0.2:
            many = true if len(true) else rectangles(rng, 1)
            found = np.concatenate([found, many[rng.integers(0, len(many), 130)]])
        found[:, 2:] = np.maximum(found[:, 2:], 3)
        labelled = Instances.from_dense(painted(true), rng.integers(0, n_classes, len(true)))
        crowd = rng.random(len(true)) < 0.15
        truth.append(Instances(size_hw=(SIDE, SIDE), rles=labelled.rles, labels=labelled.labels, crowd=crowd))
        scores = rng.random(len(found)).round(1)
        predicted.append(Instances.from_dense(painted(found), rng.integers(0, n_classes, len(found)), scores))
    return truth, predicted


def pycocotools_stats(truth: Images, predicted: Images, n_classes: int) -> dict[str, float | None]:
    """What ``summarize`` prints."""

    def entries(images: Images) -> list[dict[str, Any]]:
        return [
            {
                "id": 1000 * image_id + i, "image_id": image_id, "category_id": int(of.labels[i]),
                "segmentation": rle, "bbox": of.boxes_xywh[i].tolist(), "area": float(of.areas[i]),
                "iscrowd": int(of.crowd[i]), "score": 1.0 if of.scores is None else float(of.scores[i]),
            }
            for image_id, of in enumerate(images, 1)
            for i, rle in enumerate(of.coco_rles())
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, len(truth) + 1)],
            "categories": [{"id": label} for label in range(n_classes)],
            "annotations": entries(truth),
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(entries(predicted)), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = {name: float(evaluation.stats[i]) for name, i in STATS.items()}
    return {name: None if value == -1 else value for name, value in stats.items()}


def values_of(name: Protocol, truth: Images, predicted: Images, n_classes: int) -> dict[str, float | None]:
    found = evaluate_protocol(name, truth, predicted, n_classes=n_classes, replicates=0)
    return {metric: estimate.value for metric, estimate in found.metrics.items()}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_images=st.integers(1, 4), n_classes=st.integers(1, 3))
def test_coco_is_what_pycocotools_prints(seed: int, n_images: int, n_classes: int) -> None:
    truth, predicted = random_images(np.random.default_rng(seed), n_images, n_classes)
    if sum(map(len, predicted)) == 0:  # pycocotools cannot load an empty list of results
        return
    expected = pycocotools_stats(truth, predicted, n_classes)
    own = values_of("coco", truth, predicted, n_classes)
    for metric, value in expected.items():
        assert own[metric] == (None if value is None else pytest.approx(value, abs=1e-9)), metric


def test_coco_counts_the_best_hundred_detections_of_an_image_and_the_panel_all(
    scene: Callable[..., Instances],
) -> None:
    grid = [(y, x, 3, 3) for y in range(0, 60, 4) for x in range(0, 60, 4)]
    truth, predicted = [scene(grid, size_hw=(60, 60))], [scene(grid, [0.5] * 225, size_hw=(60, 60))]
    own = values_of("coco", truth, predicted, 1)
    assert own["ar100"] == pytest.approx(100 / 225)
    assert own["ap"] == pytest.approx(45 / 101)  # recalls 0, 0.01 .. 0.44
    panel = evaluate(truth, predicted, n_classes=1, replicates=0, parts=False)
    assert panel.metrics["coco_ap"].value == 1.0


def test_a_size_without_objects_has_no_number_but_a_reason(scene: Callable[..., Instances]) -> None:
    images = [scene([(0, 0, 10, 10)])]
    metrics = evaluate_protocol("coco", images, images, n_classes=1).metrics
    assert metrics["ap_small"].value == 1.0
    assert metrics["ap_large"].value is None
    assert "none of this size" in str(metrics["ap_large"].reason)


def test_cellpose_is_the_panels(random_scenes: Callable[..., tuple[Images, Images]]) -> None:
    truth, predicted = random_scenes(3, n_images=12)
    found = evaluate_protocol(
        "cellpose", truth, predicted, n_classes=2, min_score=0.3, class_names=["a", "b"]
    )
    panel = evaluate(truth, predicted, n_classes=2, min_score=0.3, parts=False)
    for t in (50, 75, 90):
        assert found.metrics[f"ap{t}"] == panel.metrics[f"cellpose_ap{t}"]
    assert found.of_class == {}


def test_cellpose_has_a_number_at_each_iou_from_a_half_to_one_and_their_mean(
    scene: Callable[..., Instances],
) -> None:
    truth = [scene([(0, 0, 10, 25), (30, 0, 10, 25)])]
    predicted = [scene([(0, 0, 10, 25), (30, 0, 10, 18)], [0.9, 0.9])]  # IoU 1 and 0.72
    own = values_of("cellpose", truth, predicted, 1)
    at = {f"ap{t}": 1.0 if t <= 70 else 1 / 3 for t in range(50, 101, 5)}
    assert own == pytest.approx({"ap": np.mean(list(at.values())), **at})


@pytest.mark.parametrize("name", ["coco", "cityscapes"])
def test_a_number_is_the_mean_of_its_classes(name: Protocol) -> None:
    truth, predicted = random_images(np.random.default_rng(5), 12, 3)
    found = evaluate_protocol(
        name, truth, predicted, n_classes=4, class_names=["a", "b", "c", "never"], replicates=20
    )
    assert set(found.of_class) == {"a", "b", "c"}
    for metric in ("ap", "ap50"):
        of_class = [estimates[metric].value for estimates in found.of_class.values()]
        assert found.metrics[metric].value == pytest.approx(np.mean(np.asarray(of_class, float)))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_intervals_hold_the_value_and_a_difference_is_paired(name: Protocol) -> None:
    truth, predicted = random_images(np.random.default_rng(6), 12, 1)
    worse = [Instances(size_hw=(SIDE, SIDE), scores=np.zeros(0, np.float32)) for _ in predicted]
    found = evaluate_protocol(name, truth, predicted, n_classes=1, replicates=200).metrics
    for estimate in found.values():
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    difference = protocol_difference(name, truth, predicted, worse, n_classes=1, replicates=200)
    none = protocol_difference(name, truth, predicted, predicted, n_classes=1, replicates=200)
    for metric, estimate in found.items():
        assert difference[metric].value == estimate.value
        assert (none[metric].low, none[metric].value, none[metric].high) == (0, 0, 0)


def test_the_command_line_knows_all_protocols() -> None:
    assert get_args(ProtocolName) == PROTOCOLS
