from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from labelloop.data.checks import check_project
from labelloop.project.adding import add_images
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.init(tmp_path / "screen", ProjectConfig(name="p"))


def save(folder: Path, *names: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        seed = crc32(str(folder / name).encode())
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 32), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return str(folder)


def group(project: Project, *paths: object, split: str = "train") -> None:
    add_images(project, [str(path) for path in paths], group_by="folder", split=split)


def groups(project: Project, under: Path) -> dict[str, str | None]:
    return {str(image.path.relative_to(under).with_suffix("")): image.group for image in project.images()}


def test_a_folder_gives_its_name_where_no_other_has_it(project: Project, tmp_path: Path) -> None:
    save(tmp_path / "plates" / "p1", "a")
    save(tmp_path / "plates" / "p2", "b")
    group(project, tmp_path / "plates")
    assert groups(project, tmp_path) == {"plates/p1/a": "p1", "plates/p2/b": "p2"}


def test_folders_of_one_name_are_groups_of_their_own(project: Project, tmp_path: Path) -> None:
    for plate in ("p1", "p2"):
        for well in ("A01", "A02"):
            save(tmp_path / "plates" / plate / well, "x")
    group(project, tmp_path / "plates")
    assert groups(project, tmp_path) == {
        f"plates/{plate}/{well}/x": f"{plate}/{well}" for plate in ("p1", "p2") for well in ("A01", "A02")
    }


def test_folders_of_one_name_in_two_splits_are_no_leak(project: Project, tmp_path: Path) -> None:
    for split in ("train", "test"):
        group(project, save(tmp_path / split / "images", f"{split} 1", f"{split} 2"), split=split)
    assert groups(project, tmp_path) == {
        "train/images/train 1": "images",
        "train/images/train 2": "images",
        "test/images/test 1": "test/images",
        "test/images/test 2": "test/images",
    }
    assert "leak" not in {found.kind for found in check_project(project).findings}


def test_a_folder_keeps_its_name_however_it_is_named_again(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "p1" / "A01", tmp_path / "p2" / "A01"
    group(project, save(one, "a"))
    group(project, save(two, "b"))
    save(one, "c")
    save(two, "d")
    group(project, one / "*.png", two / "*.png")
    save(one, "e")
    save(two, "f")
    monkeypatch.chdir(two)
    group(project, "../../p1", ".")
    save(two, "g")
    (tmp_path / "link").symlink_to(two)
    group(project, tmp_path / "link" / "g.png")
    named = [(image.file_name[0], image.group) for image in project.images()]
    assert {name for name, of in named if of == "A01"} == set("ace")
    assert {name for name, of in named if of == "p2/A01"} == set("bdfg")


def test_a_folder_of_copies_joins_the_group_that_the_copies_got(project: Project, tmp_path: Path) -> None:
    add_images(project, [save(tmp_path / "all", "a", "b")])
    (tmp_path / "sorted" / "p1").mkdir(parents=True)
    (tmp_path / "sorted" / "p1" / "a.png").write_bytes((tmp_path / "all" / "a.png").read_bytes())
    group(project, tmp_path / "sorted")
    group(project, save(tmp_path / "sorted" / "p1", "new"))
    assert groups(project, tmp_path) == {"all/a": "p1", "all/b": None, "sorted/p1/new": "p1"}


def test_a_folder_that_was_moved_stays_one_group(project: Project, tmp_path: Path) -> None:
    group(project, save(tmp_path / "here" / "A01", "a", "b"))
    (tmp_path / "here").rename(tmp_path / "there")
    save(tmp_path / "there" / "A01", "c")
    group(project, tmp_path / "there")
    assert set(groups(project, tmp_path).values()) == {"A01"}


def as_older_versions(project: Project) -> None:
    """Groups are the last names of folders."""
    with project.ledger.write() as session:
        for row in session.scalars(select(ImageRow)):
            row.group = Path(row.path).parent.name


def test_more_images_join_the_group_that_an_older_version_made(
    project: Project, tmp_path: Path, watching: Any
) -> None:
    group(project, save(tmp_path / "plates" / "p1", "a"))
    as_older_versions(project)
    add_images(project, [save(tmp_path / "plates" / "p1", "b")], group_by="folder", progress=watching)
    assert set(groups(project, tmp_path).values()) == {"p1"}
    assert watching.told == []


def test_folders_that_shared_a_group_in_an_older_version_part_whole_and_it_is_said(
    project: Project, tmp_path: Path, watching: Any
) -> None:
    group(project, save(tmp_path / "p1" / "A01", "a", "b"))
    group(project, save(tmp_path / "p2" / "A01", "c"))
    as_older_versions(project)
    save(tmp_path / "p1" / "A01", "new")
    new = str(tmp_path / "p1" / "A01" / "new.png")
    add_images(project, [new], group_by="folder", progress=watching)
    named = {image.file_name: image.group for image in project.images()}
    assert named == {"a.png": "p1/A01", "b.png": "p1/A01", "new.png": "p1/A01", "c.png": "A01"}
    [told] = [note for note in watching.told if "in the groups" in note]
    assert "2 images" in told
    group(project, tmp_path / "p2")
    assert {image.file_name: image.group for image in project.images()} == named


def test_a_folder_in_a_project_that_was_renamed_stays_one_group(project: Project, tmp_path: Path) -> None:
    group(project, save(tmp_path / "other" / "data", "a"))
    group(project, save(project.root / "data", "b"))
    group(project, save(tmp_path / "other" / "deep" / "data", "c"))
    before = groups(project, tmp_path)
    moved = Project.open(project.root.rename(tmp_path / "renamed"))
    group(moved, save(moved.root / "data", "d"))
    group(moved, save(tmp_path / "other" / "data", "e"))
    after = groups(moved, tmp_path)
    assert after["renamed/data/b"] == after["renamed/data/d"] == before["screen/data/b"]
    assert after["other/data/a"] == after["other/data/e"] == before["other/data/a"]
    assert len(set(after.values())) == 3
