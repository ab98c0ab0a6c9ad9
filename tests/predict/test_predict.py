from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labelloop.errors import ImageError, ProjectError
from labelloop.models.catalog import build_model
from labelloop.models.data_stats import DataStats
from labelloop.predict.predict import predict
from labelloop.progress import Silent
from labelloop.project.adding import add_images
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.runs.checkpoint import save_tensors
from labelloop.runs.files import RunFiles, write_json
from made_records import run_record


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three images in the pool, one for testing, and a finished run whose model is untrained."""
    rng = np.random.default_rng(0)
    for name in ("pool/a.png", "pool/b.png", "pool/c.png", "test/t.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 72), np.uint8)).save(path)
    project = Project.init(tmp_path / "project", ProjectConfig(name="p", classes=("organoid", "debris")))
    add_images(project, [str(tmp_path / "pool")])
    add_images(project, [str(tmp_path / "test")], split="test")
    save_run(project)
    return project


def save_run(project: Project, name: str = "r1") -> None:
    """A finished run; each name has other weights."""
    stats = DataStats(
        classes=("organoid", "debris"),
        image_size_hw=(64, 72),
        diameter_px=(12, 20, 30),
        box_side_px=(14, 22, 34),
        objects_per_image=(3, 6),
    )
    torch.manual_seed(int(name[1:]) - 1)
    model = build_model("mask-rcnn-lite", stats, pretrained=False).module()
    files = RunFiles(folder=project.runs_dir / name)
    save_tensors(files.weights("supervised"), {"model": model.state_dict()})
    request = {"method": "supervised"}
    write_json(files.config, {"model": "mask-rcnn-lite", "stats": asdict(stats), "request": request})
    result = {"min_score": {"supervised": 0.31}}
    project.save_run(run_record(name, model="mask-rcnn-lite", promoted="supervised", result=result))


def names(out: Path) -> list[str]:
    return [image["file_name"] for image in json.loads((out / "predictions.json").read_text())["images"]]


def test_without_paths_the_pool_is_predicted_and_test_images_are_not(
    project: Project, tmp_path: Path
) -> None:
    report = predict(project, out=tmp_path / "out")
    assert names(tmp_path / "out") == ["a.png", "b.png", "c.png"]
    assert (report.images, report.run, report.which, report.min_score) == (3, "r1", "supervised", 0.31)
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [category["name"] for category in document["categories"]] == ["organoid", "debris"]
    assert document["info"]["run"] == "r1"
    assert all(annotation["score"] >= 0.05 for annotation in document["annotations"])


def test_what_is_seen_in_an_image_does_not_depend_on_larger_ones(project: Project, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    (tmp_path / "sizes").mkdir()
    for name, size_hw in (("small", (64, 72)), ("wide", (64, 84)), ("high", (76, 72))):
        Image.fromarray(rng.integers(0, 255, size_hw, np.uint8)).save(tmp_path / "sizes" / f"{name}.png")

    def seen(path: Path, out: Path) -> list[list[float]]:
        predict(project, [str(path)], out=out)
        document = json.loads((out / "predictions.json").read_text())
        ids = {image["file_name"].rpartition("/")[2]: image["id"] for image in document["images"]}
        return [
            [a["score"], *a["bbox"]] for a in document["annotations"] if a["image_id"] == ids["small.png"]
        ]

    alone = seen(tmp_path / "sizes" / "small.png", tmp_path / "alone")
    assert alone
    assert seen(tmp_path / "sizes", tmp_path / "together") == alone


def test_test_images_are_predicted_when_named(project: Project, tmp_path: Path) -> None:
    predict(project, [str(tmp_path / "test")], out=tmp_path / "out", min_score=0.9)
    assert names(tmp_path / "out") == ["t.png"]


def test_a_path_that_leads_nowhere_is_reported_and_the_rest_goes_on(project: Project, tmp_path: Path) -> None:
    (tmp_path / "pool" / "broken.png").write_bytes(b"")
    report = predict(project, [str(tmp_path / "pool"), str(tmp_path / "gone")], out=tmp_path / "out")
    assert report.images == 3
    assert sorted(Path(file.path).name for file in report.skipped) == ["broken.png", "gone"]
    json.dumps(report.as_dict())


def test_nothing_to_predict_is_an_error(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file or folder"):
        predict(project, [str(tmp_path / "gone")], out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="nothing to predict"):
        predict(project, [str(tmp_path / "empty")], out=tmp_path / "out")
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(ImageError, match="the file is empty"):
        predict(project, [str(tmp_path / "broken.png")], out=tmp_path / "out")


def test_an_empty_pool_is_an_error(tmp_path: Path) -> None:
    project = Project.init(tmp_path / "empty", ProjectConfig(name="p", classes=("organoid", "debris")))
    save_run(project)
    with pytest.raises(ProjectError, match="the pool is empty"):
        predict(project, out=tmp_path / "out")


def test_a_run_that_finishes_meanwhile_predicts_nothing_of_a_call_that_has_begun(project, tmp_path):
    class FinishesAnother(Silent):
        def note(self, message: str) -> None:
            if message.startswith("skipped"):
                save_run(project, "r2")

    paths = [str(tmp_path / "pool"), str(tmp_path / "gone")]
    report = predict(project, paths, out=tmp_path / "out", devices=2, progress=FinishesAnother())
    assert project.run().name == "r2"
    assert (report.run, report.images) == ("r1", 3)
    again = predict(project, paths, out=tmp_path / "out", run="r1")
    assert (again.predicted, again.changed) == (0, False)


def test_all_processes_of_a_launcher_predict_with_the_run_that_the_first_one_finds(project, tmp_path):
    shutil.copytree(project.root, tmp_path / "seen later")
    save_run(Project.open(tmp_path / "seen later"), "r2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-m", "labelloop", "predict", "--json", "--out", str(tmp_path / "out")]
    both = [
        subprocess.Popen(
            [*command, "-C", str(root)],
            env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, root in (("0", project.root), ("1", tmp_path / "seen later"))
    ]
    (said, why), (nothing, _) = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], why
    document = json.loads(said)
    assert (document["run"], document["predicted"], nothing) == ("r1", 3, "")
    predict(project, out=tmp_path / "alone")
    found = [
        [(a["image_id"], a["score"], a["area"]) for a in json.loads(file.read_text())["annotations"]]
        for file in (tmp_path / "out" / "predictions.json", tmp_path / "alone" / "predictions.json")
    ]
    assert np.array(found[0]) == pytest.approx(np.array(found[1]), abs=1e-4)


def test_two_processes_write_what_one_writes(project, tmp_path):
    def run(out: str, devices: int) -> dict:
        command = [sys.executable, "-m", "labelloop", "predict", "-C", str(project.root), "--json"]
        command += ["--out", str(tmp_path / out), "--format", "coco,label-tiff", "--devices", str(devices)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr
        document: dict = json.loads(ran.stdout)
        return document

    alone, shared = run("alone", 1), run("shared", 2)
    assert shared["predicted"] == alone["predicted"] == 3
    assert shared["objects"] == alone["objects"] > 0
    names = {str(p.relative_to(tmp_path / "alone")) for p in (tmp_path / "alone").rglob("*") if p.is_file()}
    assert names == {
        str(p.relative_to(tmp_path / "shared")) for p in (tmp_path / "shared").rglob("*") if p.is_file()
    }
    documents = [json.loads((tmp_path / out / "predictions.json").read_text()) for out in ("alone", "shared")]
    assert documents[0]["images"] == documents[1]["images"]
    found = [[(a["image_id"], a["score"], a["area"]) for a in d["annotations"]] for d in documents]
    # Images of one size go through the model together: fewer at once are summed up in another order.
    assert np.array(found[0]) == pytest.approx(np.array(found[1]), abs=1e-4)
    again = run("shared", 2)
    assert (again["predicted"], again["changed"]) == (0, False)
