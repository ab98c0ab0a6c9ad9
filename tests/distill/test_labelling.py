"""The labels that a run keeps, and how finely."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from labelloop.data.parts import whole
from labelloop.data.pool import ImageLoader
from labelloop.distill.labelling import Labelling
from labelloop.distill.pseudo_settings import PseudoLabelConfig
from labelloop.distill.recipe import Recipe
from labelloop.distill.schedule import Schedule
from labelloop.models.protocol import Prediction
from labelloop.progress import Silent
from labelloop.project.project import ImageRecord
from labelloop.runs.checkpoint import load_predictions, save_predictions
from labelloop.runs.files import RunFiles


def square(side: int, size_hw: tuple[int, int]) -> Prediction:
    """One object in the top left corner."""
    return Prediction(
        size_hw=size_hw,
        labels=np.zeros(1, np.int64),
        scores=np.ones(1, np.float32),
        quality=np.ones(1, np.float32),
        crops=(np.full((side, side), 255, np.uint8),),
        offsets_yx=np.zeros((1, 2), np.int64),
    )


class Corner:
    """An InstanceModel that sees a fifth of every image's side, at a quarter of its size."""

    grid_scale = 0.25

    def module(self):
        return torch.nn.Module()

    def loss(self, images, targets, *, resized_by=1.0):
        raise NotImplementedError

    def predict(self, images, *, min_score=0.05, resized_by=1.0):
        assert resized_by == 0.25
        return [square(i.shape[1] // 5, tuple(i.shape[1:])) for i in images]


@pytest.fixture
def labelling(tmp_path):
    """Of two images of 100 x 120 pixels, each seen once."""

    def make(least_area: float) -> Labelling:
        images = [
            ImageRecord(i, tmp_path / f"{i}.png", "", (100, 120), "train", None, 0, -1, None, "0")
            for i in (1, 2)
        ]
        for image in images:
            Image.fromarray(np.zeros((100, 120), np.uint8)).save(image.path)
        parts = [whole(image) for image in images]
        return Labelling(
            files=RunFiles(folder=tmp_path),
            recipe=Recipe(pseudo=PseudoLabelConfig(min_area_px=least_area)),
            schedule=Schedule(
                teacher=1, supervised=1, burn_in=1, distillation=1, fine_tune=0, cached_images=2
            ),
            seed=0,
            pool=parts,
            load=ImageLoader(parts, intensity_percentile=(0.0, 100.0)),
            fabric=Fabric(accelerator="cpu", devices=1),
            small_area_px=0.0,
            progress=Silent(),
        )

    return make


@pytest.mark.parametrize(("least_area", "count"), [(390.0, 1), (410.0, 0)])
def test_labels_are_kept_as_finely_as_their_teacher_sees_and_old_ones_as_they_are(
    labelling, least_area, count
):
    made = labelling(least_area)
    made.make("pseudo-labels", Corner, "teacher")
    found = load_predictions(made.files.pseudo_labels("teacher"))
    assert [p.size_hw for p in found.values()] == [(25, 30), (25, 30)]
    found[2] = square(20, (100, 120))  # of a run that was begun when all was kept in the pixels of images
    save_predictions(made.files.pseudo_labels("teacher"), found)
    labels = made.labels("burn-in")
    assert {i: o.grid_yx for i, o in labels.items()} == {1: (0.25, 0.25), 2: (1.0, 1.0)}
    assert [len(o) for o in labels.values()] == [count, count]  # of 20 x 20 pixels of the image
