"""Labels hold bare class indices: what these mean must not change with labelloop.toml."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.errors import ProjectError
from labelloop.instances import Instances
from labelloop.project import ledger
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import FILE_NAME, ProjectConfig, write_config
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, LabelRow
from made_records import run_record

CLASSES = ("cell", "debris", "dust")
HAVE_LABELS = ("cell", "debris")


def store_labels(project: Project, *labels: int, name: str = "a.png") -> None:
    """An image with an object of each of these class indices, as a pull stores them."""
    masks = np.zeros((len(labels), 8, 8), np.bool_)
    masks[:, :4, :4] = True
    with project.ledger.write() as session:
        image = ImageRow(sha256=name, path=name, file_name=name, height=8, width=8)
        session.add(image)
        session.flush()
        stored = encode_instances(Instances.from_dense(masks, list(labels)))
        row = LabelRow(image_id=image.id, revision=1, source="x", n_objects=len(labels), instances=stored)
        session.add(row)


def edit_classes(root: Path, *classes: str) -> None:
    write_config(root / FILE_NAME, ProjectConfig(name="p", classes=classes))


def open_with(root: Path, *classes: str) -> tuple[str, ...]:
    edit_classes(root, *classes)
    return Project.open(root).config.classes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with labels of its first two classes, opened since."""
    project = Project.init(tmp_path / "p", ProjectConfig(name="p", classes=CLASSES))
    store_labels(project, *(CLASSES.index(name) for name in HAVE_LABELS))
    Project.open(project.root)
    return project.root


@pytest.mark.parametrize(
    "classes",
    [
        pytest.param(("debris", "cell", "dust"), id="in another order"),
        pytest.param(("fibre", "cell", "debris", "dust"), id="one in front"),
        pytest.param(("cell", "dirt", "dust"), id="renamed"),
        pytest.param(("cell",), id="removed at the end"),
        pytest.param(("debris", "dust"), id="removed at the front"),
        pytest.param((), id="none left"),
    ],
)
def test_a_class_with_labels_keeps_its_place_and_name(root: Path, classes: tuple[str, ...]) -> None:
    with pytest.raises(ProjectError) as raised:
        open_with(root, *classes)
    assert (", ".join(classes) or "none") in raised.value.value
    assert "cell, debris, dust" in raised.value.value
    assert "cell, debris, dust" in raised.value.way_out
    assert open_with(root, *CLASSES) == CLASSES


def test_classes_added_at_the_end_are_fine_and_keep_their_place_from_then_on(root: Path) -> None:
    assert open_with(root, *CLASSES, "fibre", "cyst") == (*CLASSES, "fibre", "cyst")
    store_labels(Project.open(root), 4, name="b.png")
    with pytest.raises(ProjectError, match="fibre, cyst"):
        open_with(root, *CLASSES, "cyst", "fibre")


def test_a_class_without_labels_may_be_renamed_and_removed(root: Path) -> None:
    assert open_with(root, "cell", "debris", "fibre") == ("cell", "debris", "fibre")
    assert open_with(root, "cell", "debris") == ("cell", "debris")
    assert open_with(root, "cell", "debris", "dust") == CLASSES


def test_once_a_model_has_learnt_the_classes_all_of_them_stay(root: Path) -> None:
    Project.open(root).save_run(run_record(state="running"))
    for classes in (("cell", "debris"), ("cell", "debris", "fibre")):
        with pytest.raises(ProjectError, match="cell, debris, dust"):
            open_with(root, *classes)
    assert open_with(root, *CLASSES, "fibre") == (*CLASSES, "fibre")


def coco_file(folder: Path) -> str:
    """An image with a cell and some debris, and their outlines."""
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "a.png")
    categories = [{"id": i, "name": name} for i, name in enumerate(HAVE_LABELS)]
    square = [[1, 1, 5, 1, 5, 5, 1, 5]]
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i, "segmentation": square} for i in range(len(categories))
        ],
        "categories": categories,
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_the_first_labels_say_what_indices_mean(tmp_path: Path) -> None:
    project = Project.init(tmp_path / "p", ProjectConfig(name="p"))
    add_labels(
        project, LabelSource(path=coco_file(tmp_path))
    )  # and nobody opens the project before the file is edited
    with pytest.raises(ProjectError, match="debris, cell, not cell, debris"):
        open_with(project.root, "debris", "cell")


def test_as_long_as_there_are_no_labels_classes_may_change(tmp_path: Path) -> None:
    project = Project.init(tmp_path / "p", ProjectConfig(name="p", classes=("cell", "debris")))
    for classes in (("debris", "cell"), ("cell",), (), ("fibre", "cell")):
        assert open_with(project.root, *classes) == classes


def forget_classes(root: Path) -> None:
    """Makes the ledger as versions before this one left it."""
    with sqlite3.connect(root / ".labelloop" / "ledger.db") as db:
        db.execute("DELETE FROM meta WHERE key LIKE '%classes'")
    db.close()


def test_a_ledger_that_does_not_say_takes_the_classes_as_they_are(root: Path) -> None:
    forget_classes(root)
    assert open_with(root, "debris", "cell") == ("debris", "cell")
    with pytest.raises(ProjectError, match="cell, debris, not debris, cell"):
        open_with(root, "cell", "debris")


def test_a_ledger_that_does_not_say_and_has_more_classes_is_no_traceback(root: Path) -> None:
    forget_classes(root)
    with pytest.raises(ProjectError, match="more classes") as raised:
        open_with(root, "cell")
    assert "all 2" in raised.value.way_out


def test_a_ledger_that_cannot_be_written_now_is_opened_all_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_classes(root)
    monkeypatch.setattr(ledger, "WAIT_FOR_LOCK_S", 0)
    with Project.open(root).ledger.write():
        forgotten = Project.open(root)
    assert forgotten.config.classes == CLASSES


def test_a_project_made_anew_around_its_ledger_names_the_same_classes(root: Path) -> None:
    (root / FILE_NAME).unlink()
    with pytest.raises(ProjectError, match="cell, debris, dust"):
        Project.init(root, ProjectConfig(name="p", classes=("debris", "cell")))
    assert not (root / FILE_NAME).exists()
    Project.init(root, ProjectConfig(name="p", classes=CLASSES))
    assert Project.open(root).config.classes == CLASSES
