"""Whether tiles change what a model sees: fields predicted whole and by tiles, compared object by object.

    python tests/benchmarks/bench_tiles.py PROJECT FOLDER [--run RUN] [--images 8]

Of the objects that one way finds at the working threshold, counts those that the other way finds too, at any
score it keeps, with masks that agree to an IoU of 0.5, 0.75 and 0.9; and those that tiles give twice.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco_mask

from labelloop.images import read_image
from labelloop.instances import Instances
from labelloop.predict.field import predict_array
from labelloop.predict.tiles import plan_tiles, tile_layout
from labelloop.project.project import Project
from labelloop.runs.loading import load_model

AGREEMENTS = (0.5, 0.75, 0.9)


def main() -> None:
    """Predicts both ways and prints the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    loaded = load_model(Project.open(arguments.project), arguments.run, device="cpu")
    layout = tile_layout(loaded.stats, loaded.model)
    print(f"model {loaded.run} ({loaded.which}), objects from a score of {loaded.min_score:.2f}")
    print(f"tiles of {layout.side_hw} px, overlap {layout.overlap}, grid {layout.grid:.1f}")
    found: dict[str, list[float]] = {"whole, found by tiles": [], "tiles, found whole": []}
    twice = 0
    for path in sorted(arguments.folder.iterdir())[: arguments.images]:
        pixels = read_image(path).pixels
        size_hw = (int(pixels.shape[0]), int(pixels.shape[1]))
        tiles = len(plan_tiles(size_hw, layout))
        tiled = predict_array(loaded.model, pixels, stats=loaded.stats, layout=layout)
        whole = predict_array(
            loaded.model, pixels, stats=loaded.stats, layout=replace(layout, untiled_hw=(math.inf, math.inf))
        )
        counts = []
        for (kind, values), (ours, theirs) in zip(
            found.items(), ((whole, tiled), (tiled, whole)), strict=True
        ):
            best = best_ious(ours, theirs, loaded.min_score)
            values += best.tolist()
            counts.append(f"{len(best)} {kind.split(',')[0]}")
        twice += doubled(tiled, loaded.min_score) - doubled(whole, loaded.min_score)
        print(f"{path.name}: {size_hw[0]} x {size_hw[1]} px, {tiles} tiles, {', '.join(counts)}", flush=True)
    for kind, values in found.items():
        shares = ", ".join(f"{100 * np.mean(np.array(values) >= t):.1f} % at IoU {t}" for t in AGREEMENTS)
        print(f"{kind}: {shares} of {len(values)}")
    print(f"pairs that overlap by more than 0.7, tiles minus whole: {twice}")


def best_ious(ours: Instances, theirs: Instances, min_score: float) -> np.ndarray:
    """For each object from ``min_score`` on, how well the other's best mask agrees: float64 (n,)."""
    assert ours.scores is not None
    kept = [i for i in range(len(ours)) if ours.scores[i] >= min_score]
    table = ious(ours, theirs)
    return table[kept].max(1) if table.size else np.zeros(len(kept))


def doubled(instances: Instances, min_score: float) -> int:
    """Pairs of objects that are nearly one."""
    assert instances.scores is not None
    kept = np.flatnonzero(instances.scores >= min_score)
    table = ious(instances, instances)[np.ix_(kept, kept)]
    return int((np.triu(table, 1) > 0.7).sum())


def ious(a: Instances, b: Instances) -> np.ndarray:
    """IoU of every pair, float64 (len(a), len(b))."""
    rles = [[{"size": list(i.size_hw), "counts": counts} for counts in i.rles] for i in (a, b)]
    return np.asarray(coco_mask.iou(*rles, [0] * len(b))).reshape(len(a), len(b))


if __name__ == "__main__":
    main()
