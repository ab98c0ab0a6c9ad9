"""Which kinds of images each strategy got labels of, and how good its models are on each kind.

    python tests/benchmarks/budget_kinds.py DATA WORK --set dsb2018 --iterations 480

Run by hand after ``budget_study.py`` with the same WORK, which has the lanes. A kind is what an image looks
like: ``stained`` where it has colour, ``bright`` or ``dark`` where it is gray. Means over the seeds.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from budget_study import SETS, STRATEGIES, project_of, simulations

from labelloop.images import read_image
from labelloop.instances import Instances
from labelloop.metrics.coco_ap import average_precision, rank
from labelloop.metrics.pairs import PairTable
from labelloop.project.project import ImageRecord, Project
from labelloop.simulation.lane import read_points
from labelloop.simulation.lanes_compared import seen_in_lane

COLOURED, BRIGHT = 10.0, 100.0  # median difference of the channels, median of an 8-bit image


def kind_of(image: ImageRecord) -> str:
    """What an image looks like."""
    pixels = read_image(image.path, page=image.page, channel=image.channel).pixels.astype(np.float64)
    if pixels.ndim == 3 and np.median(np.ptp(pixels[..., :3], axis=2)) > COLOURED:
        return "stained"
    return "bright" if np.median(pixels) > BRIGHT else "dark"


def ap_points(truth: Sequence[Instances], predicted: Sequence[Instances]) -> float:
    """COCO AP, in points."""
    table = PairTable.build(truth, predicted, n_classes=1, outlines=False)
    return 100 * float(average_precision(rank(table), np.ones((1, len(truth)), np.int32)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--minutes", type=float, help="of each round, as for budget_study.py")
    parser.add_argument("--annotator", default="perfect")
    arguments = parser.parse_args()
    arguments.minutes = arguments.minutes or SETS[arguments.set].minutes
    source = project_of(arguments.set, arguments.data, arguments.work)
    simulation, settings = next(simulations(source, arguments))
    kinds = {image.id: kind_of(image) for image in source.images()}
    of_file = {(image.sha256, image.page, image.channel): image.id for image in source.images()}
    truth = source.labels(settings.test)
    print("pool", dict(Counter(kinds[i] for i in settings.askable)))
    names = sorted({kinds[i] for i in settings.test})
    print("| strategy | round |", " | ".join(f"labels, AP: {name}" for name in names), "|")
    for strategy in arguments.strategies:
        lanes = [folder for folder in simulation.glob(f"seed-*/{strategy}") if read_points(folder)]
        for number in range(min((len(read_points(folder)) for folder in lanes), default=0)):
            cells = [_of_round(folder, number, names, kinds, of_file, truth) for folder in lanes]
            means = np.mean(cells, axis=0)
            print(f"| {strategy} | {number} |", " | ".join(f"{n:.1f}, {ap:.1f}" for n, ap in means), "|")


def _of_round(
    folder: Path,
    number: int,
    names: Sequence[str],
    kinds: dict[int, str],
    of_file: dict[tuple[str, int, int], int],
    truth: dict[int, Instances],
) -> list[tuple[int, float]]:
    """Labelled images and AP of each kind after a round of a lane."""
    lane, run = Project.open(folder), read_points(folder)[number].run
    learnt, seen = set(lane.run(run).config["train_images"]), seen_in_lane(lane, run)
    images = [image for image in lane.images() if image.id in learnt]
    n_labelled = Counter(kinds[of_file[image.sha256, image.page, image.channel]] for image in images)
    cells = []
    for name in names:
        of_kind = [i for i in truth if kinds[i] == name]
        cells.append((n_labelled[name], ap_points([truth[i] for i in of_kind], [seen[i] for i in of_kind])))
    return cells


if __name__ == "__main__":
    main()
