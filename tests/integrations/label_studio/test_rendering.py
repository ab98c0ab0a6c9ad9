"""The pictures that people see are of the image that was added."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.errors import ImageError
from labelloop.instances import Instances
from labelloop.integrations.label_studio.rendering import task_pictures
from labelloop.project.project import ImageRecord
from labelloop.review.tiles import whole_view


def write(path: Path, seed: int, size_hw: tuple[int, int] = (24, 32)) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size_hw, np.uint8)).save(path)
    return path


@pytest.fixture(params=["x.png", "x.tif"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> ImageRecord:
    path = write(tmp_path / request.param, 0)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRecord(1, path, path.name, (24, 32), "train", None, 0, -1, None, sha256)


def pictures(image: ImageRecord) -> list[bytes]:
    return task_pictures(image, [whole_view(Instances(size_hw=image.size_hw)).tile])


def test_a_picture_is_made_of_the_image_that_was_added(image: ImageRecord) -> None:
    assert len(pictures(image)) == 1


@pytest.mark.parametrize("size_hw", [(24, 32), (25, 32)])
def test_no_picture_is_made_of_a_file_that_has_changed(image: ImageRecord, size_hw: tuple[int, int]) -> None:
    write(image.path, 1, size_hw)
    with pytest.raises(ImageError, match="the file has changed since it was added"):
        pictures(image)


def test_no_picture_is_made_of_a_file_that_replaced_the_image(image: ImageRecord) -> None:
    with pytest.raises(ImageError, match="was replaced by another file"):
        pictures(image._replace(replaced=True))
