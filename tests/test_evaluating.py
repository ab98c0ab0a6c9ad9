"""Measuring a run whose images have changed since they were added."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from sqlalchemy import delete

from labelloop.data.synthetic import organoid_micrograph
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import ChangedImageError
from labelloop.evaluating import evaluate_run
from labelloop.formats.coco import coco_dataset
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import PredictionRow

CORE_NET = str(Path(__file__).parents[1] / "examples" / "extending" / "core_net.py")
SIDE = 96


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """2 labelled and 3 test images, and a run that has seen them."""
    made = Project.init(tmp_path / "project", ProjectConfig(name="tiny", classes=("organoid",)))
    for split, count in (("train", 2), ("test", 3)):
        (tmp_path / split).mkdir()
        rng = np.random.default_rng(count)
        drawn = [organoid_micrograph(rng, size_hw=(SIDE, SIDE), n_objects=4) for _ in range(count)]
        names = [f"{split}_{number}.png" for number in range(count)]
        for name, (pixels, _) in zip(names, drawn, strict=True):
            Image.fromarray(pixels).save(tmp_path / split / name)
        document = coco_dataset([(n, (SIDE, SIDE)) for n in names], [t for _, t in drawn], ("organoid",))
        (tmp_path / split / "labels.json").write_text(json.dumps(document))
        add_labels(made, LabelSource(path=str(tmp_path / split / "labels.json")), split=split)
    train(made, TrainRequest(model=CORE_NET, method="supervised", iterations=2, name="first"))
    return made


def change(project: Project, number: int) -> Path:
    """Writes noise of the same size where a test image lay."""
    path = project.images(split="test")[number].path
    Image.fromarray(np.random.default_rng(7).integers(0, 256, (SIDE, SIDE), np.uint8)).save(path)
    return path


def forget_predictions(project: Project) -> None:
    with project.ledger.write() as session:
        session.execute(delete(PredictionRow))


def test_test_images_that_have_changed_are_not_measured(project: Project) -> None:
    forget_predictions(project)
    first, _ = change(project, 1), change(project, 2)
    with pytest.raises(ChangedImageError, match="have changed since they were added") as caught:
        evaluate_run(project)
    assert caught.value.value == f"{first} and 1 more"
    with project.ledger.read() as session:
        assert session.query(PredictionRow).count() == 0


def test_what_was_seen_before_a_file_changed_still_counts(project: Project) -> None:
    before = evaluate_run(project)["metrics"]
    change(project, 1)
    assert evaluate_run(project)["metrics"] == before


def test_a_replaced_test_image_is_not_measured_any_more(project: Project) -> None:
    path = change(project, 1)
    assert add_images(project, [str(path)]).replaced == 1
    assert evaluate_run(project)["metrics"]["coco_ap"]["n"] == 2


def test_pages_of_one_test_file_are_resampled_together(project: Project, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    pages = [organoid_micrograph(rng, size_hw=(SIDE, SIDE), n_objects=4) for _ in range(2)]
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([pixels for pixels, _ in pages]))
    labels = tmp_path / "stack.json"
    for page, (_, truth) in enumerate(pages):
        labels.write_text(json.dumps(coco_dataset([("stack.tif", (SIDE, SIDE))], [truth], ("organoid",))))
        source = LabelSource(path=str(labels), images=str(tmp_path))
        add_labels(project, source, page=page, split="test")
    measured = evaluate_run(project)
    assert measured["metrics"]["coco_ap"]["n"] == 5
    assert measured["n_groups"] == 4
