"""A tiny project of made images, and a recipe whose steps take a tenth of a second."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from labelloop.data.synthetic import organoid_micrograph
from labelloop.distill.train import TrainRequest, train
from labelloop.formats.coco import coco_dataset
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project


@pytest.fixture
def write_set(tmp_path):
    """Writes made micrographs and, if asked, their truth as COCO; returns the folder."""

    def write(name: str, count: int, *, seed: int, truth: bool, size: int = 96):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(seed)
        images, instances = [], []
        for i in range(count):
            pixels, objects = organoid_micrograph(rng, size_hw=(size, size), n_objects=4)
            Image.fromarray(pixels).save(folder / f"{name}_{i}.png")
            images.append((f"{name}_{i}.png", (size, size)))
            instances.append(objects)
        if truth:
            document = coco_dataset(images, instances, ("organoid",))
            (tmp_path / f"{name}.json").write_text(json.dumps(document))
        return folder

    return write


@pytest.fixture
def project(tmp_path, write_set):
    """3 labelled, 4 unlabelled and 2 test images."""
    made = Project.init(tmp_path / "project", ProjectConfig(name="tiny", classes=("organoid",)))
    write_set("labelled", 3, seed=1, truth=True)
    write_set("test", 2, seed=2, truth=True)
    add_labels(made, LabelSource(path=str(tmp_path / "labelled.json"), images=str(tmp_path / "labelled")))
    add_labels(
        made, LabelSource(path=str(tmp_path / "test.json"), images=str(tmp_path / "test")), split="test"
    )
    add_images(made, [str(write_set("pool", 4, seed=3, truth=False))])
    return made


@pytest.fixture
def interrupted():
    """Begins a run and interrupts it where a stage starts; returns the request that goes on with it."""

    class StopsAt(Silent):
        def __init__(self, stage: str) -> None:
            self.stage = stage

        def start(self, stage: str, total: int) -> None:
            if stage == self.stage:
                raise KeyboardInterrupt

    def interrupt(project: Project, request: TrainRequest, stage: str) -> TrainRequest:
        with pytest.raises(KeyboardInterrupt):
            train(project, request, StopsAt(stage))
        return TrainRequest(resume=True, name=request.name)

    return interrupt
