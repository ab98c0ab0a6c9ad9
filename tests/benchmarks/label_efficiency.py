"""Label efficiency: guided distillation against the supervised model of the same labels, over several seeds.

Run by hand; it can be stopped at any time and goes on when called again:

    python tests/benchmarks/label_efficiency.py DATA WORK --set m-orgaquant --seeds 0-4 --minutes 24

DATA holds the sets as folders with COCO files; WORK keeps projects, runs and scores. Per seed one guided run
(it trains its own supervised baseline) and one supervised run on all labels, the ceiling. Every model is
measured on the test images, by which nothing is chosen. ``--report`` prints the table of what has finished.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelloop.distill.runs import load_model
from labelloop.evaluating import predict_known_images
from labelloop.metrics.bootstrap import Resampling
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.panel import MatchedModel
from labelloop.progress import Silent
from labelloop.project.project import Project

REPLICATES = 2000
METRICS = ("coco_ap", "coco_ap50", "coco_ap75", "f1_50", "pq")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """How a set becomes a project: class, ``add`` commands, drawn labels and labels of the ceiling."""

    classes: str
    adds: tuple[tuple[str, ...], ...]
    labels: str
    ceiling: str


SETS = {
    "m-orgaquant": DataSet(
        classes="organoid",
        adds=(
            ("labels", "{}/labeled.json", "--images", "{}/labeled"),
            ("images", "{}/unlabeled"),
            ("labels", "{}/test.json", "--images", "{}/test", "--split", "test"),
        ),
        labels="15",
        ceiling="all",
    ),
    "dsb2018": DataSet(
        classes="nucleus",
        adds=(
            ("labels", "{}/train.json", "--images", "{}/train"),
            ("labels", "{}/test.json", "--images", "{}/test", "--split", "test"),
        ),
        labels="5%",
        ceiling="all",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training."""

    name: str
    options: tuple[str, ...]


def labelloop(*arguments: str, log: Path | None = None) -> int:
    """Runs the command line in a process of its own, on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    command = [sys.executable, "-m", "labelloop", *arguments]
    with (log or Path(os.devnull)).open("a") as out:
        return subprocess.run(command, env=environment, stdout=out, stderr=out, check=False).returncode


def prepare(data: Path, work: Path, name: str) -> Project:
    """The project of a set, made once."""
    folder, data_set = work / name, SETS[name]
    if not (folder / "labelloop.toml").exists():
        assert labelloop("init", str(folder), "--classes", data_set.classes) == 0
    for add in data_set.adds:
        parts = [part.format(data / name) for part in add]
        assert labelloop("add", *parts, "-C", str(folder), log=work / "add.log") == 0
    return Project.open(folder)


def jobs_of(name: str, seeds: list[int], arguments: argparse.Namespace, work: Path) -> list[Job]:
    """Guided runs first, then ceilings."""
    whole = work / "whole.toml"
    whole.write_text("validation_share = 0.0\n")  # the ceiling learns from every label
    length = (
        ("--iterations", str(arguments.iterations))
        if arguments.iterations
        else ("--time", f"{arguments.minutes}m")
    )
    recipe = ("--recipe", arguments.recipe) if arguments.recipe else ()
    tag = Path(arguments.recipe).stem + "-" if arguments.recipe else ""
    guided = [
        Job(
            name=f"{tag}guided-{s}",
            options=("--labels", SETS[name].labels, "--seed", str(s), *length, *recipe),
        )
        for s in seeds
    ]
    on_all = ("--labels", SETS[name].ceiling, "--method", "supervised", "--recipe", str(whole))
    ceiling = [Job(name=f"ceiling-{s}", options=(*on_all, "--seed", str(s))) for s in seeds]
    return (guided if "guided" in arguments.only else []) + (ceiling if "ceiling" in arguments.only else [])


def train(project: Project, job: Job, work: Path) -> None:
    """Trains a job, or goes on with it."""
    runs = {run.name: run.state for run in project.runs()}
    if runs.get(job.name) == "finished":
        return
    options = ("--resume",) if job.name in runs else job.options
    begun = time.monotonic()
    where = ("--name", job.name, "-C", str(project.root))
    code = labelloop("train", *where, "--json", *options, log=work / f"{job.name}.log")
    print(f"{job.name}: exit {code} after {(time.monotonic() - begun) / 60:.1f} min", flush=True)


def score(project: Project, run: str, which: str) -> MatchedModel:
    """A model's predictions of the test images, matched; stored in the ledger after the first time."""
    images = project.images(split="test", labelled=True)
    loaded = load_model(project, run, which=which, device="cpu")
    seen = predict_known_images(project, loaded, images, Silent())
    truth = project.labels([i.id for i in images])
    table = PairTable.build([truth[i.id] for i in images], seen, n_classes=len(loaded.classes))
    return MatchedModel.of(table, loaded.min_score)


def report(project: Project, tag: str) -> None:
    """Prints what has finished: each seed, the means, and intervals over images and seeds together."""
    finished = {run.name: run for run in project.runs() if run.state == "finished"}
    n_images = len(project.images(split="test", labelled=True))
    ones = np.ones((1, n_images), np.int32)
    times = np.concatenate(list(Resampling.of(n_images, None, replicates=REPLICATES, seed=0).draws()))
    columns = {"supervised": f"{tag}guided-", "guided": f"{tag}guided-", "ceiling": "ceiling-"}
    values: dict[str, dict[int, tuple[dict[str, float], dict[str, np.ndarray]]]] = {c: {} for c in columns}
    for column, stem in columns.items():
        for name in sorted(finished):
            if name.startswith(stem):
                model = score(project, name, "supervised" if column == "ceiling" else column)
                point = {m: float(v[0]) for m, v in model.values(ones).items()}
                values[column][int(name.removeprefix(stem))] = (point, model.values(times))
    print(f"\n{project.root.name}: {n_images} test images\n")
    print("| model | seed | " + " | ".join(METRICS) + " |")
    print("|---|---|" + "---|" * len(METRICS))
    for column, seeds in values.items():
        for seed, (point, _) in sorted(seeds.items()):
            print(f"| {column} | {seed} | " + " | ".join(f"{100 * point[m]:.1f}" for m in METRICS) + " |")
    rng = np.random.default_rng(0)
    print("\n| | seeds | mean difference in AP points [95 % over images and seeds] |\n|---|---|---|")
    for a, b in (("guided", "supervised"), ("ceiling", "supervised"), ("ceiling", "guided")):
        both = sorted(values[a].keys() & values[b].keys())
        if both:
            print_difference(f"{a} - {b}", [(values[a][s], values[b][s]) for s in both], rng)
    for name in sorted(finished):
        seconds = (finished[name].result or {}).get("seconds", {})
        spent = sum(v for stage, v in seconds.items() if stage != "waiting for data")
        print(f"{name}: {finished[name].result['iterations']} iterations, {spent / 60:.1f} min, {seconds}")


def print_difference(title: str, pairs: list, rng: np.random.Generator) -> None:
    """One row: seeds are drawn anew as well as images."""
    points = np.array([a[0]["coco_ap"] - b[0]["coco_ap"] for a, b in pairs])
    draws = np.stack([a[1]["coco_ap"] - b[1]["coco_ap"] for a, b in pairs])
    chosen = rng.integers(0, len(pairs), (draws.shape[1], len(pairs)))
    means = draws[chosen, np.arange(draws.shape[1])[:, None]].mean(1)
    low, high = 100 * np.percentile(means, (2.5, 97.5))
    print(f"| {title} | {len(pairs)} | {100 * points.mean():+.2f} [{low:+.2f}, {high:+.2f}] |")


def main() -> None:
    """Parses, prepares, trains what is missing, reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--set", choices=SETS, default="m-orgaquant")
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--minutes", type=float, default=24.0)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--recipe", help="a recipe's TOML file; its stem goes into the runs' names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=("guided", "ceiling"), default=("guided", "ceiling"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    project = prepare(arguments.data.absolute(), work, arguments.set)
    if not arguments.report:
        logs = work / f"{arguments.set}-logs"
        logs.mkdir(exist_ok=True)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(
                pool.map(
                    lambda job: train(project, job, logs), jobs_of(arguments.set, seeds, arguments, work)
                )
            )
    report(project, Path(arguments.recipe).stem + "-" if arguments.recipe else "")


if __name__ == "__main__":
    main()
