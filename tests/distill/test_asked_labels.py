"""A run learns from the images that a list names, and from no other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from labelloop.distill.asked_labels import asked_labels, word_for
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import UsageError
from labelloop.formats.coco import coco_dataset
from labelloop.instances import Instances
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.runs.loading import read_run_config


def ids(project, *names):
    return [image.id for image in project.images() if image.file_name in names]


def test_a_run_sees_the_labels_of_the_listed_images_alone(project, tmp_path):
    (tmp_path / "mine.txt").write_text("labelled_2.png\nlabelled_0.png\n")
    request = TrainRequest(labels=str(tmp_path / "mine.txt"), method="supervised", iterations=1)
    result = train(project, request)
    assert result["run"] == "supervised-mine-s0-1"
    assert result["labels"] == {"requested": request.labels, "used": 2, "pool": 7}
    config = read_run_config(project.runs_dir / result["run"])
    assert sorted(config["train_images"]) == ids(project, "labelled_0.png", "labelled_2.png")
    assert len(config["labels"]["list_sha256"]) == 64


def test_a_list_that_counts_counts_the_coco_file_of_the_labels(project, tmp_path):
    (tmp_path / "seeds.txt").write_text(json.dumps({"34.0": {"0": [1]}}))
    images = project.images(split="train")
    asked = asked_labels(project, f"{tmp_path / 'seeds.txt'}@34%", images, seed=0)
    assert sorted(asked.image_ids) == ids(project, "labelled_1.png")
    assert asked.budget == 1
    add_labels(
        project, LabelSource(path=str(tmp_path / "test.json"), images=str(tmp_path / "test")), split="train"
    )
    with pytest.raises(UsageError, match="not come from exactly one"):
        asked_labels(project, f"{tmp_path / 'seeds.txt'}@34%", project.images(split="train"), seed=0)


def test_a_listed_image_without_labels_is_told(project, tmp_path):
    (tmp_path / "mine.txt").write_text("labelled_1.png\npool_0.png\n")
    with pytest.raises(UsageError, match="1 of 2 images of the list have no labels"):
        asked_labels(project, str(tmp_path / "mine.txt"), project.images(split="train"), seed=0)


def test_of_a_listed_file_the_pages_that_have_labels_are_meant(project, tmp_path):
    stack = np.random.default_rng(0).integers(0, 256, (3, 96, 96), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    document = coco_dataset([("stack.tif", (96, 96))], [Instances.from_dense(stack[:1] > 9)], ("organoid",))
    (tmp_path / "stack.json").write_text(json.dumps(document))
    for page in range(3):
        add_images(project, [str(tmp_path / "stack.tif")], page=page)
    for page in (0, 2):
        add_labels(project, LabelSource(path=str(tmp_path / "stack.json"), images=str(tmp_path)), page=page)
    (tmp_path / "mine.txt").write_text("stack.tif\n")
    images = project.images(split="train")
    asked = asked_labels(project, str(tmp_path / "mine.txt"), images, seed=0)
    assert [image.page for image in images if image.id in asked.image_ids] == [0, 2]
    assert asked.budget == 2


@pytest.mark.parametrize(
    ("text", "word"),
    [("5%", "5pc"), ("all", "all"), ("a b/perc_5.txt", "perc_5"), ("x/COCO_s.txt@0.5%", "COCO_s-0.5pc")],
)
def test_the_labels_are_a_part_of_a_runs_name(text, word):
    assert word_for(text) == word
