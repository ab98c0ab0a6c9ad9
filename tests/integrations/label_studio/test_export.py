"""Exports as Label Studio writes them, read as labels; tasks written, and checked by its own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image

from labelloop.errors import FormatError, OutputError
from labelloop.formats.catalog import find_format, read_labels
from labelloop.formats.records import LabelSet
from labelloop.instances import Instances
from labelloop.integrations.label_studio.export import READER, is_export, read_export
from labelloop.integrations.label_studio.export_writer import write_export
from labelloop.integrations.label_studio.labelling_config import ControlNames, labelling_config
from labelloop.integrations.label_studio.pictures import image_name
from labelloop.integrations.label_studio.regions import to_regions
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project

Mask = npt.NDArray[np.bool_]
CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")
H, W = 40, 60


def disc(x: float, y: float, radius: float) -> Mask:
    rows, columns = np.mgrid[:H, :W]
    return np.asarray((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2)


def objects(*discs: tuple[float, float, float], labels: list[int] | None = None) -> Instances:
    return Instances.from_dense(np.array([disc(*one) for one in discs]).reshape(-1, H, W), labels)


def annotation(
    instances: Instances, classes: tuple[str, ...] = ("cell", "dirt"), **more: Any
) -> dict[str, Any]:
    keys = [f"k{i}" for i in range(len(instances))]
    return {
        "id": 1, "result": to_regions(instances, keys, classes, CONTROLS), "was_cancelled": False,
        "ground_truth": False, "updated_at": "2026-03-01T10:00:00.000000Z", **more,
    }  # fmt: skip


def task(image: str, *annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": 5,
        "data": {"image": image},
        "annotations": list(annotations),
        "drafts": [],
        "predictions": [3],
        **more,
    }


def read(tmp_path: Path, document: Any) -> LabelSet:
    (tmp_path / "export.json").write_text(json.dumps(document))
    return read_export(tmp_path / "export.json")


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_each_annotated_task_is_an_image_and_classes_are_as_regions_name_them(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        [
            task(
                "/data/upload/3/0a1b2c3d-a.png", annotation(objects((20, 20, 8), (40, 10, 5), labels=[1, 0]))
            ),
            task("/data/upload/3/0a1b2c3d-b.png", annotation(objects())),
            task("/data/upload/3/0a1b2c3d-c.png"),
            task("/data/upload/3/0a1b2c3d-d.png", annotation(objects((9, 9, 4)), was_cancelled=True)),
            task("/data/upload/3/0a1b2c3d-e.png", drafts=[annotation(objects((9, 9, 4)))]),
        ],
    )
    assert found.skipped == ()
    assert found.format == "label-studio"
    assert found.classes == ("dirt", "cell")
    assert [(record.image, len(record.instances), record.any_size) for record in found.records] == [
        ("a.png", 2, False),
        ("b.png", 0, True),
    ]
    labels = found.records[0].instances
    assert labels.labels.tolist() == [0, 1]
    assert labels.size_hw == (H, W)
    assert iou(labels.mask(0), disc(20, 20, 8)) >= 0.98


EARLY, LATE = objects((20, 20, 8)), objects((20, 20, 8), (40, 20, 6))


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        ({}, {"updated_at": "2026-03-01T10:00:00.5Z"}, 2),
        ({}, {"updated_at": "2026-03-01T11:30:00+02:00"}, 1),
        ({"ground_truth": True}, {"updated_at": "2027-01-01T00:00:00Z"}, 1),
        ({}, {"updated_at": None, "created_at": "2026-03-01T10:00:01Z"}, 2),
        ({}, {"updated_at": "yesterday"}, 1),
    ],
)
def test_ground_truth_counts_else_the_last_change(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], counts: int
) -> None:
    both = [annotation(EARLY, **first), annotation(LATE, id=2, **second)]
    for given_in in (both, both[::-1]):
        found = read(tmp_path, [task("a.png", *given_in)])
        assert len(found.records[0].instances) == counts
        (skipped,) = found.skipped
        assert skipped.path == f"task 5, annotation {3 - counts}"


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("/data/upload/12/0a1b2c3d-my%20image.png", "my image.png"),
        ("https://ls.lab/path/data/upload/12/0a1b2c3d-x.png?a=b", "x.png"),
        ("/data/upload/x.png", "x.png"),
        ("/data/upload/12/0a1b2c3d-0a1b2c3d-x.png", "0a1b2c3d-x.png"),
        ("/data/local-files/?d=plates/a%20b/x.tif", "plates/a b/x.tif"),
        ("/data/local-files/?d=..%2F..%2Fetc/x.png", "etc/x.png"),
        ("/data/local-files/?d=C:\\plates\\x.png", "plates/x.png"),
        ("http://host/folder/x%C3%BC.png?token=1#2", "xü.png"),
        ("http://host/..%2f..%2fx.png", "x.png"),
        ("s3://bucket/deep/x.png", "x.png"),
        ("plates/x #1?.png", "plates/x #1?.png"),
        ("../../secret/x.png", "secret/x.png"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\plates\\x.png", "plates/x.png"),
        ("0a1b2c3d-x.png", "0a1b2c3d-x.png"),
        ("data:image/png;base64,AAAA", ""),
        ("http://[", ""),
        ("http://host/", ""),
        ("/data/local-files/", ""),
        ("..", ""),
        ("", ""),
    ],
)
def test_names_are_relative_and_never_lead_upward(reference: str, name: str) -> None:
    assert image_name(reference) == name


@given(
    st.text()
    | st.lists(st.sampled_from([*"/\\.:?=#%[d", "..", "data/upload", "local-files", "http://", "%2e"])).map(
        "".join
    )
)
def test_no_reference_leads_upward(reference: str) -> None:
    steps = image_name(reference).split("/")
    assert ".." not in steps
    assert "\\" not in image_name(reference)
    assert steps == [""] or "" not in steps


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"title": "second.png has cells", "photo": "/data/upload/1/0a1b2c3d-x.png"}, "x.png"),
        ({"photo": "http://host/x.TIF", "other": "y.png"}, "x.TIF"),
        ({"photo": "y.png", "image": "/data/upload/1/0a1b2c3d-x"}, "x"),
    ],
)  # fmt: skip
def test_the_image_is_what_is_called_so_else_the_first_that_looks_like_one(
    tmp_path: Path, data: dict[str, str], name: str
) -> None:
    found = read(tmp_path, [{"data": data, "annotations": [annotation(EARLY)]}])
    assert [record.image for record in found.records] == [name]


def tile_task(box: tuple[int, int, int, int], instances: Instances, **more: Any) -> dict[str, Any]:
    """A task of labelloop on a part of a 60 x 40 px image."""
    left, top, width, height = box
    dense = instances.to_dense()[:, top : top + height, left : left + width]
    noted = {"key": "k", "file_name": "field.tif", "sha256": "ab", "page": 0, "channel": -1,
             "box": list(box), "size": [W, H], **more}  # fmt: skip
    shown = Instances.from_dense(dense, size_hw=(height, width))
    return {"id": left, "data": {"image": "/data/upload/1/0a1b2c3d-k.png", "labelloop": noted},
            "annotations": [annotation(shown)]}  # fmt: skip


def test_tiles_are_put_back_into_their_image(tmp_path: Path) -> None:
    shown = objects((12, 20, 8), (45, 20, 8))
    tiles = [tile_task((0, 0, 35, 40), shown.select([0])), tile_task((25, 0, 35, 40), shown.select([1]))]
    found = read(tmp_path, [*tiles, task("other.png", annotation(EARLY))])
    assert [record.image for record in found.records] == ["other.png", "field.tif"]
    joined = found.records[1].instances
    assert joined.size_hw == (H, W)
    assert len(joined) == 2
    for returned, sent in zip(joined.to_dense(), shown.to_dense(), strict=True):
        assert iou(returned, sent) >= 0.98


def test_an_empty_image_of_tiles_has_its_size(tmp_path: Path) -> None:
    (record,) = read(tmp_path, [tile_task((0, 0, W, H), objects())]).records
    assert (record.instances.size_hw, len(record.instances), record.any_size) == ((H, W), 0, False)


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ([tile_task((0, 0, 35, 40), EARLY)], "only a part"),
        ([tile_task((0, 0, W, H), EARLY), tile_task((0, 0, W, H), EARLY, page=1)], "several images"),
        ([tile_task((0, 0, W, H), EARLY, size=[W, H - 1])], "not a part of the image"),
        ([tile_task((0, 0, W, H), EARLY, size=[W])], "damaged"),
        ([tile_task((0, 0, W, H), EARLY, size=[W, 10**9])], "damaged"),
        ([tile_task((0, 0, W, H), EARLY, file_name="..")], "damaged"),
        ([{"data": {"labelloop": 7}, "annotations": [annotation(EARLY)]}], "damaged"),
        ([{"data": {"text": "none"}, "annotations": [annotation(EARLY)]}], "does not name an image"),
        ([task("a.png", annotation(EARLY)), 7], "not a task"),
        ([task("a.png", 7)], "not in the file"),  # type: ignore[arg-type]
        ([task("a.png", annotation(EARLY, result="x"))], "no result"),
        ([task("a.png", annotation(EARLY, result=[{"type": "choices"}]))], "do not say the image's size"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_and_the_rest_is_read(
    tmp_path: Path, tasks: list[Any], reason: str
) -> None:
    good = task("good.png", annotation(EARLY))
    found = read(tmp_path, [*tasks, good])
    assert found.records[-1].image in ("good.png", "field.tif")
    assert any(reason in skipped.reason for skipped in found.skipped)


def test_a_region_that_cannot_be_used_is_named_and_an_image_without_any_other_is_not_empty(
    tmp_path: Path,
) -> None:
    half, none = annotation(LATE), annotation(EARLY)
    half["result"][0]["value"]["points"] = [[1, 2]]
    none["result"][0]["value"]["points"] = [[1, 2]]
    found = read(tmp_path, [task("half.png", half), task("none.png", none)])
    assert [(record.image, len(record.instances)) for record in found.records] == [("half.png", 1)]
    assert [skipped.path for skipped in found.skipped] == [
        "half.png, task 5, region k0",
        "none.png, task 5, region k0",
        "none.png",
    ]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([{"id": 1, "image": "a.png", "label": [], "annotation_id": 3}], "JSON-MIN"),
        ([{"a": 1}], "not a Label Studio export"),
        ([1, 2], "not a Label Studio export"),
        ({"images": [], "annotations": []}, "not a Label Studio export"),
    ],
)
def test_other_files_are_refused_with_a_way_out(tmp_path: Path, document: Any, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        read(tmp_path, document)
    assert "JSON" in caught.value.way_out


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["data", "annotations", "image", "labelloop", "result", "id", "updated_at", "box"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON)
def test_no_json_raises_anything_but_a_format_error(
    tmp_path_factory: pytest.TempPathFactory, data: Any, annotations: Any, other: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    noted = {"data": {"image": "a.png", "labelloop": other}, "annotations": [{"result": data}]}
    for document in ([{"data": data, "annotations": annotations}, other], [noted], data):
        try:
            read(folder, document)
        except FormatError:
            continue


def test_auto_tells_a_list_of_tasks_from_coco(tmp_path: Path) -> None:
    export, coco = tmp_path / "export.json", tmp_path / "coco.json"
    export.write_text(" \n[" + json.dumps(task("a.png", annotation(EARLY))) + "]")
    coco.write_text('{"images": [], "annotations": []}')
    assert (find_format(export, [READER]), find_format(coco, [READER])) == ("label-studio", "coco")
    assert read_labels(export, "label-studio", readers=[READER]).classes == ("cell",)
    assert not is_export(tmp_path / "none.json")
    with pytest.raises(FormatError, match="cannot be of the format label-studio"):
        read_labels(tmp_path, "label-studio", readers=[READER])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.init(tmp_path / "project", ProjectConfig(name="p", classes=("cell", "dirt")))


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (H, W), np.uint8)).save(path)


def test_what_was_written_is_added_as_labels(tmp_path: Path, project: Project) -> None:
    both = objects((20, 20, 8), (40, 10, 5), labels=[1, 0])
    ring = Instances.from_dense((disc(30, 20, 15) & ~disc(30, 20, 5))[None])
    for seed, name in enumerate(("plate 1/a ü.png", "plate 1/ring.png", "empty.png", "waiting.png")):
        save(tmp_path / "images" / name, seed)
    scored = Instances.from_dense(both.to_dense(), both.labels, [0.9, 0.5])
    written = tmp_path / "images" / "tasks.json"
    write_export(
        written,
        [("plate 1/a ü.png", both, scored), ("plate 1/ring.png", ring, None), ("empty.png", objects(), None),
         ("waiting.png", None, scored)],
        ("cell", "dirt"),
    )  # fmt: skip
    report = add_labels(project, LabelSource(path=str(written), readers=[READER]))
    assert (report.added, report.objects, report.empty, report.skipped) == (3, 3, 1, ())
    labels = project.labels([image.id for image in project.images()])
    images = {image.file_name: labels[image.id] for image in project.images()}
    assert images["empty.png"].size_hw == (H, W)
    assert images["ring.png"] == ring
    assert images["a ü.png"].labels.tolist() == [1, 0]
    for returned, sent in zip(images["a ü.png"].to_dense(), both.to_dense(), strict=True):
        assert iou(returned, sent) >= 0.98
    again = add_labels(project, LabelSource(path=str(written), format="label-studio", readers=[READER]))
    assert (again.known, again.revised) == (3, 0)


def test_label_studio_accepts_what_is_written(tmp_path: Path) -> None:
    both = objects((20, 20, 8), (40, 10, 5), labels=[1, 0])
    write_export(tmp_path / "tasks.json", [("a.png", both, both)], ("cell", "dirt"))
    (written,) = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    interface = LabelInterface(labelling_config(("cell", "dirt")))
    assert interface.validate_task({"data": written["data"]})
    for part in (*written["predictions"], *written["annotations"]):
        assert interface.validate_prediction(part, return_errors=True) == []


def test_a_file_outside_is_never_read(tmp_path: Path, project: Project) -> None:
    save(tmp_path / "outside" / "x.png", 1)
    export = tmp_path / "labels" / "export.json"
    export.parent.mkdir()
    references = [
        "../outside/x.png",
        str(tmp_path / "outside" / "x.png"),
        "/data/local-files/?d=../outside/x.png",
    ]
    export.write_text(json.dumps([task(reference, annotation(EARLY)) for reference in references]))
    report = add_labels(project, LabelSource(path=str(export), readers=[READER]))
    assert report.added == 0
    assert [skipped.reason.split(" (")[0] for skipped in report.skipped] == 3 * ["its image was not found"]


def test_a_file_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_export(tmp_path / "file" / "tasks.json", [], ("cell",))


def test_the_command_exports_what_add_labels_reads_back(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from labelloop.cli.app import app
    from labelloop.data.synthetic_set import write_micrographs
    from labelloop.project.project import Project

    def run(*arguments: object) -> None:
        ran = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        assert ran.exit_code == 0, ran.output

    def labels(root: Path) -> dict[str, Instances]:
        project = Project.open(root)
        of_image = project.labels([image.id for image in project.images()])
        return {image.file_name: of_image[image.id] for image in project.images()}

    write_micrographs(tmp_path / "images", 3, seed=0, labels=tmp_path / "truth.json", size_hw=(96, 96))
    first, second = tmp_path / "first", tmp_path / "second"
    run("init", first)
    run("add", "labels", tmp_path / "truth.json", "--images", tmp_path / "images", "-C", first)
    run("export", "--format", "label-studio", "--out", tmp_path / "out", "-C", first)
    run("init", second)
    exported = tmp_path / "out" / "label-studio.json"
    run("add", "labels", exported, "--images", tmp_path / "images", "-C", second)
    before, after = labels(first), labels(second)
    assert before.keys() == after.keys()
    for name, truth in before.items():
        assert len(truth) == len(after[name])
        assert (truth.iou(after[name]).max(axis=1) >= 0.98).all()
