from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from labelloop.errors import FormatError, ImageError, UsageError
from labelloop.formats.catalog import find_format, read_labels
from labelloop.formats.label_image import (
    bare_stem,
    is_named_as_labels,
    numbers_to_instances,
    read_label_images,
)
from labelloop.formats.mask_folder import read_mask_folders


def two_objects():
    numbers = np.zeros((12, 16), np.uint8)
    numbers[1:5, 2:6] = 1
    numbers[6:9, 8:15] = 2
    return numbers


def save(path: Path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.startswith(".tif"):
        tifffile.imwrite(path, pixels, **options)
    else:
        Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int32, np.int64, np.float32])
def test_label_images_of_any_depth_give_their_objects(tmp_path, dtype):
    numbers = two_objects().astype(dtype)
    numbers[numbers == 2] = 250 if dtype == np.uint8 else 40_000
    save(tmp_path / "x_masks.tif", numbers)
    (record,) = read_label_images(tmp_path).records
    assert record.instances.areas.tolist() == [16, 21]
    np.testing.assert_array_equal(record.instances.mask(1), numbers > 1)
    assert (record.image, record.by_stem) == ("x_masks.tif", True)


def test_numbers_far_apart_are_two_objects():
    numbers = two_objects().astype(np.uint32)
    numbers[numbers == 2] = 2**32 - 1
    assert len(numbers_to_instances(numbers)) == 2


@given(
    numbers=arrays(np.uint16, st.tuples(st.integers(8, 12), st.integers(8, 12)), elements=st.integers(0, 4))
)
@settings(deadline=None)
def test_painting_the_objects_gives_the_label_image_again(numbers):
    instances = numbers_to_instances(numbers)
    present = np.unique(numbers[numbers > 0])
    painted = np.zeros_like(numbers)
    for number, mask in zip(present, instances.to_dense(), strict=True):
        painted[mask] = number
    np.testing.assert_array_equal(painted, numbers)


def test_an_all_zero_label_image_is_an_image_without_objects():
    assert len(numbers_to_instances(np.zeros((9, 9), np.uint8))) == 0


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        pytest.param(two_objects().astype(np.float32) / 2, "fractions", id="fractions"),
        pytest.param(two_objects().astype(np.int16) - 1, "negative", id="negative"),
        pytest.param(np.dstack([two_objects(), two_objects(), two_objects() * 0]), "colours", id="colours"),
        pytest.param((two_objects() > 0).astype(np.uint8) * 255, "2 pieces", id="all-objects-in-one-mask"),
    ],
)
def test_pixels_that_are_no_object_numbers_are_refused(pixels, reason):
    with pytest.raises(ImageError, match=reason):
        numbers_to_instances(pixels)


@pytest.mark.parametrize("value", [1, 128])
def test_masks_of_all_objects_together_are_refused_whatever_their_number(tmp_path, value):
    many = np.zeros((20, 20), np.uint8)
    many[1::4, 1::4] = value
    save(tmp_path / "many.png", many)
    save(tmp_path / "one.png", (two_objects() == 1).astype(np.uint8) * value)
    save(tmp_path / "none.png", np.zeros((9, 9), np.uint8))
    labels = read_label_images(tmp_path)
    assert [(r.image, len(r.instances)) for r in labels.records] == [("none.png", 0), ("one.png", 1)]
    assert [s.reason for s in labels.skipped] == [
        "it is a mask of all objects together (25 pieces of one number), not a label image"
    ]


def test_an_object_in_pieces_is_one_where_other_label_images_hold_several_objects(tmp_path):
    many = np.zeros((20, 20), np.uint8)
    many[1::4, 1::4] = 1
    save(tmp_path / "many.png", many)
    save(tmp_path / "two.png", two_objects())
    assert [len(r.instances) for r in read_label_images(tmp_path).records] == [1, 2]


def test_a_broken_label_image_is_skipped_and_the_rest_goes_on(tmp_path):
    save(tmp_path / "a.png", two_objects())
    (tmp_path / "b.png").write_bytes(b"")
    labels = read_label_images(tmp_path)
    assert [record.image for record in labels.records] == ["a.png"]
    assert [(Path(s.path).name, s.reason) for s in labels.skipped] == [("b.png", "the file is empty")]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("x.png", "x"),
        ("x_mask.png", "x"),
        ("x_masks.tif", "x"),
        ("x_cp_masks.png", "x"),
        ("x_label.png", "x"),
        ("x-labels.ome.tif", "x"),
        ("x_img.jpg", "x"),
        ("x_img_masks_organoid.png", "x"),
        ("plate 1/x_seg.png", "plate 1/x"),
        ("unmask.png", "unmask"),
        ("a.b_1.tif", "a.b_1"),
    ],
)
def test_a_label_image_and_its_image_have_one_stem(name, stem):
    assert bare_stem(name) == stem
    assert is_named_as_labels(Path(name)) == any(word in name for word in ("_mask", "_cp", "label", "_seg"))


def test_where_labels_are_named_so_the_other_files_are_no_labels(tmp_path):
    save(tmp_path / "x.png", two_objects() * 100)
    save(tmp_path / "x_masks.png", two_objects())
    assert [record.image for record in read_label_images(tmp_path).records] == ["x_masks.png"]


def one_mask_each(folder: Path, value=255):
    for number in (1, 2):
        save(folder / f"{number}.png", (two_objects() == number).astype(np.uint8) * value)


@pytest.mark.parametrize("value", [1, 255])
def test_a_folder_of_masks_gives_one_object_a_mask(tmp_path, value):
    one_mask_each(tmp_path / "x", value)
    (record,) = read_mask_folders(tmp_path).records
    assert record.instances.areas.tolist() == [16, 21]
    assert record.image == "x.png"


def test_masks_in_folders_may_overlap(tmp_path):
    for number in range(2):
        mask = np.zeros((12, 16), np.uint8)
        mask[2:8, 3 + number : 9 + number] = 255
        save(tmp_path / "x" / f"{number}.png", mask)
    instances = read_mask_folders(tmp_path).records[0].instances
    assert instances.areas.tolist() == [36, 36]
    assert (instances.to_dense().sum(0) == 2).sum() == 30


def test_the_layout_of_dsb2018_is_read(tmp_path):
    save(tmp_path / "0a1b" / "images" / "0a1b.png", two_objects() * 90)
    one_mask_each(tmp_path / "0a1b" / "masks")
    (record,) = read_mask_folders(tmp_path).records
    assert record.image == "0a1b/images/0a1b.png"
    assert len(record.instances) == 2


def test_masks_that_cannot_be_used_are_skipped_with_their_reasons(tmp_path):
    one_mask_each(tmp_path / "x")
    save(tmp_path / "x" / "3.png", np.zeros((12, 16), np.uint8))
    save(tmp_path / "x" / "4.png", np.ones((12, 17), np.uint8))
    (tmp_path / "x" / "5.png").write_text("no image")
    labels = read_mask_folders(tmp_path)
    assert len(labels.records[0].instances) == 2
    assert [skipped.reason.split()[0:3] for skipped in labels.skipped] == [
        ["its", "mask", "is"],
        ["its", "size", "is"],
        ["the", "file", "is"],
    ]


@pytest.mark.parametrize("value", [1, 7, 255, 65535])
def test_masks_with_soft_edges_are_masks(tmp_path, value):
    mask = np.zeros((12, 16), np.float32 if value == 1 else np.uint16)
    mask[2:8, 2:8] = value
    if value != 7:
        mask[2, 2:8] = value * 0.7
    save(tmp_path / "x" / "masks" / "1.tif", mask)
    assert read_mask_folders(tmp_path).records[0].instances.areas.tolist() == [36]
    assert find_format(tmp_path) == "mask-folder"


@pytest.mark.parametrize(
    ("value", "dtype", "reason"),
    [
        (np.nan, np.float32, "NaN or infinite"),
        (np.inf, np.float32, "NaN or infinite"),
        (-np.inf, np.float64, "NaN or infinite"),
        (1j, np.complex64, "not real numbers"),
    ],
)
def test_masks_of_what_is_no_number_are_skipped_and_the_rest_goes_on(tmp_path, value, dtype, reason):
    one_mask_each(tmp_path / "x" / "masks")
    mask = np.zeros((12, 16), dtype)
    mask[2:8, 2:8], mask[0, 0] = 1, value
    save(tmp_path / "x" / "masks" / "9.tif", mask)
    assert find_format(tmp_path) == "mask-folder"
    labels = read_mask_folders(tmp_path)
    assert len(labels.records[0].instances) == 2
    (skipped,) = labels.skipped
    assert reason in skipped.reason


def test_a_label_image_is_never_read_as_one_mask(tmp_path):
    one_mask_each(tmp_path / "x" / "masks")
    save(tmp_path / "y" / "masks" / "1.png", (two_objects() > 0).astype(np.uint8))
    save(tmp_path / "y" / "masks" / "2.png", two_objects())
    labels = read_mask_folders(tmp_path)
    assert [record.image for record in labels.records] == ["x.png"]
    (skipped,) = labels.skipped
    assert Path(skipped.path) == tmp_path / "y" / "masks"
    assert "2.png holds the numbers of several objects (up to 2)" in skipped.reason
    assert "--format label-image" in skipped.reason


@pytest.mark.parametrize("parents", [["train", "test"], ["s1"], [""]])
@pytest.mark.parametrize("names", [("images", "masks"), ("Images", "labels"), ("raw", "gt")])
def test_folders_of_images_and_of_label_images_are_told_apart(tmp_path, parents, names):
    for parent in parents:
        for name in ("a", "b"):
            save(tmp_path / parent / names[0] / f"{name}.png", two_objects() * 100)
            save(tmp_path / parent / names[1] / f"{name}.png", two_objects())
    save(tmp_path / "preview.png", two_objects() * 100)
    labels = read_labels(tmp_path)
    assert labels.format == "label-image"
    assert {record.image for record in labels.records} == {
        (Path(parent) / names[0] / f"{name}.png").as_posix() for parent in parents for name in ("a", "b")
    }
    assert not any(file.parent.name == names[0] for file in labels.files)


def test_all_files_of_a_labels_folder_are_labels_but_for_what_cellpose_draws(tmp_path):
    for name in ("images/a.png", "images/b.png", "masks/a.png", "masks/b_cp_masks.png", "masks/b_flows.png"):
        save(tmp_path / name, two_objects())
    labels = read_label_images(tmp_path)
    assert [record.image for record in labels.records] == ["images/a.png", "images/b_cp_masks.png"]


def test_folders_of_masks_apart_from_the_images_name_the_way_out(tmp_path):
    save(tmp_path / "images" / "x.png", two_objects() * 100)
    one_mask_each(tmp_path / "masks" / "x")
    with pytest.raises(FormatError, match="--images") as caught:
        find_format(tmp_path)
    assert str(tmp_path / "masks") in caught.value.way_out
    (record,) = read_labels(tmp_path / "masks").records
    assert len(record.instances) == 2


@pytest.mark.parametrize("where", ["labels.json", "annotations/train.json"])
def test_images_beside_a_coco_file_are_no_labels(tmp_path, where):
    save(tmp_path / "x.png", two_objects() * 100)
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / "meta.json").write_text("[]")
    assert find_format(tmp_path) == "label-image"
    (tmp_path / where).write_text('{"images": [], "annotations": []}')
    with pytest.raises(FormatError, match=where) as caught:
        find_format(tmp_path)
    assert "--format label-image" in str(caught.value)
    save(tmp_path / "x_masks.png", two_objects())
    assert find_format(tmp_path) == "label-image"


def test_auto_finds_out_which_format_it_is(tmp_path):
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": []}')
    save(tmp_path / "labels" / "x.png", two_objects())
    save(tmp_path / "nested" / "plate" / "x.png", two_objects())
    one_mask_each(tmp_path / "masks" / "x")
    one_mask_each(tmp_path / "dsb" / "x" / "masks")
    save(tmp_path / "dsb" / "x" / "images" / "x.png", two_objects())
    one_mask_each(tmp_path / "beside" / "x")
    save(tmp_path / "beside" / "x.png", two_objects())
    formats = {
        "coco.json": "coco",
        "labels": "label-image",
        "labels/x.png": "label-image",
        "nested": "label-image",
        "masks": "mask-folder",
        "dsb": "mask-folder",
        "beside": "mask-folder",
    }
    assert {name: find_format(tmp_path / name) for name in formats} == formats


def test_an_unknown_format_and_a_senseless_one_name_the_formats(tmp_path):
    (tmp_path / "a.csv").write_text("x,y")
    with pytest.raises(FormatError, match=r"coco .*label-image .*mask-folder"):
        read_labels(tmp_path / "a.csv")
    with pytest.raises(FormatError, match="no annotations of a known format"):
        read_labels(tmp_path)
    with pytest.raises(FormatError, match=r"cannot be of the format coco"):
        read_labels(tmp_path, "coco")
    with pytest.raises(UsageError, match=r"no such label format.*mask-folder"):
        read_labels(tmp_path, "voc")
    with pytest.raises(FormatError, match="no such file"):
        read_labels(tmp_path / "none.json")
