"""What the strategies are worth: ``simulate`` on real sets, several seeds, resumable.

Run by hand; it can be stopped at any time and goes on when called again:

    python tests/benchmarks/budget_study.py DATA WORK --set m-orgaquant --seeds 0-2

DATA holds the sets as folders with COCO files; WORK keeps projects and simulations. Results go to
tests/benchmarks/results/budget/SET.json and SET.md. Every labelled training image is the pool, its truth
hidden; the test images measure every model, and nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelloop.budget.simulation import SimulationRequest, simulate
from labelloop.budget.strategies import Budget, Strategy
from labelloop.progress import Silent
from labelloop.project.adding import add_images, add_labels
from labelloop.project.config import FILE_NAME, ProjectConfig
from labelloop.project.project import Project

RESULTS = Path(__file__).parent / "results" / "budget"
STRATEGIES: tuple[Strategy, ...] = ("random", "auto", "diversity", "foreground-random")


@dataclass(frozen=True, kw_only=True)
class StudySet:
    """A set, and what a round costs on it.

    Attributes:
        classes: Of its project.
        train: Labels and images, as in DATA.
        unlabelled: Further images, or None.
        minutes: Budget of each round.
        start: Labelled images before the first round.
    """

    classes: tuple[str, ...]
    train: tuple[str, str]
    unlabelled: str | None
    minutes: float
    start: int = 5


SETS = {
    "m-orgaquant": StudySet(
        classes=("organoid",), train=("labeled.json", "labeled"), unlabelled="unlabeled", minutes=10.0
    ),
    "dsb2018": StudySet(classes=("nucleus",), train=("train.json", "train"), unlabelled=None, minutes=30.0),
}


def project_of(name: str, data: Path, work: Path) -> Project:
    """The set as a project, made once."""
    chosen, root = SETS[name], work / name
    if (root / FILE_NAME).exists():
        return Project.open(root)
    project = Project.init(root, ProjectConfig(name=name, classes=chosen.classes))
    labels, images = chosen.train
    add_labels(project, str(data / name / labels), images=str(data / name / images))
    if chosen.unlabelled is not None:
        add_images(project, [str(data / name / chosen.unlabelled)])
    test = str(data / name / "test")
    add_labels(project, str(data / name / "test.json"), images=test, split="test")
    return project


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
    for name, each in result["compared"].items():
        share = each["minutes_share"]
        spans = [_points(each[key]) if each[key] else "-" for key in ("area", "difference", "at_the_end")]
        shares = ["never" if share[key] is None else f"{share[key]:.0%}" for key in ("value", "low", "high")]
        lines.append(f"| {name} | {' | '.join(spans)} | {shares[0]} [{shares[1]}, {shares[2]}] |")
    return "\n".join(lines) + "\n"


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
    parser.add_argument("--annotator", default="perfect")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    first, last = (int(end) for end in (arguments.seeds.split("-") * 2)[:2])
    chosen = SETS[arguments.set]
    request = SimulationRequest(
        strategies=tuple(arguments.strategies),
        rounds=arguments.rounds,
        budget=Budget(minutes=chosen.minutes),
        seed=first,
        seeds=last - first + 1,
        iterations=arguments.iterations,
        labels=chosen.start,
        annotator=arguments.annotator,
        jobs=arguments.jobs,
    )
    project = project_of(arguments.set, arguments.data, arguments.work)
    result = simulate(project, request, Lines())
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {key: value for key, value in result.items() if key != "folder"}
    (RESULTS / f"{arguments.set}.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    (RESULTS / f"{arguments.set}.md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
