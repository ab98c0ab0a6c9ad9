"""How well minutes are predicted: the effort model against simulated annotators.

    python tests/benchmarks/bench_effort.py [--seeds 20] [--data DIR]

A simulated person reviews tasks made of synthetic micrographs (and, with --data, of the label sets in a
folder, test sets left out) whose masks were worsened: jittered, merged, split, missed, spurious, with scores
that know some of it. The model learns from the first 5, 10, 20 and 40 reported times: clean, with a tenth of
the tasks left open, with 30 % of them counted twice, both, and with all of them counted twice. It predicts
the truly worked minutes of 40 fresh tasks. Prints the mean absolute error in percent (MAPE) of single tasks
whose edits are known, of single tasks whose edits are expected from the scores, and of batches of ten of
these; and how often the 80 % intervals of the three hold the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from labelloop.budget.effort import EffortModel, Minutes, TimedTask
from labelloop.budget.expected_edits import FATES, EditRates, EditRecord
from labelloop.budget.work import DRAWN, Work, mean_outline_px
from labelloop.data.synthetic import organoid_micrograph
from labelloop.formats.coco import is_coco, load_json, read_coco
from labelloop.instances import Instances
from labelloop.review.edits import KeyedInstances, find_edits
from labelloop.simulation.annotator import PRESETS, AnnotatorConfig, annotate
from labelloop.simulation.annotator_time import reported_seconds
from labelloop.simulation.sloppy_outlines import jittered

LEARN_FROM = (0, 5, 10, 20, 40)
FRESH, BATCH = 40, 10
MIN_SCORE = 0.5
REPORTS = {
    "clean": (0.0, 0.0),
    "10 % idle": (0.1, 0.0),
    "30 % twice": (0.0, 0.3),
    "both": (0.1, 0.3),
    "all twice": (0.0, 1.0),  # and known to be possible, as drafts were and the server is one that does so
}
LEFT_OUT = ("test", "leaking")  # by name: nothing is looked at that a result will be reported on
LEAST_IMAGES = 20
MOST_SIDE_PX = 700
POOL = 160


@dataclass(frozen=True, kw_only=True, eq=False)
class MadeTask:
    """A task: what a model would have detected, and the truth."""

    detected: Instances
    truth: Instances


@dataclass(frozen=True, kw_only=True, eq=False)
class DoneTask:
    """A task that was reviewed."""

    work: Work
    record: EditRecord
    scores: np.ndarray
    active_s: float


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    pools = {"synthetic": [organoid_micrograph(rng)[1] for _ in range(POOL)]}
    if arguments.data is not None:
        pools |= dict(_label_sets(arguments.data))
    for name, truths in pools.items():
        tasks = [MadeTask(detected=detections(truth, rng), truth=truth) for truth in truths]
        _print_set(name, tasks, arguments.seeds)


def _label_sets(folder: Path) -> Iterator[tuple[str, list[Instances]]]:
    for path in sorted(folder.rglob("*.json")):
        if any(word in path.stem for word in LEFT_OUT) or not is_coco(load_json(path)):
            continue
        found = [record.instances for record in read_coco(path).records]
        found = [each for each in found if max(each.size_hw) <= MOST_SIDE_PX]
        if len(found) >= LEAST_IMAGES:
            yield f"{path.parent.name}/{path.stem}", found[:POOL]


def detections(truth: Instances, rng: np.random.Generator) -> Instances:
    """What a middling model might see: its errors differ from image to image."""
    badness = float(rng.uniform(0.4, 1.8))
    masks, labels, scores = [], [], []
    solid = truth.select(~truth.crowd & (truth.areas > 0))
    boundary = [jittered(solid.select([i]), 0.10 * badness, rng) for i in range(len(solid))]
    for i, each in enumerate(boundary):
        fate = rng.random()
        quality = float(each.iou(solid.select([i]))[0, 0])
        mask = each.mask(0)
        if fate < 0.10 * badness:
            scores.append(float(rng.uniform(0.05, 0.5)) if rng.random() < 0.6 else 0.0)
        elif fate < 0.13 * badness and i:
            mask = mask | boundary[i - 1].mask(0)
            scores.append(float(rng.beta(5, 3)))
        else:
            scores.append(float(np.clip(quality * rng.beta(12, 1.5), 0.05, 1)))
        halves = _halves(mask, rng) if rng.random() < 0.03 * badness else [mask]
        scores += scores[-1:] * (len(halves) - 1)
        masks += halves
        labels += [int(solid.labels[i])] * len(halves)
    for _ in range(int(rng.poisson(0.12 * badness * max(len(solid), 2)))):
        mask = _somewhere(truth, solid, rng)
        if mask.any():
            masks.append(mask)
            labels.append(0)
            scores.append(float(np.clip(rng.beta(2, 3), 0.05, 1)))
    seen = Instances.from_dense(np.array(masks), labels, scores, size_hw=truth.size_hw) if masks else None
    return (
        seen.above(0.05)
        if seen is not None
        else Instances(size_hw=truth.size_hw, scores=np.zeros(0, np.float32))
    )


def _halves(mask: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    rows = np.flatnonzero(mask.any(axis=1))
    cut = int(rng.integers(rows[0], rows[-1] + 1)) if len(rows) > 4 else 0
    upper = mask & (np.arange(mask.shape[0]) < cut)[:, None]
    return [part for part in (upper, mask & ~upper) if part.any()]


def _somewhere(truth: Instances, solid: Instances, rng: np.random.Generator) -> np.ndarray:
    """An object's shape where nothing need be."""
    if not len(solid):
        return np.zeros(truth.size_hw, np.bool_)
    mask = solid.mask(int(rng.integers(len(solid))))
    return np.roll(mask, tuple(rng.integers(0, size) for size in mask.shape), axis=(0, 1))


def review(
    tasks: Sequence[MadeTask], config: AnnotatorConfig, rng: np.random.Generator
) -> Iterator[DoneTask]:
    """One person works through tasks, with a rest after each twenty."""
    worked_s = 0.0
    for number, task in enumerate(tasks):
        assert task.detected.scores is not None
        is_shown = task.detected.scores >= MIN_SCORE
        instances = task.detected.select(is_shown)
        shown = KeyedInstances(keys=tuple(f"o{i}" for i in range(len(instances))), instances=instances)
        worked_s = worked_s if number % 20 else 0.0
        done = annotate(shown, task.truth, rng=rng, config=config, worked_s=worked_s)
        worked_s += done.active_seconds
        edits = find_edits(shown, done.returned, untouched=done.untouched)
        counts: dict[str, float] = {}
        fates = dict.fromkeys(shown.keys, "accepted")
        for edit in edits:
            counts[edit.kind] = counts.get(edit.kind, 0) + 1
            if edit.kind in FATES:
                fates |= dict.fromkeys(edit.before, edit.kind)
        scores = task.detected.scores.astype(np.float64)
        yield DoneTask(
            work=Work(
                objects=len(shown.keys),
                edits=counts,
                outline_px=mean_outline_px(instances),
                drawn_px=sum(edit.outline_px for edit in edits if edit.kind in DRAWN),
                corrected_px=sum(
                    edit.outline_px * (1 - (edit.iou or 0)) for edit in edits if edit.kind == "moved"
                ),
            ),
            record=EditRecord(
                scores=scores[is_shown],
                fates=tuple(fates.values()),
                unshown=float(scores[~is_shown].sum()),
                added=int(counts.get("added", 0)),
            ),
            scores=scores,
            active_s=done.active_seconds,
        )


@dataclass(kw_only=True)
class Errors:
    """Of one cell of the table, all seeds: relative errors, and whether intervals held the truth."""

    known: list[float]
    expected: list[float]
    batches: list[float]
    held: list[bool]
    held_expected: list[bool]
    held_batches: list[bool]


def measure(model: EffortModel, rates: EditRates, fresh: Sequence[DoneTask], errors: Errors) -> None:
    """Adds what one fitted model says of fresh tasks."""
    works = [rates.expect(task.scores, MIN_SCORE, outline_px=task.work.outline_px) for task in fresh]
    for task, work in zip(fresh, works, strict=True):
        _compare(model.predict(task.work), task.active_s, errors.known, errors.held)
        _compare(model.predict(work), task.active_s, errors.expected, errors.held_expected)
    for start in range(0, len(fresh), BATCH):
        active_s = sum(task.active_s for task in fresh[start : start + BATCH])
        total = model.total(works[start : start + BATCH])
        _compare(total, active_s, errors.batches, errors.held_batches)


def _compare(minutes: Minutes, active_s: float, errors: list[float], held: list[bool]) -> None:
    active = active_s / 60
    errors.append(abs(minutes.value - active) / active)
    held.append(minutes.low <= active <= minutes.high)


def _print_set(name: str, tasks: Sequence[MadeTask], seeds: int) -> None:
    objects = np.mean([len(task.truth) for task in tasks])
    print(f"\n{name}: {len(tasks)} images, {objects:.1f} objects each, {seeds} seeds", flush=True)
    print("MAPE after n tasks, %: edits known | edits expected | ten tasks together, edits expected")
    header = " ".join(f"{n:>4}" for n in LEARN_FROM)
    print(f"{'annotator':10} {'reported':11} {header} | {header} | {header} | 80 % intervals hold at n = 20")
    presets = {name: config for name, config in PRESETS.items() if name != "idle"}
    for preset, config in presets.items():
        cells = {
            (report, n): Errors(known=[], expected=[], batches=[], held=[], held_expected=[], held_batches=[])
            for report in REPORTS
            for n in LEARN_FROM
        }
        for seed in range(seeds):
            _one_seed(tasks, config, np.random.default_rng([seed, len(preset)]), cells)
        for report in REPORTS:
            row = [cells[report, n] for n in LEARN_FROM]
            parts = [[e.known for e in row], [e.expected for e in row], [e.batches for e in row]]
            text = " | ".join(" ".join(f"{100 * np.mean(values):4.0f}" for values in part) for part in parts)
            at = cells[report, 20]
            holds = [100 * np.mean(held) for held in (at.held, at.held_expected, at.held_batches)]
            print(f"{preset:10} {report:11} {text} | " + " ".join(f"{h:3.0f}" for h in holds), flush=True)


def _one_seed(
    tasks: Sequence[MadeTask],
    config: AnnotatorConfig,
    rng: np.random.Generator,
    cells: dict[tuple[str, int], Errors],
) -> None:
    """One person, whose pace differs a little from the preset's."""
    person = replace(config, pace=config.pace * float(rng.lognormal(0, 0.2)))
    order = rng.permutation(len(tasks))
    n = max(LEARN_FROM)
    chosen = [tasks[i] for i in np.resize(order[: max(1, len(order) // 2)], n)]
    chosen += [tasks[i] for i in np.resize(order[len(order) // 2 :], FRESH)]
    done = list(review(chosen, person, rng))
    for report, (idle, twice) in REPORTS.items():
        times = [reported_seconds(d.active_s, rng, idle_share=idle, doubled_share=twice) for d in done[:n]]
        for few in LEARN_FROM:
            seen = done[:few]
            timed = [
                TimedTask(who="a", seconds=time.seconds, work=each.work, maybe_twice=time.maybe_twice)
                for each, time in zip(seen, times, strict=False)
            ]
            rates = EditRates.fit([d.record for d in seen])
            measure(EffortModel.fit(timed), rates, done[n:], cells[report, few])


if __name__ == "__main__":
    main()
