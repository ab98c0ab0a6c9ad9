"""A prediction that several processes share: what one process would write, and each image once."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.errors import OutputError, ProjectError
from labelloop.predict.items import PredictItem
from labelloop.predict.pool import predict_images
from labelloop.predict.reading import Outputs, Reader
from labelloop.predict.sharing import left_to_do
from labelloop.predict.store import PART_NAME, STORE_NAME, PredictionStore, model_key
from labelloop.predict.tiles import tile_layout
from labelloop.predict.work import Work
from labelloop.processes import started
from labelloop.progress import Silent

FORMATS = ("coco", "label-tiff")


@pytest.fixture
def items(tmp_path: Path) -> list[PredictItem]:
    """Five images of bright squares, the last one of another size."""
    folder = tmp_path / "images"
    folder.mkdir()
    made = []
    for i in range(5):
        pixels = np.zeros((60, 80 + 10 * (i == 4)), np.uint8)
        pixels[10 : 20 + i, 10:30] = 200
        Image.fromarray(pixels).save(folder / f"{i}.png")
        made.append(PredictItem(path=folder / f"{i}.png", name=f"{i}.png", size_hw=pixels.shape))
    return made


def part_of_a_killed_process(out: Path, items: list[PredictItem], only: range, model, stats) -> None:
    """What a process leaves that has predicted its share and is killed before the leader takes it over."""
    out.mkdir()
    layout = tile_layout(stats, model)
    outputs = Outputs(out=out, formats=FORMATS, min_score=0.5, model=model_key(model, stats, layout))
    with PredictionStore(out, outputs.model, part=1) as store:
        reader = Reader(store=store, stats=stats, layout=layout, outputs=outputs)
        Work(store=store, model=model, reader=reader, progress=Silent()).run(items, only)


def test_the_next_call_takes_over_what_a_killed_process_has_predicted(items, components, stats, tmp_path):
    settings = {"formats": FORMATS, "stats": stats, "classes": ("organoid",)}
    whole = predict_images(components, items, out=tmp_path / "whole", **settings)
    assert (whole.images, whole.objects, whole.predicted) == (5, 5, 5)
    part_of_a_killed_process(tmp_path / "cut", items, range(0, 5, 2), components, stats)
    finished = predict_images(components, items, out=tmp_path / "cut", **settings)
    assert (finished.images, finished.objects, finished.predicted) == (5, 5, 2)
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == [
        STORE_NAME, "label-tiff", "predictions.json"
    ]  # fmt: skip
    for name in ("predictions.json", *(f"label-tiff/{i}.tif" for i in range(5))):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


PARTNER = """
import time
from datetime import timedelta
import numpy as np
import torch
from torch import nn
from labelloop import team
from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import Prediction
from labelloop.predict.sharing import help_predict
from labelloop.processes import take_part

class Components(nn.Module):  # the leader's, but that it is slow and sees nothing
    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(THRESHOLD))

    def module(self):
        return self

    def predict(self, images, *, min_score=0.05):
        time.sleep(SECONDS)
        nothing = np.zeros(0, np.float32)
        return [
            Prediction(
                size_hw=tuple(image.shape[1:]), labels=np.zeros(0, np.int64), scores=nothing,
                quality=nothing, crops=(), offsets_yx=np.zeros((0, 2), np.int64),
            )
            for image in images
        ]

team.PATIENCE = timedelta(seconds=6)
with take_part(device_type="cpu") as joined:
    help_predict(Components(), STATS, joined)
"""


def partner(stats, *, threshold: float, seconds: int) -> str:
    values = {"STATS": stats, "THRESHOLD": threshold, "SECONDS": seconds}
    program = PARTNER
    for name, value in values.items():
        program = program.replace(name, repr(value))
    return program


def test_a_share_that_takes_much_longer_than_another_is_waited_for(
    items, components, stats, tmp_path, monkeypatch
):
    monkeypatch.setattr("labelloop.channel.PATIENCE", timedelta(seconds=6))
    program = partner(stats, threshold=0.25, seconds=12)
    with started(["-c", program], size=2, device_type="cpu", logs=tmp_path, way_out="") as team:
        settings = {"stats": stats, "classes": ("organoid",), "team": team}
        report = predict_images(components, items, out=tmp_path / "out", **settings)
    assert (report.images, report.predicted, report.objects) == (5, 5, 3)  # the slow one sees nothing


def test_a_process_that_has_another_model_is_refused_before_it_predicts(items, components, stats, tmp_path):
    program = partner(stats, threshold=0.5, seconds=0)
    with (
        pytest.raises(ProjectError, match="do not have the same model"),
        started(["-c", program], size=2, device_type="cpu", logs=tmp_path, way_out="") as team,
    ):
        predict_images(components, items, out=tmp_path / "out", stats=stats, classes=("organoid",), team=team)
    alone = predict_images(components, items, out=tmp_path / "out", stats=stats, classes=("organoid",))
    assert alone.predicted == 5


def test_what_is_done_is_not_shared_out_and_what_is_there_twice_is_once(items, components, stats, tmp_path):
    out = tmp_path / "out"
    predict_images(components, items[:2], out=out, formats=FORMATS, stats=stats, classes=("organoid",))
    layout = tile_layout(stats, components)
    key = model_key(components, stats, layout)
    outputs = Outputs(out=out, formats=FORMATS, min_score=0.5, model=key)
    with PredictionStore(out, key) as store:
        reader = Reader(store=store, stats=stats, layout=layout, outputs=outputs)
        assert left_to_do(reader, [*items, items[4]]) == [2, 3, 4]
        (out / "label-tiff" / "0.tif").unlink()
        assert left_to_do(reader, items) == [0, 2, 3, 4]


def test_the_store_of_a_process_that_still_works_is_not_taken_over(items, components, stats, tmp_path):
    out = tmp_path / "out"
    part_of_a_killed_process(out, items, range(2), components, stats)
    at_work = sqlite3.connect(out / PART_NAME.format(1))
    try:
        at_work.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="locked") as caught:
            predict_images(components, items, out=out, stats=stats, classes=("organoid",))
        assert caught.value.value == str(out / PART_NAME.format(1))
    finally:
        at_work.close()
    assert predict_images(components, items, out=out, stats=stats, classes=("organoid",)).predicted == 3
