"""Which files are images, told by their names and folders alone: the files are empty."""

from __future__ import annotations

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
    reasons = {str(Path(each.path).relative_to(here)): each.reason for each in files.skipped}
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
