"""How often the gate is right, by how many images it has: real models of known difference.

    python tests/benchmarks/bench_gate.py PROJECT RUN... [--draws 20]

Models are those of the runs, guided and supervised; their predictions of the labelled training images that
none of two runs has learnt are the population, on which the difference of a pair is known. Pairs are brought
to a wanted difference by making the better model worse: objects are dropped and moved, more in some images
than in others. Of each pair, samples of 8 to 60 images are drawn with replacement and the gate is asked.
Pairs of one run share a teacher, so their differences vary less from image to image than those of two runs.
"""

from __future__ import annotations

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_calibration import Scenes, predicted_images, unseen_images

from labelloop.instances import Instances
from labelloop.metrics.coco_ap import average_precision, rank
from labelloop.metrics.gate import decide
from labelloop.metrics.pairs import PairTable
from labelloop.project.project import Project

SIZES = (8, 15, 30, 60)
WANTED = (-4.0, -2.0, -1.0, 0.0, 2.0, 4.0)  # AP points
BANDS = (-np.inf, -2.0, -0.5, 0.5, 2.0, 4.0, np.inf)  # of the true difference: rows of the table
MOST_IMAGES = 150  # of a population; more take long
HALVINGS = 6


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
        chosen, reached = ((spoilt, b), ap - ap_b) if spoil_a else ((a, spoilt), ap_a - ap)
        too_little = reached > wanted if spoil_a else reached < wanted
        low, high = (amount, high) if too_little else (low, amount)
    return *chosen, reached


def pairs(project: Project, runs: list[str]) -> Iterator[tuple[str, bool, Scenes, Scenes, Scenes]]:
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


def main() -> None:
    """Reads the command line, asks the gate and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    project, rng = Project.open(arguments.project), np.random.default_rng(0)
    verdicts: dict[tuple[bool, int, int], list[str]] = defaultdict(list)
    spread: dict[tuple[bool, int], list[float]] = defaultdict(list)
    for name, same_run, truth, a, b in pairs(project, arguments.runs):
        for wanted in WANTED:
            new, old, true = brought_to(truth, a, b, wanted)
            band = int(np.searchsorted(BANDS, true, side="right")) - 1
            for size in SIZES:
                values = []
                for _ in range(arguments.draws):
                    drawn = rng.integers(0, len(truth), size)
                    sides = [[side[i] for i in drawn] for side in (truth, new, old)]
                    decision = decide(*sides, n_classes=1)
                    verdicts[same_run, band, size].append(decision.verdict)
                    values.append(decision.difference.value or 0.0)
                spread[same_run, size].append(100 * float(np.std(values)))
            print(
                f"{name}: wanted {wanted:+.0f}, true {true:+.2f} AP points, {len(truth)} images", flush=True
            )
    for same_run in (True, False):
        print(f"\nmodels of {'one run' if same_run else 'two runs'}; share of samples called better / worse")
        print("true difference, points " + "".join(f"{f'n = {size}':>18}" for size in SIZES))
        print(
            "SD of the differences   "
            + "".join(f"{np.mean(spread[same_run, n] or [0]):18.1f}" for n in SIZES)
        )
        for band in range(len(BANDS) - 1):
            cells = [verdicts[same_run, band, size] for size in SIZES]
            if cells[0]:
                shares = [f"{cell.count('better') / len(cell):.2f} / {cell.count('worse') / len(cell):.2f}"
                          for cell in cells]  # fmt: skip
                name = f"{BANDS[band]:+.1f} to {BANDS[band + 1]:+.1f}, {len(cells[0])}x"
                print(f"{name:24}" + "".join(f"{share:>18}" for share in shares))


if __name__ == "__main__":
    main()
