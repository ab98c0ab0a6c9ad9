"""Lists of labelled images: names, published files, and counted images."""

import hashlib
import json
from pathlib import Path

import pytest

from labelloop.data.label_lists import ListRequest, list_request, listed_images, read_label_list
from labelloop.errors import UsageError
from labelloop.project.project import ImageRecord


def image(number: int, path: str) -> ImageRecord:
    place = Path("/set") / path
    return ImageRecord(number, place, place.name, (64, 64), "train", None, 0, -1, None, str(number))


def no_coco_file() -> Path:
    raise AssertionError("this list counts nothing")


def named(tmp_path, text, name="list.txt"):
    (tmp_path / name).write_text(text)
    request = ListRequest(path=tmp_path / name, percent=None)
    return read_label_list(request, seed=0, coco_file=no_coco_file)


CITIES = [
    image(1, "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png"),
    image(2, "leftImg8bit/train/ulm/ulm_000002_000019_leftImg8bit.png"),
    image(3, "leftImg8bit/train/bonn/bonn_000001_000019_leftImg8bit.png"),
]


def test_the_names_of_cityscapes_labels_mean_their_images(tmp_path):
    labels = named(
        tmp_path, "ulm_000002_000019_gtFine_instanceIds.png\nbonn_000001_000019_gtFine_instanceIds.png\n"
    )
    assert listed_images(CITIES, labels) == {2, 3}


def test_names_may_have_folders_endings_comments_and_blank_lines(tmp_path):
    labels = named(tmp_path, "# mine\n\nulm\\ulm_000001_000019_leftImg8bit.png\nbonn_000001_000019\n")
    assert listed_images(CITIES, labels) == {1, 3}


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path):
    plates = [image(1, "plate 1/x.tif"), image(2, "plate 2/x.tif")]
    assert listed_images(plates, named(tmp_path, "plate 2/x.tif\n")) == {2}
    with pytest.raises(UsageError, match="fit several images"):
        listed_images(plates, named(tmp_path, "x.tif\n"))


def test_the_name_of_a_file_means_all_its_pages(tmp_path):
    pages = [image(1, "a/x.tif"), image(2, "a/x.tif")._replace(page=1, sha256="1"), image(3, "b/x.tif")]
    assert listed_images(pages[:2], named(tmp_path, "x.tif\n")) == {1, 2}
    assert listed_images(pages, named(tmp_path, "a/x.tif\n")) == {1, 2}
    with pytest.raises(UsageError, match="fit several images"):
        listed_images(pages, named(tmp_path, "x.tif\n"))


def test_an_image_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="1 of 2 images of the list are not in the train split") as caught:
        listed_images(CITIES, named(tmp_path, "bonn_000001_000019.png\nkoeln_000001_000019.png\n"))
    assert caught.value.value == "koeln_000001_000019.png"


def test_a_file_called_as_a_published_one_that_is_another_is_told(tmp_path):
    text = "ulm_000002_000019_gtFine_instanceIds.png\n"
    labels = named(tmp_path, text, "perc_5.txt")
    (note,) = labels.notes
    assert "1 image instead of 144" in note
    assert f"{hashlib.sha256(text.encode()).hexdigest()[:8]} instead of da09a92a" in note
    assert named(tmp_path, text, "mine.txt").notes == ()


def test_an_empty_list_is_refused(tmp_path):
    with pytest.raises(UsageError, match="empty"):
        named(tmp_path, "# nothing\n")


# -- lists that count ---------------------------------------------------------------------------------------


@pytest.fixture
def counted(tmp_path):
    """Five images of which four have single objects, in no order; and a reader of a list of seeds."""
    annotations = [
        {"id": n, "image_id": i, "iscrowd": int(i == 30)} for n, i in enumerate((50, 10, 30, 20, 40))
    ]
    images = [{"id": i, "file_name": f"{i:012}.jpg"} for i in (30, 50, 10, 40, 20)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations}))

    def read(shares, percent, seed=0, name="seeds.txt"):
        (tmp_path / name).write_text(json.dumps(shares))
        request = ListRequest(path=tmp_path / name, percent=percent)
        return read_label_list(request, seed=seed, coco_file=lambda: tmp_path / "coco.json")

    return read


def test_indices_count_the_images_with_single_objects_by_their_ids(counted):
    labels = counted({"50.0": {"0": [3, 0], "1": [1, 2]}}, 50)
    assert labels.names == ("000000000010.jpg", "000000000050.jpg")  # 10, 20, 40, 50: the crowd's is left out
    assert labels.notes == ()
    assert counted({"50.0": {"0": [3, 0], "1": [1, 2]}}, 50, seed=1).names == (
        "000000000020.jpg",
        "000000000040.jpg",
    )


def test_a_file_with_one_draw_serves_every_seed(counted):
    assert counted({"50.0": {"0": [1, 2]}}, 50, seed=7).names == ("000000000020.jpg", "000000000040.jpg")


def test_a_share_that_is_another_is_told(counted):
    (note,) = counted({"25.0": {"0": [0, 1, 2]}}, 25).notes
    assert note == "the list calls 3 of 4 images 25 %; they are 75.0 %"


def test_the_leaking_split_of_m_orgaquant_is_told(counted):
    notes = counted({"50.0": {"0": [0, 1]}}, 50, name="COCO_organoids_supervision_1540.txt").notes
    assert any("Subset_1" in note for note in notes)


@pytest.mark.parametrize(
    ("shares", "percent", "seed", "reason"),
    [
        pytest.param({"1.0": {"0": [0]}}, None, 0, "1%", id="no-share-named"),
        pytest.param({"1.0": {"0": [0]}, "2": {"0": [0]}}, 3.0, 0, "1%, 2%", id="no-such-share"),
        pytest.param({"1.0": {"0": [0], "1": [1]}}, 1.0, 5, "Seeds are 0, 1", id="no-such-seed"),
        pytest.param({"1.0": {"0": [4]}}, 1.0, 0, "counts to 4, but only 4", id="beyond-the-end"),
        pytest.param({"1.0": {"0": []}}, 1.0, 0, "indices", id="empty"),
        pytest.param({"1.0": {"0": [-1]}}, 1.0, 0, "indices", id="negative"),
        pytest.param({"1.0": {"0": [True]}}, 1.0, 0, "indices", id="no-number"),
        pytest.param({"one": {"0": [1]}}, 1.0, 0, "not a JSON file of shares", id="no-percent"),
    ],
)
def test_a_list_of_seeds_that_cannot_be_used_says_why(counted, shares, percent, seed, reason):
    with pytest.raises(UsageError) as caught:
        counted(shares, percent, seed)
    assert reason in str(caught.value)


def test_numbers_and_shares_are_no_files_even_where_files_are_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("15", "all", "5%", "seeds.txt"):
        Path(name).write_text("x")
    assert [list_request(text) for text in ("15", "all", "5%", "nowhere.txt")] == [None] * 4
    assert list_request("seeds.txt") == ListRequest(path=Path("seeds.txt"), percent=None)
    assert list_request("seeds.txt@0.5%") == ListRequest(path=Path("seeds.txt"), percent=0.5)


def test_a_list_of_names_has_no_shares(tmp_path):
    (tmp_path / "a.txt").write_text("x.png\n")
    with pytest.raises(UsageError, match="no shares"):
        read_label_list(ListRequest(path=tmp_path / "a.txt", percent=5.0), seed=0, coco_file=no_coco_file)
