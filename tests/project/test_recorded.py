"""Reading images as the ledger knows them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from labelloop.errors import ChangedImageError, ImageError
from labelloop.progress import Silent
from labelloop.project.project import ImageRecord
from labelloop.project.recorded import read_recorded, read_unchanged, require_unchanged

H, W = 24, 32


def write(path: Path, *, seed: int = 0, size_hw: tuple[int, int] = (H, W), pages: int = 3) -> Path:
    planes = np.random.default_rng(seed).integers(0, 256, (pages, *size_hw), np.uint8)
    tifffile.imwrite(path, planes, photometric="minisblack")
    return path


def record(path: Path, *, page: int = 0, **changed: Any) -> ImageRecord:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRecord(1, path, path.name, (H, W), "train", None, page, -1, None, sha256)._replace(**changed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "x.tif")


@pytest.mark.parametrize("read", [read_recorded, read_unchanged])
def test_an_image_is_read_by_its_page(path: Path, read: Any) -> None:
    expected = tifffile.imread(path)[2]
    np.testing.assert_array_equal(read(record(path, page=2)).pixels, expected)


@pytest.mark.parametrize("read", [read_recorded, read_unchanged])
def test_an_image_of_another_size_has_changed(path: Path, read: Any) -> None:
    image = record(path, size_hw=(H, W + 1))
    with pytest.raises(ChangedImageError, match="it had 33 x 24 px, and has 32 x 24 px now") as caught:
        read(image)
    assert caught.value.value == str(path)
    assert "labelloop add images" in caught.value.way_out


@pytest.mark.parametrize("read", [read_recorded, read_unchanged])
def test_a_replaced_image_is_not_read(path: Path, read: Any) -> None:
    with pytest.raises(ChangedImageError, match="was replaced by another file"):
        read(record(path, replaced=True))


def test_other_content_of_the_same_size_has_changed(path: Path) -> None:
    image = record(path)
    write(path, seed=1)
    with pytest.raises(ChangedImageError, match="the file has changed since it was added"):
        read_unchanged(image)
    assert read_recorded(image).size_hw == (H, W)  # a pool is too large to look at every byte


@pytest.mark.parametrize("read", [read_recorded, read_unchanged])
def test_a_file_that_is_gone_has_not_changed(path: Path, read: Any) -> None:
    image = record(path)
    path.unlink()
    with pytest.raises(ImageError, match="cannot be read") as caught:
        read(image)
    assert not isinstance(caught.value, ChangedImageError)


def test_changed_images_are_counted_by_their_files(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}.tif", seed=number) for number in range(4)]
    images = [record(file, page=page) for file in files for page in range(3)]
    require_unchanged(images)
    for number in (1, 3):
        write(files[number], seed=9 + number, size_hw=(H, W + 1))
    with pytest.raises(ChangedImageError, match="have changed since they were added") as caught:
        require_unchanged(images)
    assert caught.value.value == f"{files[1]} and 1 more"


def test_a_file_is_read_once_whatever_its_pages_and_however_often_it_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "y.tif", seed=5)
    images = [record(file, page=page) for page in range(3)]
    read: list[str] = []
    digest = hashlib.file_digest

    def counted(opened: Any, name: str) -> Any:
        read.append(opened.name)
        return digest(opened, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    require_unchanged(images)
    require_unchanged(images)
    assert read == [str(file)]
    os.utime(file, ns=(1, 1))  # it may have been written since
    require_unchanged(images)
    assert len(read) == 2


class Counting(Silent):
    """Keeps the stages with their totals, and how far they came."""

    def __init__(self) -> None:
        self.stages: list[list[Any]] = []

    def start(self, stage: str, total: int) -> None:
        self.stages.append([stage, total, 0])

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        self.stages[-1][2] += steps


def test_files_that_are_read_to_be_compared_are_counted_and_no_others(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{number}.tif", seed=20 + number) for number in range(4)]
    images = [record(file, page=page) for file in files for page in range(3)]
    told = Counting()
    require_unchanged(images[:6], told)
    require_unchanged(images, told)
    require_unchanged(images, told)
    assert told.stages == [["checking files", 2, 2], ["checking files", 2, 2]]
    write(files[3], seed=9)
    with pytest.raises(ChangedImageError):
        require_unchanged(images, told)
    assert told.stages[2:] == [["checking files", 1, 1]]
