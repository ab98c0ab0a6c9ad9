"""Label efficiency: guided distillation against the supervised model of the same labels, over several seeds.

Run by hand; it can be stopped at any time and goes on when called again:

    python tests/benchmarks/label_efficiency.py DATA WORK --set m-orgaquant --seeds 0-4 --minutes 24

DATA holds the sets as folders with COCO files; WORK keeps projects and runs. Per seed one guided run (it
trains its own supervised baseline) and one supervised run on all labels, the ceiling. Every model is measured
on the test images, by which nothing is chosen. Scores go to tests/benchmarks/results/SET, where a later
sitting finds them whatever became of WORK; ``--report`` prints the table of what is there.

``--model`` takes another model, whose scores have its name in front. How long its supervised training should
be nobody has found out, so ``--only guided longer`` also trains it, in runs of their own, for as many steps
as teacher and student have together. ``--devices 2 --jobs 1`` gives both cores to one guided run at a time.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from scores import METRICS, Score, commit, mean_difference, measure, percent

from labelloop.evaluating import predict_known_images
from labelloop.progress import Silent
from labelloop.project.project import Project
from labelloop.runs.loading import load_model

RESULTS = Path(__file__).parent / "results"
KINDS = ("guided", "ceiling", "longer")
GUIDED_MODELS = ("supervised", "guided")  # both come out of one guided run
DEFAULT_MODEL = "mask-rcnn-lite"


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
    """One training; ``tag`` begins the names of its scores."""

    name: str
    tag: str
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
    tag, model = tag_of(arguments), ("--model", arguments.model)
    team = ("--devices", str(arguments.devices)) if arguments.devices > 1 else ()
    drawn = ("--labels", SETS[name].labels, *recipe, *model, *team)
    guided = [
        Job(name=f"{tag}guided-{s}", tag=tag, options=(*drawn, "--seed", str(s), *length)) for s in seeds
    ]
    on_all = ("--labels", SETS[name].ceiling, "--method", "supervised", "--recipe", str(whole), *model)
    tag = model_tag(arguments)
    ceiling = [Job(name=f"{tag}ceiling-{s}", tag=tag, options=(*on_all, "--seed", str(s))) for s in seeds]
    return (guided if "guided" in arguments.only else []) + (ceiling if "ceiling" in arguments.only else [])


def longer_jobs(name: str, seeds: list[int], arguments: argparse.Namespace) -> list[Job]:
    """Supervised runs as long as the guided ones, of which there are scores."""
    tag, jobs = tag_of(arguments), []
    recipe = ("--recipe", arguments.recipe) if arguments.recipe else ()
    drawn = ("--labels", SETS[name].labels, "--method", "supervised", *recipe, "--model", arguments.model)
    for seed in seeds:
        guided = RESULTS / name / f"{tag}guided-{seed}.json"
        if "longer" in arguments.only and guided.exists():
            length = ("--iterations", str(Score.load(guided).facts["iterations"]))
            jobs.append(
                Job(name=f"{tag}longer-{seed}", tag=tag, options=(*drawn, "--seed", str(seed), *length))
            )
    return jobs


def model_tag(arguments: argparse.Namespace) -> str:
    """What the names of runs and scores of another model than the default begin with."""
    name, _, path = arguments.model.partition(":")
    parts = [] if arguments.model == DEFAULT_MODEL else [name, Path(path).stem]
    return "".join(f"{part}-" for part in parts if part)


def tag_of(arguments: argparse.Namespace) -> str:
    """The same, the recipe's name and the processes; ceilings have the default recipe and one process."""
    recipe = f"{Path(arguments.recipe).stem}-" if arguments.recipe else ""
    return model_tag(arguments) + recipe + (f"devices-{arguments.devices}-" if arguments.devices > 1 else "")


def train(project: Project, job: Job, logs: Path, results: Path) -> None:
    """Trains a job, or goes on with it, and keeps its scores; what has scores is not trained."""
    kind, _, seed = job.name.removeprefix(job.tag).partition("-")
    models = {w: w for w in GUIDED_MODELS} if kind == "guided" else {kind: "supervised"}
    wanted = {which: results / f"{job.tag}{column}-{seed}.json" for column, which in models.items()}
    if all(path.exists() for path in wanted.values()):
        return
    runs = {run.name: run.state for run in project.runs()}
    if runs.get(job.name) != "finished":
        options = ("--resume",) if job.name in runs else job.options
        begun = time.monotonic()
        where = ("--name", job.name, "-C", str(project.root))
        code = labelloop("train", *where, "--json", *options, log=logs / f"{job.name}.log")
        print(f"{job.name}: exit {code} after {(time.monotonic() - begun) / 60:.1f} min", flush=True)
        if code:
            return
    result = project.run(job.name).result or {}
    facts = {key: result[key] for key in ("iterations", "seconds", "memory_peak_mib")}
    facts |= {"date": str(datetime.date.today()), "commit": commit()}
    images = project.images(split="test", labelled=True)
    labels = project.labels([i.id for i in images])
    for which, path in wanted.items():
        loaded = load_model(project, job.name, which=which, device="cpu")
        seen = predict_known_images(project, loaded, images, Silent())
        measure([labels[i.id] for i in images], seen, min_score=loaded.min_score, facts=facts).save(path)


def report(name: str, tag: str, ceilings: str) -> None:
    """Prints what has finished: each seed, the means, and intervals over images and seeds together."""
    values: dict[str, dict[int, Score]] = {}
    for column in ("supervised", "guided", "longer", "ceiling"):
        stem = ceilings if column == "ceiling" else tag
        found = [p for p in (RESULTS / name).glob(f"{stem}{column}-*.json")]
        values[column] = {int(p.stem.rpartition("-")[2]): Score.load(p) for p in sorted(found)}
    print(f"\n{name}\n\n| model | seed | {' | '.join(METRICS)} | minutes | iterations |")
    print("|---|---|" + "---|" * (len(METRICS) + 2))
    for column, seeds in values.items():
        for seed, score in seeds.items():
            cells = " | ".join(percent(score.metrics[m]) for m in METRICS)
            spent = sum(v for stage, v in score.facts["seconds"].items() if stage != "waiting for data")
            print(f"| {column} | {seed} | {cells} | {spent / 60:.1f} | {score.facts['iterations']} |")
        if seeds:
            means = [sum(s.metrics[m] for s in seeds.values()) / len(seeds) for m in METRICS]
            print(f"| {column} | mean of {len(seeds)} | {' | '.join(map(percent, means))} | | |")
    print("\n| | seeds | mean difference in AP points [95 % over images and seeds] |\n|---|---|---|")
    for a, b in (
        ("guided", "supervised"),
        ("guided", "longer"),
        ("ceiling", "supervised"),
        ("ceiling", "guided"),
    ):
        both = sorted(values[a].keys() & values[b].keys())
        if both:
            mean, low, high = mean_difference([(values[a][s], values[b][s]) for s in both])
            print(f"| {a} - {b} | {len(both)} | {mean:+.2f} [{low:+.2f}, {high:+.2f}] |")


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
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--recipe", help="a recipe's TOML file; its stem goes into the runs' names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1, help="processes that share a guided run")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=("guided", "ceiling"))
    parser.add_argument("--report", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        project = prepare(arguments.data.absolute(), work, arguments.set)
        logs = work / f"{arguments.set}-logs"
        logs.mkdir(exist_ok=True)
        results = RESULTS / arguments.set
        results.mkdir(parents=True, exist_ok=True)
        jobs = jobs_of(arguments.set, seeds, arguments, work)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda job: train(project, job, logs, results), jobs))
            jobs = longer_jobs(arguments.set, seeds, arguments)
            list(pool.map(lambda job: train(project, job, logs, results), jobs))
    report(arguments.set, tag_of(arguments), model_tag(arguments))


if __name__ == "__main__":
    main()
