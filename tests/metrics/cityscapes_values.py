"""What cityscapesScripts says of frames; runs in an environment of its own, without labelloop.

    python tests/metrics/cityscapes_values.py FOLDER VALUES.json

Each folder of FOLDER is a case: ``*_gtFine_instanceIds.png`` and ``predictions.npz`` with ``masks`` bool
(n, h, w), ``frame`` int (n,), index into the sorted frames, ``label`` int (n,), a class id of Cityscapes, and
``score`` float (n,). VALUES.json becomes a list with one entry for each case: ``allAp``, ``allAp50%`` and
``of_class``, AP by class id and IoU limit; NaN where there is no true object. ``test_cityscapes_ap.py`` calls
it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as evaluation
from cityscapesscripts.evaluation.instances2dict import instances2dict
from cityscapesscripts.helpers.labels import name2label
from PIL import Image


def write_predictions(case: Path, n_frames: int) -> list[str]:
    """The predictions as the tool reads them: a text file for each frame, a PNG for each mask."""
    with np.load(case / "predictions.npz") as stored:
        columns = [stored[name] for name in ("masks", "frame", "label", "score")]
    lines: list[list[str]] = [[] for _ in range(n_frames)]
    for i, (mask, frame, label, score) in enumerate(zip(*columns, strict=True)):
        Image.fromarray(mask.astype(np.uint8) * 255).save(case / f"mask_{i}.png")
        lines[frame].append(f"mask_{i}.png {label} {float(score)!r}\n")
    files = [case / f"pred_{frame}.txt" for frame in range(n_frames)]
    for file, of_frame in zip(files, lines, strict=True):
        file.write_text("".join(of_frame), encoding="utf-8")
    return [str(file) for file in files]


def values(case: Path) -> dict[str, object]:
    """What the tool says of a case."""
    args = evaluation.args
    args.quiet, args.predictionPath = True, str(case)
    evaluation.setInstanceLabels(args)
    truth = [str(file) for file in sorted(case.glob("*_instanceIds.png"))]
    found = write_predictions(case, len(truth))
    matches = evaluation.matchGtWithPreds(found, truth, instances2dict(truth), args)
    ap = evaluation.evaluateMatches(matches, args)
    averages = evaluation.computeAverages(ap, args)
    return {
        "allAp": float(averages["allAp"]),
        "allAp50%": float(averages["allAp50%"]),
        "of_class": {str(name2label[n].id): ap[0, i].tolist() for i, n in enumerate(args.instLabels)},
    }


if __name__ == "__main__":
    cases = sorted(path for path in Path(sys.argv[1]).resolve().iterdir() if path.is_dir())
    Path(sys.argv[2]).write_text(json.dumps([values(case) for case in cases]), encoding="utf-8")
