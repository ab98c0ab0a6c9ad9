"""Folds, and predictions by models that have not learnt what they predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.data.label_errors.out_of_fold import OutOfFold, OutOfFoldSettings, cut_folds, out_of_fold
from labelloop.data.synthetic import organoid_micrograph
from labelloop.errors import ProjectError
from labelloop.formats.coco import coco_dataset
from labelloop.progress import Silent
from labelloop.project.adding import add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import ImageRecord, Project

SETTINGS = OutOfFoldSettings(folds=2, steps=2, device="cpu")


class Watched(Silent):
    """Counts steps by stage; interrupts at one if asked."""

    def __init__(self, interrupt_at: tuple[str, int] | None = None) -> None:
        self.steps: dict[str, int] = {}
        self.totals: dict[str, int] = {}
        self._stage = ""
        self._interrupt_at = interrupt_at

    def start(self, stage: str, total: int) -> None:
        self._stage = stage
        self.totals[stage] = total

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        self.steps[self._stage] = self.steps.get(self._stage, 0) + steps
        if (self._stage, self.steps[self._stage]) == self._interrupt_at:
            raise KeyboardInterrupt


def labelled(tmp_path: Path, count: int = 4) -> Project:
    project = Project.init(tmp_path / "project", ProjectConfig(name="few", classes=("organoid",)))
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    rng, images, truth = np.random.default_rng(0), [], []
    for i in range(count):
        pixels, objects = organoid_micrograph(rng, size_hw=(64, 64), n_objects=2)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        images.append((f"{i}.png", (64, 64)))
        truth.append(objects)
    (tmp_path / "labels.json").write_text(json.dumps(coco_dataset(images, truth, ("organoid",))))
    add_labels(project, str(tmp_path / "labels.json"), images=str(folder))
    return project


def records(groups: list[str | None]) -> list[ImageRecord]:
    return [
        ImageRecord(i, Path(f"{i}.png"), f"{i}.png", (8, 8), "train", group, 0, -1, None, f"{i:064x}")
        for i, group in enumerate(groups)
    ]


@pytest.mark.parametrize(("count", "folds", "expected"), [(10, 5, 5), (3, 5, 3), (11, 2, 2), (4, 1, 2)])
def test_every_image_is_in_one_fold_and_folds_are_even(count: int, folds: int, expected: int) -> None:
    cut = cut_folds(records([None] * count), OutOfFoldSettings(folds=folds))
    assert sorted(image.id for fold in cut for image in fold) == list(range(count))
    assert len(cut) == expected
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_groups_are_never_cut() -> None:
    cut = cut_folds(records(["a", "b", "c", "a", "b", "c", "d", None]), OutOfFoldSettings(folds=3))
    for group in "abcd":
        assert sum(any(image.group == group for image in fold) for fold in cut) == 1


def test_the_seed_decides_the_folds() -> None:
    images = records([None] * 20)
    one, again, other = (
        [[i.id for i in fold] for fold in cut_folds(given, OutOfFoldSettings(seed=seed))]
        for given, seed in ((images, 0), (images[::-1], 0), (images, 1))
    )
    assert one == again
    assert one != other


def test_one_image_or_one_group_cannot_be_compared_with_others() -> None:
    for groups in ([], [None], ["a", "a", "a"]):
        with pytest.raises(ProjectError, match="Label more images"):
            cut_folds(records(groups), OutOfFoldSettings())


def test_predictions_are_made_once_and_again_only_where_labels_changed(tmp_path: Path) -> None:
    project, first, second, third = labelled(tmp_path), Watched(), Watched(), Watched()
    made = out_of_fold(project, SETTINGS, first)
    assert [image.id for image in made.images] == [i.id for i in project.images()]
    assert all(seen.scores is not None for seen in made.predicted)
    assert [t.size_hw for t in made.truth] == [(64, 64)] * 4
    assert first.steps == {"training on the other labels": 4, "predicting labelled images": 4}
    assert out_of_fold(project, SETTINGS, second).predicted == made.predicted
    assert second.steps == {}
    assert project.runs() == []
    kept = [path for path in (project.cache_dir / "out-of-fold").rglob("*") if path.is_file()]
    assert {path.suffix for path in kept if path.name != ".lock"} == {".instances"}

    document = json.loads((tmp_path / "labels.json").read_text())
    document["annotations"] = document["annotations"][1:]  # of the first image
    (tmp_path / "labels.json").write_text(json.dumps(document))
    add_labels(project, str(tmp_path / "labels.json"), images=str(tmp_path / "images"))
    out_of_fold(project, SETTINGS, third)
    assert third.steps == {"training on the other labels": 2, "predicting labelled images": 2}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> OutOfFold:
    return out_of_fold(labelled(tmp_path_factory.mktemp("whole")), SETTINGS)


@pytest.mark.parametrize(
    "stop",
    [("training on the other labels", 3), ("predicting labelled images", 1)],
    ids=["training", "predicting"],
)
def test_interrupted_and_asked_again_it_ends_with_the_same_predictions(
    tmp_path: Path, uninterrupted: OutOfFold, stop: tuple[str, int]
) -> None:
    project = labelled(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        out_of_fold(project, SETTINGS, Watched(interrupt_at=stop))
    again = Watched()
    assert out_of_fold(project, SETTINGS, again).predicted == uninterrupted.predicted
    assert again.steps.get("training on the other labels", 0) < 4
