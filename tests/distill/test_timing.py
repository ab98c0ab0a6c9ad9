from pathlib import Path

import pytest

from labelloop.data.parts import parts_of, whole
from labelloop.data.view_settings import GeometryConfig
from labelloop.distill.timing import px_per_view, read_px_per_part
from labelloop.project.project import ImageRecord


def images_of_sides(*sides: int) -> list[ImageRecord]:
    return [
        ImageRecord(i, Path(), "", (side, side), "train", None, 0, -1, None, "0")
        for i, side in enumerate(sides, 1)
    ]


def test_views_cost_the_same_of_whatever_size_the_parts_are_that_they_are_cut_from():
    config = GeometryConfig(crop_px=256, zoom=(0.5, 2.0))
    small, large = ([whole(image) for image in images_of_sides(side, side)] for side in (512, 1024))
    assert px_per_view(small, config) == px_per_view(large, config) == pytest.approx(256**2, rel=0.01)
    tiny = [whole(image) for image in images_of_sides(64)]
    assert 64**2 < px_per_view(tiny, config) < 128**2  # all of the image, by the zoom


def test_the_reading_of_a_field_is_shared_by_its_parts_that_are_labelled():
    images = images_of_sides(1000, 100, 100)
    parts = parts_of(images, side_px=100)
    assert read_px_per_part(parts) == (1000**2 + 2 * 100**2) / 102
    assert read_px_per_part(parts[:5]) == 1000**2 / 5
    assert read_px_per_part(parts[-2:]) == 100**2  # of images that are one part it is their own
