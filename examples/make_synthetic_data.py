"""Makes a folder as a lab would have it: labelled, unlabelled and test micrographs of synthetic organoids.

python examples/make_synthetic_data.py DATA [--labelled 15] [--unlabelled 120] [--test 24] [--side 256]

DATA/labelled/*.png    DATA/labelled.json    COCO annotations
DATA/unlabelled/*.png
DATA/test/*.png        DATA/test.json        COCO annotations
"""

from __future__ import annotations

import argparse
from pathlib import Path

from labelloop.data.synthetic_set import write_micrographs


def main() -> None:
    parser = argparse.ArgumentParser(description="Make synthetic organoid micrographs.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--labelled", type=int, default=15)
    parser.add_argument("--unlabelled", type=int, default=120)
    parser.add_argument("--test", type=int, default=24)
    parser.add_argument("--side", type=int, default=256, help="px")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    parts = {"labelled": given.labelled, "unlabelled": given.unlabelled, "test": given.test}
    for number, (name, count) in enumerate(parts.items()):
        labels = None if name == "unlabelled" else given.data / f"{name}.json"
        write_micrographs(
            given.data / name,
            count,
            seed=1000 * given.seed + number,
            labels=labels,
            size_hw=(given.side, given.side),
        )
    print(f"{sum(parts.values())} micrographs in {given.data}")


if __name__ == "__main__":
    main()
