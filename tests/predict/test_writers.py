from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools.coco import COCO

from labelloop.errors import OutputError
from labelloop.instances import Instances
from labelloop.predict import writers
from labelloop.predict.writers import label_image, write_coco, write_label_tiff, write_overlay, written_to


def two_overlapping() -> Instances:
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 2:12, 3:13] = True
    masks[1, 7:17, 8:18] = True
    return Instances.from_dense(masks, labels=[0, 1], scores=[0.9, 0.4])


def test_coco_file_opens_in_pycocotools_and_gives_the_masks_back(tmp_path: Path) -> None:
    found = [two_overlapping(), Instances(size_hw=(8, 9), scores=np.zeros(0, np.float32))]
    images = [("a/ü 1.png", (20, 30)), ("b.png", (8, 9))]
    path = tmp_path / "predictions.json"
    assert write_coco(path, images, found.__getitem__, classes=("organoid", "debris"), info={})
    coco = COCO(str(path))
    assert [coco.imgs[i]["file_name"] for i in (1, 2)] == ["a/ü 1.png", "b.png"]
    assert (coco.imgs[1]["height"], coco.imgs[1]["width"]) == (20, 30)
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [coco.cats[a["category_id"]]["name"] for a in annotations] == ["organoid", "debris"]
    assert [a["score"] for a in annotations] == [0.9, 0.4]
    assert annotations[0]["bbox"] == [3, 2, 10, 10]
    assert annotations[0]["area"] == 100
    for annotation, mask in zip(annotations, found[0].to_dense(), strict=True):
        assert np.array_equal(coco.annToMask(annotation), mask)
    assert coco.getAnnIds(imgIds=[2]) == []


def test_predictions_are_written_with_whole_areas_short_scores_and_run_lengths(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    write_coco(path, [("ü.png", (20, 30))], lambda _: two_overlapping(), classes=("a",), info={"run": "r"})
    first = '{"size": [20, 30], "counts": "n1::00000000000000000b:"}, "bbox": [3.0, 2.0, 10.0, 10.0]'
    second = '{"size": [20, 30], "counts": "W5::00000000000000000Y7"}, "bbox": [8.0, 7.0, 10.0, 10.0]'
    assert path.read_text(encoding="utf-8") == (
        '{"info": {"run": "r"},\n"categories": [{"id": 1, "name": "a"}],\n"images": [\n'
        '{"id": 1, "file_name": "ü.png", "width": 30, "height": 20}],\n"annotations": [\n'
        f'{{"id": 1, "image_id": 1, "category_id": 1, "segmentation": {first}, '
        '"area": 100, "iscrowd": 0, "score": 0.9},\n'
        f'{{"id": 2, "image_id": 1, "category_id": 2, "segmentation": {second}, '
        '"area": 100, "iscrowd": 0, "score": 0.4}]}\n'
    )


def test_a_coco_file_that_would_be_the_same_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"

    def write(name: str) -> bool:
        return write_coco(path, [(name, (20, 30))], lambda _: two_overlapping(), classes=("a", "b"), info={})

    assert write("a.png")
    before = path.stat().st_mtime_ns
    assert not write("a.png")
    assert path.stat().st_mtime_ns == before
    assert write("b.png")
    assert json.loads(path.read_text())["images"][0]["file_name"] == "b.png"


def test_where_objects_overlap_the_pixel_goes_to_the_higher_score(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_label_tiff(path, two_overlapping(), min_score=0.05, pixel_size_um=0.5)
    labels = tifffile.imread(path)
    assert labels.dtype == np.uint16
    masks = two_overlapping().to_dense()
    assert np.array_equal(labels == 1, masks[0])
    assert np.array_equal(labels == 2, masks[1] & ~masks[0])
    with tifffile.TiffFile(path) as file:
        numerator, denominator = file.pages[0].tags["XResolution"].value
    assert numerator / denominator == pytest.approx(20_000)  # pixels per cm


def test_objects_below_the_score_are_not_in_the_label_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_label_tiff(path, two_overlapping(), min_score=0.5)
    assert set(np.unique(tifffile.imread(path))) == {0, 1}


def test_more_objects_than_uint16_counts_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "_UINT16_OBJECTS", 1)
    labels = label_image(two_overlapping())
    assert labels.dtype == np.uint32
    assert set(np.unique(labels)) == {0, 1, 2}


def test_an_overlay_has_the_size_of_its_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 4000, (20, 30)).astype(np.uint16)
    write_overlay(path, pixels, two_overlapping(), min_score=0.5)
    with Image.open(path) as image:
        assert image.size == (30, 20)
        assert image.mode == "RGB"


def test_a_large_overlay_is_drawn_smaller_with_its_objects_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "OVERLAY_SIDE_PX", 100)
    mask = np.zeros((1, 250, 290), bool)
    mask[0, 91:181, 61:151] = True
    path = tmp_path / "a.png"
    write_overlay(
        path, np.zeros((250, 290), np.uint8), Instances.from_dense(mask, scores=[1.0]), min_score=0.5
    )
    drawn = np.asarray(Image.open(path)).max(axis=2)
    assert drawn.shape == (84, 97)
    drawn[:25] = 0  # the count
    rows, columns = np.nonzero(drawn)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (31, 60, 21, 50)


def test_a_write_that_fails_leaves_the_old_file_and_no_partial(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with written_to(path) as partial:
            partial.write_text("new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device"):
        fail()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_in_the_way_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "label-tiff").write_text("a file, not a folder")
    with pytest.raises(OutputError, match="cannot be written"):
        write_label_tiff(tmp_path / "label-tiff" / "a.tif", two_overlapping(), min_score=0.5)
