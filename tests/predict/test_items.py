from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from labelloop.predict.items import path_items, pool_items
from labelloop.project.adding import add_images
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two plates with equal file names, one of them for testing, and one image for validation."""
    rng = np.random.default_rng(0)
    for folder in ("plate1", "plate2", "test", "val", "other"):
        (tmp_path / folder).mkdir()
        Image.fromarray(rng.integers(0, 255, (20, 30), np.uint8)).save(tmp_path / folder / "A01.png")
    config = ProjectConfig(name="p", classes=("organoid",), pixel_size_um=0.65)
    project = Project.init(tmp_path / "project", config)
    add_images(project, [str(tmp_path / "plate1"), str(tmp_path / "plate2")])
    add_images(project, [str(tmp_path / "test")], split="test")
    add_images(project, [str(tmp_path / "val")], split="val")
    return project


def test_the_pool_is_the_train_split_with_unique_names(project: Project) -> None:
    items = pool_items(project)
    assert [item.name for item in items] == ["plate1/A01.png", "plate2/A01.png"]
    assert [item.size_hw for item in items] == [(20, 30), (20, 30)]
    assert items[0].pixel_size_um == 0.65


def test_test_images_are_there_when_named(project: Project, tmp_path: Path) -> None:
    items, skipped = path_items([str(tmp_path / "test")], project, out=tmp_path / "out")
    assert [(item.name, item.path) for item in items] == [("A01.png", tmp_path / "test" / "A01.png")]
    assert skipped == ()


def test_names_start_at_the_named_folder(project: Project, tmp_path: Path) -> None:
    items, _ = path_items([str(tmp_path)], project, out=tmp_path / "out")
    assert "plate1/A01.png" in {item.name for item in items}
    assert len({item.name for item in items}) == 5


def test_files_of_one_name_in_two_named_folders_are_told_apart(project: Project, tmp_path: Path) -> None:
    paths = [str(tmp_path / "plate1"), str(tmp_path / "other" / "A01.png")]
    items, _ = path_items(paths, project, out=tmp_path / "out")
    assert [item.name for item in items] == ["plate1/A01.png", "other/A01.png"]


def test_earlier_results_are_no_input(project: Project, tmp_path: Path) -> None:
    overlay = tmp_path / "plate1" / "masks" / "overlay" / "A01.png"
    overlay.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(overlay)
    items, _ = path_items([str(tmp_path / "plate1")], project, out=tmp_path / "plate1" / "masks")
    assert [item.name for item in items] == ["A01.png"]


def test_what_leads_nowhere_is_named(project: Project, tmp_path: Path) -> None:
    items, skipped = path_items(
        [str(tmp_path / "gone"), str(tmp_path / "val")], project, out=tmp_path / "out"
    )
    assert len(items) == 1
    assert [Path(file.path).name for file in skipped] == ["gone"]


def test_a_new_stack_is_read_like_the_projects_images(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "stacks"
    root.mkdir()
    for name in ("known", "known2", "known3", "new"):
        stack = np.random.default_rng(len(name)).integers(0, 999, (3, 20, 30)).astype(np.uint16)
        stack[0, 0, 0] = ord(name[-1])
        tifffile.imwrite(
            root / f"{name}.tif", stack, photometric="minisblack", imagej=True, metadata={"axes": "ZYX"}
        )
    own = Project.init(tmp_path / "own", ProjectConfig(name="own"))
    add_images(own, [str(root / "known*.tif")], page=2)
    items, _ = path_items([str(root / "new.tif")], own, out=tmp_path / "out")
    assert [(item.page, item.channel) for item in items] == [(2, -1)]


def test_labels_beside_the_images_are_not_predicted(project: Project, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "set" / name / "A01.png")
    items, skipped = path_items([str(tmp_path / "set")], project, out=tmp_path / "out")
    assert [item.name for item in items] == ["images/A01.png"]
    assert [file.path for file in skipped] == [str(tmp_path / "set" / "masks")]


def test_an_image_that_is_named_by_a_link_to_its_folder_is_read_as_it_was_added(tmp_path: Path) -> None:
    own = Project.init(tmp_path / "own", ProjectConfig(name="own"))
    (own.root / "data").mkdir()
    (tmp_path / "link").symlink_to(own.root)
    for number in range(3):
        planes = np.random.default_rng(number).integers(0, 999, (3, 20, 30)).astype(np.uint16)
        tifffile.imwrite(own.root / "data" / f"{number}.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    add_images(own, [str(own.root / "data" / "[01].tif")], page=2)
    add_images(own, [str(own.root / "data" / "2.tif")], page=1)
    items, _ = path_items([str(tmp_path / "link" / "data")], own, out=tmp_path / "out")
    assert [(item.name, item.page) for item in items] == [("0.tif", 2), ("1.tif", 2), ("2.tif", 1)]
    assert items[2].path == tmp_path / "link" / "data" / "2.tif"


def test_a_name_that_nothing_can_have_is_told_and_the_rest_is_predicted(
    project: Project, tmp_path: Path
) -> None:
    paths = [str(tmp_path / "test"), "A01.png " * 50]
    items, skipped = path_items(paths, project, out=tmp_path / "out")
    assert [item.path for item in items] == [tmp_path / "test" / "A01.png"]
    assert [each.reason for each in skipped] == ["it cannot be read (File name too long)"]
