from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labelloop.data.parts import image_of, parts_of, whole
from labelloop.data.pool import ImageLoader
from labelloop.errors import ImageError
from labelloop.project.project import ImageRecord


def record(image_id: int, size_hw: tuple[int, int], path: Path = Path("x.png")) -> ImageRecord:
    return ImageRecord(image_id, path, path.name, size_hw, "train", None, 0, -1, None, "0")


@given(height=st.integers(1, 900), width=st.integers(1, 900), side=st.integers(32, 400))
def test_every_pixel_is_in_exactly_one_part_and_no_part_is_much_longer_than_asked(height, width, side):
    parts = parts_of([record(7, (height, width))], side_px=side)
    seen = np.zeros((height, width), np.int8)
    for part in parts:
        top, left, rows, columns = part.window
        seen[top : top + rows, left : left + columns] += 1
        assert max(rows, columns) <= 1.5 * side + 1
    assert (seen == 1).all()
    assert len({part.id for part in parts}) == len(parts)
    assert {image_of(part.id) for part in parts} == {7}


def test_a_small_image_is_its_own_part_and_a_large_one_can_stand_beside_its_parts():
    small, large = record(1, (140, 90)), record(2, (300, 100))
    parts = parts_of([small, large], side_px=100)
    assert parts[0] == whole(small)
    assert [part.size_hw for part in parts] == [(140, 90), (100, 100), (100, 100), (100, 100)]
    assert whole(large).id not in {part.id for part in parts}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_part_is_normalised_as_its_whole_image_is(tmp_path, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (120, 260)).astype(dtype)
    pixels[:, :130] //= 4  # parts that were normalised by themselves would look alike
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = record(3, (120, 260), tmp_path / "a.png")
    left, right = parts_of([image], side_px=120)
    load = ImageLoader([whole(image), left, right], intensity_percentile=(0.5, 99.5))
    assert np.array_equal(np.concatenate([load(left.id), load(right.id)], axis=2), load(image.id))
    assert np.array_equal(load(right.id, (10, 20, 30, 40)), load(right.id)[:, 10:40, 20:60])
    assert load.size_hw(right.id) == (120, 130)


def test_windows_of_an_image_larger_than_the_memory_for_decoded_ones_are_cut_from_one_reading(tmp_path):
    images = [record(i, (120, 260), tmp_path / f"{i}.png") for i in (1, 2)]
    for image in images:
        Image.fromarray(np.full(image.size_hw, 10 * image.id, np.uint8)).save(image.path)
    load = ImageLoader(map(whole, images), intensity_percentile=(0.5, 99.5), cache_bytes=1000)
    for image in images:
        first = load(image.id, (0, 0, 10, 10))
        image.path.unlink()  # what is asked for now cannot be read again
        assert np.array_equal(load(image.id, (50, 50, 10, 10)), first)
    with pytest.raises(ImageError):
        load(1)  # it made room for the next


@pytest.fixture
def fields(tmp_path):
    """Three fields of random pixels, of ids 1 to 3."""

    def make(size_hw: tuple[int, int]) -> list[ImageRecord]:
        rng = np.random.default_rng(0)
        images = [record(i, size_hw, tmp_path / f"{i}.png") for i in (1, 2, 3)]
        for image in images:
            Image.fromarray(rng.integers(0, 255, size_hw, dtype=np.uint8)).save(image.path)
        return images

    return make


def test_parts_that_fit_are_read_once_however_large_their_fields_are(fields):
    parts = parts_of(fields((300, 400)), side_px=100)
    seen = parts[::2]
    load = ImageLoader(parts, intensity_percentile=(0.5, 99.5), cache_bytes=20 * 100 * 100)
    first = {part.id: load(part.id) for part in seen}  # as labelling goes, field by field
    for part in parts:
        part.image.path.unlink(missing_ok=True)  # what is asked for now cannot be read again
    order = np.random.default_rng(1).permutation(len(seen))
    assert all(np.array_equal(load(seen[i].id), first[seen[i].id]) for i in order)


def test_parts_of_a_field_that_are_seen_one_after_the_other_are_cut_from_one_reading(fields):
    images = fields((300, 400))
    parts = parts_of(images, side_px=100)
    load = ImageLoader(
        [*parts, whole(images[0])], intensity_percentile=(0.5, 99.5), cache_bytes=2 * 100 * 100
    )
    second = [part for part in parts if part.image == images[1]]
    first = load(second[0].id)
    images[1].path.unlink()
    for part in second[1:]:
        load(images[0].id)  # a labelled image in each step
        assert load(part.id).shape == (3, 100, 100)
    assert np.array_equal(load(second[0].id), first)


def test_whether_parts_fit_follows_from_their_pixels():
    parts = parts_of([record(1, (1000, 1000))], side_px=100)
    load = ImageLoader(parts, intensity_percentile=(0.5, 99.5), cache_bytes=10**6)
    assert load.fits([part.id for part in parts[:50]])  # of two bytes each
    assert not load.fits([part.id for part in parts[:51]])
