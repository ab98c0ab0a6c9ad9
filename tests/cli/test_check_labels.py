"""``check --labels`` through the program: a wrong label is found by models that have not learnt it."""

from __future__ import annotations

import json
from pathlib import Path

from labelloop.data.synthetic_set import write_micrographs
from labelloop.label_errors import OutOfFoldSettings, suspects_of
from labelloop.progress import Silent
from labelloop.project.project import Project

QUICK = OutOfFoldSettings(folds=2, steps=3)


def test_suspects_name_image_place_and_kind_and_are_ranked(tmp_path: Path, project: Path, labelloop) -> None:
    labels = tmp_path / "train.json"
    write_micrographs(tmp_path / "train", 4, seed=0, labels=labels, size_hw=(96, 96))
    assert labelloop("add", "labels", labels, "--images", tmp_path / "train", "-C", project).code == 0
    opened = Project.open(project)
    suspects = suspects_of(opened, Silent(), settings=QUICK)
    n_labels = len(json.loads(labels.read_text())["annotations"])
    assert len(suspects) >= n_labels - sum(len(s["labels"]) - 1 for s in suspects if s["kind"] == "split")
    scores = [suspect["score"] for suspect in suspects]
    assert scores == sorted(scores, reverse=True)
    names = {image.file_name for image in opened.images()}
    for suspect in suspects:
        assert suspect["file_name"] in names
        x, y = suspect["at_xy"]
        assert 0 <= x <= 96
        assert 0 <= y <= 96
    assert suspects_of(opened, Silent(), settings=QUICK) == suspects  # kept, not trained again


def test_one_labelled_image_is_too_few_and_said_so(tmp_path: Path, project: Path, labelloop) -> None:
    labels = tmp_path / "train.json"
    write_micrographs(tmp_path / "train", 1, seed=0, labels=labels, size_hw=(96, 96))
    assert labelloop("add", "labels", labels, "--images", tmp_path / "train", "-C", project).code == 0
    ran = labelloop("check", "--labels", "-C", project)
    assert ran.code == 1
    assert ran.err.startswith("error:") or "error:" in ran.err


def test_check_without_labels_trains_nothing(tmp_path: Path, project: Path, labelloop) -> None:
    labels = tmp_path / "train.json"
    write_micrographs(tmp_path / "train", 2, seed=0, labels=labels, size_hw=(96, 96))
    assert labelloop("add", "labels", labels, "--images", tmp_path / "train", "-C", project).code == 0
    document = labelloop("check", "-C", project, "--json").document
    assert "suspects" not in document
    assert not (project / ".labelloop" / "cache" / "out-of-fold").exists()
