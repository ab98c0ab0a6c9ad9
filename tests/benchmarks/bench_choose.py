"""Choosing 40 tasks from a pool of 20,000 images whose predictions, doubts and embeddings are kept.

Run by hand: ``python tests/benchmarks/bench_choose.py [--images 20000]``. The entries are made (all
show one picture); the model is a real one of a few steps. Prints seconds and peak memory of a process that
opens a round.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from sqlalchemy import insert

from labelloop.budget.embeddings import DIMENSIONS, ENCODER, Picture, embed
from labelloop.budget.opening import RoundRequest, open_round
from labelloop.budget.strategies import STRATEGIES, Budget
from labelloop.data.synthetic_set import write_micrographs
from labelloop.instances import Instances
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import DoubtRow, EmbeddingRow, ImageRow, PredictionRow
from labelloop.review.tasks import round_tasks

OBJECTS = 25
VARIANTS = 200  # different predictions; each serves many images


def made_project(folder: Path, n_images: int) -> Project:
    """A project with a trained model and a pool of entries."""
    from labelloop.distill.train import TrainRequest, train  # loads torch, which is not what is measured

    project = Project.init(folder / "pool", ProjectConfig(name="pool", classes=("organoid",)))
    write_micrographs(folder / "labelled", 3, seed=0, labels=folder / "labelled.json", size_hw=(96, 96))
    add_labels(project, LabelSource(path=str(folder / "labelled.json"), images=str(folder / "labelled")))
    train(project, TrainRequest(iterations=4, name="made"))
    embed(project, [Picture(image=image) for image in project.images()])
    rng = np.random.default_rng(0)
    first = 1000
    ids = range(first, first + n_images)
    digests = _written(project.root, ids)
    images = [
        {"id": i, "sha256": digests[i], "page": 0, "channel": -1, "path": f"{i}.png",
         "file_name": f"{i}.png", "height": 512, "width": 512, "split": "train", "group": f"plate-{i % 20}"}
        for i in ids
    ]  # fmt: skip
    predictions = [encode_instances(_objects(rng)) for _ in range(VARIANTS)]
    doubts = [
        {"scores": rng.uniform(0.05, 1, OBJECTS).round(4).tolist(),
         "agreement": rng.uniform(0.3, 1, OBJECTS).round(4).tolist(),
         "unmatched": rng.uniform(0, 0.3, 4).round(4).tolist(), "outline": 90.0}
        for _ in range(VARIANTS)
    ]  # fmt: skip
    vectors = rng.normal(size=(n_images, DIMENSIONS)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = {"run": "made", "which": "guided"}
    with project.ledger.write() as session:
        session.execute(insert(ImageRow), images)
        session.execute(
            insert(PredictionRow),
            [{**model, "image_id": i, "instances": predictions[i % VARIANTS]} for i in ids],
        )
        session.execute(
            insert(DoubtRow), [{**model, "image_id": i, "doubts": doubts[i % VARIANTS]} for i in ids]
        )
        session.execute(
            insert(EmbeddingRow),
            [
                {"encoder": ENCODER, "image_id": i, "vector": row.tobytes()}
                for i, row in zip(ids, vectors, strict=True)
            ],
        )
    return project


def _written(folder: Path, ids: Iterable[int]) -> dict[int, str]:
    """One picture for every id, with the id behind its end, so that no two files are alike; their digests."""
    y, x = np.mgrid[:512, :512]
    Image.fromarray(((x * y) // 1024).astype(np.uint8)).save(folder / "picture.png")
    picture = (folder / "picture.png").read_bytes()
    digests = {}
    for i in ids:
        (folder / f"{i}.png").write_bytes(picture + i.to_bytes(4, "big"))
        digests[i] = hashlib.sha256(picture + i.to_bytes(4, "big")).hexdigest()
    return digests


def _objects(rng: np.random.Generator) -> Instances:
    y, x = np.mgrid[:512, :512]
    circles = zip(
        rng.uniform(20, 490, OBJECTS), rng.uniform(20, 490, OBJECTS), rng.uniform(8, 20, OBJECTS), strict=True
    )
    masks = np.array([(y - cy) ** 2 + (x - cx) ** 2 < r * r for cy, cx, r in circles])
    return Instances.from_dense(masks, scores=np.sort(rng.uniform(0.05, 1, OBJECTS))[::-1].astype(np.float32))


def timed(root: Path, strategy: str) -> dict[str, float]:
    """Opens a round in this process."""
    project = Project.open(root)
    begun = time.perf_counter()
    request = RoundRequest(budget=Budget(tasks=40), strategy=strategy)  # type: ignore[arg-type]
    record = open_round(project, f"bench-{strategy}", request, Silent())
    seconds = time.perf_counter() - begun
    assert len(round_tasks(project, record.id)) == 40
    return {"seconds": seconds, "peak_mib": _mib("VmHWM"), "files_mib": _mib("RssFile")}


def _mib(field: str) -> float:
    """Of this process alone; the peak of getrusage begins with that of the process it was forked from."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--timed", nargs=2, metavar=("ROOT", "STRATEGY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.timed:
        print(json.dumps(timed(Path(arguments.timed[0]), arguments.timed[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        project = made_project(Path(folder), arguments.images)
        print(f"40 tasks of {arguments.images} images\n")
        print("| strategy | seconds | peak memory, MiB | of it mapped libraries |\n|---|---|---|---|")
        for strategy in STRATEGIES:
            command = [sys.executable, __file__, "--timed", str(project.root), strategy]
            ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(ran.stdout)
            memory = f"{found['peak_mib']:.0f} | {found['files_mib']:.0f}"
            print(f"| {strategy} | {found['seconds']:.1f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
