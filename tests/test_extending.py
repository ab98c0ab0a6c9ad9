"""The architecture that docs/extending.md shows: short, trains through the program, and learns."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from json_command import labelloop_json
from labelloop.data.synthetic_set import write_micrographs
from labelloop.models.catalog import build_model, find_architecture
from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import Target, to_instances

ROOT = Path(__file__).parent.parent
FILE = ROOT / "examples" / "extending" / "core_net.py"
STATS = DataStats(
    classes=("organoid", "debris"),
    image_size_hw=(64, 64),
    diameter_px=(12.0, 20.0, 30.0),
    box_side_px=(12.0, 20.0, 30.0),
    objects_per_image=(3.0, 5.0),
)


def _discs(*centres: tuple[int, int, int]) -> Target:
    """Discs at (y, x) of a radius, the first of class 0, the others of class 1."""
    yy, xx = np.mgrid[:64, :64]
    masks = [((yy - y) ** 2 + (xx - x) ** 2 <= r * r).astype(np.uint8) * 255 for y, x, r in centres]
    n = len(centres)
    return Target(
        masks=torch.from_numpy(np.stack([np.zeros((64, 64), np.uint8), *masks])[1:]),
        labels=torch.ones(n, dtype=torch.int64).index_fill(0, torch.arange(min(n, 1)), 0),
        weights=torch.ones(n),
        ignore=torch.zeros(n, dtype=torch.bool),
    )


def test_it_is_one_file_of_less_than_a_hundred_lines_that_the_document_names():
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 100
    document = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    assert "(../examples/extending/core_net.py)" in document
    architecture, _ = find_architecture(str(FILE))
    assert f'name="{architecture.name}"' in document
    for name in re.findall(r"`(\w+)`", document.split("labelloop.models.regions` has")[1].split("##")[0]):
        assert hasattr(__import__("labelloop.models.regions", fromlist=[name]), name)


def test_its_parameters_are_counted_right():
    architecture, _ = find_architecture(str(FILE))
    one_class = dataclasses.replace(STATS, classes=("organoid",))
    model = build_model(str(FILE), one_class, pretrained=False)
    counted = sum(p.numel() for p in model.module().parameters()) / 1e6
    assert counted == pytest.approx(architecture.parameters_m, abs=0.06)


def test_it_learns_two_discs_that_overlap_and_their_classes():
    torch.manual_seed(0)
    model = build_model(str(FILE), STATS)
    target = _discs((24, 22, 10), (39, 37, 12))
    image = (target.masks.amax(0).float() / 255 * 0.7 + 0.1).expand(3, -1, -1).clone()
    image[0] += target.masks[1] / 255 * 0.2  # the classes differ in colour
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 2e-3)
    losses = []
    for _ in range(30):
        loss = sum(model.loss([image], [target]).values())
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.2 * losses[0]
    found = to_instances(model.predict([image], min_score=0.5)[0])
    assert len(found) == 2
    for mask, label in zip(found.to_dense(), found.labels, strict=True):
        truth = target.masks[label].numpy() > 0
        assert (mask & truth).sum() / (mask | truth).sum() > 0.8


def test_it_honours_weights_and_ignored_objects_and_takes_images_without_any():
    torch.manual_seed(0)
    model = build_model(str(FILE), STATS, pretrained=False)
    target = _discs((24, 22, 10), (44, 44, 8))
    one = dataclasses.replace(target, ignore=torch.tensor([False, True]))

    def loss_where(logit: float, of: Target) -> float:
        logits = torch.full((3, 64, 64), -9.0)
        logits[2][target.masks[1] > 0] = logit
        return float(model._loss(logits, of))

    assert loss_where(9.0, one) == loss_where(-9.0, one)
    half = dataclasses.replace(target, weights=torch.tensor([1.0, 0.5]))
    assert loss_where(0.0, half) < min(loss_where(2.0, half), loss_where(-2.0, half))
    assert torch.isfinite(model.loss([torch.rand(3, 40, 64)], [_empty(40, 64)])["maps"])


def _empty(height: int, width: int) -> Target:
    return Target(
        masks=torch.zeros((0, height, width), dtype=torch.uint8),
        labels=torch.zeros(0, dtype=torch.int64),
        weights=torch.zeros(0),
        ignore=torch.zeros(0, dtype=torch.bool),
    )


def test_the_program_trains_it_by_all_stages_and_predicts(tmp_path: Path):
    for seed, (name, count) in enumerate({"labelled": 2, "unlabelled": 2}.items()):
        labels = None if name == "unlabelled" else tmp_path / f"{name}.json"
        write_micrographs(tmp_path / name, count, seed=seed, labels=labels, size_hw=(64, 64))
    root = tmp_path / "screen"
    labelloop_json("init", root)
    labelloop_json("add", "labels", tmp_path / "labelled.json", "--images", tmp_path / "labelled", "-C", root)
    labelloop_json("add", "images", tmp_path / "unlabelled", "-C", root)
    trained = labelloop_json("train", "--model", FILE, "--iterations", "4", "-C", root)
    assert trained["model"] == str(FILE.resolve())
    assert {"teacher", "pseudo-labels", "student"} <= set(trained["seconds"])
    report = labelloop_json("predict", "--out", tmp_path / "masks", "--format", "coco", "-C", root)
    assert report["images"] == 4
