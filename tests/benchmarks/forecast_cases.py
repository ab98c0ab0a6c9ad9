"""Forecasts made from few labels, judged where many are known.

Run by hand; it can be stopped at any time and goes on when called again:

    python tests/benchmarks/forecast_cases.py DATA WORK
    python tests/benchmarks/forecast_cases.py --report

DATA holds the sets as folders with COCO files; WORK keeps projects and checkpoints. A lab is a seed: an order
in which images get their labels. Its chain ``a`` are models on the first 4, 7, 12, ... of them; its chain
``b`` are models on the first 12 in reverse, as ``labelloop forecast`` draws several times too. All models of
a set have the same short schedule and are measured on the same part of the *train* images, which no lab
labels; the test images are not touched. From the models up to a size, what more labels bring is forecast, and
compared with the models on more. Points go to tests/benchmarks/results/forecast, where ``--report`` reads
them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelloop.data.label_draw import draw_labels
from labelloop.forecast.answers import CANNOT_TELL, OUT_OF_REACH, Level, Question
from labelloop.forecast.curve_points import measure_plans
from labelloop.forecast.curves import CurvePoint
from labelloop.forecast.forecast import forecast
from labelloop.forecast.subsets import CurveSettings, PointPlan
from labelloop.metrics.estimate import Estimate
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import ImageRecord, Project
from labelloop.runs.files import write_json

RESULTS = Path(__file__).parent / "results" / "forecast"
METRICS = ("coco_ap", "coco_ap50", "pq")
LABS = (0, 1, 2)
SETTINGS = CurveSettings()
B_FROM, B_SIZES = 12, (4, 7)
DRAW_OF_MEASURED = 1000  # seed
LEAST_GAIN = 0.01  # of the truth; targets nearer to where the lab is are no question


@dataclass(frozen=True, kw_only=True)
class CaseSet:
    """A data set as labs see it.

    Attributes:
        measured: Train images that measure every model.
        sizes: Of chain ``a``.
        starts: Labels that forecasts are made from.
    """

    measured: int
    sizes: tuple[int, ...]
    starts: tuple[int, ...]


SETS = {
    "m-orgaquant": CaseSet(measured=16, sizes=(4, 7, 12, 20, 35, 60), starts=(12, 20, 35)),
    "dsb2018": CaseSet(measured=30, sizes=(4, 7, 12, 20, 35, 60, 100, 170), starts=(12, 20, 35, 60)),
}
FILES = {"m-orgaquant": ("labeled.json", "labeled"), "dsb2018": ("train.json", "train")}


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Points of one lab, in one order."""

    name: str
    lab: int
    order: str
    points: list[dict[str, Any]]

    @property
    def path(self) -> Path:
        """Its file."""
        return RESULTS / f"{self.name}-{self.lab}{self.order}.json"

    @classmethod
    def load(cls, name: str, lab: int, order: str) -> Chain:
        """What is there of it, perhaps nothing."""
        empty = cls(name=name, lab=lab, order=order, points=[])
        if not empty.path.exists():
            return empty
        document = json.loads(empty.path.read_text("utf-8"))
        points = [p for p in document["points"] if p["steps"] == SETTINGS.steps(p["n_images"])]
        return cls(**document | {"points": points})

    def of_metric(self, metric: str) -> list[CurvePoint]:
        """The points for one metric."""
        seed = self.lab if self.order == "a" else len(LABS) + self.lab
        return [
            CurvePoint(n_images=p["n_images"], value=p[metric][0], se=p[metric][1], seed=seed)
            for p in self.points
            if p[metric][0] is not None
        ]


def prepare(data: Path, work: Path, name: str) -> Project:
    """The project of a set, made once; train images only."""
    folder = work / name
    if (folder / "labelloop.toml").exists():
        return Project.open(folder)
    project = Project.init(folder, ProjectConfig(name=name))
    labels, images = FILES[name]
    add_labels(project, LabelSource(path=str(data / name / labels), images=str(data / name / images)))
    return project


def orders(project: Project, case_set: CaseSet, lab: int) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """The images in the order in which a lab labels them, and those that measure."""

    def drawn(images: Sequence[ImageRecord], seed: int) -> list[ImageRecord]:
        ids = {i.id for i in images}
        return list(draw_labels(images, ids, budget=None, seed=seed, validation_share=0.0).train)

    everything = drawn(project.images(split="train", labelled=True), DRAW_OF_MEASURED)
    return drawn(everything[case_set.measured :], lab), everything[: case_set.measured]


def train_chain(project: Project, name: str, lab: int, order: str) -> None:
    """Trains what is missing of a chain."""
    case_set = SETS[name]
    images, measured = orders(project, case_set, lab)
    chain = Chain.load(name, lab, order)
    images = images if order == "a" else images[:B_FROM][::-1]
    for size in case_set.sizes if order == "a" else B_SIZES:
        if size in {p["n_images"] for p in chain.points}:
            continue
        plan = PointPlan(
            seed=lab if order == "a" else len(LABS) + lab,
            base=tuple(images[: case_set.sizes[0]]),
            train=tuple(images[:size]),
            measured=tuple(measured),
            split="out of fold",
        )
        begun = time.process_time()
        (point,) = measure_plans(project, [plan], SETTINGS, Silent(), keep_bases=True)
        curve_points = {metric: point.of_metric(metric) for metric in METRICS}
        chain.points.append(
            {
                "n_images": size,
                "steps": SETTINGS.steps(size),
                "cpu_seconds": round(time.process_time() - begun, 1),
            }
            | {m: [p and round(p.value, 5), p and p.se and round(p.se, 5)] for m, p in curve_points.items()}
        )
        write_json(chain.path, asdict(chain))
        print(f"{name} lab {lab}{order}, {size} labels: {chain.points[-1]}", flush=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A forecast that can be judged."""

    name: str
    metric: str
    lab: int
    start: int
    points: list[CurvePoint]
    later: dict[int, float]  # the lab's own models on more labels
    truth: dict[int, float]  # mean over labs of every size, made to rise
    levels: Sequence[Level] = ()  # full runs, which the case is about then


def cases(name: str) -> Iterator[Case]:
    """Every forecast of a set for which there are points enough."""
    for metric in METRICS:
        chains = {lab: Chain.load(name, lab, "a").of_metric(metric) for lab in LABS}
        truth = mean_curve([p for chain in chains.values() for p in chain])
        for lab, chain in chains.items():
            back = Chain.load(name, lab, "b").of_metric(metric)
            for start in SETS[name].starts:
                points = [p for p in chain if p.n_images <= start] + (back if start >= B_FROM else [])
                later = {p.n_images: p.value for p in chain if p.n_images > start}
                if later and max(p.n_images for p in points) == start:
                    yield Case(
                        name=name,
                        metric=metric,
                        lab=lab,
                        start=start,
                        points=points,
                        later=later,
                        truth=truth,
                    )


def mean_curve(points: Sequence[CurvePoint]) -> dict[int, float]:
    """Size to mean value, made to rise by pooling neighbours that fall (isotonic regression)."""
    sizes = sorted({p.n_images for p in points})
    pools = [([n], [p.value for p in points if p.n_images == n]) for n in sizes]
    i = 0
    while i + 1 < len(pools):
        if np.mean(pools[i][1]) <= np.mean(pools[i + 1][1]):
            i += 1
            continue
        pools[i : i + 2] = [(pools[i][0] + pools[i + 1][0], pools[i][1] + pools[i + 1][1])]
        i = max(i - 1, 0)
    return {n: float(np.mean(values)) for ns, values in pools for n in ns}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How one question of a case was answered; sizes are of all labels, not of those still needed."""

    case: Case
    size: int
    verdict: str
    held: bool | None  # whether the interval holds the truth; None where there is no interval
    factor: float | None  # predicted / true size, or the other way round: 1 or more
    factor_more: float | None  # likewise of the labels still needed
    open_end: bool
    width: float | None  # of the interval of the metric


def is_target(case: Case, size: int) -> bool:
    """Whether the mean model of this size is better than the case's own, and no smaller size is as good."""
    first = min(n for n, value in case.truth.items() if value == case.truth[size])
    return size == first and case.truth[size] - case.truth[case.start] > LEAST_GAIN


def judge_target(case: Case, size: int) -> Judged:
    """Asks for the labels until the mean model of this size, which is known."""
    question = Question(metric=case.metric, labelled=case.start, target=case.truth[size])
    answer = forecast(case.points, question, levels=case.levels)
    images = answer.images
    held = factor = factor_more = None
    if images.value is not None and images.low is not None:
        need = size - case.start
        held = images.low <= need and (images.high is None or images.high >= need)
        ratio, more = (case.start + images.value) / size, max(images.value, 1) / need
        factor, factor_more = max(ratio, 1 / ratio), max(more, 1 / more)
    elif answer.verdict == OUT_OF_REACH:
        held = False
    return Judged(
        case=case,
        size=size,
        verdict=answer.verdict,
        held=held,
        factor=factor,
        factor_more=factor_more,
        open_end=held is not None and images.high is None,
        width=None,
    )


def judge_expected(case: Case, size: int) -> Judged:
    """Asks for the metric at a size, which the lab's own model of that size tells."""
    one = Estimate(value=1.0, low=1.0, high=1.0, n=1)
    question = Question(
        metric=case.metric, labelled=case.start, minutes=float(size - case.start), minutes_per_image=one
    )
    answer = forecast(case.points, question, levels=case.levels)
    expected = answer.expected
    told = expected is not None and expected.value is not None
    return Judged(
        case=case,
        size=size,
        verdict=answer.verdict,
        held=bool(expected.low <= case.later[size] <= expected.high) if told else None,  # type: ignore
        factor=None,
        factor_more=None,
        open_end=False,
        width=expected.high - expected.low if told else None,  # type: ignore
    )


def report() -> None:
    """Prints the tables."""
    everything = [case for name in SETS for case in cases(name)]
    ahead = [(case, n) for case in everything for n in case.later if n <= 4 * case.start]
    print(f"{len(everything)} cases (set, metric, lab, start), {len(ahead)} sizes up to 4 times the start\n")
    asked = [(case, n) for case, n in ahead if is_target(case, n)]
    print_table("labels until a target", [judge_target(case, n) for case, n in asked], tuple(SETS), METRICS)
    print_table("metric at a size", [judge_expected(case, n) for case, n in ahead], tuple(SETS), METRICS)
    _silence(everything)


def print_table(title: str, judged: Sequence[Judged], names: Sequence[str], metrics: Sequence[str]) -> None:
    """One row for each set and metric, and one for all.

    Factors and widths are medians; in brackets, how often intervals with an upper end hold.
    """
    print(f"### {title}\n")
    print("| set | metric | asked | answered | interval holds | no upper end | factor | of more | width |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = [(name, metric) for name in names for metric in metrics] + [("all", "all")]
    for name, metric in rows:
        mine = [j for j in judged if name in (j.case.name, "all") and metric in (j.case.metric, "all")]
        told = [j for j in mine if j.held is not None]
        closed = [j for j in told if not j.open_end]
        cells = [
            f"{_share(told)} ({_share(closed)})" if len(closed) < len(told) else _share(told),
            f"{len(told) - len(closed)}",
            _median([j.factor for j in told]),
            _median([j.factor_more for j in told]),
            _median([j.width for j in told]),
        ]
        print(f"| {name} | {metric} | {len(mine)} | {len(told)} | {' | '.join(cells)} |")
    print()


def _share(judged: Sequence[Judged]) -> str:
    return f"{np.mean([bool(j.held) for j in judged]):.0%}" if judged else "-"


def _median(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{np.median(known):.2f}" if known else ""


def _silence(everything: Sequence[Case]) -> None:
    """Questions that nobody could answer: how many are not answered with a number."""
    rng = np.random.default_rng(0)
    kinds: dict[str, list[bool]] = {
        "values shuffled over sizes": [],
        "two sizes only": [],
        "target 0.995": [],
    }
    for case in everything:
        top = Question(metric=case.metric, labelled=case.start, target=max(case.truth.values()))
        values = rng.permutation([p.value for p in case.points])
        shuffled = [
            CurvePoint(n_images=p.n_images, value=float(v), se=p.se, seed=p.seed)
            for p, v in zip(case.points, values, strict=True)
        ]
        first = sorted({p.n_images for p in case.points})[:2]
        kinds["values shuffled over sizes"].append(_is_silent(shuffled, top))
        kinds["two sizes only"].append(_is_silent([p for p in case.points if p.n_images in first], top))
        high = Question(metric=case.metric, labelled=case.start, target=0.995)
        kinds["target 0.995"].append(_is_silent(case.points, high))
    print("### silence\n\n| question | asked | no number given |\n|---|---|---|")
    for kind, silent in kinds.items():
        print(f"| {kind} | {len(silent)} | {np.mean(silent):.0%} |")


def _is_silent(points: Sequence[CurvePoint], question: Question) -> bool:
    return forecast(points, question).verdict in (CANNOT_TELL, OUT_OF_REACH)


def main() -> None:
    """Trains what is missing, one lab of both sets after the other, and reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--set", choices=SETS, help="train for this one only; others may run beside it")
    parser.add_argument("--report", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if not arguments.report:
        data, work = arguments.data.absolute(), arguments.work.absolute()
        names = [arguments.set] if arguments.set else list(SETS)
        projects = {name: prepare(data, work, name) for name in names}
        for lab in LABS:
            for name, project in projects.items():
                for order in ("a", "b"):
                    train_chain(project, name, lab, order)
    report()


if __name__ == "__main__":
    main()
