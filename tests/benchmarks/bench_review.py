"""Push and pull against the bare requests of the same payload, on a real Label Studio.

    LABEL_STUDIO_API_KEY=... python tests/benchmarks/bench_review.py URL [--tasks 1000] [--masks 30]

Makes micrographs with so many discs, plants them as a run's predictions and pushes them; sends the very same
pictures and tasks once more with nothing but an HTTP client; accepts all tasks in bulk; pulls them, and
reads the same pages with the HTTP client. The two ways take turns where the server lets them. Prints JSON:
seconds, their ratios, and what an idle ``labelloop pull`` costs as a command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from labelloop.budget.opening import RoundRequest
from labelloop.budget.strategies import Budget
from labelloop.distill.train import TrainRequest, train
from labelloop.instances import Instances
from labelloop.integrations.label_studio.changes import FIELDS
from labelloop.integrations.label_studio.connecting import connect
from labelloop.integrations.label_studio.pull import pull
from labelloop.integrations.label_studio.push import push
from labelloop.integrations.label_studio.transport import Transport
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import PredictionRow

SIDE = 512


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--masks", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = _project(Path(folder), arguments.tasks, arguments.masks)
        made = connect(project, arguments.url)
        with _recorded() as requests:
            request = RoundRequest(budget=Budget(tasks=arguments.tasks), strategy="random")
            pushed, push_s = _timed(lambda: push(project, request))
        bare_push_s = _send_again(arguments.url, project, requests)
        http = _plain(arguments.url)
        everything = {"selectedItems": {"all": True, "excluded": []}}
        action = {"id": "predictions_to_annotations", "project": made.ls_project}
        http.post("/api/dm/actions", params=action, json=everything).raise_for_status()
        _, bare_before_s = _timed(lambda: _pages(http, made.ls_project))
        pulled, pull_s = _timed(lambda: pull(project))
        _, bare_after_s = _timed(lambda: _pages(http, made.ls_project))
        bare_pull_s = (bare_before_s + bare_after_s) / 2
        _, idle_s = min((_timed(lambda: pull(project)) for _ in range(5)), key=lambda timed: timed[1])
        idle = [sys.executable, "-m", "labelloop", "pull", "-C", str(project.root)]
        idle_command_s = min(
            _timed(lambda: subprocess.run(idle, check=True, capture_output=True))[1] for _ in range(5)
        )
    print(
        json.dumps(
            {
                "tasks": pushed.tasks,
                "regions": pushed.regions,
                "push_s": round(push_s, 2),
                "bare_push_s": round(bare_push_s, 2),
                "push_ratio": round(push_s / bare_push_s, 3),
                "annotations": pulled.annotations_new,
                "pull_s": round(pull_s, 2),
                "bare_pull_s": round(bare_pull_s, 2),
                "pull_ratio": round(pull_s / bare_pull_s, 3),
                "idle_pull_s": round(idle_s, 2),
                "idle_pull_command_s": round(idle_command_s, 2),
            },
            indent=2,
        )
    )


def _project(root: Path, tasks: int, masks: int) -> Project:
    """A project with a run of some steps, and predictions of so many discs in so many images."""
    rng = np.random.default_rng(0)
    pool, few = root / "pool", root / "few"
    pool.mkdir()
    few.mkdir()
    project = Project.init(root / "project", ProjectConfig(name="bench", classes=("organoid",)))
    truth = [_discs(rng, masks) for _ in range(min(tasks, 50))]
    for i in range(tasks):
        noise = rng.integers(0, 40, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(noise + 100).save(pool / f"{i:05d}.png", compress_level=1)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for number, mask in enumerate(truth[0].to_dense(), 1):
        labels[mask] = number
    (root / "labels").mkdir()
    for i in range(2):
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE), dtype=np.uint8)).save(few / f"few-{i}.png")
        Image.fromarray(labels).save(root / "labels" / f"few-{i}.png")
    add_labels(project, LabelSource(path=str(root / "labels"), images=str(few)))
    add_images(project, [str(pool)])
    run = str(train(project, TrainRequest(method="supervised", iterations=4))["run"])
    stored = [encode_instances(instances) for instances in truth]
    with project.ledger.write() as session:
        for i, image in enumerate(project.images(split="train", labelled=False)):
            session.merge(
                PredictionRow(
                    run=run, which="supervised", image_id=image.id, instances=stored[i % len(stored)]
                )
            )
    return project


def _discs(rng: np.random.Generator, n: int) -> Instances:
    """Wavy blobs, 20 to 60 px wide."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    masks = []
    for _ in range(n):
        y, x, radius = rng.uniform(30, SIDE - 30), rng.uniform(30, SIDE - 30), rng.uniform(10, 30)
        angle = np.arctan2(rows - y, columns - x)
        wave = 1 + 0.1 * np.sin(angle * rng.integers(2, 6) + rng.uniform(0, 6))
        masks.append((rows - y) ** 2 + (columns - x) ** 2 <= (radius * wave) ** 2)
    return Instances.from_dense(np.asarray(masks), scores=rng.uniform(0.6, 1, n))


@contextmanager
def _recorded() -> Iterator[list[tuple[str, str, dict[str, Any]]]]:
    """The requests that push makes, with their bodies."""
    made: list[tuple[str, str, dict[str, Any]]] = []
    request = Transport.request

    def record(self: Transport, method: str, path: str, **options: Any) -> Any:
        made.append((method, path, options))
        return request(self, method, path, **options)

    Transport.request = record  # type: ignore[method-assign]
    try:
        yield made
    finally:
        Transport.request = request  # type: ignore[method-assign]


def _send_again(url: str, project: Project, requests: list[tuple[str, str, dict[str, Any]]]) -> float:
    """Seconds that the pictures and tasks of a push take in another project, by a plain client."""
    first = project.config.label_studio
    assert first is not None
    http = _plain(url)
    config = http.get(f"/api/projects/{first.project}").json()["label_config"]
    other = http.post("/api/projects/", json={"title": "bare", "label_config": config}).json()["id"]
    posts = [
        ("/" + path.replace(f"projects/{first.project}/", f"projects/{other}/"), options)
        for method, path, options in requests
        if method == "POST"
    ]
    started = time.monotonic()
    for path, options in posts:
        known = {k: v for k, v in options.items() if k in ("params", "files", "content")}
        headers = {"content-type": "application/json"} if "content" in options else None
        http.post(path, headers=headers, **known).raise_for_status()
    return time.monotonic() - started


def _pages(http: httpx.Client, project: int) -> int:
    seen = 0
    while True:
        params = {
            "project": project, "fields": "all", "include": ",".join(FIELDS), "page": seen // 100 + 1,
            "page_size": 100, "query": json.dumps({"ordering": ["tasks:updated_at"]}),
        }  # fmt: skip
        answer = http.get("/api/tasks", params=params).json()
        seen += len(answer["tasks"])
        if seen >= answer["total"]:
            return seen


def _plain(url: str) -> httpx.Client:
    http = httpx.Client(base_url=url, timeout=600)
    token = os.environ["LABEL_STUDIO_API_KEY"]
    answer = http.post("/api/token/refresh/", json={"refresh": token})
    http.headers["authorization"] = (
        f"Bearer {answer.json()['access']}" if answer.is_success else f"Token {token}"
    )
    return http


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    result = work()
    return result, time.monotonic() - started


if __name__ == "__main__":
    main()
