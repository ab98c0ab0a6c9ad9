"""Folds, and predictions by models that have not learnt what they predict."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.data.synthetic import organoid_micrograph
from labelloop.errors import ImageError
from labelloop.formats.coco import coco_dataset
from labelloop.label_errors.out_of_fold import OutOfFold, OutOfFoldSettings, out_of_fold
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project

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
    add_labels(project, LabelSource(path=str(tmp_path / "labels.json"), images=str(folder)))
    return project


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
    add_labels(project, LabelSource(path=str(tmp_path / "labels.json"), images=str(tmp_path / "images")))
    out_of_fold(project, SETTINGS, third)
    assert third.steps == {"training on the other labels": 2, "predicting labelled images": 2}


class OtherCheckEnds(Watched):
    """As soon as this check waits, the other one has seen all images and lets it go on."""

    def __init__(self, cache: Path, seen: Path) -> None:
        super().__init__()
        self._cache, self._seen = cache, seen
        self._lock = (cache / ".lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def note(self, message: str) -> None:
        assert message == "waiting for another check of this project"
        for folder in self._seen.iterdir():
            folder.rename(self._cache / folder.name)
        self._lock.close()


def test_what_another_check_sees_while_this_one_waits_is_not_made_again(tmp_path: Path) -> None:
    project = labelled(tmp_path)
    made = out_of_fold(project, SETTINGS)
    cache = project.cache_dir / "out-of-fold"
    cache.rename(tmp_path / "seen")
    cache.mkdir()
    (tmp_path / "seen" / ".lock").unlink()
    waiting = OtherCheckEnds(cache, tmp_path / "seen")
    assert out_of_fold(project, SETTINGS, waiting).predicted == made.predicted
    assert waiting.steps == {}


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


def test_a_labelled_image_that_has_changed_is_named_before_the_first_step(tmp_path: Path) -> None:
    project, watched = labelled(tmp_path), Watched()
    Image.fromarray(np.random.default_rng(7).integers(0, 256, (64, 64), np.uint8)).save(
        tmp_path / "images" / "2.png"
    )
    with pytest.raises(ImageError, match="have changed since they were added") as caught:
        out_of_fold(project, SETTINGS, watched)
    assert caught.value.value == str(tmp_path / "images" / "2.png")
    assert watched.steps == {}
