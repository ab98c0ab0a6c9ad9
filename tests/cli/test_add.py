"""``add``, ``check`` and ``evaluate`` of files, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _disc(center_yx: tuple[int, int], radius: int, size: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return (rows - center_yx[0]) ** 2 + (columns - center_yx[1]) ** 2 <= radius**2


def _write_images(folder: Path, count: int, *, seed: int = 0) -> None:
    """Images with one bright disc each, and labels.json beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for i in range(1, count + 1):
        disc = _disc((20 + i, 30), 9)
        pixels = (rng.integers(0, 60, (64, 64)) + 150 * disc).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"image {i}.png")
        images.append({"id": i, "file_name": f"image {i}.png", "width": 64, "height": 64})
        outline = [[21, 11 + i, 39, 11 + i, 39, 29 + i, 21, 29 + i]]
        annotations.append(
            {"id": i, "image_id": i, "category_id": 1, "segmentation": outline, "bbox": [21, 11 + i, 18, 18],
             "area": 324, "iscrowd": 0}
        )  # fmt: skip
    categories = [{"id": 1, "name": "organoid"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(document), encoding="utf-8")


def test_images_are_added_once_and_bad_files_are_named(labelloop, project: Path, tmp_path: Path) -> None:
    _write_images(tmp_path / "plate ü", 3)
    (tmp_path / "plate ü" / "broken.png").write_bytes(b"")
    first = labelloop("add", "images", tmp_path / "plate ü", "--group-by", "folder", "-C", project, "--json")
    assert first.code == 0
    assert first.document["added"] == 3
    assert [Path(skipped["path"]).name for skipped in first.document["skipped"]] == ["broken.png"]
    assert first.document["skipped"][0]["reason"]
    again = labelloop("add", "images", tmp_path / "plate ü", "-C", project)
    assert again.code == 0  # nothing is new, and all is there
    assert "3 already known" in again.out
    assert "broken.png" in again.err
    found = labelloop("status", "-C", project, "--json").document
    assert found["images"]["unlabelled"] == 3


def test_nothing_usable_is_exit_1_with_the_reasons(labelloop, project: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    words = labelloop("add", "images", tmp_path / "empty.png", "-C", project)
    assert words.code == 1
    assert "empty.png" in words.err
    document = labelloop("add", "images", tmp_path / "empty.png", "-C", project, "--json")
    assert document.code == 1
    assert set(document.document["error"]) == {"what", "value", "way_out"}
    assert "empty.png" in json.dumps(document.document)
    assert labelloop("add", "images", tmp_path / "nowhere", "-C", project).code == 1


def test_json_lists_what_was_added_beside_what_was_not(labelloop, project: Path, tmp_path: Path) -> None:
    _write_images(tmp_path / "plate", 2)
    (tmp_path / "plate" / "broken.png").write_bytes(b"")
    labelloop("add", "images", tmp_path / "plate" / "image 1.png", "-C", project)
    ran = labelloop("add", "images", tmp_path / "plate", "-C", project, "--json").document
    assert ran["files"] == [
        {"path": str(tmp_path / "plate" / "image 1.png"), "state": "known"},
        {"path": str(tmp_path / "plate" / "image 2.png"), "state": "added"},
    ]
    assert [Path(skipped["path"]).name for skipped in ran["skipped"]] == ["broken.png"]
    labels = labelloop("add", "labels", tmp_path / "plate" / "labels.json", "-C", project, "--json").document
    assert [file["state"] for file in labels["files"]] == ["revised", "revised"]


def test_the_error_of_a_failed_act_names_three_files_and_how_many_more(
    labelloop, project: Path, tmp_path: Path
) -> None:
    for number in range(5):
        (tmp_path / f"empty {number}.png").write_bytes(b"")
    files = [tmp_path / f"empty {number}.png" for number in range(5)]
    failed = labelloop("add", "images", *files, "-C", project, "--json").document
    assert [str(path) in failed["error"]["value"] for path in files] == [True, True, True, False, False]
    assert failed["error"]["value"].endswith("; and 2 more")
    assert len(failed["skipped"]) == 5
    assert failed["files"] == []


def test_labels_bring_their_images_and_their_split(labelloop, project: Path, tmp_path: Path) -> None:
    _write_images(tmp_path / "train", 4)
    _write_images(tmp_path / "test", 2, seed=1)
    train = labelloop("add", "labels", tmp_path / "train" / "labels.json", "-C", project, "--json")
    assert (train.code, train.document["added"], train.document["objects"]) == (0, 4, 4)
    test = labelloop(
        "add", "labels", tmp_path / "test" / "labels.json", "--images", tmp_path / "test", "--split", "test",
        "-C", project,
    )  # fmt: skip
    assert test.code == 0
    found = labelloop("status", "-C", project, "--json").document
    assert found["images"] == {"total": 6, "labelled": 4, "unlabelled": 0, "val": 0, "test": 2}
    assert found["objects"] == 6


def test_crowds_are_counted_and_said(labelloop, project: Path, tmp_path: Path) -> None:
    _write_images(tmp_path, 2)
    document = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    document["annotations"][1]["iscrowd"] = 1
    (tmp_path / "labels.json").write_text(json.dumps(document), encoding="utf-8")
    ran = labelloop("add", "labels", tmp_path / "labels.json", "-C", project)
    assert ran.code == 0
    assert "1 object, 1 area marked as crowd" in ran.out
    document["annotations"][0]["iscrowd"] = 1
    (tmp_path / "labels.json").write_text(json.dumps(document), encoding="utf-8")
    again = labelloop("add", "labels", tmp_path / "labels.json", "-C", project, "--json")
    found = {name: again.document[name] for name in ("revised", "objects", "crowds", "empty")}
    assert found == {"revised": 1, "objects": 0, "crowds": 1, "empty": 1}


def test_an_export_of_label_studio_is_added(labelloop, project: Path, tmp_path: Path) -> None:
    _write_images(tmp_path, 2)
    corners = [[20, 20], [60, 20], [60, 60], [20, 60]]
    region = {
        "id": "a", "type": "polygonlabels", "from_name": "polygon", "to_name": "image", "image_rotation": 0,
        "original_width": 64, "original_height": 64,
        "value": {"points": corners, "closed": True, "polygonlabels": ["organoid"]},
    }  # fmt: skip
    tasks = [
        {"id": i, "data": {"image": f"/data/upload/1/0a1b2c3d-image%20{i}.png"}, "annotations": [answer]}
        for i, answer in ((1, {"id": 7, "result": [region]}), (2, {"id": 8, "result": []}))
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    ran = labelloop("add", "labels", tmp_path / "export.json", "-C", project, "--json")
    assert ran.code == 0
    assert {name: ran.document[name] for name in ("added", "objects", "empty")} == {
        "added": 2, "objects": 1, "empty": 1,
    }  # fmt: skip
    named = labelloop(
        "add", "labels", tmp_path / "export.json", "--format", "label-studio", "-C", project, "--json"
    )
    assert (named.code, named.document["known"]) == (0, 2)


def test_labels_that_are_not_there_are_one_line(labelloop, project: Path, tmp_path: Path) -> None:
    ran = labelloop("add", "labels", tmp_path / "none.json", "-C", project)
    assert ran.code in {1, 2}
    assert len(ran.err.splitlines()) == 1
    assert "none.json" in ran.err


def test_check_finds_a_leak_and_is_done(labelloop, project: Path, tmp_path: Path) -> None:
    _write_images(tmp_path / "train", 3)
    _write_images(tmp_path / "test", 3, seed=1)
    labelloop("add", "labels", tmp_path / "train" / "labels.json", "--group-by", "image", "-C", project)
    labelloop(
        "add",
        "labels",
        tmp_path / "test" / "labels.json",
        "--split",
        "test",
        "--group-by",
        "image",
        "-C",
        project,
    )
    ran = labelloop("check", "-C", project, "--json")
    assert ran.code == 0
    assert ran.document["images_checked"] == 6
    assert ran.document["counts"]["leak"] >= 1
    words = labelloop("check", "-C", project)
    assert words.code == 0
    assert "leak" in words.out


def test_check_shows_a_few_names_of_a_large_group_and_json_has_them_all(
    labelloop, project: Path, tmp_path: Path
) -> None:
    for split, count in (("train", 9), ("test", 8)):
        _write_images(tmp_path / split, count, seed=count)
        labels = tmp_path / split / "labels.json"
        labelloop("add", "labels", labels, "--split", split, "--group-by", "image", "-C", project)
    findings = labelloop("check", "-C", project, "--json").document["findings"]
    [leak] = [finding for finding in findings if finding["message"].startswith("group image")]
    assert len(leak["images"]) == 17
    words = "".join(labelloop("check", "-C", project).out.split())  # cells are folded
    assert "and14more" in words
    assert words.count(".png") == sum(min(3, len(finding["images"])) for finding in findings)


def test_other_tools_predictions_need_no_project(
    labelloop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_images(tmp_path, 5)
    monkeypatch.chdir(tmp_path)
    truth = json.loads((tmp_path / "labels.json").read_text(encoding="utf-8"))
    truth["annotations"] = [{**a, "score": 0.9} for a in truth["annotations"][:-1]]  # one object is missed
    (tmp_path / "theirs.json").write_text(json.dumps(truth), encoding="utf-8")
    ran = labelloop("evaluate", "--predictions", "theirs.json", "--labels", "labels.json", "--json")
    assert ran.code == 0
    metrics = ran.document["metrics"]
    assert metrics["recall_50"]["value"] == pytest.approx(0.8)
    assert metrics["precision_50"]["value"] == 1
    assert metrics["recall_50"]["low"] < 0.8 < metrics["recall_50"]["high"]
    assert ran.document["min_score"] == 0.5
    stricter = labelloop(
        "evaluate", "--predictions", "theirs.json", "--labels", "labels.json", "--min-score", "0.95", "--json"
    ).document
    assert stricter["metrics"]["recall_50"]["value"] == 0
    assert stricter["metrics"]["precision_50"]["value"] is None
    assert stricter["metrics"]["precision_50"]["reason"]
    words = labelloop("evaluate", "--predictions", "theirs.json", "--labels", "labels.json")
    assert "0.800 [" in words.out


@pytest.mark.parametrize("arguments", [["evaluate"], ["evaluate", "--split", "val"]])
def test_without_a_run_there_is_nothing_to_measure(labelloop, project: Path, arguments: list[str]) -> None:
    ran = labelloop(*arguments, "-C", project)
    assert ran.code == 1
    assert "labelloop train" in ran.err


def test_models_are_listed_with_their_licence(labelloop) -> None:
    models = {model["name"]: model for model in labelloop("models", "--json").document}
    assert models["mask-rcnn-lite"]["licence"] == "Apache-2.0"
    assert models["mask-rcnn-lite"]["available"]
    shown = labelloop("models").out
    assert all(f"\n{name} " in shown and model["licence"] in shown for name, model in models.items())
    assert max(map(len, shown.splitlines())) <= 100


def test_doctor_looks_at_machine_and_project(labelloop, project: Path, tmp_path: Path) -> None:
    found = labelloop("doctor", "-C", project, "--json")
    assert found.code == 0
    states = {finding["name"]: finding["state"] for finding in found.document["findings"]}
    assert {
        "torch",
        "processor",
        "threads",
        "memory",
        "disk",
        "project",
        "ledger",
        "backbone weights",
    } <= set(states)
    assert states["ledger"] == "ok"
    assert labelloop("doctor", "-C", tmp_path / "nowhere").code == 1


def test_doctor_sees_a_damaged_ledger(labelloop, project: Path) -> None:
    ledger = project / ".labelloop" / "ledger.db"
    content = bytearray(ledger.read_bytes())
    content[4096:] = b"\x00" * (len(content) - 4096)
    ledger.write_bytes(content)
    ran = labelloop("doctor", "-C", project, "--json")
    assert ran.code == 1
    assert ran.document["error"]["what"]
    problems = [f["name"] for f in ran.document["findings"] if f["state"] == "problem"]
    assert set(problems) & {"ledger", "project"}


def test_a_folder_without_images_says_why_nothing_was_added(labelloop, project: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = labelloop("add", "images", tmp_path / "empty", "-C", project)
    assert ran.code == 1
    assert "there are no images in the paths given" in ran.err


def test_a_file_that_replaced_another_is_counted_and_said(labelloop, project: Path, tmp_path: Path) -> None:
    _write_images(tmp_path / "plate", 2)
    labelloop("add", "images", tmp_path / "plate", "-C", project)
    _write_images(tmp_path / "plate", 1, seed=5)
    ran = labelloop("add", "images", tmp_path / "plate", "-C", project, "--json")
    assert (ran.document["added"], ran.document["known"], ran.document["replaced"]) == (1, 1, 1)
    assert "1 image was replaced by another file of the same path" in ran.err
    assert labelloop("status", "-C", project, "--json").document["images"]["total"] == 2


def test_a_channel_whose_folder_moved_is_found_again_by_its_folder(
    labelloop, project: Path, tmp_path: Path
) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    (tmp_path / "old").mkdir()
    Image.fromarray(colours).save(tmp_path / "old" / "a.png")
    labelloop("add", "images", tmp_path / "old", "--channel", 1, "-C", project)
    (tmp_path / "old").rename(tmp_path / "new")
    found = labelloop("add", "images", tmp_path / "new", "-C", project, "--json").document
    assert (found["added"], found["known"], found["replaced"]) == (0, 1, 0)
    whole = labelloop("add", "images", tmp_path / "new", "--page", 0, "-C", project, "--json").document
    assert whole["added"] == 1
