from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from labelloop.errors import OutputError, UsageError
from labelloop.models.data_stats import DataStats
from labelloop.predict.items import PredictItem
from labelloop.predict.pool import PredictReport, predict_images
from labelloop.predict.store import STORE_NAME, PredictionStore

ALL_FORMATS = ("coco", "label-tiff", "overlay")


@pytest.fixture
def folder(tmp_path: Path, draw_ellipses: Callable) -> list[PredictItem]:
    """Seven images of three sizes; the last is large and is cut into tiles. Image i holds i + 1 objects."""
    sizes = [(90, 100), (90, 100), (60, 70), (90, 100), (60, 70), (90, 98), (260, 300)]
    items = []
    for i, (height, width) in enumerate(sizes):
        centres = [(15 + 25 * (k // 3), 15 + 25 * (k % 3)) for k in range(i + 1)]
        pixels = draw_ellipses((height, width), centres[: (i + 1)], [(7, 8)] * (i + 1))
        path = tmp_path / "images" / f"image {i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        items.append(PredictItem(path=path, name=path.name))
    return items


@pytest.fixture
def run_predict(components, stats: DataStats, tmp_path: Path) -> Callable[..., PredictReport]:
    def run(items: list[PredictItem], **changes) -> PredictReport:
        settings = {"out": tmp_path / "out", "formats": ALL_FORMATS, "model": components} | changes
        return predict_images(
            images=items, stats=stats, classes=("organoid",), run="r1", which="guided", **settings
        )

    return run


def contents(out: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(out)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != STORE_NAME
    }


def counts(out: Path) -> dict[str, int]:
    document = json.loads((out / "predictions.json").read_text())
    names = {image["id"]: image["file_name"] for image in document["images"]}
    found = dict.fromkeys(names.values(), 0)
    for annotation in document["annotations"]:
        found[names[annotation["image_id"]]] += 1
    return found


@pytest.mark.parametrize("size_hw", [(90, 100), (260, 300)], ids=["whole", "by tiles"])
def test_what_is_predicted_is_as_bright_as_it_was_in_training(components, stats, tmp_path, size_hw) -> None:
    pixels = np.full((*size_hw, 3), 60, np.uint8)
    pixels[20:40, 20:40] = 153
    Image.fromarray(pixels).save(tmp_path / "dim.png")
    for percentile, score in (((), 153 / 255), ((0.0, 100.0), 1.0)):
        out = tmp_path / str(score)
        predict_images(
            images=[PredictItem(path=tmp_path / "dim.png", name="dim.png")],
            model=components, stats=replace(stats, intensity_percentile=percentile),
            classes=("organoid",), run="r1", which="guided", out=out, formats=("coco",),
        )  # fmt: skip
        (found,) = json.loads((out / "predictions.json").read_text())["annotations"]
        assert found["score"] == pytest.approx(score, abs=1e-4)


def test_every_image_is_predicted_and_written(folder, run_predict, tmp_path: Path) -> None:
    report = run_predict(folder)
    assert (report.images, report.objects, report.skipped, report.predicted) == (7, 28, (), 7)
    assert counts(tmp_path / "out") == {f"image {i}.png": i + 1 for i in range(7)}
    for i in range(7):
        assert tifffile.imread(tmp_path / "out" / "label-tiff" / f"image {i}.tif").max() == i + 1
        assert (tmp_path / "out" / "overlay" / f"image {i}.png").is_file()


def test_images_of_similar_size_go_through_the_model_together(folder, run_predict, components) -> None:
    run_predict(folder[:6], formats=("coco",))
    assert sum(components.calls) == 6
    assert len(components.calls) < 6


def test_a_repeated_call_changes_nothing_and_says_so(folder, run_predict, components, tmp_path: Path) -> None:
    run_predict(folder)
    before = contents(tmp_path / "out")
    components.calls.clear()
    report = run_predict(folder)
    assert not components.calls
    assert (report.predicted, report.changed, report.images, report.objects) == (0, False, 7, 28)
    assert contents(tmp_path / "out") == before


def test_a_moved_output_folder_is_still_known(folder, run_predict, components, tmp_path: Path) -> None:
    run_predict(folder)
    shutil.move(tmp_path / "out", tmp_path / "moved")
    report = run_predict(folder, out=tmp_path / "moved")
    assert not report.changed


def test_a_new_image_is_the_only_one_predicted(folder, run_predict, tmp_path: Path) -> None:
    run_predict(folder[:5])
    report = run_predict(folder)
    assert (report.images, report.predicted) == (7, 2)


def test_a_file_with_new_content_is_predicted_again(
    folder, run_predict, draw_ellipses, tmp_path: Path
) -> None:
    run_predict(folder)
    Image.fromarray(draw_ellipses((90, 100), [(20, 20), (60, 60)], [(9, 9)] * 2)).save(folder[0].path)
    report = run_predict(folder)
    assert report.predicted == 1
    assert counts(tmp_path / "out")["image 0.png"] == 2


def test_another_model_is_not_confused_with_the_first(
    folder, run_predict, components, tmp_path: Path
) -> None:
    run_predict(folder)
    other = type(components)(threshold=0.99)
    report = run_predict(folder, model=other)
    assert report.predicted == 7
    assert report.changed


def test_files_of_another_model_that_stay_in_the_folder_are_noted_and_kept(
    folder, run_predict, components, watching, tmp_path: Path
) -> None:
    run_predict(folder[:3], progress=watching)
    run_predict(folder[:1], progress=watching)
    assert not watching.told
    other = {"model": type(components)(threshold=0.99), "progress": watching}
    run_predict(folder[2:5], **other)
    (said,) = watching.told
    assert "4 files are of another model" in said
    assert f"{tmp_path / 'out'}: label-tiff/image 0.tif, label-tiff/image 1.tif, overlay/image 0.png" in said
    assert (tmp_path / "out" / "label-tiff" / "image 1.tif").is_file()
    for name in said.partition("out: ")[2].split(";")[0].removesuffix(", ...").split(", "):
        (tmp_path / "out" / name).unlink()
    run_predict(folder[2:5], **other)
    assert "1 file is of another model" in watching.told[-1]
    assert "overlay/image 1.png;" in watching.told[-1]
    (tmp_path / "out" / "overlay" / "image 1.png").unlink()
    watching.told.clear()
    run_predict(folder[2:5], **other)
    assert not watching.told


def test_another_min_score_rewrites_the_masks_without_predicting(folder, run_predict, tmp_path: Path) -> None:
    run_predict(folder)
    coco = (tmp_path / "out" / "predictions.json").read_bytes()
    report = run_predict(folder, min_score=0.999)
    assert (report.predicted, report.changed) == (0, True)
    assert report.objects < 28
    assert (tmp_path / "out" / "predictions.json").read_bytes() == coco
    report = run_predict(folder, min_score=0.999)
    assert not report.changed


def test_a_deleted_output_is_written_again(folder, run_predict, tmp_path: Path) -> None:
    run_predict(folder)
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "label-tiff" / "image 3.tif").unlink()
    (tmp_path / "out" / "predictions.json").unlink()
    assert run_predict(folder).changed
    after = contents(tmp_path / "out")
    assert {name: data for name, (data, _) in after.items()} == {
        name: data for name, (data, _) in before.items()
    }


def test_unusable_files_are_named_and_the_rest_goes_on(folder, run_predict, tmp_path: Path) -> None:
    folder[1].path.write_bytes(b"")
    folder[3].path.write_bytes(folder[3].path.read_bytes()[:60])
    folder[4].path.unlink()
    report = run_predict(folder)
    assert report.images == 4
    assert [Path(file.path).name for file in report.skipped] == ["image 1.png", "image 3.png", "image 4.png"]
    assert all(file.reason for file in report.skipped)
    assert set(counts(tmp_path / "out")) == {"image 0.png", "image 2.png", "image 5.png", "image 6.png"}


def test_equal_files_under_two_names_give_two_results(folder, run_predict, tmp_path: Path) -> None:
    twin = folder[2].path.with_name("twin.png")
    shutil.copy(folder[2].path, twin)
    run_predict([folder[2], PredictItem(path=twin, name="twin.png")])
    assert counts(tmp_path / "out") == {"image 2.png": 3, "twin.png": 3}
    assert (tmp_path / "out" / "label-tiff" / "twin.tif").is_file()


def test_no_images_give_an_empty_data_set(run_predict, tmp_path: Path) -> None:
    report = run_predict([])
    assert (report.images, report.objects) == (0, 0)
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["images"] == []


def test_an_unknown_format_is_refused_before_anything_is_done(folder, run_predict, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"png.*label-tiff"):
        run_predict(folder, formats=("coco", "png"))
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_an_output_error(folder, run_predict, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError):
        run_predict(folder)


def test_a_broken_store_is_an_output_error_with_a_way_out(folder, run_predict, tmp_path: Path) -> None:
    run_predict(folder)
    (tmp_path / "out" / STORE_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(OutputError, match="Delete that file"):
        run_predict(folder)


def test_two_predictions_into_one_folder_are_refused(folder, run_predict, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with PredictionStore(tmp_path / "out", "other"), pytest.raises(OutputError, match="Another labelloop"):
        run_predict(folder)


def test_a_writer_that_fails_stops_with_an_output_error_and_keeps_the_predictions(
    folder, run_predict, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "label-tiff").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        run_predict(folder)
    (tmp_path / "out" / "label-tiff").unlink()
    report = run_predict(folder)
    assert report.predicted < 7
    assert report.objects == 28


KILLED = """
import sys, time
from pathlib import Path
import importlib.util
spec = importlib.util.spec_from_file_location("predict_conftest", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from labelloop.models.data_stats import DataStats
from labelloop.predict.items import PredictItem
from labelloop.predict.pool import predict_images

class Slow(module.Components):
    def predict(self, images, *, min_score=0.05):
        time.sleep(0.2)
        return super().predict(images, min_score=min_score)

Slow.__qualname__ = "Components"
stats = DataStats(classes=("organoid",), image_size_hw=(100, 100), diameter_px=(12, 16, 20),
    box_side_px=(14, 18, 24), objects_per_image=(10, 20), intensity_percentile=(0.0, 100.0))
items = [PredictItem(path=p, name=p.name) for p in sorted(Path(sys.argv[2]).iterdir())]
predict_images(Slow(), items, out=Path(sys.argv[3]), formats=("coco", "label-tiff", "overlay"), stats=stats,
    classes=("organoid",), run="r1", which="guided")
"""


def test_a_killed_call_goes_on_where_it_was(folder, run_predict, tmp_path: Path) -> None:
    arguments = [
        str(Path(__file__).with_name("conftest.py")),
        str(folder[0].path.parent),
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "label-tiff").is_dir() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "predictions.json").exists()
    report = run_predict(folder)
    assert 0 < report.predicted < 7
    assert report.objects == 28
    resumed = contents(tmp_path / "out")
    run_predict(folder, out=tmp_path / "fresh")
    fresh = contents(tmp_path / "fresh")
    assert {name: data for name, (data, _) in resumed.items()} == {
        name: data for name, (data, _) in fresh.items()
    }
