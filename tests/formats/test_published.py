"""Published data sets in their exact layouts, with images whose objects are known."""

import json
import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from labelloop.errors import FormatError
from labelloop.formats import ade20k, cityscapes, orgasegment, yolo
from labelloop.formats.catalog import find_format, read_labels
from labelloop.instances import Instances
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project


def new_project(tmp_path, classes=()):
    return Project.init(tmp_path / "project", ProjectConfig(name="p", classes=classes))


def stored(project, **which):
    """Labels by file name."""
    images = project.images(**which)
    labels = project.labels([image.id for image in images])
    return {image.file_name: labels[image.id] for image in images}


def same_masks(instances, discs):
    """Whether these are the discs, in any order."""
    found = sorted((m.tobytes(), int(c)) for m, c in zip(instances.to_dense(), instances.labels, strict=True))
    return found == sorted((mask.tobytes(), label) for mask, label in discs)


@pytest.mark.parametrize(
    ("name", "labels", "positions"),
    [
        ("cityscapes", "gtFine/train", {0: 0, 1: 2}),
        ("coco", "annotations/instances_train2017.json", {0: 0, 1: 1}),
        ("ade20k", "annotations_instance/training", {0: 3, 1: 8}),
        ("orgasegment", "train", {0: 0}),
        ("m-orgaquant", "annotations/instances_train.json", {0: 0}),
    ],
)
def test_every_object_of_a_published_layout_arrives_with_its_class(
    tmp_path, miniature, name, labels, positions
):
    frames = miniature(name, tmp_path / "set")
    project = new_project(tmp_path)
    images = {"coco": "train2017", "m-orgaquant": "train"}.get(name)
    report = add_labels(
        project,
        LabelSource(
            path=str(tmp_path / "set" / labels),
            format="orgasegment" if name == "orgasegment" else "auto",
            images=None if images is None else str(tmp_path / "set" / images),
        ),
    )
    assert (report.added, report.objects, report.skipped) == (5, 20, ())
    found = list(stored(project).values())
    wanted = [[(mask, positions[label]) for mask, label in discs] for discs in frames]
    for instances in found:
        objects = instances.select(~instances.crowd)
        assert sum(same_masks(objects, discs) for discs in wanted) == 1


def test_the_format_of_a_published_layout_is_recognised(tmp_path, miniature):
    for name in ("cityscapes", "ade20k", "orgasegment"):
        miniature(name, tmp_path / name)
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    formats = {
        "cityscapes/gtFine": "cityscapes",
        "cityscapes/gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png": "cityscapes",
        "ade20k/annotations_instance/training": "ade20k",
        "orgasegment/train": "label-image",  # its name for the class has to be asked for
        "yolo": "yolo",
    }
    assert {path: find_format(tmp_path / path) for path in formats} == formats


# -- Cityscapes ---------------------------------------------------------------------------------------------


def write_frame(folder, ids):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(folder / "ulm_000001_000019_gtFine_instanceIds.png")


def test_groups_are_crowds_and_stuff_is_no_object(tmp_path):
    ids = np.full((8, 12), 11, np.uint16)  # building
    ids[0:2, 0:4] = 26001  # a car
    ids[4:6, 0:4] = 26  # cars that were not told apart
    ids[0:2, 8:12] = 29001  # a caravan: an object, but not evaluated
    ids[6:8, 8:12] = 23  # sky
    write_frame(tmp_path, ids)
    (record,) = cityscapes.read_cityscapes(tmp_path).records
    assert record.image == "ulm_000001_000019_leftImg8bit.png"
    assert record.instances.labels.tolist() == [2, 2]  # by their numbers: the group is 26
    assert record.instances.crowd.tolist() == [True, False]
    assert np.array_equal(record.instances.mask(0), ids == 26)
    assert np.array_equal(record.instances.mask(1), ids == 26001)
    assert record.void is None


def test_void_is_a_crowd_of_every_class_where_images_are_measured_alone(tmp_path, miniature):
    miniature("cityscapes", tmp_path / "set", train=1, test=1)
    project = new_project(tmp_path)
    root = tmp_path / "set" / "gtFine"
    add_labels(project, LabelSource(path=str(root / "train")))
    report = add_labels(project, LabelSource(path=str(root / "val")), split="test")
    assert report.objects == 4  # what is void is no object
    (train,), (test,) = (stored(project, split=s).values() for s in ("train", "test"))
    assert not train.crowd.any()
    assert test.labels[test.crowd].tolist() == list(range(8))
    ego = np.zeros((64, 96), bool)
    ego[-4:] = True
    assert all(np.array_equal(test.mask(i), ego) for i in np.flatnonzero(test.crowd))
    again = add_labels(project, LabelSource(path=str(root / "val")))
    assert (again.known, again.revised) == (1, 0)


def polygons(*objects, height=20, width=30):
    return {
        "imgHeight": height,
        "imgWidth": width,
        "objects": [{"label": label, "polygon": points, **more} for label, points, more in objects],
    }


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


ROAD = ("road", box(0, 0, 29, 19), {})
FRAME = polygons(
    ROAD,
    ("car", box(2, 2, 9, 9), {}),
    ("car", box(6, 6, 15, 15), {}),  # in front of the first
    ("persongroup", box(20, 2, 27, 9), {}),
    ("rider", box(20, 12, 24, 16), {"deleted": 1}),
    ("license plate", box(2, 2, 3, 3), {}),
    ("out of roi", box(0, 18, 29, 19), {}),
)


def test_polygons_in_front_hide_those_behind(tmp_path):
    (tmp_path / "a_gtFine_polygons.json").write_text(json.dumps(FRAME))
    (record,) = cityscapes.read_cityscapes(tmp_path).records
    names = [tuple(cityscapes.CLASSES.values())[label] for label in record.instances.labels]
    assert list(zip(names, record.instances.crowd.tolist(), strict=True)) == [
        ("person", True), ("car", False), ("car", False),
    ]  # fmt: skip
    assert record.instances.areas.tolist() == [64, 64 - 16, 100]
    void = Instances(size_hw=(20, 30), rles=(record.void,), labels=np.zeros(1, np.int64))
    assert void.areas.tolist() == [60]


def test_of_pixels_and_polygons_the_pixels_count(tmp_path):
    write_frame(tmp_path, np.full((8, 12), 24001, np.uint16))
    (tmp_path / "ulm_000001_000019_gtFine_polygons.json").write_text(json.dumps(FRAME))
    (record,) = cityscapes.read_cityscapes(tmp_path).records
    assert record.instances.size_hw == (8, 12)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        pytest.param(polygons(("zeppelin", box(0, 0, 5, 5), {})), "zeppelin", id="unknown-label"),
        pytest.param(polygons(("car", [[1, 1]], {})), "fewer than 2", id="one-point"),
        pytest.param(polygons(("car", [1, 2, 3], {})), "not a list of points", id="no-points"),
        pytest.param(polygons(("car", "x", {})), "not a list of points", id="text"),
        pytest.param({"objects": []}, "image's size", id="no-size"),
        pytest.param(polygons(height=10**6, width=10**6), "would be", id="huge"),
        pytest.param({"imgHeight": 5, "imgWidth": 5}, "list of objects", id="no-objects"),
        pytest.param(polygons() | {"objects": [3]}, "objects is damaged", id="number"),
        pytest.param([], "not an annotation", id="list"),
    ],
)
def test_polygons_that_cannot_be_used_are_skipped_with_their_reason(tmp_path, document, reason):
    (tmp_path / "a_gtFine_polygons.json").write_text(json.dumps(document))
    (tmp_path / "b_gtFine_polygons.json").write_text(json.dumps(FRAME))
    labels = cityscapes.read_cityscapes(tmp_path)
    assert [record.image for record in labels.records] == ["b_leftImg8bit.png"]
    assert reason in labels.skipped[0].reason


def test_polygons_become_the_pixels_of_cityscapesscripts(tmp_path):
    python = next(
        (p for p in os.environ.get("LABELLOOP_REFERENCE_PYTHONS", "").split(":") if p and _has_scripts(p)),
        None,
    )
    if python is None:
        pytest.skip("no interpreter of LABELLOOP_REFERENCE_PYTHONS has cityscapesscripts")
    rng = np.random.default_rng(0)
    stuff = ["road", "sky", "out of roi", "license plate", "polegroup", "caravan", "cargroup", "bicyclegroup"]
    names = [*cityscapes.CLASSES.values(), *stuff]
    drawn, theirs = tmp_path / "drawn", tmp_path / "theirs"
    drawn.mkdir()
    theirs.mkdir()
    for number in range(20):
        objects = [
            (str(rng.choice(names)), rng.integers(-5, [105, 65], (int(rng.integers(3, 9)), 2)).tolist(), {})
            for _ in range(25)
        ]
        document = polygons(*objects, height=60, width=100)
        (drawn / f"{number}_gtFine_polygons.json").write_text(json.dumps(document))
    code = (
        "import sys, pathlib; from cityscapesscripts.preparation.json2instanceImg import json2instanceImg\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    name = path.name.replace('polygons.json', 'instanceIds.png')\n"
        "    json2instanceImg(str(path), str(pathlib.Path(sys.argv[2]) / name))\n"
    )
    subprocess.run([python, "-c", code, drawn, theirs], check=True)
    ours, expected = (cityscapes.read_cityscapes(folder).records for folder in (drawn, theirs))
    assert len(ours) == 20
    for own, other in zip(ours, expected, strict=True):
        assert (own.image, own.void) == (other.image, other.void)
        assert own.instances == other.instances


def _has_scripts(python):
    return (
        subprocess.run(
            [python, "-c", "import cityscapesscripts"], check=False, capture_output=True
        ).returncode
        == 0
    )


# -- ADE20K, OrgaSegment ------------------------------------------------------------------------------------


def test_an_ade20k_object_without_one_class_is_skipped_with_its_reason(tmp_path):
    folder = tmp_path / "annotations_instance"
    folder.mkdir()
    pixels = np.zeros((8, 9, 3), np.uint8)
    pixels[0:2, 0:2] = (100, 1, 0)
    pixels[0:2, 4:6] = (0, 2, 0)
    pixels[4:6, 0:2, 1] = 3
    pixels[4:6, 0, 0], pixels[4:6, 1, 0] = 5, 6
    pixels[4:6, 6:9, 0] = 7  # a class without an object
    Image.fromarray(pixels).save(folder / "ADE_val_00000001.png")
    Image.fromarray(pixels[..., 0]).save(folder / "ADE_val_00000002.png")
    labels = ade20k.read_ade20k(folder)
    (record,) = labels.records
    assert labels.classes[record.instances.labels[0]] == "flag"
    assert record.instances.areas.tolist() == [4]
    assert [skipped.reason.split(", not")[0] for skipped in labels.skipped] == [
        "its class is 0", "its class is 5 and 6",
        "it is gray, but red should be the class and green the object",
    ]  # fmt: skip


def test_there_are_a_hundred_different_classes_in_ade20k():
    assert len(set(ade20k.CLASSES)) == 100


def test_orgasegment_names_its_class(tmp_path, miniature):
    miniature("orgasegment", tmp_path)
    labels = orgasegment.read_orgasegment(tmp_path / "eval")
    assert labels.classes == ("organoid",)
    assert [record.image for record in labels.records] == ["0_masks_organoid.png", "1_masks_organoid.png"]


@pytest.mark.parametrize("name", ["cityscapes", "ade20k", "orgasegment", "yolo"])
def test_a_folder_without_such_labels_is_a_format_error(tmp_path, name):
    with pytest.raises(FormatError):
        read_labels(tmp_path, name)


# -- YOLO ---------------------------------------------------------------------------------------------------


def yolo_set(tmp_path, lines, classes="cell\nnucleus\n", size_wh=(40, 20)):
    for folder in ("labels/train", "images/train"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("\n".join(lines))
    Image.fromarray(np.arange(800, dtype=np.uint16).reshape(size_wh[::-1])).save(
        tmp_path / "images" / "train" / "a.png"
    )
    if classes:
        (tmp_path / "classes.txt").write_text(classes)
    return tmp_path / "labels" / "train"


def test_yolo_outlines_are_shares_of_the_sides(tmp_path):
    folder = yolo_set(tmp_path, ["1 0.25 0.5 0.5 0.5 0.5 1 0.25 1", ""])
    project = new_project(tmp_path)
    report = add_labels(project, LabelSource(path=str(folder)))
    assert (report.added, report.objects) == (1, 1)
    assert project.config.classes == ("cell", "nucleus")
    (instances,) = stored(project).values()
    wanted = np.zeros((20, 40), bool)
    wanted[10:20, 10:20] = True
    assert np.array_equal(instances.mask(0), wanted)
    assert instances.labels.tolist() == [1]


def test_yolo_classes_are_those_of_the_project_by_name(tmp_path):
    project = new_project(tmp_path, ("nucleus", "cell"))
    add_labels(project, LabelSource(path=str(yolo_set(tmp_path, ["1 0.1 0.1 0.9 0.1 0.9 0.9"]))))
    (instances,) = stored(project).values()
    assert instances.labels.tolist() == [0]


def test_an_empty_yolo_file_is_an_image_without_objects(tmp_path):
    project = new_project(tmp_path)
    report = add_labels(project, LabelSource(path=str(yolo_set(tmp_path, [])), format="yolo"))
    assert (report.added, report.empty) == (1, 1)


def test_a_yolo_outline_outside_the_image_is_skipped_and_its_image_is_not_called_empty(tmp_path):
    project = new_project(tmp_path)
    report = add_labels(project, LabelSource(path=str(yolo_set(tmp_path, ["0 1.5 1.5 1.8 1.5 1.8 1.8"]))))
    assert report.added == 0
    assert ["outside" in s.reason for s in report.skipped] == [True, False]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2 0.2", "is a box"),
        ("0 0.1 0.2 0.3 0.4", "is a box"),
        ("0 0.1 0.2 0.3 0.4 0.5", "5 coordinates"),
        ("cell 0.1 0.2 0.3 0.4 0.5 0.6", "not a class number"),
        ("0 10 20 30 40 50 60", "not shares"),
        ("-1 0.1 0.2 0.3 0.4 0.5 0.6", "not shares"),
        ("0 nan 0.2 0.3 0.4 0.5 0.6", "not shares"),
    ],
)
def test_a_yolo_line_that_cannot_be_used_is_named(tmp_path, line, reason):
    labels = yolo.read_yolo(yolo_set(tmp_path, ["0 0.1 0.1 0.5 0.1 0.5 0.5", line]))
    assert labels.records == ()
    assert reason in labels.skipped[0].reason
    assert "line 2" in labels.skipped[0].reason


def test_marks_that_editors_put_at_the_start_of_a_text_are_no_part_of_it(tmp_path):
    folder = yolo_set(tmp_path, ["\ufeff0 0.1 0.1 0.5 0.1 0.5 0.5"], classes="\ufeffcell\n")
    labels = yolo.read_yolo(folder)
    assert (labels.classes, labels.skipped) == (("cell",), ())
    assert len(labels.records[0].outlines) == 1


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le"])
def test_yolo_classes_in_another_encoding_are_one_error_with_the_way_out(tmp_path, encoding):
    folder = yolo_set(tmp_path, ["0 0.1 0.1 0.5 0.1 0.5 0.5"])
    (file,) = tmp_path.rglob("classes.txt")
    file.write_bytes("zellkörper\n".encode(encoding))
    with pytest.raises(FormatError, match=r"UTF-8.*classes\.txt.*Save") as caught:
        yolo.read_yolo(folder)
    assert caught.value.value == str(file)


@pytest.mark.parametrize(
    "text",
    [
        "path: ../set\ntrain: images/train\nnc: 2\nnames: ['yes', no]\n",
        "nc: 2\nnames:\n  1: no\n  0: yes\n",
    ],
)
def test_yolo_names_are_those_of_data_yaml_as_they_are_written(tmp_path, text):
    folder = yolo_set(tmp_path, ["1 0.1 0.1 0.5 0.1 0.5 0.5"], classes="")
    (tmp_path / "data.yaml").write_text(text)
    assert yolo.read_yolo(folder).classes == ("yes", "no")
    (tmp_path / "classes.txt").write_text("cell\nnucleus\n")
    assert yolo.read_yolo(folder).classes == ("cell", "nucleus")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: [cell\n", "not YAML"),
        ("names: 2\n", "no list of names"),
        ("names: [[a], b]\n", "no list of names"),
        ("names:\n  0: cell\n  2: nucleus\n", "no list of names"),
        ("names: [cell]\n", "labels name class 1"),
        ("names: [cell, cell]\n", "labels name class 1"),
    ],
)
def test_a_data_yaml_that_does_not_name_the_yolo_classes_is_one_error(tmp_path, text, reason):
    folder = yolo_set(tmp_path, ["1 0.1 0.1 0.5 0.1 0.5 0.5"], classes="")
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(FormatError, match=reason) as caught:
        yolo.read_yolo(folder)
    assert caught.value.value == str(tmp_path / "data.yaml")


@pytest.mark.parametrize("text", ["- a\n", "nc: 1\n", ""])
def test_a_data_yaml_without_names_is_as_if_there_were_none(tmp_path, text):
    folder = yolo_set(tmp_path, ["0 0.1 0.1 0.5 0.1 0.5 0.5"], classes="")
    (tmp_path / "data.yaml").write_text(text)
    assert yolo.read_yolo(folder).classes is None


def test_several_yolo_classes_need_their_names(tmp_path):
    folder = yolo_set(tmp_path, ["1 0.1 0.1 0.5 0.1 0.5 0.5"], classes="")
    with pytest.raises(FormatError, match=r"names of the classes are missing"):
        yolo.read_yolo(folder)
    (tmp_path / "classes.txt").write_text("cell\n")
    with pytest.raises(FormatError, match="labels name class 1"):
        yolo.read_yolo(folder)
