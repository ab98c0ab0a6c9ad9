"""What the strategies are worth: ``simulate`` on real sets, several seeds, resumable.

Run by hand; it can be stopped at any time and goes on when called again:

    python tests/benchmarks/budget_study.py DATA WORK --set m-orgaquant --seeds 0-2

DATA holds the sets as folders with COCO files; WORK keeps projects and simulations. Results go to
tests/benchmarks/results/budget: a .json and a .md for each set and length of rounds, and the curve of each
finished lane below SET/, so that WORK is not needed for seeds that are done. ``--collect`` keeps the lanes
that are finished and trains nothing. The labelled training images, or a draw of them, are the pool, their
truth hidden; the test images measure every model, and nothing is chosen by them. ``--ceiling`` trains, as a
lane does, on all labels at once: what the best choice could come to. ``--truth`` trains on the images of each
lane's last round with their whole truth, instead of what the simulated person left of it: it tells what is
due to the images, and what to their labels.
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelloop.budget.audit import Audit, audit_rounds
from labelloop.budget.strategies import Budget, Strategy
from labelloop.metrics.seeds import mean_over_seeds
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import FILE_NAME, ProjectConfig
from labelloop.project.project import Project
from labelloop.runs.files import write_json
from labelloop.simulation.lane import SERVER, LaneSettings, Point, read_points
from labelloop.simulation.lane_process import SETTINGS, Job, run_jobs, settings_from_json, settings_to_json
from labelloop.simulation.lanes_compared import (
    METRIC,
    LaneCurve,
    compare_curves,
    interval,
    measure_lane,
)
from labelloop.simulation.simulation import SimulationRequest, simulate

RESULTS = Path(__file__).parent / "results" / "budget"
STRATEGIES: tuple[Strategy, ...] = ("random", "auto", "diversity", "foreground-random")
CEILING = "ceiling"
TRUTH = "-truth"  # behind a strategy: its images with their whole truth


@dataclass(frozen=True, kw_only=True)
class StudySet:
    """A set, and what a round costs on it.

    Attributes:
        classes: Of its project.
        train: Labels and images, as in DATA.
        unlabelled: Further images, or None.
        minutes: Budget of each round.
        start: Labelled images before the first round.
        pool: So many of the training images are the pool, drawn once; None for all.
    """

    classes: tuple[str, ...]
    train: tuple[str, str]
    unlabelled: str | None
    minutes: float
    start: int = 5
    pool: int | None = None


SETS = {
    "m-orgaquant": StudySet(
        classes=("organoid",), train=("labeled.json", "labeled"), unlabelled="unlabeled", minutes=10.0
    ),
    "dsb2018": StudySet(
        classes=("nucleus",), train=("train.json", "train"), unlabelled=None, minutes=30.0, pool=140
    ),
}


def project_of(name: str, data: Path, work: Path) -> Project:
    """The set as a project, made once."""
    chosen, root = SETS[name], work / name
    if (root / FILE_NAME).exists():
        return Project.open(root)
    project = Project.init(root, ProjectConfig(name=name, classes=chosen.classes))
    labels, images = chosen.train
    drawn = data / name / labels if chosen.pool is None else root / "pool.json"
    if chosen.pool is not None:
        drawn.write_text(json.dumps(some_images(json.loads((data / name / labels).read_text()), chosen.pool)))
    add_labels(project, LabelSource(path=str(drawn), images=str(data / name / images)))
    if chosen.unlabelled is not None:
        add_images(project, [str(data / name / chosen.unlabelled)])
    test = str(data / name / "test")
    add_labels(project, LabelSource(path=str(data / name / "test.json"), images=test), split="test")
    return project


def some_images(coco: dict[str, Any], n: int) -> dict[str, Any]:
    """So many images of a COCO document, drawn once, with what is annotated in them."""
    order = np.random.default_rng(0).permutation(len(coco["images"]))[:n]
    images = [coco["images"][i] for i in sorted(order.tolist())]
    ids = {image["id"] for image in images}
    return {**coco, "images": images, "annotations": [a for a in coco["annotations"] if a["image_id"] in ids]}


class Lines(Silent):
    """Progress as lines."""

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        print(f"{datetime.datetime.now():%H:%M:%S} {steps} trainings done", flush=True)

    def note(self, message: str) -> None:
        print(message, flush=True)


def table(result: dict[str, Any]) -> str:
    """Markdown: the curve of each strategy, then how each compares with random."""
    lines = ["| strategy | round | minutes | images | AP |", "|---|---|---|---|---|"]
    for name, points in result["strategies"].items():
        for point in points:
            lines.append(
                f"| {name} | {point['round']} | {point['minutes']:.1f} | {point['images']:.1f} "
                f"| {_points(point)} |"
            )
    lines += [
        "",
        "| strategy | mean AP over the minutes | difference | at the end | share of the minutes |",
        "|---|---|---|---|---|",
    ]
    lines += [_compared(name, each) for name, each in result["compared"].items()]
    if result["auto_against"]:
        lines += ["", "| auto against | its mean AP | difference | at the end | share of the minutes |"]
        lines += ["|---|---|---|---|---|"]
        lines += [_compared(name, each) for name, each in result["auto_against"].items()]
    if result[CEILING]:
        ceiling, more = (_points(result[CEILING][key]) for key in ("value", "more_than_random"))
        lines += ["", f"All labels at once: {ceiling}, which is {more} more than random at the end."]
    for name, found in result["truth"].items():
        reached, more = (_points(found[key]) for key in ("value", "more_than_random"))
        lines += [
            "",
            f"The last images of {name} with their whole truth: {reached}, {more} more than random.",
        ]
    for seed, audit in result["audits"].items():
        lines += ["", f"Audit of auto, seed {seed}: {audit['verdict']}."]
    return "\n".join(lines) + "\n"


def _compared(name: str, each: dict[str, Any]) -> str:
    share = each["minutes_share"]
    spans = [_points(each[key]) if each[key] else "-" for key in ("area", "difference", "at_the_end")]
    shares = ["never" if share[key] is None else f"{share[key]:.0%}" for key in ("value", "low", "high")]
    return f"| {name} | {' | '.join(spans)} | {shares[0]} [{shares[1]}, {shares[2]}] |"


def _points(estimate: dict[str, float]) -> str:
    return f"{100 * estimate['value']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--seeds", default="0-2", help="such as 0-2")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=400, help="about four minutes on one core")
    parser.add_argument("--minutes", type=float, help="of each round; the set's own if not given")
    parser.add_argument("--annotator", default="perfect")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--ceiling", action="store_true", help="train on all labels too")
    parser.add_argument("--truth", action="store_true", help="train on the lanes' images with all truth")
    parser.add_argument("--collect", action="store_true", help="only keep what is finished")
    arguments = parser.parse_args()
    arguments.minutes = arguments.minutes or SETS[arguments.set].minutes
    first, last = (int(end) for end in (arguments.seeds.split("-") * 2)[:2])
    project = project_of(arguments.set, arguments.data, arguments.work)
    if not arguments.collect:
        run_missing(project, arguments, range(first, last + 1))
        if arguments.ceiling:
            _, settings = next(simulations(project, arguments))
            start = dict.fromkeys(range(first, last + 1), settings.askable)
            train_at_once(project, arguments, CEILING, start)
        for strategy in arguments.strategies if arguments.truth else ():
            start = last_images(project, arguments, strategy, range(first, last + 1))
            train_at_once(project, arguments, f"{strategy}{TRUTH}", start)
    keep_finished(project, arguments)
    compare(project, arguments, range(first, last + 1))


def run_missing(project: Project, arguments: argparse.Namespace, seeds: Sequence[int]) -> None:
    """Simulates from the first seed to the last one of which a lane is missing."""
    missing = [
        seed
        for seed in seeds
        if any(not kept_at(arguments, strategy, seed).exists() for strategy in arguments.strategies)
    ]
    if not missing:
        return
    request = SimulationRequest(
        strategies=tuple(arguments.strategies),
        rounds=arguments.rounds,
        budget=Budget(minutes=arguments.minutes),
        seed=missing[0],
        seeds=missing[-1] - missing[0] + 1,
        iterations=arguments.iterations,
        labels=SETS[arguments.set].start,
        annotator=arguments.annotator,
        jobs=arguments.jobs,
    )
    simulate(project, request, Lines())


def train_at_once(
    project: Project, arguments: argparse.Namespace, name: str, start: dict[int, list[int]]
) -> None:
    """Trains each seed on these images with their truth, for as long as a lane does in a round."""
    _, settings = next(simulations(project, arguments))
    folder = project.root / ".labelloop" / f"{name}-{arguments.iterations}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, settings_to_json(replace(settings, start=start)))
    jobs = [Job(folder=folder, source=project.root, strategy=None, seed=seed) for seed in start]
    missing = [job for job in jobs if not kept_at(arguments, name, job.seed).exists()]
    run_jobs(missing, arguments.jobs, 0, Lines())
    for job in missing:
        keep(measure_lane(project, job.place, settings.test, rounds=0), kept_at(arguments, name, job.seed))


def last_images(
    project: Project, arguments: argparse.Namespace, strategy: str, seeds: Sequence[int]
) -> dict[int, list[int]]:
    """Ids, in the project, of the images that the last round of each lane has labels of."""
    simulation, _ = next(simulations(project, arguments))
    ids = {(image.sha256, image.page, image.channel): image.id for image in project.images()}
    found = {}
    for seed in seeds:
        folder = simulation / f"seed-{seed}" / strategy
        lane, run = Project.open(folder), read_points(folder)[arguments.rounds].run
        learnt = set(lane.run(run).config["train_images"])
        images = [image for image in lane.images() if image.id in learnt]
        found[seed] = sorted(ids[image.sha256, image.page, image.channel] for image in images)
    return found


def simulations(project: Project, arguments: argparse.Namespace) -> Iterator[tuple[Path, LaneSettings]]:
    """Folders and settings of the simulations that are as long as is asked for, by this annotator."""
    for path in (project.root / ".labelloop" / "simulations").glob(f"*/{SETTINGS}"):
        settings = settings_from_json(json.loads(path.read_text("utf-8")))
        same = (settings.iterations, settings.annotator) == (arguments.iterations, arguments.annotator)
        if same and settings.budget == Budget(minutes=arguments.minutes):
            yield path.parent, settings


def kept_at(arguments: argparse.Namespace, strategy: str, seed: int) -> Path:
    """Where the curve of a lane is kept."""
    of_all = f"{arguments.annotator}-{arguments.minutes:g}min-{arguments.iterations}"
    name = f"{of_all}-{strategy}-{seed}.json"
    return RESULTS / str(arguments.set) / name


def keep_finished(project: Project, arguments: argparse.Namespace) -> None:
    """Measures the lanes that have all their rounds, and keeps their curves."""
    for simulation, settings in simulations(project, arguments):
        for folder in sorted(simulation.glob("seed-*/*/")):
            strategy, seed = folder.name, int(folder.parent.name.removeprefix("seed-"))
            path = kept_at(arguments, strategy, seed)
            finished = len(read_points(folder)) == arguments.rounds + 1
            if strategy not in arguments.strategies or not finished or path.exists():
                continue
            audit = audit_rounds(Project.open(folder), SERVER)
            keep(measure_lane(project, folder, settings.test, rounds=arguments.rounds), path, audit)


def keep(curve: LaneCurve, path: Path, audit: Audit | None = None) -> None:
    """Writes what is known of a lane to a file of results."""
    document = {
        "points": [asdict(p) for p in curve.points],
        "values": curve.values.round(4).tolist(),
        "audit": audit and audit.as_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"kept {path.name}", flush=True)


def compare(project: Project, arguments: argparse.Namespace, seeds: Sequence[int]) -> None:
    """The table of all seeds whose lanes are all there."""
    strategies = arguments.strategies
    whole = [s for s in seeds if all(kept_at(arguments, strategy, s).exists() for strategy in strategies)]
    if not whole:
        print("no seed is finished")
        return
    curves = {name: [read_curve(kept_at(arguments, name, seed)) for seed in whole] for name in strategies}
    n_images = len(project.images(split="test", labelled=True))
    autos = {seed: kept_at(arguments, "auto", seed) for seed in whole if "auto" in strategies}
    audits = {seed: json.loads(path.read_text("utf-8")).get("audit") for seed, path in autos.items()}
    result = {
        "metric": METRIC,
        "annotator": arguments.annotator,
        "seeds": whole,
        "iterations": arguments.iterations,
        **compare_curves(curves, n_images=n_images),
        "auto_against": against_others(curves, n_images),
        CEILING: at_once(arguments, whole, CEILING),
        "truth": {s: found for s in strategies if (found := at_once(arguments, whole, f"{s}{TRUTH}"))},
        "audits": {seed: audit for seed, audit in audits.items() if audit},
    }
    name = f"{arguments.set}-{arguments.minutes:g}min"
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(table(result), encoding="utf-8")
    print(table(result))


def against_others(curves: dict[str, list[LaneCurve]], n_images: int) -> dict[str, Any]:
    """How ``auto`` compares with each strategy but random, by the name of that one."""
    return {
        name: compare_curves({name: lanes, "auto": curves["auto"]}, n_images=n_images)["compared"]["auto"]
        for name, lanes in curves.items()
        if "auto" in curves and name not in ("auto", "random")
    }


def at_once(arguments: argparse.Namespace, seeds: Sequence[int], name: str) -> dict[str, Any] | None:
    """AP of such models, and how much more that is than random reaches; over images and seeds, paired."""
    paths = [kept_at(arguments, name, seed) for seed in seeds]
    if not all(path.exists() for path in paths):
        return None
    all_labels = np.stack([read_curve(path).values[:, 0] for path in paths])
    drawn = np.stack([read_curve(kept_at(arguments, "random", seed)).values[:, -1] for seed in seeds])
    value, more = mean_over_seeds(all_labels), mean_over_seeds(all_labels - drawn)
    return {"value": interval(value), "more_than_random": interval(more)}


def read_curve(path: Path) -> LaneCurve:
    """The inverse of what ``keep_finished`` writes."""
    document = json.loads(path.read_text("utf-8"))
    points = [Point(**point) for point in document["points"]]
    return LaneCurve(points=points, values=np.array(document["values"], np.float64))


if __name__ == "__main__":
    main()
