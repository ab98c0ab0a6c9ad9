"""How often the gate is right, by how many images it has: models whose difference is known.

    python tests/benchmarks/bench_gate.py --project PROJECT RUN... [--draws 20]
    python tests/benchmarks/bench_gate.py --made 8 [--draws 40]

Models are those of the runs, guided and supervised; their predictions of the labelled training images that
none of two runs has learnt are the population, on which the difference of a pair is known. Or they are made
(made_pairs.py). Pairs are brought to a wanted difference by making the better model worse: objects are
dropped and moved, more in some images than in others. Of each pair, samples of 8 to 60 images are drawn with
replacement and the gate is asked, with either model as the new one. Pairs of one run share a teacher, so
their differences vary less from image to image than those of two runs.

Printed are the verdicts, and how often the new model is promoted: by the gate; by two rules that trust one
model where the images cannot tell, the new one or the old one.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_calibration import Scenes, predicted_images, unseen_images
from made_pairs import made_pairs

from labelloop.instances import Instances
from labelloop.metrics.coco_ap import average_precision, rank
from labelloop.metrics.gate import GateDecision, decision, estimated, gains
from labelloop.metrics.pairs import PairTable
from labelloop.plurals import plural
from labelloop.project.project import Project

SIZES = (8, 15, 30, 60)
WANTED = (0.3, 1.0, 2.4, 4.4)  # AP points; either model is the new one, so these are losses too
BANDS = (-np.inf, -4.0, -2.0, -0.5, 0.0, 0.5, 2.0, 4.0, np.inf)  # of the true difference: rows of the table
MOST_IMAGES = 150  # of a population; more take long
MADE_IMAGES = 100
HALVINGS = 6
RULES: dict[str, Callable[[GateDecision], bool]] = {
    "gate": lambda said: said.promote,
    "new": lambda said: said.verdict != "worse",
    "old": lambda said: said.verdict == "better",
}

Pairs = Iterator[tuple[str, bool, Scenes, Scenes, Scenes]]
Decisions = dict[tuple[bool, int, int], list[GateDecision]]  # of one run, band, number of images


def ap_points(truth: Scenes, predicted: Scenes) -> float:
    """COCO AP of all images, in points."""
    table = PairTable.build(truth, predicted, n_classes=1)
    return 100 * float(average_precision(rank(table), np.ones((1, len(truth)), np.int32)).mean())


def moved(objects: Instances, shifts: npt.NDArray[np.int64]) -> Instances:
    """Every object, shifted by these rows and columns."""
    dense = [np.roll(mask, shift, (0, 1)) for mask, shift in zip(objects.to_dense(), shifts, strict=True)]
    return (
        Instances.from_dense(np.array(dense), objects.labels, objects.scores, size_hw=objects.size_hw)
        if dense
        else objects
    )


def worse(predicted: Scenes, amount: float) -> Scenes:
    """The same predictions, some dropped and all moved; 0 changes nothing, and more changes the same more."""
    made = []
    for image, objects in enumerate(predicted):
        rng = np.random.default_rng([1, image])
        here, n = amount * rng.gamma(2, 0.5), len(objects)
        kept = rng.random(n) >= 0.4 * here
        shifts = rng.normal(0, 1, (n, 2)) * 0.3 * here * np.sqrt(objects.areas)[:, None]
        made.append(moved(objects.select(kept), np.rint(shifts[kept]).astype(np.int64)))
    return made


def brought_to(truth: Scenes, a: Scenes, b: Scenes, wanted: float) -> tuple[Scenes, Scenes, float]:
    """The pair with one of them made worse until a minus b is about as wanted, and what it is."""
    ap_a, ap_b = ap_points(truth, a), ap_points(truth, b)
    spoil_a = ap_a - ap_b > wanted
    low, high, chosen, reached = 0.0, 0.4, (a, b), ap_a - ap_b
    for _ in range(HALVINGS):
        amount = (low + high) / 2
        spoilt = worse(a if spoil_a else b, amount)
        ap = ap_points(truth, spoilt)
        now = ap - ap_b if spoil_a else ap_a - ap
        if abs(now - wanted) < abs(reached - wanted):
            chosen, reached = (spoilt, b) if spoil_a else (a, spoilt), now
        too_little = now > wanted if spoil_a else now < wanted
        low, high = (amount, high) if too_little else (low, amount)
    return *chosen, reached


def pairs(project: Project, runs: list[str]) -> Pairs:
    """Name, whether of one run, truth and both predictions, for each two models."""
    unseen = {run: {image.id for image in unseen_images(project, run)} for run in runs}
    known = {image.id: image for image in project.images(split="train", labelled=True)}
    models = [(run, which) for run in runs for which in ("guided", "supervised")]
    for (run_a, which_a), (run_b, which_b) in itertools.combinations(models, 2):
        ids = sorted(unseen[run_a] & unseen[run_b])
        ids = sorted(np.random.default_rng(0).permutation(ids)[:MOST_IMAGES].tolist())
        images = [known[i] for i in ids]
        truth, a = predicted_images(project, run_a, which_a, images)
        _, b = predicted_images(project, run_b, which_b, images)
        yield f"{run_a} {which_a} - {run_b} {which_b}", run_a == run_b, truth, a, b


def sampled(
    truth: Scenes, new: Scenes, old: Scenes, size: int, draws: int, rng: np.random.Generator
) -> list[tuple[GateDecision, GateDecision]]:
    """What the gate says of so many samples of this size, and what it says with the models exchanged."""
    ranked = [rank(PairTable.build(truth, predicted, n_classes=1)) for predicted in (new, old)]
    units, said = plural(size, "image"), []
    for _ in range(draws):
        drawn = rng.integers(0, len(truth), size)
        times = np.bincount(drawn, minlength=len(truth)) - np.zeros((1 + size, 1), np.int64)
        times[np.arange(1, 1 + size), drawn] -= 1
        gain = gains(*ranked, times.astype(np.int32))
        forth, back = (decision(estimated(g, n_images=size, units=units), units) for g in (gain, -gain))
        said.append((forth, back))
    return said


def asked(found: Pairs, draws: int) -> Decisions:
    """Every pair at every wanted difference, sampled in every size."""
    rng = np.random.default_rng(0)
    decisions: Decisions = defaultdict(list)
    for name, same_run, truth, a, b in found:
        for wanted in WANTED:
            new, old, true = brought_to(truth, a, b, wanted)
            forth, back = (int(np.searchsorted(BANDS, way, side="right")) - 1 for way in (true, -true))
            for size in SIZES:
                said = sampled(truth, new, old, size, draws, rng)
                decisions[same_run, forth, size] += [each for each, _ in said]
                decisions[same_run, back, size] += [each for _, each in said]
            print(f"{name}: wanted {wanted:.1f}, true {true:+.2f} AP points, {len(truth)} images", flush=True)
    return decisions


def print_tables(decisions: Decisions) -> None:
    """Verdicts and promotions, by kind of pair, true difference and number of images."""
    for same_run in sorted({key[0] for key in decisions}, reverse=True):
        rows = sorted({band for kind, band, _ in decisions if kind == same_run})
        cells = {band: [decisions[same_run, band, size] for size in SIZES] for band in rows}
        print(f"\nmodels of {'one run' if same_run else 'two runs'}, by true difference in AP points")
        print(
            f"{'SD of what is measured':28}"
            + "".join(f"{_spread(cells, i):21.1f}" for i in range(len(SIZES)))
        )
        print(f"{'share called better / worse':28}" + "".join(f"{f'n = {size}':>21}" for size in SIZES))
        for band, of_sizes in cells.items():
            shares = [[_share(cell, "better"), _share(cell, "worse")] for cell in of_sizes]
            print(_row(band, len(of_sizes[0]), shares))
        print(f"share promoted: {' / '.join(RULES)}")
        for band, of_sizes in cells.items():
            shares = [[float(np.mean([*map(rule, cell)])) for rule in RULES.values()] for cell in of_sizes]
            print(_row(band, len(of_sizes[0]), shares))


def _spread(cells: dict[int, list[list[GateDecision]]], size: int) -> float:
    """Mean over bands of the standard deviation of the estimates, AP points, with so many images."""
    measured = [[each.difference.value or 0.0 for each in of_sizes[size]] for of_sizes in cells.values()]
    return 100 * float(np.mean([np.std(values) for values in measured]))


def _share(cell: Sequence[GateDecision], verdict: str) -> float:
    return sum(said.verdict == verdict for said in cell) / len(cell)


def _row(band: int, n: int, shares: Sequence[Sequence[float]]) -> str:
    cells = (" / ".join(f"{share:.2f}" for share in of_size) for of_size in shares)
    return f"{f'{BANDS[band]:+.1f} to {BANDS[band + 1]:+.1f}, {n}x':28}" + "".join(f"{c:>21}" for c in cells)


def main() -> None:
    """Reads the command line, asks the gate and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--project", type=Path)
    parser.add_argument("--made", type=int, metavar="PAIRS")
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    if (arguments.made is None) == (arguments.project is None):
        parser.error("give --project and its runs, or --made")
    found = (
        made_pairs(MADE_IMAGES, arguments.made)
        if arguments.made is not None
        else pairs(Project.open(arguments.project), arguments.runs)
    )
    print_tables(asked(found, arguments.draws))


if __name__ == "__main__":
    main()
