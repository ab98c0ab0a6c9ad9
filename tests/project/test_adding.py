import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from sqlalchemy import func, select

from labelloop.errors import FormatError, ProjectError, UsageError
from labelloop.predict.store import STORE_NAME
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import LabelStudioConfig, ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, LabelRow
from labelloop.whole_files import partial_of

NO_IMAGE = "the file is not a PNG, JPEG or TIFF image; export .czi, .nd2 or .lif as TIFF, for example in Fiji"

H, W = 24, 32


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (H, W), np.uint8)


def save(path: Path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.startswith(".tif"):
        tifffile.imwrite(path, array, photometric="minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.fixture
def project(tmp_path):
    return Project.init(tmp_path / "project", ProjectConfig(name="p", classes=("organoid",)))


@pytest.fixture
def pool(tmp_path):
    for i in range(4):
        save(tmp_path / "pool" / f"{i}.png", pixels(i))
    return tmp_path / "pool"


def square(x, y, side=6):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def coco(path: Path, objects, *, categories=("organoid",), size_hw=(H, W)):
    """A COCO file; ``objects`` is {file name: [(segmentation, category number from 1), ...]}."""
    images = [
        {"id": i, "file_name": name, "width": size_hw[1], "height": size_hw[0]}
        for i, name in enumerate(objects)
    ]
    annotations = [
        {"id": 100 * i + j, "image_id": i, "category_id": category, "segmentation": segmentation}
        for i, name in enumerate(objects)
        for j, (segmentation, category) in enumerate(objects[name])
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [{"id": i, "name": name} for i, name in enumerate(categories, start=1)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": names}))
    return str(path)


def counts(project):
    """Rows of images and of label revisions, by a connection of its own."""
    with Project.open(project.root).ledger.read() as session:
        return tuple(
            session.scalar(select(func.count()).select_from(table)) for table in (ImageRow, LabelRow)
        )


def reasons(report):
    return {Path(skipped.path).name: skipped.reason for skipped in report.skipped}


# --- images


def test_images_of_a_folder_are_added_once_and_known_afterwards(project, pool):
    first = add_images(project, [str(pool)])
    again = add_images(project, [str(pool)])
    assert (first.added, first.known, first.skipped) == (4, 0, ())
    assert (again.added, again.known) == (0, 4)
    records = project.images()
    assert [record.file_name for record in records] == ["0.png", "1.png", "2.png", "3.png"]
    assert {(r.size_hw, r.split, r.page, r.channel, r.group) for r in records} == {
        ((H, W), "train", 0, -1, None)
    }


def test_one_content_under_two_names_is_one_image(project, pool):
    save(pool / "copy.png", pixels(0))
    report = add_images(project, [str(pool)])
    assert (report.added, report.known) == (4, 1)


def states(report):
    return [(Path(file.path).name, file.state) for file in report.files]


def test_each_file_that_could_be_used_is_listed_with_what_became_of_it(project, pool):
    (pool / "1.png").write_bytes(b"")
    first = add_images(project, [str(pool)])
    assert states(first) == [("0.png", "added"), ("2.png", "added"), ("3.png", "added")]
    save(pool / "1.png", pixels(2))  # the content of another
    save(pool / "4.png", pixels(4))
    again = add_images(project, [str(pool)])
    assert states(again) == [(f"{i}.png", "known") for i in range(4)] + [("4.png", "added")]
    assert (again.added, again.known) == (1, 4)
    assert all(Path(file.path).is_file() for file in again.files)


def test_each_file_whose_labels_could_be_used_is_listed_with_what_became_of_it(project, pool):
    objects = {"0.png": [(square(2, 2), 1)], "1.png": [], "gone.png": []}
    add_images(project, [str(pool / "1.png")])
    first = add_labels(project, LabelSource(path=coco(pool / "labels.json", objects)))
    assert states(first) == [("0.png", "added"), ("1.png", "revised")]
    objects["0.png"] = [(square(9, 9), 1)]
    again = add_labels(project, LabelSource(path=coco(pool / "labels.json", objects)))
    assert states(again) == [("0.png", "revised"), ("1.png", "known")]
    assert (again.added, again.revised, again.known) == (0, 1, 1)


def test_what_is_no_image_by_its_name_is_passed_over_in_a_folder(project, pool):
    for name in ("notes.txt", "labels.json", ".DS_Store", "Thumbs.db", "._0.png", ".hidden/9.png"):
        (pool / name).parent.mkdir(exist_ok=True)
        (pool / name).write_text("no image")
    report = add_images(project, [str(pool), str(pool / "*")])
    assert (report.added, report.skipped) == (4, ())


@pytest.mark.parametrize("pattern", ["", "*"])
def test_what_is_named_as_labels_of_an_image_beside_it_is_left_out_and_said(project, tmp_path, pattern):
    folder = tmp_path / "cellpose"
    names = ("x_img.tif", "x_img_cp_masks.tif", "x_img_flows.tif", "x_img_cp_output.png", "y.png", "y_GT.png")
    for i, name in enumerate((*names, "z_masks.png", "z_seg.png", "cell flows.png")):
        save(folder / name, pixels(i))
    report = add_images(project, [str(folder / pattern)])
    added = [record.file_name for record in project.images()]
    assert added == ["cell flows.png", "x_img.tif", "y.png", "z_masks.png", "z_seg.png"]
    assert set(reasons(report)) == set(names) - {"x_img.tif", "y.png"}
    assert "labels of x_img.tif" in reasons(report)["x_img_flows.tif"]
    assert add_images(project, [str(folder / "y_GT.png"), str(folder)]).added == 1


def test_a_file_that_is_named_is_not_passed_over(project, pool):
    (pool / "notes.txt").write_text("no image")
    report = add_images(project, [str(pool / "notes.txt"), str(pool / "0.png"), "nowhere", "no*thing.png"])
    assert report.added == 1
    assert reasons(report) == {
        "notes.txt": NO_IMAGE,
        "nowhere": "there is no such file or folder",
        "no*thing.png": "no file matches this pattern",
    }


def test_bad_files_are_named_with_their_reasons_and_the_rest_goes_on(project, pool):
    good = (pool / "0.png").read_bytes()
    (pool / "zero.png").write_bytes(b"")
    (pool / "truncated.png").write_bytes(good[:-30])
    (pool / "text.jpg").write_text("x,y\n1,2\n")
    (pool / "no pages.tif").write_bytes(b"II*\0\0\0\0\0")
    save(pool / "nan.tif", np.full((H, W), np.nan, np.float32))
    save(pool / "inf.tif", np.full((H, W), np.inf, np.float32))
    save(pool / "dot.png", pixels(0)[:1, :1])
    (pool / "scan.czi").write_bytes(b"ZISRAWFILE")
    (pool / "broken link.png").symlink_to(pool / "gone.png")
    report = add_images(project, [str(pool)])
    assert report.added == 4
    assert reasons(report) == {
        "zero.png": "the file is empty",
        "truncated.png": "the PNG is truncated",
        "text.jpg": NO_IMAGE,
        "no pages.tif": "the TIFF has no pages",
        "nan.tif": f"the image has pixels that are NaN or infinite ({H * W} of {H * W})",
        "inf.tif": f"the image has pixels that are NaN or infinite ({H * W} of {H * W})",
        "dot.png": "the image is too small (each side must be 8 px or more) (1 x 1 px)",
        "scan.czi": NO_IMAGE,
        "broken link.png": "the file cannot be read (No such file or directory)",
    }


def test_a_wrong_ending_does_not_matter(project, tmp_path):
    Image.fromarray(pixels(1)).save(tmp_path / "really png.jpg", "PNG")
    tifffile.imwrite(tmp_path / "really tiff.png", pixels(2))
    report = add_images(project, [str(tmp_path)])
    assert (report.added, report.skipped) == (2, ())


def test_names_with_spaces_and_letters_of_all_kinds(project, tmp_path):
    save(tmp_path / "Größe 1 µm" / "オルガノイド [2] №5.png", pixels(1))
    report = add_images(project, [str(tmp_path / "Größe 1 µm" / "オルガノイド [2] №5.png"), str(tmp_path)])
    assert (report.added, report.known, report.skipped) == (1, 0, ())
    assert project.images()[0].path.is_file()


def test_a_name_that_is_no_unicode_is_skipped_with_its_reason(project, tmp_path):
    name = os.fsencode(tmp_path / "x") + b"\xff.png"
    try:
        Path(os.fsdecode(name)).write_bytes(save(tmp_path / "pool" / "a.png", pixels(1)).read_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    report = add_images(project, [str(tmp_path)])
    assert report.added == 1
    assert [(s.path, s.reason) for s in report.skipped] == [
        (f"{tmp_path}/x\\xff.png", "its name is not Unicode text; rename it")
    ]


def test_pixel_size_and_page_and_channel_are_stored(project, tmp_path):
    stack = np.stack([pixels(i) for i in range(6)]).reshape(3, 2, H, W)
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, stack, metadata={"axes": "ZCYX", "PhysicalSizeX": 0.65})
    assert add_images(project, [str(path)]).added == 1
    assert add_images(project, [str(path)], channel=1, page=2).added == 1
    assert add_images(project, [str(path)], channel=1, page=2).known == 1
    assert [(r.page, r.channel, r.pixel_size_um) for r in project.images()] == [(0, -1, 0.65), (2, 1, 0.65)]
    assert reasons(add_images(project, [str(path)], channel=2)) == {
        path.name: "the image has no such channel (2, of 2 from 0)"
    }


def test_labels_may_be_of_a_page_and_a_channel(project, tmp_path):
    stack = np.stack([pixels(i) for i in range(6)]).reshape(3, 2, H, W)
    path = tmp_path / "images" / "stack.ome.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, stack, metadata={"axes": "ZCYX"})
    truth = coco(tmp_path / "truth.json", {path.name: [(square(2, 3), 1)]})
    assert add_labels(project, LabelSource(path=truth, images=str(path.parent))).added == 1
    assert add_labels(project, LabelSource(path=truth, images=str(path.parent)), channel=1, page=2).added == 1
    assert add_images(project, [str(path)], channel=1, page=2).known == 1
    found = project.images(labelled=True)
    assert {(r.page, r.channel) for r in found} == {(0, -1), (2, 1)}
    assert (
        add_labels(project, LabelSource(path=truth, images=str(path.parent)), page=1).added == 1
    )  # no other one's
    refused = add_labels(project, LabelSource(path=truth, images=str(path.parent)), channel=2)
    assert reasons(refused) == {path.name: "the image has no such channel (2, of 2 from 0)"}


def test_labels_find_a_file_of_which_several_pages_are_there_already(project, tmp_path):
    path = tmp_path / "images" / "stack.ome.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, np.stack([pixels(i) for i in range(3)]), metadata={"axes": "ZYX"})
    for page in range(2):
        add_images(project, [str(path)], page=page)
    source = LabelSource(path=coco(tmp_path / "labels" / "truth.json", {path.name: [(square(2, 3), 1)]}))
    for page in (None, 1, 2):
        report = add_labels(project, source, page=page)
        assert reasons(report) == {}
    assert [(r.page, r.channel) for r in project.images(labelled=True)] == [(0, -1), (1, -1), (2, -1)]


def test_the_only_channel_of_an_image_is_the_image(project, pool):
    add_images(project, [str(pool)])
    assert add_images(project, [str(pool)], channel=0).known == 4


@pytest.mark.parametrize(
    ("group_by", "groups"),
    [
        pytest.param("folder", {"plate 1", "plate 2"}, id="folder"),
        pytest.param(r"(\w)_\d", {"a", "b"}, id="bracketed-group-in-the-name"),
        pytest.param(r"[ab]_", {"a_", "b_"}, id="whole-match"),
        pytest.param(r"/plate (\d)/", {"1", "2"}, id="in-the-path"),
        pytest.param(r"a_", {"a_", None}, id="some-without"),
        pytest.param(r"^(a?)", {"a", None}, id="nothing-is-no-group"),
    ],
)
def test_groups_come_from_folders_or_names(project, tmp_path, group_by, groups):
    save(tmp_path / "plate 1" / "a_1.png", pixels(1))
    save(tmp_path / "plate 2" / "b_1.png", pixels(2))
    add_images(project, [str(tmp_path)], group_by=group_by)
    assert {record.group for record in project.images()} == groups


def test_a_known_image_gets_its_group_when_one_is_asked_for(project, pool):
    add_images(project, [str(pool)])
    add_images(project, [str(pool)], group_by="folder")
    assert {record.group for record in project.images()} == {"pool"}
    add_images(project, [str(pool)])
    assert {record.group for record in project.images()} == {"pool"}


def test_a_pattern_that_finds_nothing_in_an_image_leaves_it_its_group_and_says_so(project, pool, watching):
    add_images(project, [str(pool)], group_by="folder")
    add_images(project, [str(pool)], group_by=r"([12])\.png", progress=watching)
    assert [record.group for record in project.images()] == ["pool", "1", "2", "pool"]
    [told] = [note for note in watching.told if "--group-by" in note]
    assert "2 of 4" in told
    assert "0.png" in told


@pytest.mark.parametrize("pattern", ["plte", r"(\d*)z?$", "", "(x)?"])
def test_a_pattern_that_finds_no_group_at_all_is_refused_and_erases_none(project, pool, pattern):
    add_images(project, [str(pool / "0.png")], group_by="folder")
    truth = coco(pool / "labels.json", {"0.png": [(square(2, 2), 1)]})
    for act in (
        lambda: add_images(project, [str(pool)], group_by=pattern),
        lambda: add_labels(project, LabelSource(path=truth), group_by=pattern),
    ):
        with pytest.raises(UsageError, match="no group") as caught:
            act()
        assert caught.value.value == pattern
    assert [record.group for record in project.images()] == ["pool"]
    assert counts(project) == (1, 0)


def test_an_invalid_pattern_is_a_usage_error(project, pool):
    with pytest.raises(UsageError, match="not a regular expression"):
        add_images(project, [str(pool)], group_by="(")
    with pytest.raises(UsageError, match="no such split"):
        add_images(project, [str(pool)], split="dev")


def test_a_moved_file_is_found_again(project, pool):
    add_images(project, [str(pool)])
    pool.rename(pool.parent / "moved")
    assert add_images(project, [str(pool.parent / "moved")]).known == 4
    assert all(record.path.is_file() for record in project.images())


def test_images_named_through_a_folder_above_are_found_after_the_project_moved(project, pool, monkeypatch):
    save(project.root / "own" / "mine.png", pixels(9))
    monkeypatch.chdir(project.root)
    add_images(project, ["../pool", "../project/own"])
    deeper = project.root.parent / "archive" / "2024"
    deeper.mkdir(parents=True)
    moved = Project.open(project.root.rename(deeper / "project"))
    assert all(record.path.is_file() for record in moved.images())
    assert {record.path.name for record in moved.images()} == {*(f"{i}.png" for i in range(4)), "mine.png"}


def test_a_folder_above_a_link_is_the_one_that_the_system_means(project, pool, monkeypatch):
    (pool / "inner").mkdir()
    (project.root / "link").symlink_to(pool / "inner")
    monkeypatch.chdir(project.root)
    assert add_images(project, ["link/.."]).added == 4


def test_a_copy_elsewhere_does_not_change_the_path(project, pool, tmp_path):
    add_images(project, [str(pool)])
    save(tmp_path / "other" / "0 copy.png", pixels(0))
    add_images(project, [str(tmp_path / "other")])
    assert project.images()[0].path == pool / "0.png"


def test_links_that_lead_in_circles_end(project, pool):
    (pool / "loop").symlink_to(pool)
    assert add_images(project, [str(pool)]).added == 4


def test_pictures_of_runs_are_not_taken_into_the_pool(project):
    save(project.root / "runs" / "a" / "overlay.png", pixels(1))
    save(project.root / "data" / "x.png", pixels(2))
    add_images(project, [str(project.root)])
    assert [record.file_name for record in project.images()] == ["x.png"]


def test_pictures_of_runs_are_not_taken_by_way_of_a_link_to_the_project_either(project, tmp_path):
    save(project.root / "runs" / "a" / "overlay.png", pixels(1))
    save(project.root / "data" / "x.png", pixels(2))
    (tmp_path / "link").symlink_to(project.root)
    add_images(project, [str(tmp_path / "link")])
    add_images(Project.open(tmp_path / "link"), [str(project.root)])
    assert [record.file_name for record in project.images()] == ["x.png"]


def test_nothing_is_added_of_nothing(project, tmp_path):
    (tmp_path / "empty").mkdir()
    report = add_images(project, [str(tmp_path / "empty")])
    assert (report.added, report.known, report.skipped) == (0, 0, ())


# --- labels


def test_labels_bring_their_images(project, pool):
    path = coco(pool / "labels.json", {"0.png": [(square(2, 2), 1), (square(10, 8), 1)], "1.png": []})
    report = add_labels(project, LabelSource(path=path), split="test")
    assert (report.added, report.known, report.revised, report.objects, report.empty) == (2, 0, 0, 2, 1)
    assert [(r.file_name, r.split) for r in project.images(labelled=True)] == [
        ("0.png", "test"),
        ("1.png", "test"),
    ]
    labels = project.labels([record.id for record in project.images()])
    assert [instances.areas.tolist() for instances in labels.values()] == [[36, 36], []]


def test_the_same_labels_again_change_nothing(project, pool):
    path = coco(pool / "labels.json", {"0.png": [(square(2, 2), 1), (square(10, 8), 1)]})
    add_labels(project, LabelSource(path=path))
    before = counts(project)
    coco(pool / "labels.json", {"0.png": [(square(10, 8), 1), (square(2, 2), 1)]})  # in another order
    again = add_labels(project, LabelSource(path=path))
    assert (again.added, again.known, again.revised, again.objects) == (0, 1, 0, 0)
    assert counts(project) == before


def test_other_labels_are_the_next_revision_and_the_old_ones_stay(project, pool):
    path = coco(pool / "labels.json", {"0.png": [(square(2, 2), 1)]})
    add_labels(project, LabelSource(path=path))
    coco(pool / "labels.json", {"0.png": [(square(9, 9), 1)]})
    report = add_labels(project, LabelSource(path=path))
    assert (report.added, report.known, report.revised, report.objects) == (0, 0, 1, 1)
    (image,) = project.images()
    assert project.newest_label_revisions([image.id]) == {image.id: 2}
    assert counts(project) == (1, 2)
    assert project.labels([image.id])[image.id].boxes_xywh.tolist() == [[9, 9, 6, 6]]


def test_labels_that_name_no_image_do_not_take_those_that_are_there(project, pool):
    path = Path(coco(pool / "labels.json", {"0.png": [(square(2, 2), 1)], "1.png": [(square(9, 9), 1)]}))
    add_labels(project, LabelSource(path=str(path)))
    before = counts(project)
    document = json.loads(path.read_text())
    for annotation in document["annotations"]:
        annotation["image"] = annotation.pop("image_id")
    path.write_text(json.dumps(document))
    again = add_labels(project, LabelSource(path=str(path)))
    assert (again.known, again.revised, again.empty, len(again.skipped)) == (0, 0, 0, 4)
    assert counts(project) == before


def test_labels_for_a_pool_image_are_its_first_revision(project, pool):
    add_images(project, [str(pool)])
    report = add_labels(project, LabelSource(path=coco(pool / "labels.json", {"0.png": [(square(2, 2), 1)]})))
    assert (report.added, report.known, report.revised) == (0, 0, 1)


def test_a_split_moves_known_images_only_when_given(project, pool):
    path = coco(pool / "labels.json", {"0.png": [(square(2, 2), 1)]})
    add_images(project, [str(pool / "0.png")], split="val")
    add_labels(project, LabelSource(path=path))
    assert project.images()[0].split == "val"
    assert add_labels(project, LabelSource(path=path), split="test").moved == 1
    assert project.images()[0].split == "test"
    assert add_labels(project, LabelSource(path=path), split="test").moved == 0


def test_what_labelloop_has_written_is_no_image_of_the_pool(project, tmp_path):
    out = tmp_path / "masks"
    save(out / "overlay" / "0.png", pixels(7))
    save(out / "mine" / "overlay" / "1.png", pixels(8))
    (out / STORE_NAME).touch()
    save(project.curves_dir / "forecast.png", pixels(9))
    report = add_images(project, [str(out), str(project.root)])
    assert {image.file_name for image in project.images()} == {"1.png"}
    assert "labelloop predict" in reasons(report)["overlay"]


def test_images_are_found_by_relative_path_then_by_base_name(project, tmp_path):
    save(tmp_path / "images" / "a" / "x.png", pixels(1))
    save(tmp_path / "images" / "b" / "x.png", pixels(2))
    save(tmp_path / "images" / "b" / "y.png", pixels(3))
    objects = [(square(2, 2), 1)]
    path = coco(tmp_path / "l.json", {"a/x.png": objects, "b\\x.png": objects, "/old/y.png": objects})
    assert add_labels(project, LabelSource(path=path, images=str(tmp_path / "images"))).added == 3
    ambiguous = add_labels(
        project,
        LabelSource(path=coco(tmp_path / "m.json", {"x.png": objects}), images=str(tmp_path / "images")),
    )
    assert "several images" in reasons(ambiguous)["x.png"]


@pytest.mark.parametrize("prefix", ["", "/lab/data/"])
def test_labels_of_a_missing_image_do_not_take_the_image_of_others(project, tmp_path, prefix):
    save(tmp_path / "plate2" / "A01.tif", pixels(1))
    wrong, right = [(square(2, 2), 1)], [(square(9, 9), 1)]
    names = {f"{prefix}plate1/A01.tif": wrong, f"{prefix}plate2/A01.tif": right}
    report = add_labels(project, LabelSource(path=coco(tmp_path / "l.json", names)))
    assert (report.added, report.objects) == (1, 1)
    assert project.labels([1])[1].boxes_xywh.tolist() == [[9, 9, 6, 6]]
    (skipped,) = report.skipped
    assert skipped.path == f"{prefix}plate1/A01.tif"
    assert f"is the image of {prefix}plate2/A01.tif" in skipped.reason


def test_label_images_of_a_missing_image_do_not_take_the_image_of_others(project, tmp_path):
    save(tmp_path / "images" / "plate2" / "A01.png", pixels(1))
    label_image(tmp_path / "masks" / "plate1" / "A01.png")
    save(tmp_path / "masks" / "plate2" / "A01.png", np.eye(H, W, dtype=np.uint8))
    report = add_labels(project, LabelSource(path=str(tmp_path / "masks"), images=str(tmp_path / "images")))
    assert (report.added, report.objects) == (1, 1)
    assert "was not found" in reasons(report)["A01.png"]


def test_images_of_the_project_are_told_apart_by_their_folders(project, tmp_path):
    save(tmp_path / "plate2" / "A01.tif", pixels(2))
    add_images(project, [str(tmp_path / "plate2")])
    objects = [(square(2, 2), 1)]
    path = coco(tmp_path / "labels" / "l.json", {"plate1/A01.tif": objects, "plate2/A01.tif": objects})
    assert "plate2/A01.tif" in add_labels(project, LabelSource(path=path)).skipped[0].reason
    save(tmp_path / "plate1" / "A01.tif", pixels(1))
    add_images(project, [str(tmp_path / "plate1")])
    report = add_labels(project, LabelSource(path=path))
    assert (report.revised, report.known, report.skipped) == (1, 1, ())


def test_an_image_that_several_labels_could_mean_gets_none_of_them(project, tmp_path):
    save(tmp_path / "flat" / "A01.tif", pixels(1))
    objects = [(square(2, 2), 1)]
    path = coco(tmp_path / "flat" / "l.json", {"plate1/A01.tif": objects, "plate2/A01.tif": objects})
    report = add_labels(project, LabelSource(path=path))
    assert report.added == 0
    assert ["could as well be the image of" in skipped.reason for skipped in report.skipped] == [True, True]
    alone = add_labels(
        project, LabelSource(path=coco(tmp_path / "flat" / "one.json", {"plate1/A01.tif": objects}))
    )
    assert alone.added == 1


def test_without_a_folder_the_images_of_the_project_are_searched(project, pool, tmp_path):
    add_images(project, [str(pool)])
    path = coco(tmp_path / "elsewhere" / "l.json", {"0.png": [(square(2, 2), 1)], "no.png": []})
    report = add_labels(project, LabelSource(path=path))
    assert report.revised == 1
    assert "--images" in reasons(report)["no.png"]


def test_labels_that_do_not_fit_their_image_are_skipped(project, pool):
    path = coco(pool / "labels.json", {"0.png": [(square(2, 2), 1)]}, size_hw=(H, W + 1))
    report = add_labels(project, LabelSource(path=path))
    assert (report.added, report.objects) == (0, 0)
    assert reasons(report) == {
        "0.png": f"its labels are for {W + 1} x {H} px, but the image has {W} x {H} px"
    }


def test_the_labels_of_a_broken_image_are_skipped(project, pool):
    (pool / "0.png").write_bytes(b"")
    path = coco(pool / "labels.json", {"0.png": [(square(2, 2), 1)], "1.png": [(square(2, 2), 1)]})
    report = add_labels(project, LabelSource(path=path))
    assert report.added == 1
    assert reasons(report) == {"0.png": "the file is empty"}


def test_one_image_under_two_names_keeps_its_first_labels(project, pool):
    save(pool / "copy.png", pixels(0))
    path = coco(pool / "labels.json", {"0.png": [(square(2, 2), 1)], "copy.png": [(square(9, 9), 1)]})
    report = add_labels(project, LabelSource(path=path))
    assert (report.added, report.objects) == (1, 1)
    assert "same image as" in reasons(report)["copy.png"]
    assert "labels differ" in reasons(report)["copy.png"]


def test_a_project_without_classes_takes_those_of_the_file_in_their_order(tmp_path, pool):
    project = Project.init(tmp_path / "open", ProjectConfig(name="p"))
    path = coco(pool / "l.json", {"0.png": [(square(2, 2), 2)]}, categories=("debris", "organoid", "bubble"))
    add_labels(project, LabelSource(path=path))
    assert (
        Project.open(project.root).config.classes
        == project.config.classes
        == ("debris", "organoid", "bubble")
    )
    assert project.labels([1])[1].labels.tolist() == [1]


def test_classes_are_matched_by_name(tmp_path, pool):
    project = Project.init(tmp_path / "two", ProjectConfig(name="p", classes=("debris", "organoid")))
    path = coco(pool / "l.json", {"0.png": [(square(2, 2), 1)]}, categories=("organoid", "never used"))
    add_labels(project, LabelSource(path=path))
    assert project.labels([1])[1].labels.tolist() == [1]


def test_unknown_classes_are_named_and_nothing_is_added(project, pool):
    path = coco(pool / "l.json", {"0.png": [(square(2, 2), 2)]}, categories=("organoid", "cyst"))
    with pytest.raises(ProjectError, match=r"cyst.*labelloop\.toml") as caught:
        add_labels(project, LabelSource(path=path))
    assert caught.value.value == "cyst"
    assert counts(project) == (0, 0)


def label_image(path: Path):
    numbers = np.zeros((H, W), np.uint16)
    numbers[2:8, 2:8], numbers[10:14, 4:20] = 1, 700
    return save(path, numbers)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/x.png", "labels/x.png"),
        ("images/x.png", "labels/x_masks.tif"),
        ("images/x_img.png", "labels/x_mask.png"),
        ("images/plate/x.png", "labels/plate/x.tif"),
        ("images/x.png", "images/x_cp_masks.png"),
    ],
)
def test_label_images_find_their_images(project, tmp_path, image, label):
    save(tmp_path / image, pixels(1))
    label_image(tmp_path / label)
    report = add_labels(
        project, LabelSource(path=str(tmp_path / label.split("/")[0]), images=str(tmp_path / "images"))
    )
    assert (report.added, report.objects, report.skipped) == (1, 2, ())
    assert project.labels([1])[1].areas.tolist() == [36, 64]
    assert project.images()[0].file_name == Path(image).name


def test_a_label_image_is_never_taken_for_its_own_image(project, tmp_path):
    label_image(tmp_path / "labels" / "x.png")
    report = add_labels(project, LabelSource(path=str(tmp_path / "labels")))
    assert report.added == 0
    assert "--images" in reasons(report)["x.png"]
    save(tmp_path / "images" / "x.png", pixels(1))
    add_images(project, [str(tmp_path / "images")])
    assert add_labels(project, LabelSource(path=str(tmp_path / "labels"))).revised == 1


def test_an_image_of_the_project_is_never_its_own_label_image(project, tmp_path):
    for plate in ("a", "b"):
        save(tmp_path / plate / "x.png", pixels(ord(plate)) % 5)
    add_images(project, [str(tmp_path / "a")])
    report = add_labels(project, LabelSource(path=str(tmp_path / "a"), format="label-image"))
    assert (report.revised, report.objects) == (0, 0)
    assert "was not found" in reasons(report)["x.png"]


@pytest.mark.parametrize("way", ["images", "labels"])
def test_a_label_image_that_is_reached_by_a_link_is_never_taken_for_its_own_image(project, tmp_path, way):
    label_image(tmp_path / "data" / "x.png")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    labels, images = ("link", "data") if way == "labels" else ("data", "link")
    source = LabelSource(path=str(tmp_path / labels), images=str(tmp_path / images), format="label-image")
    assert "was not found" in reasons(add_labels(project, source))["x.png"]
    add_images(project, [str(tmp_path / images)])
    report = add_labels(project, LabelSource(path=str(tmp_path / labels), format="label-image"))
    assert (report.revised, report.known) == (0, 0)


@pytest.mark.parametrize("parents", [["train", "test"], [""]])
def test_images_added_before_get_the_label_images_of_the_folder_beside_theirs(project, tmp_path, parents):
    for parent in parents:
        save(tmp_path / "data" / parent / "images" / "x.png", pixels(len(parent)))
        label_image(tmp_path / "data" / parent / "masks" / "x.png")
    add_images(project, [str(tmp_path / "data")])
    report = add_labels(project, LabelSource(path=str(tmp_path / "data")))
    assert (report.revised, report.objects, report.skipped) == (len(parents), 2 * len(parents), ())


def test_folders_of_masks_find_their_images(project, tmp_path):
    for name in ("x", "y"):
        save(tmp_path / "data" / name / "images" / f"{name}.png", pixels(ord(name)))
        for i in range(3):
            mask = np.zeros((H, W), np.uint8)
            mask[2 + i : 9 + i, 3:9] = 255
            save(tmp_path / "data" / name / "masks" / f"{i}.png", mask)
    report = add_labels(project, LabelSource(path=str(tmp_path / "data")))
    assert (report.added, report.objects, report.skipped) == (2, 6, ())
    assert [r.file_name for r in project.images()] == ["x.png", "y.png"]


@pytest.mark.parametrize("name", ["x\udcff.json", "x\udcff/labels.json"])
def test_labels_whose_name_is_no_unicode_are_refused(project, pool, tmp_path, name):
    path = tmp_path / name
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    except OSError:
        pytest.skip("this file system takes no such name")
    coco(path, {"0.png": [(square(2, 2), 1)]})
    with pytest.raises(FormatError, match=r"not Unicode text.*x\\xff.*[Rr]ename"):
        add_labels(project, LabelSource(path=str(path), images=str(pool)))
    assert counts(project) == (0, 0)


def test_labels_without_names_need_a_project_with_one_class(tmp_path):
    save(tmp_path / "x.png", pixels(1))
    label_image(tmp_path / "x_masks.png")
    several = Project.init(tmp_path / "two", ProjectConfig(name="p", classes=("a", "b")))
    with pytest.raises(ProjectError, match="several classes"):
        add_labels(several, LabelSource(path=str(tmp_path)))
    none = Project.init(tmp_path / "none", ProjectConfig(name="p"))
    assert add_labels(none, LabelSource(path=str(tmp_path))).added == 1
    assert none.config.classes == ("object",)


def test_a_wrong_request_is_an_error_that_changes_nothing(project, pool, tmp_path):
    path = coco(pool / "l.json", {"0.png": [(square(2, 2), 1)]})
    for source, arguments in (
        ({}, {"split": "dev"}),
        ({"images": str(tmp_path / "no")}, {}),
        ({"format": "voc"}, {}),
        ({}, {"group_by": "["}),
    ):
        with pytest.raises(UsageError):
            add_labels(project, LabelSource(path=path, **source), **arguments)
    with pytest.raises(FormatError, match="no such file"):
        add_labels(project, LabelSource(path=str(tmp_path / "none.json")))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(FormatError):
        add_labels(project, LabelSource(path=str(tmp_path / "broken.json")))
    assert counts(project) == (0, 0)


# --- interruption, full disks, folders that cannot be written


class Interrupting(Silent):
    """Ctrl-C after some files."""

    def __init__(self, after):
        self.left = after

    def advance(self, steps=1, **facts):
        self.left -= steps
        if self.left <= 0:
            raise KeyboardInterrupt


def test_an_interrupt_while_reading_adds_nothing(project, pool):
    with pytest.raises(KeyboardInterrupt):
        add_images(project, [str(pool)], progress=Interrupting(2))
    path = coco(pool / "l.json", {"0.png": [(square(2, 2), 1)], "1.png": []})
    with pytest.raises(KeyboardInterrupt):
        add_labels(project, LabelSource(path=path), progress=Interrupting(1))
    assert counts(project) == (0, 0)


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.project import Project

project = Project.open(Path(sys.argv[1]))
moment = {"insert": "after_cursor_execute", "commit": "commit"}[sys.argv[3]]

def die(*args):
    if moment == "commit" or args[2].startswith("INSERT INTO label_revisions"):
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(project.ledger.engine, moment, die)
add_labels(project, LabelSource(path=sys.argv[2]))
"""


@pytest.mark.parametrize("moment", ["insert", "commit"])
def test_a_kill_in_the_transaction_adds_nothing_and_the_next_call_adds_all(tmp_path, pool, moment):
    project = Project.init(tmp_path / "project", ProjectConfig(name="p"))
    path = coco(pool / "l.json", {f"{i}.png": [(square(2, 2), 1)] for i in range(4)})
    killed = subprocess.run([sys.executable, "-c", KILLED, str(project.root), path, moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert counts(project) == (0, 0)
    report = add_labels(Project.open(project.root), LabelSource(path=path))
    assert (report.added, report.objects) == (4, 4)


def mounted(folder: Path, *commands: list[str]):
    """Runs mount commands; skips the test where they are not allowed."""
    for command in commands:
        try:
            done = subprocess.run(["mount", *command, str(folder)], capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip("mounting is not allowed here")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted(folder, ["-t", "tmpfs", "-o", "size=400k", "tmpfs"])
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_project_error_and_the_ledger_stays_whole(small_disk, tmp_path):
    project = Project.init(small_disk / "project", ProjectConfig(name="p"))
    many = tmp_path / "many"
    for i in range(60):
        save(many / f"{i:02d}.png", pixels(i))
    ragged = [(square(x, y, 3), 1) for x in range(0, W - 3, 4) for y in range(0, H - 3, 4)]
    path = coco(many / "l.json", {f"{i:02d}.png": ragged for i in range(60)})
    before = counts(project)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    for act in (
        lambda: add_labels(project, LabelSource(path=path)),
        lambda: add_images(project, [str(many)]),
    ):
        with pytest.raises(ProjectError, match=r"full|space|I/O|cannot be used|cannot be written"):
            act()
        assert counts(project) == before
        assert Project.open(project.root).config.classes == project.config.classes == ()
    filler.unlink()
    assert add_images(project, [str(many)]).added == 60
    project.ledger.engine.dispose()


def test_a_project_that_cannot_be_written_is_a_project_error(tmp_path, pool):
    project = Project.init(tmp_path / "project", ProjectConfig(name="p"))
    path = coco(pool / "l.json", {"0.png": [(square(2, 2), 1)]})
    mounted(project.root, ["--bind", str(project.root)], ["-o", "remount,ro,bind"])
    try:
        for act in (
            lambda: add_labels(project, LabelSource(path=path)),
            lambda: add_images(project, [str(pool)]),
        ):
            with pytest.raises(ProjectError, match=r"writable|can be written"):
                act()
            assert counts(project) == (0, 0)
    finally:
        project.ledger.engine.dispose()
        subprocess.run(["umount", "-l", str(project.root)], check=True)


def test_classes_are_taken_back_when_the_ledger_cannot_commit(tmp_path, pool):
    import sqlite3

    from sqlalchemy import event
    from sqlalchemy.exc import OperationalError

    project = Project.init(tmp_path / "project", ProjectConfig(name="p"))
    path = coco(pool / "l.json", {"0.png": [(square(2, 2), 1)]})

    def full(_connection):
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    event.listen(project.ledger.engine, "commit", full)
    with pytest.raises(ProjectError, match="Free space"):
        add_labels(project, LabelSource(path=path))
    event.remove(project.ledger.engine, "commit", full)
    assert Project.open(project.root).config.classes == project.config.classes == ()
    assert counts(project) == (0, 0)
    assert add_labels(project, LabelSource(path=path)).added == 1


def test_classes_that_cannot_be_written_are_not_said_to_be_there(tmp_path, pool):
    project = Project.init(tmp_path / "project", ProjectConfig(name="p"))
    path = coco(pool / "l.json", {"0.png": [(square(2, 2), 1)]})
    in_the_way = partial_of(project.root / "labelloop.toml")
    in_the_way.mkdir()
    with pytest.raises(ProjectError, match="cannot be written") as caught:
        add_labels(project, LabelSource(path=path))
    assert getattr(caught.value, "__notes__", []) == []
    with pytest.raises(OSError, match="directory"):
        project.set_label_studio(LabelStudioConfig(url="http://lab", project=1))
    assert project.config == ProjectConfig(name="p")
    in_the_way.rmdir()
    assert add_labels(project, LabelSource(path=path)).added == 1
