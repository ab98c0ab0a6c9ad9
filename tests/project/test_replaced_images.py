"""Files that hold something else than when they were added: what becomes of the images that they were."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from labelloop.errors import UsageError
from labelloop.instances import Instances
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import LabelStudioConfig, ProjectConfig
from labelloop.project.project import Project
from labelloop.review.choice import Choice
from labelloop.review.edits import KeyedInstances
from labelloop.review.known import new_labels
from labelloop.review.packing import pack_json
from labelloop.review.pulled import PulledTask, ReadReview
from labelloop.review.records import store_pull
from labelloop.review.rounds import current_round, images_by_id, plan_round, rounds
from labelloop.review.tasks import TaskRecord, mark_sent, round_tasks
from labelloop.review.tiles import whole_view
from labelloop.status import project_status
from made_records import pulled_annotation

H, W = 24, 32
LAB = LabelStudioConfig(url="http://lab", project=1)
SERVER = "http://lab#1"


def pixels(seed: int, size_hw: tuple[int, int] = (H, W)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size_hw, np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


def coco(path: Path, names: list[str], *, at: int = 2) -> str:
    """A COCO file with one square for each of these images."""
    square = [[at, at, at + 6, at, at + 6, at + 6, at, at + 6]]
    images = [{"id": i, "file_name": name, "width": W, "height": H} for i, name in enumerate(names)]
    objects = [{"id": i, "image_id": i, "category_id": 1, "segmentation": square} for i in range(len(names))]
    document = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "organoid"}]}
    path.write_text(json.dumps(document))
    return str(path)


@dataclass(frozen=True)
class Screen:
    """A project with images 0.png to 3.png; the first two have labels."""

    project: Project
    folder: Path

    @property
    def names(self) -> list[str]:
        return [image.file_name for image in self.project.images()]

    def path(self, number: int) -> Path:
        return self.folder / f"{number}.png"

    def by_id(self, number: int) -> Any:
        return images_by_id(self.project, [number])[number]


@pytest.fixture
def screen(tmp_path: Path) -> Screen:
    project = Project.init(tmp_path / "project", ProjectConfig(name="p", classes=("organoid",)))
    for number in range(4):
        save(tmp_path / "pool" / f"{number}.png", pixels(number))
    add_labels(project, LabelSource(path=coco(tmp_path / "pool" / "labels.json", ["0.png", "1.png"])))
    add_images(project, [str(tmp_path / "pool")])
    return Screen(project=project, folder=tmp_path / "pool")


def test_another_file_of_a_path_replaces_the_image_that_lay_there(screen: Screen, watching: Any) -> None:
    save(screen.path(0), pixels(10, (H + 9, W)))
    report = add_images(screen.project, [str(screen.folder)], progress=watching)
    assert (report.added, report.known, report.replaced) == (1, 3, 1)
    assert [(i.file_name, i.size_hw[0]) for i in screen.project.images()] == [
        ("1.png", H), ("2.png", H), ("3.png", H), ("0.png", H + 9),
    ]  # fmt: skip
    assert [image.file_name for image in screen.project.images(labelled=True)] == ["1.png"]
    assert watching.told == [
        "note: 1 image was replaced by another file of the same path; what was known of it stays in the"
        " ledger, and is used no more"
    ]


def test_what_was_known_of_a_replaced_image_stays_in_the_ledger(screen: Screen) -> None:
    save(screen.path(0), pixels(10))
    add_images(screen.project, [str(screen.folder)])
    assert screen.by_id(1).replaced
    assert not screen.by_id(2).replaced
    assert len(screen.project.labels([1])[1]) == 1


def test_labels_of_another_file_of_a_path_are_not_labels_of_the_image_that_lay_there(
    screen: Screen, watching: Any
) -> None:
    save(screen.path(0), pixels(10))
    save(screen.path(1), pixels(11))
    path = coco(screen.folder / "labels.json", ["0.png", "1.png"], at=9)
    report = add_labels(screen.project, LabelSource(path=path), progress=watching)
    assert (report.added, report.revised, report.replaced) == (2, 0, 2)
    assert [told for told in watching.told if "2 images were replaced by other files" in told]
    labelled = screen.project.images(labelled=True)
    assert [(image.id, image.file_name) for image in labelled] == [(5, "0.png"), (6, "1.png")]
    assert screen.project.labels([1])[1].boxes_xywh.tolist() == [[2, 2, 6, 6]]
    assert screen.project.labels([5])[5].boxes_xywh.tolist() == [[9, 9, 6, 6]]


def test_all_pages_of_a_file_are_replaced_with_it(tmp_path: Path, screen: Screen) -> None:
    stack = save(tmp_path / "stack.tif", np.stack([pixels(20), pixels(21), pixels(22)]))
    for page in range(3):
        add_images(screen.project, [str(stack)], page=page)
    save(stack, np.stack([pixels(20), pixels(21), pixels(29)]))
    assert add_images(screen.project, [str(stack)], page=1).replaced == 3
    assert [(i.file_name, i.page) for i in screen.project.images()[4:]] == [("stack.tif", 1)]


@pytest.mark.parametrize("place", ["0.png", "elsewhere.png"])
def test_an_image_whose_file_comes_back_counts_again(screen: Screen, place: str) -> None:
    save(screen.path(0), pixels(10))
    add_images(screen.project, [str(screen.folder)])
    save(screen.folder / place, pixels(0))
    report = add_images(screen.project, [str(screen.folder)])
    assert (report.added, report.replaced) == (0, int(place == "0.png"))
    assert screen.by_id(1).path == screen.folder / place
    assert not screen.by_id(1).replaced
    assert 1 in [image.id for image in screen.project.images(labelled=True)]
    assert screen.by_id(5).replaced is (place == "0.png")


def test_an_image_is_found_where_it_was_saved_before_its_file_was_written_over(
    tmp_path: Path, screen: Screen
) -> None:
    save(tmp_path / "originals" / "0.png", pixels(0))
    save(screen.path(0), pixels(10))
    add_images(screen.project, [str(tmp_path / "originals")])
    assert add_images(screen.project, [str(screen.folder)]).replaced == 0
    labelled = [image for image in screen.project.images(labelled=True) if image.file_name == "0.png"]
    assert [image.path for image in labelled] == [tmp_path / "originals" / "0.png"]


def test_what_replaces_a_test_image_is_a_test_image_of_its_group(screen: Screen) -> None:
    labels = str(screen.folder / "labels.json")
    add_labels(screen.project, LabelSource(path=labels), split="test", group_by="folder")
    save(screen.path(0), pixels(10))
    add_images(screen.project, [str(screen.path(0))])
    [new] = [image for image in screen.project.images() if image.file_name == "0.png"]
    assert (new.split, new.group) == ("test", "pool")
    add_labels(screen.project, LabelSource(path=labels))
    assert len(screen.project.images(split="test", labelled=True)) == 2
    save(screen.path(1), pixels(11))
    add_labels(screen.project, LabelSource(path=labels), split="train")
    assert screen.project.images(split="test") == []


def test_files_that_change_their_names_among_themselves_keep_their_labels(screen: Screen) -> None:
    contents = [screen.path(number).read_bytes() for number in range(4)]
    for number, content in enumerate(contents):
        screen.path((number + 1) % 4).write_bytes(content)
    report = add_images(screen.project, [str(screen.folder)])
    assert (report.added, report.known, report.replaced) == (0, 4, 0)
    assert {i.id: i.path.name for i in screen.project.images()} == {
        1: "1.png", 2: "2.png", 3: "3.png", 4: "0.png",
    }  # fmt: skip
    assert all(image.path.name == image.file_name for image in screen.project.images())


def test_a_replaced_file_is_recognised_by_the_real_place_of_its_folder(
    tmp_path: Path, screen: Screen
) -> None:
    (tmp_path / "link").symlink_to(screen.folder)
    save(screen.path(3), pixels(10))
    assert add_images(screen.project, [str(tmp_path / "link" / "3.png")]).replaced == 1


def test_a_replacement_is_stored_with_the_act_or_not_at_all(screen: Screen) -> None:
    save(screen.path(0), pixels(10))
    with pytest.raises(UsageError, match="finds no group"):
        add_images(screen.project, [str(screen.path(0))], group_by="no such text")
    assert not screen.by_id(1).replaced
    assert len(screen.project.images()) == 4


def test_nothing_counts_replaced_images(screen: Screen) -> None:
    before = project_status(screen.project)
    assert before["images"] == {"total": 4, "labelled": 2, "unlabelled": 2, "val": 0, "test": 0}
    save(screen.path(0), pixels(10))
    save(screen.path(2), pixels(11))
    add_images(screen.project, [str(screen.folder)])
    after = project_status(screen.project)
    assert after["images"] == {"total": 4, "labelled": 1, "unlabelled": 3, "val": 0, "test": 0}
    assert (before["objects"], after["objects"]) == (2, 1)


def test_sources_of_labels_are_those_of_images_that_are_used(screen: Screen) -> None:
    save(screen.path(0), pixels(10))
    save(screen.path(1), pixels(11))
    path = coco(screen.folder / "new.json", ["0.png", "1.png"])
    add_labels(screen.project, LabelSource(path=path))
    assert screen.project.label_sources(split="train") == [f"coco:{path}"]


# --- review


def ask(project: Project, image_ids: list[int], *, sent: bool = True) -> list[TaskRecord]:
    """A round's tasks, image by image."""
    project.set_label_studio(LAB)
    choices = [
        Choice(
            image=image,
            proposed=Instances(size_hw=image.size_hw),
            views=(whole_view(Instances(size_hw=image.size_hw)),),
            confidence=image.id / 10,
            chosen=({"arm": "random", "minutes": {"value": 2.0, "low": 1.0, "high": 3.0}},),
        )
        for image in project.images()
        if image.id in image_ids
    ]
    record = plan_round(
        project, choices, run=None, which=None, server=SERVER, min_score=0.5, strategy="random"
    )
    tasks = round_tasks(project, record.id)
    if sent:
        mark_sent(project, [(task.key, task.image_id, pack_json([])) for task in tasks])
    return tasks


def answer(project: Project, task: TaskRecord) -> int:
    """Pulls an annotation of a task that says what was shown; how many images have new labels."""
    annotation = pulled_annotation(server_id=task.image_id)

    def read(_task: TaskRecord, _result: Any, shown: KeyedInstances) -> ReadReview:
        return ReadReview(objects=shown, untouched=frozenset(shown.keys))

    pulled = PulledTask(key=task.key, server_id=task.image_id, annotations=(annotation,))
    return store_pull(project, [pulled], read=read).images


def test_tasks_of_replaced_images_do_not_wait(screen: Screen) -> None:
    ask(screen.project, [3, 4])
    assert project_status(screen.project)["waiting"]["tasks"] == 2
    save(screen.path(2), pixels(10))
    add_images(screen.project, [str(screen.folder)])
    waiting = project_status(screen.project)["waiting"]
    assert (waiting["tasks"], waiting["minutes"]) == (1, 2.0)
    assert [record.unsettled for record in rounds(screen.project)] == [1]


def test_a_round_in_which_only_replaced_images_wait_is_over(screen: Screen) -> None:
    ask(screen.project, [3])
    assert current_round(screen.project, SERVER) is not None
    save(screen.path(2), pixels(10))
    add_images(screen.project, [str(screen.folder)])
    assert current_round(screen.project, SERVER) is None


def test_what_comes_back_of_a_replaced_image_is_kept_and_is_no_new_label(screen: Screen) -> None:
    replaced, other = ask(screen.project, [3, 4])
    save(screen.path(2), pixels(10))
    add_images(screen.project, [str(screen.folder)])
    assert answer(screen.project, replaced) == 1
    assert screen.project.newest_label_revisions([3]) == {3: 1}
    assert new_labels(screen.project) == 0
    assert answer(screen.project, other) == 1
    assert new_labels(screen.project) == 1
    assert [record.tasks for record in rounds(screen.project)] == [{"reviewed": 2}]
