"""Which images can be shown to a person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.budget.sendable import reading_fault
from labelloop.project.adding import add_images
from labelloop.project.config import ProjectConfig
from labelloop.project.project import ImageRecord, Project


def write(path: Path, seed: int, size_hw: tuple[int, int] = (24, 32)) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size_hw, np.uint8)).save(path)


@pytest.fixture
def image(tmp_path: Path) -> ImageRecord:
    project = Project.init(tmp_path / "project", ProjectConfig(name="p"))
    write(tmp_path / "a.png", 0)
    add_images(project, [str(tmp_path / "a.png")])
    return project.images()[0]


def test_an_image_that_is_there_has_no_fault(image: ImageRecord) -> None:
    assert reading_fault(image) is None


@pytest.mark.parametrize("size_hw", [(24, 32), (24, 31)])
def test_a_file_that_has_changed_is_not_shown_with_what_a_model_saw_before(
    image: ImageRecord, size_hw: tuple[int, int]
) -> None:
    write(image.path, 1, size_hw)
    assert reading_fault(image) == f"the file has changed since it was added: {image.path}"


def test_a_file_that_is_gone_is_named(image: ImageRecord) -> None:
    image.path.unlink()
    assert str(image.path) in str(reading_fault(image))
