"""A run learns from the images that a list names, and from no other."""

from __future__ import annotations

import json

import pytest

from labelloop.distill.asked_labels import asked_labels, word_for
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import UsageError
from labelloop.project.adding import LabelSource, add_labels
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


@pytest.mark.parametrize(
    ("text", "word"),
    [("5%", "5pc"), ("all", "all"), ("a b/perc_5.txt", "perc_5"), ("x/COCO_s.txt@0.5%", "COCO_s-0.5pc")],
)
def test_the_labels_are_a_part_of_a_runs_name(text, word):
    assert word_for(text) == word
