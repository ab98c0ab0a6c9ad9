"""How long a person waits for the editor: tasks as push makes them against one untiled task of brush masks.

    LABEL_STUDIO_API_KEY=... LABEL_STUDIO_PASSWORD=... python tests/benchmarks/bench_browser.py URL EMAIL \\
        [--fields FOLDER] [--side 2048] [--objects 300] [--tiles 6] [--cap 120]

Makes a micrograph with so many objects, plants its truth as a run's predictions, pushes it, and opens and
submits its tiles in headless Chromium; then does the same with all objects as brush masks in one task. With
FOLDER, which holds ``images/`` and ``annotations.json`` (COCO), these fields are pushed and opened too.
Prints JSON, seconds: from opening a task until its picture is there and all its regions are listed, and from
the click on Submit until it is stored. Nothing of it is kept but on the server.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Error, Page, sync_playwright

from labelloop.budget.opening import RoundRequest
from labelloop.budget.strategies import Budget
from labelloop.data.synthetic import organoid_micrograph
from labelloop.distill.train import TrainRequest, train
from labelloop.instances import Instances
from labelloop.integrations.label_studio.brush import encode_brush
from labelloop.integrations.label_studio.connecting import connect
from labelloop.integrations.label_studio.push import push
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import PredictionRow
from labelloop.review.rounds import current_round
from labelloop.review.tasks import round_tasks

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
LISTED = """n => window.Htx && Htx.annotationStore.selected?.regions.length === n
    && Htx.annotationStore.selected.objects[0].stageWidth > 1
    && document.querySelector('.lsf-outliner-item')"""
Picture = npt.NDArray[np.uint8]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("email")
    parser.add_argument("--fields", type=Path)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--objects", type=int, default=300)
    parser.add_argument("--tiles", type=int, default=6, help="opened of each image")
    parser.add_argument("--cap", type=float, default=120.0, help="seconds; a person has gone by then")
    arguments = parser.parse_args()
    side = (arguments.side, arguments.side)
    made = organoid_micrograph(np.random.default_rng(0), size_hw=side, n_objects=arguments.objects)
    fields: dict[str, tuple[Picture, Instances]] = {"made.png": made}
    if arguments.fields:
        fields |= _coco_fields(arguments.fields)
    with tempfile.TemporaryDirectory() as folder:
        tiled, number = _push(Path(folder), arguments.url, fields)
    untiled = _push_untiled(arguments.url, number, *made)
    report: dict[str, Any] = {}
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(arguments.cap * 1000)
        _log_in(page, arguments.url, arguments.email)
        page.goto(f"{arguments.url}/projects/{number}/data")
        page.get_by_text("Label All Tasks").first.wait_for()  # the program itself is loaded now
        for name, tasks in tiled.items():
            times = [
                _open_and_submit(page, arguments.url, number, task, n) for task, n in tasks[: arguments.tiles]
            ]
            report[name] = {"size": fields[name][0].shape, "objects": len(fields[name][1])} | _summary(
                tasks, times
            )
        times = [_open_and_submit(page, arguments.url, *untiled)]
        report["made.png in one task of brush masks"] = _summary([(untiled[1], untiled[2])], times)
        browser.close()
    print(json.dumps(report, indent=2))


def _coco_fields(folder: Path) -> dict[str, tuple[Picture, Instances]]:
    document = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    fields = {}
    for image in document["images"]:
        of_image = [a for a in document["annotations"] if a["image_id"] == image["id"]]
        rles = tuple(str(a["segmentation"]["counts"]).encode() for a in of_image)
        pixels = np.asarray(Image.open(folder / "images" / image["file_name"]).convert("L"))
        size_hw = (image["height"], image["width"])
        fields[image["file_name"]] = (
            pixels,
            Instances(size_hw=size_hw, rles=rles, labels=np.zeros(len(rles), np.int64)),
        )
    return fields


def _push(
    root: Path, url: str, fields: dict[str, tuple[Picture, Instances]]
) -> tuple[dict[str, list[tuple[int, int]]], int]:
    """The tasks of each image, each with its number of regions, and the project's number on the server."""
    pool, few, masks = root / "pool", root / "few", root / "masks"
    for folder in (pool, few, masks):
        folder.mkdir()
    for name, (pixels, _) in fields.items():
        Image.fromarray(pixels).save(pool / name)
    for seed in range(2):
        pixels, truth = organoid_micrograph(np.random.default_rng(seed), n_objects=6)
        labels = np.zeros(pixels.shape, np.uint8)
        for i in range(len(truth)):
            labels[truth.mask(i)] = i + 1
        Image.fromarray(pixels).save(few / f"few-{seed}.png")
        Image.fromarray(labels).save(masks / f"few-{seed}.png")
    project = Project.init(root / "project", ProjectConfig(name="browser", classes=("organoid",)))
    add_labels(project, LabelSource(path=str(masks), images=str(few)))
    add_images(project, [str(pool)])
    run = str(train(project, TrainRequest(method="supervised", iterations=2))["run"])
    images = {image.id: image for image in project.images(split="train", labelled=False)}
    with project.ledger.write() as session:
        for image in images.values():
            truth = fields[image.file_name][1]
            scored = Instances(
                size_hw=truth.size_hw, rles=truth.rles, labels=truth.labels, scores=np.full(len(truth), 0.9)
            )
            session.merge(
                PredictionRow(
                    run=run, which="supervised", image_id=image.id, instances=encode_instances(scored)
                )
            )
    made = connect(project, url)
    report = push(project, RoundRequest(budget=Budget(tasks=1000), strategy="random"))
    assert not report.skipped, report.skipped
    record = current_round(project, f"{url}#{made.ls_project}")
    assert record is not None
    tasks: dict[str, list[tuple[int, int]]] = {name: [] for name in fields}
    for task in round_tasks(project, record.id):
        assert task.server_id is not None
        tasks[images[task.image_id].file_name].append((task.server_id, len(task.shown)))
    return tasks, made.ls_project


def _push_untiled(url: str, like: int, pixels: Picture, truth: Instances) -> tuple[int, int, int]:
    """One task with every object as a brush mask: project, task and number of regions."""
    http = _client(url)
    config = http.get(f"/api/projects/{like}/").json()["label_config"]
    project = http.post("/api/projects/", json={"title": "untiled", "label_config": config}).json()["id"]
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    answer = http.post(
        f"/api/projects/{project}/import",
        params={"commit_to_project": "false"},
        files={"made.png": ("made.png", png.getvalue(), "image/png")},
    ).json()
    ids = json.dumps(answer["file_upload_ids"])
    (uploaded,) = http.get(f"/api/projects/{project}/file-uploads", params={"ids": ids}).json()
    regions = [
        {
            "id": f"brush{i:04d}",
            "type": "brushlabels",
            "from_name": "brush",
            "to_name": "image",
            "original_width": pixels.shape[1],
            "original_height": pixels.shape[0],
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": list(encode_brush(np.ascontiguousarray(truth.mask(i)))),
                "brushlabels": ["organoid"],
            },
        }
        for i in range(len(truth))
    ]
    prediction = {"model_version": "truth", "result": regions}
    task = {"data": {"image": "/data/" + uploaded["file"]}, "predictions": [prediction]}
    made = http.post(f"/api/projects/{project}/import", params={"return_task_ids": "true"}, json=[task])
    shown = {"model_version": "truth", "show_collab_predictions": True}
    http.patch(f"/api/projects/{project}/", json=shown).raise_for_status()
    return project, made.json()["task_ids"][0], len(regions)


def _client(url: str) -> httpx.Client:
    http = httpx.Client(base_url=url, timeout=600)
    token = os.environ["LABEL_STUDIO_API_KEY"]
    answer = http.post("/api/token/refresh/", json={"refresh": token})
    http.headers["authorization"] = (
        f"Bearer {answer.json()['access']}" if answer.is_success else f"Token {token}"
    )
    return http


def _log_in(page: Page, url: str, email: str) -> None:
    page.goto(f"{url}/user/login/")
    page.fill("#email", email)
    page.fill("#password", os.environ["LABEL_STUDIO_PASSWORD"])
    page.press("#password", "Enter")
    page.wait_for_url(lambda there: "login" not in there)


def _open_and_submit(
    page: Page, url: str, project: int, task: int, regions: int
) -> tuple[float | None, float | None]:
    """Seconds of both; None where it took longer than the cap."""
    open_s: float | None = None
    started = time.monotonic()
    try:
        page.goto(f"{url}/projects/{project}/data?task={task}", wait_until="commit")
        page.wait_for_function(LISTED, arg=regions)
        open_s, started = time.monotonic() - started, time.monotonic()
        page.get_by_role("button", name="Submit").click()
        page.locator('button:has-text("Update")').wait_for()
    except Error:
        return open_s, None
    return open_s, time.monotonic() - started


def _summary(
    tasks: list[tuple[int, int]], times: list[tuple[float | None, float | None]]
) -> dict[str, object]:
    opened = [seconds for seconds, _ in times if seconds is not None]
    submitted = [seconds for _, seconds in times if seconds is not None]
    return {
        "tasks": len(tasks),
        "regions_of_a_task": [min(n for _, n in tasks), max(n for _, n in tasks)],
        "tried": len(times),
        "open_median_s": round(statistics.median(opened), 1) if opened else None,
        "open_max_s": round(max(opened), 1) if opened else None,
        "submit_median_s": round(statistics.median(submitted), 1) if submitted else None,
        "submit_max_s": round(max(submitted), 1) if submitted else None,
        "over_the_cap": sum(None in both for both in times),
    }


if __name__ == "__main__":
    main()
