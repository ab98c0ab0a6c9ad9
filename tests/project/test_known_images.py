"""Which images a file is: by its content, whatever its path, its page or the name of its channel."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from labelloop.instances import Instances
from labelloop.project.adding import AddReport, LabelSource, add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, LabelRow

H, W = 24, 32


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.init(tmp_path / "project", ProjectConfig(name="p", classes=("organoid",)))


def stack(path: Path, *, seed: int = 0, pages: int = 3, channels: int = 2) -> Path:
    """A gray stack with so many pages and channels."""
    path.parent.mkdir(exist_ok=True)
    planes = np.random.default_rng(seed).integers(0, 256, (pages, channels, H, W)).astype(np.uint8)
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "ZCYX"}, ome=True)
    return path


def colours(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (H, W, 3), np.uint8)).save(path)
    return path


def planes(project: Project) -> list[tuple[int, int]]:
    return [(image.page, image.channel) for image in project.images()]


def labels(folder: Path) -> str:
    """A COCO file for mc.tif with one square."""
    square = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 9, 2, 9, 9, 2, 9]]}
    images = [{"id": 1, "file_name": "mc.tif", "width": W, "height": H}]
    document = {"images": images, "annotations": [square], "categories": [{"id": 1, "name": "organoid"}]}
    (folder / "labels.json").write_text(json.dumps(document))
    return str(folder / "labels.json")


# --- folders that moved


def test_all_pages_and_channels_of_a_moved_file_are_found_again(project: Project, tmp_path: Path) -> None:
    path = stack(tmp_path / "a" / "mc.tif")
    for page, channel in [(0, 1), (2, 1), (1, None)]:
        add_images(project, [str(path)], page=page, channel=channel)
    (tmp_path / "a").rename(tmp_path / "b")
    report = add_images(project, [str(tmp_path / "b")])
    assert (report.added, report.known) == (0, 1)
    assert planes(project) == [(0, 1), (2, 1), (1, -1)]
    assert {image.path for image in project.images()} == {tmp_path / "b" / "mc.tif"}


def test_adding_a_moved_folder_again_still_adds_nothing(project: Project, tmp_path: Path) -> None:
    add_images(project, [str(stack(tmp_path / "a" / "mc.tif"))], channel=1)
    (tmp_path / "a").rename(tmp_path / "b")
    for _ in range(2):
        assert add_images(project, [str(tmp_path / "b")]).added == 0
    assert planes(project) == [(0, 1)]


def test_a_page_or_channel_that_is_asked_for_is_added_of_a_moved_file_too(
    project: Project, tmp_path: Path
) -> None:
    add_images(project, [str(stack(tmp_path / "a" / "mc.tif"))], channel=1)
    (tmp_path / "a").rename(tmp_path / "b")
    assert add_images(project, [str(tmp_path / "b")], page=0).added == 1
    assert planes(project) == [(0, 1), (0, -1)]
    assert {image.path for image in project.images()} == {tmp_path / "b" / "mc.tif"}


def test_labels_find_all_pages_of_a_moved_file_too(project: Project, tmp_path: Path) -> None:
    path = stack(tmp_path / "a" / "mc.tif")
    for page in (1, 2):
        add_images(project, [str(path)], page=page)
    (tmp_path / "a").rename(tmp_path / "b")
    assert add_labels(project, LabelSource(path=labels(tmp_path / "b")), page=2).revised == 1
    assert {image.path for image in project.images()} == {tmp_path / "b" / "mc.tif"}


def test_all_pages_of_a_known_file_get_its_group(project: Project, tmp_path: Path) -> None:
    path = stack(tmp_path / "a" / "mc.tif")
    for page in (1, 2):
        add_images(project, [str(path)], page=page)
    add_images(project, [str(path)], group_by="folder")
    assert [image.group for image in project.images()] == ["a", "a"]


# --- the first channel


@pytest.mark.parametrize("first", [None, 0])
@pytest.mark.parametrize("then", [None, 0])
def test_the_first_channel_of_a_gray_stack_is_one_image(
    project: Project, tmp_path: Path, first: int | None, then: int | None
) -> None:
    path = stack(tmp_path / "data" / "mc.tif")
    assert add_images(project, [str(path)], channel=first).added == 1
    assert add_images(project, [str(path)], channel=then).added == 0
    assert planes(project) == [(0, -1)]


def test_the_first_channel_of_a_labelled_stack_is_no_image_of_the_pool(
    project: Project, tmp_path: Path
) -> None:
    path = stack(tmp_path / "data" / "mc.tif")
    add_labels(project, LabelSource(path=labels(path.parent)), split="test")
    assert add_images(project, [str(path)], channel=0).added == 0
    assert [(image.split, image.channel) for image in project.images()] == [("test", -1)]


def test_gray_beside_transparency_is_the_whole_image(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "la.png"
    Image.fromarray(np.full((H, W, 2), 7, np.uint8), "LA").save(path)
    assert add_images(project, [str(path)], channel=0).added == 1
    assert add_images(project, [str(path)]).known == 1
    assert planes(project) == [(0, -1)]


def test_red_is_another_image_than_all_colours(project: Project, tmp_path: Path) -> None:
    path = colours(tmp_path / "rgb.png")
    assert add_images(project, [str(path)]).added == 1
    assert add_images(project, [str(path)], channel=0).added == 1
    assert planes(project) == [(0, -1), (0, 0)]


@pytest.mark.parametrize("both", [False, True])
def test_an_older_ledger_that_holds_the_first_channel_as_channel_0_keeps_it(
    project: Project, tmp_path: Path, *, both: bool
) -> None:
    path = stack(tmp_path / "data" / "mc.tif")
    add_images(project, [str(path)])
    with project.ledger.write() as session:
        row = session.get_one(ImageRow, 1)
        row.channel = 0
        if both:
            session.add(
                ImageRow(sha256=row.sha256, path=row.path, file_name=row.file_name, height=H, width=W)
            )
    for channel in (None, 0):
        report = add_images(project, [str(path)], channel=channel)
        assert (report.added, report.known) == (0, 1)
        report = add_labels(project, LabelSource(path=labels(path.parent)), channel=channel, split="test")
        assert (report.added, report.revised + report.known) == (0, 1)
    assert planes(project) == [(0, 0), (0, -1)][: 1 + both]
    assert {image.split for image in project.images()} == {"test"}
    assert len(project.images(labelled=True)) == 1


def test_labels_of_the_first_channel_stay_one_where_an_older_ledger_has_it_twice(
    project: Project, tmp_path: Path
) -> None:
    path = stack(tmp_path / "data" / "mc.tif")
    add_images(project, [str(path)])
    with project.ledger.write() as session:
        row = session.get_one(ImageRow, 1)
        twin = ImageRow(
            sha256=row.sha256, path=row.path, file_name=row.file_name, height=H, width=W, channel=0
        )
        session.add(twin)
        session.flush()
        nothing = encode_instances(Instances(size_hw=(H, W)))
        session.add(LabelRow(image_id=twin.id, revision=1, source="x", n_objects=0, instances=nothing))
    report = add_labels(project, LabelSource(path=labels(path.parent)))
    assert (report.added, report.revised) == (0, 1)
    assert [image.channel for image in project.images(labelled=True)] == [0]


# --- links


def test_a_project_that_is_reached_by_a_link_finds_its_images_after_it_moved(
    project: Project, tmp_path: Path
) -> None:
    path = stack(project.root / "data" / "mc.tif")
    (tmp_path / "link").symlink_to(project.root)
    add_images(project, [str(tmp_path / "link" / "data")])
    moved = Project.open(project.root.rename(tmp_path / "moved"))
    assert [image.path for image in moved.images()] == [tmp_path / "moved" / "data" / path.name]


def test_a_project_that_is_opened_by_a_link_finds_its_images_after_it_moved(
    project: Project, tmp_path: Path
) -> None:
    stack(project.root / "data" / "mc.tif")
    (tmp_path / "link").symlink_to(project.root)
    add_images(Project.open(tmp_path / "link"), [str(project.root / "data")])
    moved = Project.open(project.root.rename(tmp_path / "moved"))
    assert [image.path for image in moved.images()] == [tmp_path / "moved" / "data" / "mc.tif"]


def test_a_link_in_the_project_to_a_file_elsewhere_is_kept_as_a_link(
    project: Project, tmp_path: Path
) -> None:
    target = stack(tmp_path / "data" / "mc.tif")
    (project.root / "mc.tif").symlink_to(target)
    (tmp_path / "link").symlink_to(project.root)
    add_images(project, [str(tmp_path / "link" / "mc.tif")])
    with project.ledger.read() as session:
        assert session.get_one(ImageRow, 1).path == "mc.tif"


# --- reading


def test_no_file_is_read_while_the_ledger_is_locked(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stack(tmp_path / "a" / "mc.tif")
    add_images(project, [str(path)])
    copy = tmp_path / "b" / "mc.tif"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    path.touch()  # it may have been written since
    digest = hashlib.file_digest
    read: list[str] = []

    def beside_another_command(opened: Any, name: str) -> Any:
        other = sqlite3.connect(project.root / ".labelloop" / "ledger.db", timeout=0)
        other.execute("BEGIN IMMEDIATE")
        other.close()
        read.append(opened.name)
        return digest(opened, name)

    monkeypatch.setattr(hashlib, "file_digest", beside_another_command)
    assert add_images(project, [str(copy)]).known == 1
    assert add_labels(project, LabelSource(path=labels(copy.parent))).revised == 1
    assert str(path) in read
    assert {image.path for image in project.images()} == {path}


@pytest.mark.parametrize("add", ["images", "labels"])
def test_a_file_that_changes_while_it_is_read_is_skipped_and_added_the_next_time(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add: str
) -> None:
    path = stack(tmp_path / "data" / "mc.tif", pages=1)
    digest = hashlib.file_digest

    def after_another_has_written(opened: Any, name: str) -> Any:
        stack(path, seed=9, pages=2)
        return digest(opened, name)

    def act() -> AddReport:
        if add == "images":
            return add_images(project, [str(path)])
        return add_labels(project, LabelSource(path=labels(path.parent)))

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", after_another_has_written)
        report = act()
    assert [(each.path, each.reason) for each in report.skipped] == [
        (str(path), "the file changed while it was read; add it again when it is complete")
    ]
    assert project.images() == []
    assert act().added == 1
    assert project.images()[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
