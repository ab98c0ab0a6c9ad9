"""The panel equals pycocotools', stardist's and cellpose's numbers, and the papers' formulas.

The tests' environment needs neither stardist nor cellpose, nor cityscapesScripts for test_cityscapes_ap.py:
those are compared where they can be imported. A full comparison is one command; the environments, with
``pip install stardist``, ``pip install "cellpose<4"`` and
``pip install cityscapesscripts "numpy<2.4" "pillow<12"``, need no labelloop:

    LABELLOOP_REFERENCE_PYTHONS=STARDIST/bin/python:CELLPOSE/bin/python LABELLOOP_REFERENCE_CASES=3000 \
    LABELLOOP_REFERENCE_DATA=FOLDER python -m pytest tests/metrics/test_references.py -rs -s

FOLDER may hold any COCO files, ``*/*.json``; their labels are compared with disturbed ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from labelloop.instances import Instances
from labelloop.metrics.panel import evaluate

Labels = np.ndarray  # integer (n, h, w), 0 is background
TOOLS = ("stardist", "cellpose")
CASES = int(os.environ.get("LABELLOOP_REFERENCE_CASES", "60"))
MOST_IMAGES = 40  # of a file


def random_labels(rng: np.random.Generator) -> tuple[Labels, Labels]:
    """A few images of rectangles painted over one another, and what a tool may make of them."""
    n, side = int(rng.integers(1, 6)), 24
    truth, predicted = np.zeros((2, n, side, side), np.int32)
    for image in range(n):
        for label in range(1, int(rng.integers(0, 9)) + 1):
            top, left, height, width = *rng.integers(0, side - 3, 2), *rng.integers(2, 12, 2)
            truth[image, top : top + height, left : left + width] = label
            if rng.random() < 0.85:
                moved = np.array([top, left, height, width]) + rng.integers(-1, 2, 4)
                top, left, height, width = np.maximum(0, moved)
                predicted[image, top : top + height, left : left + width] = label
        if rng.random() < 0.3:
            predicted[image, rng.integers(side) :, rng.integers(side) :] = 20
    return sequential(truth), sequential(predicted)


def disturbed_files(folder: Path) -> Iterator[tuple[Labels, Labels]]:
    """The labels of each image of COCO files as a case, and the same moved, grown, shrunk, lost."""
    rng = np.random.default_rng(0)
    for path in sorted(folder.glob("*/*.json")):
        coco = COCO(path)
        for image_id in sorted(coco.imgs)[:MOST_IMAGES]:
            image = coco.imgs[image_id]
            truth, predicted = np.zeros((2, 1, image["height"], image["width"]), np.int32)
            for label, annotation in enumerate(coco.loadAnns(coco.getAnnIds(image_id)), 1):
                mask = coco.annToMask(annotation).astype(bool)
                truth[0][mask] = label
                if rng.random() < 0.9:
                    moved = ndimage.shift(mask, rng.normal(0, 2, 2), order=0)
                    grown = ndimage.maximum_filter(moved, int(rng.integers(1, 5)))
                    predicted[0][grown if rng.random() < 0.5 else moved] = label
            yield sequential(truth), sequential(predicted)


def sequential(labels: Labels) -> Labels:
    """Labels 1, 2, ... in each image, as cellpose asks for."""
    return np.stack(
        [
            np.unique(image, return_inverse=True)[1].reshape(image.shape)
            if 0 in image
            else np.unique(image, return_inverse=True)[1].reshape(image.shape) + 1
            for image in labels
        ]
    )


def instances(labels: Labels) -> list[Instances]:
    return [
        Instances.from_dense(
            np.asarray([image == label for label in range(1, image.max() + 1)]), size_hw=image.shape
        )
        for image in labels
    ]


def own_values(truth: Labels, predicted: Labels) -> dict[str, float | None]:
    panel = evaluate(instances(truth), instances(predicted), n_classes=1, replicates=0, parts=False)
    return {name: estimate.value for name, estimate in panel.metrics.items()}


@pytest.fixture(scope="module")
def cases() -> list[tuple[Labels, Labels]]:
    rng = np.random.default_rng(0)
    made = [random_labels(rng) for _ in range(CASES)]
    folder = os.environ.get("LABELLOOP_REFERENCE_DATA")
    return made + (list(disturbed_files(Path(folder))) if folder else [])


@pytest.mark.parametrize("tool", TOOLS)
def test_the_panel_equals_the_tool(
    reference_pythons: Callable[[str], list[str]],
    tool: str,
    cases: list[tuple[Labels, Labels]],
    tmp_path: Path,
) -> None:
    pythons = reference_pythons(tool)
    if not pythons:
        pytest.skip(f"{tool} is not installed here; see LABELLOOP_REFERENCE_PYTHONS in this file")
    stored = {
        f"{side}_{i}": labels
        for i, case in enumerate(cases)
        for side, labels in zip(("truth", "predicted"), case, strict=True)
    }
    np.savez_compressed(tmp_path / "cases.npz", **stored)
    script = Path(__file__).with_name("reference_values.py")
    files = [str(tmp_path / "cases.npz"), str(tmp_path / "values.json")]
    subprocess.run([pythons[0], str(script), *files], check=True)
    expected = json.loads((tmp_path / "values.json").read_text(encoding="utf-8"))[tool]
    assert len(expected) == len(cases)
    largest: dict[str, float] = {}
    for i, (case, values) in enumerate(zip(cases, expected, strict=True)):
        own = own_values(*case)
        for name, value in values.items():
            assert (own[name] is None) == (value is None), (name, i)
            if value is not None and own[name] is not None:
                scale = 100 if name.endswith("_per_100") else 1
                largest[name] = max(largest.get(name, 0.0), abs(own[name] - value) / scale)
    print(f"\n{tool}, {len(cases)} cases, largest difference:", largest)
    assert max(largest.values()) < 1e-6


def naive_panoptic_and_jaccard(truth: Labels, predicted: Labels) -> dict[str, float | None]:
    """PQ, SQ, RQ by Kirillov et al. 2019, eq. 1, and AJI by Kumar et al. 2017, algorithm 1, by pixels."""
    ious: list[float] = []
    n_true = n_found = 0
    common = together = 0
    for true_image, found_image in zip(truth, predicted, strict=True):
        trues = [true_image == label for label in range(1, true_image.max() + 1)]
        founds = [found_image == label for label in range(1, found_image.max() + 1)]
        n_true, n_found = n_true + len(trues), n_found + len(founds)
        used = set()
        for true in trues:
            iou = [(true & found).sum() / (true | found).sum() for found in founds]
            ious += [value for value in iou if value > 0.5]
            best = int(np.argmax(iou)) if iou and max(iou) > 0 else None
            if best is None:
                together += int(true.sum())
            else:
                used.add(best)
                common += int((true & founds[best]).sum())
                together += int((true | founds[best]).sum())
        together += sum(int(found.sum()) for i, found in enumerate(founds) if i not in used)
    if n_true == 0:
        return dict.fromkeys(("pq", "sq", "rq", "aji"))
    objects = (n_true + n_found) / 2  # TP + FP / 2 + FN / 2
    sq = float(np.mean(ious)) if ious else None
    return {"pq": sum(ious) / objects, "sq": sq, "rq": len(ious) / objects, "aji": common / together}


def test_panoptic_quality_and_aggregated_jaccard_equal_the_papers(cases: list[tuple[Labels, Labels]]) -> None:
    for i, case in enumerate(cases):
        own = own_values(*case)
        for name, value in naive_panoptic_and_jaccard(*case).items():
            assert own[name] == (None if value is None else pytest.approx(value, abs=1e-9)), (name, i)


def pycocotools_ap(truth: list[Instances], predicted: list[Instances]) -> list[float] | None:
    """AP, AP50 and AP75 of one class; None without truth."""

    def entries(images: list[Instances]) -> list[dict[str, Any]]:
        return [
            {
                "id": image_id * 10_000 + i, "image_id": image_id, "category_id": 1, "iscrowd": 0,
                "segmentation": rle, "area": float(area), "bbox": box.tolist(), "score": float(score),
            }
            for image_id, of in enumerate(images, 1)
            for i, (rle, area, box, score) in enumerate(
                zip(
                    of.coco_rles(),
                    of.areas,
                    of.boxes_xywh,
                    np.ones(len(of)) if of.scores is None else of.scores,
                    strict=True,
                )
            )
        ]  # fmt: skip

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [
                {"id": i, "height": t.size_hw[0], "width": t.size_hw[1]} for i, t in enumerate(truth, 1)
            ],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": entries(truth),
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(entries(predicted)), "segm")
        evaluation.params.maxDets = [1, 10, max([100, *map(len, truth), *map(len, predicted)])]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    return None if (precision == -1).all() else [precision[t].mean() for t in (slice(None), 0, 5)]


def test_coco_ap_equals_pycocotools(cases: list[tuple[Labels, Labels]]) -> None:
    rng = np.random.default_rng(1)
    largest = 0.0
    for i, (true_labels, found_labels) in enumerate(cases):
        truth = instances(true_labels)
        predicted = [
            Instances(
                size_hw=found.size_hw, rles=found.rles, labels=found.labels,
                scores=rng.random(len(found)).round(1).astype(np.float32),
            )
            for found in instances(found_labels)
        ]  # fmt: skip
        if not any(len(found) for found in predicted):  # pycocotools cannot load an empty list of results
            continue
        found = evaluate(truth, predicted, n_classes=1, replicates=0, parts=False).metrics
        own = [found[name].value for name in ("coco_ap", "coco_ap50", "coco_ap75")]
        expected = pycocotools_ap(truth, predicted)
        assert (own[0] is None) == (expected is None), i
        if expected is not None:
            largest = max(largest, float(np.abs(np.subtract(own, expected)).max()))
    print(f"\npycocotools, {len(cases)} cases, largest difference:", largest)
    assert largest < 1e-6
