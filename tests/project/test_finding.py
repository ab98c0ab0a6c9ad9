"""Which files are images, told by their names and folders alone: the files are empty."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelloop.project.finding import PREDICTIONS, find_files


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(*names: str) -> list[str]:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return list(names)


def found(here: Path, *paths: str, leave_out: tuple[str, ...] = ()) -> tuple[set[str], dict[str, str]]:
    """What is found, and the reasons why something is not; names start from the working folder."""
    files = find_files(paths, leave_out=[here / name for name in leave_out])
    reasons = {os.path.relpath(each.path, here): each.reason for each in files.skipped}
    assert len(reasons) == len(files.skipped)
    return {str(file.relative_to(here)) for file in files.files}, reasons


LAYOUTS = [
    pytest.param({"set/images/a.png"}, {"set/masks/a.png"}, {"set/masks"}, id="one name"),
    pytest.param(
        {"set/1/images/1.png", "set/2/images/2.png"},
        {"set/1/masks/m1.png", "set/1/masks/m2.png", "set/2/masks/m3.png"},
        {"set/1/masks", "set/2/masks"},
        id="a folder for each image",
    ),
    pytest.param(
        {"set/Raw/p1/a.tif", "set/b.tif"}, {"set/GT/p1/a.tif", "set/label/b.tif"}, {"set/GT", "set/label"},
        id="several",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("images", "labels", "folders"), LAYOUTS)
@pytest.mark.parametrize("way", ["set", ".", "set/**/*", "*"])
def test_folders_of_labels_beside_their_images_are_passed_over_and_said(
    here: Path, images: set[str], labels: set[str], folders: set[str], way: str
) -> None:
    made(*images, *labels)
    files, reasons = found(here, way)
    assert files == images
    assert reasons.keys() == folders
    assert all("labels of the images in" in reason for reason in reasons.values())


@pytest.mark.parametrize(("images", "labels", "folders"), LAYOUTS)
def test_a_shell_that_names_images_and_labels_means_the_images(
    here: Path, images: set[str], labels: set[str], folders: set[str]
) -> None:
    made(*images, *labels)
    files, reasons = found(here, *sorted(images | labels))
    assert files == images
    assert reasons.keys() == folders
    named = sorted({str(Path(name).parent) for name in images | labels})
    assert found(here, *named)[0] == images


def test_a_folder_of_labels_that_is_named_without_its_images_is_added(here: Path) -> None:
    made("set/images/a.png", "set/masks/a.png", "set/masks/b.png")
    assert found(here, "set/masks") == ({"set/masks/a.png", "set/masks/b.png"}, {})
    assert found(here, "set/masks/*.png") == ({"set/masks/a.png", "set/masks/b.png"}, {})
    assert found(here, "set/masks/**") == ({"set/masks/a.png", "set/masks/b.png"}, {})
    assert found(here, "set/masks/b.png") == ({"set/masks/b.png"}, {})
    assert found(here, "set", "set/masks/b.png")[0] == {"set/images/a.png", "set/masks/b.png"}
    assert found(here, "set", "set/masks")[0] == {"set/images/a.png", "set/masks/a.png", "set/masks/b.png"}


def test_folders_named_as_labels_without_images_beside_them_are_images(here: Path) -> None:
    made("plates/masks/a.png", "plates/other/b.png")
    assert found(here, "plates") == ({"plates/masks/a.png", "plates/other/b.png"}, {})


def test_a_folder_of_labels_in_which_no_image_lies_needs_no_word(here: Path) -> None:
    made("set/images/a.png", "set/labels/a.txt")
    assert found(here, "set") == ({"set/images/a.png"}, {})


def test_labels_that_a_shell_names_with_their_image_are_passed_over(here: Path) -> None:
    made("plates/a.png")
    names = made("plates/a.tif", "plates/a_cp_masks.tif", "plates/b_masks.tif")
    files, reasons = found(here, *names)
    assert files == {"plates/a.tif", "plates/b_masks.tif"}
    assert "labels of a.tif" in reasons["plates/a_cp_masks.tif"]
    assert found(here, "plates/a_cp_masks.tif") == ({"plates/a_cp_masks.tif"}, {})
    assert (
        "labels of a.png" in found(here, "plates/a.png", "plates/a_cp_masks.tif")[1]["plates/a_cp_masks.tif"]
    )


@pytest.mark.parametrize("pattern", ["**/*.tif", "**/*", "*", "**"])
def test_patterns_pass_over_what_predict_has_written_and_what_is_left_out(here: Path, pattern: str) -> None:
    made("plates/p1/a.tif", "runs/r1/test.tif", f"plates/masks/{PREDICTIONS}.db")
    made("plates/masks/label-tiff/a.tif", "plates/masks/overlay/a.tif")
    files, reasons = found(here, pattern, leave_out=("runs",))
    assert files == {"plates/p1/a.tif"}
    assert reasons.keys() == {"plates/masks/label-tiff", "plates/masks/overlay"}
    assert set(reasons.values()) == {"it holds results of labelloop predict"}


@pytest.mark.parametrize("way", ["plates", "plates/*.tif", "plates/**/*.tif"])
def test_images_may_lie_in_the_folder_that_results_go_to(here: Path, way: str) -> None:
    made("plates/a.tif", "plates/label-tiff/a.tif")
    assert found(here, way, leave_out=("plates", "plates/label-tiff")) == ({"plates/a.tif"}, {})


def test_results_of_predict_that_are_named_are_added(here: Path) -> None:
    made(f"masks/{PREDICTIONS}.db", "masks/label-tiff/a.tif")
    assert found(here, "masks/label-tiff") == ({"masks/label-tiff/a.tif"}, {})
    assert found(here, "masks/label-tiff/*.tif") == ({"masks/label-tiff/a.tif"}, {})


def test_a_pattern_finds_files_in_a_working_folder_whose_name_looks_like_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made("plate [1]/a/x.png")
    monkeypatch.chdir("plate [1]")
    assert found(here, "*/x.png")[0] == {"plate [1]/a/x.png"}


@pytest.mark.parametrize("way", [".", "link", "way", "link/*", "*"])
@pytest.mark.parametrize("left_out", ["screen/runs", "link/runs"])
def test_what_is_left_out_is_left_out_by_whatever_links_it_is_reached(
    here: Path, way: str, left_out: str
) -> None:
    made("screen/data/b.png", "screen/runs/r1/test.png")
    Path("link").symlink_to("screen")
    Path("way").symlink_to(here / "screen")
    files, reasons = found(here, way, leave_out=(left_out,))
    assert {Path(file).name for file in files} == {"b.png"}
    assert reasons == {}


def test_a_name_that_nothing_can_have_is_skipped_and_the_rest_is_found(here: Path) -> None:
    [name] = made("a.png")
    Path("loop.png").symlink_to("loop.png")
    files = find_files([name, "", "b.png " * 50, "loop.png"])
    assert [file.name for file in files.files] == ["a.png"]
    assert [each.reason for each in files.skipped] == [
        "there is no such file or folder",
        "it cannot be read (File name too long)",
        "it cannot be read (Too many levels of symbolic links)",
    ]


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder of somebody who is not root, who may read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        monkeypatch.chdir(folder)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            for child in folder.iterdir():
                child.chmod(0o700)


def test_an_image_that_is_named_in_a_folder_that_cannot_be_listed_is_found(guarded: Path) -> None:
    names = made("plates/a.png", "plates/a_masks.png")
    (guarded / "plates").chmod(0o300)
    assert found(guarded, *names) == (set(names), {})


def test_what_may_not_be_looked_at_is_skipped_and_the_rest_is_found(guarded: Path) -> None:
    names = made("plates/a.png", "others/b.png")
    (guarded / "plates").chmod(0o600)
    assert found(guarded, *names) == (
        {"others/b.png"}, {"plates/a.png": "it cannot be read (Permission denied)"}
    )  # fmt: skip
    assert found(guarded, "*/*.png")[0] == set(names)  # reading tells why not
