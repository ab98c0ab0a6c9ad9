"""What stardist and cellpose say of label images; runs in an environment of theirs, without labelloop.

    python tests/metrics/reference_values.py CASES.npz VALUES.json

CASES.npz holds ``truth_<i>`` and ``predicted_<i>``, integer (n, h, w): the label images of case i, 0 is
background. VALUES.json becomes ``{tool: [{name: value or null}, ...]}``, one entry for each case, for the
tools that can be imported here. ``test_references.py`` calls it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

BEYOND_HALF = 0.500001  # stardist counts IoU >= threshold, PQ is defined for IoU > 0.5


def stardist_values(truth: list[np.ndarray], predicted: list[np.ndarray]) -> dict[str, float | None]:
    """Pooled over the images, as ``matching_dataset`` does."""
    from stardist.matching import matching_dataset

    half, beyond, strict = (
        matching_dataset(truth, predicted, thresh=thresh, show_progress=False)
        for thresh in (0.5, BEYOND_HALF, 0.7)
    )
    any_truth, any_predicted, any_hit = half.n_true > 0, half.n_pred > 0, beyond.tp > 0
    return {
        "precision_50": half.precision if any_predicted else None,
        "recall_50": half.recall if any_truth else None,
        "f1_50": half.f1 if any_truth else None,
        "precision_70": strict.precision if any_predicted else None,
        "recall_70": strict.recall if any_truth else None,
        "f1_70": strict.f1 if any_truth else None,
        "misses_per_100": 100 * half.fn / half.n_true if any_truth else None,
        "spurious_per_100": 100 * half.fp / half.n_true if any_truth else None,
        "pq": beyond.panoptic_quality if any_truth else None,
        "sq": beyond.mean_matched_score if any_truth and any_hit else None,
        "rq": beyond.f1 if any_truth else None,
    }


def cellpose_values(truth: list[np.ndarray], predicted: list[np.ndarray]) -> dict[str, float | None]:
    """The mean over images with truth or predictions of ``average_precision``."""
    from cellpose.metrics import average_precision

    with np.errstate(invalid="ignore", divide="ignore"):
        of_image = average_precision(truth, predicted, threshold=[0.5, 0.75, 0.9])[0]
    names = ("cellpose_ap50", "cellpose_ap75", "cellpose_ap90")
    if not any(image.any() for image in truth):
        return dict.fromkeys(names)
    return {name: float(np.nanmean(of_image[:, i], dtype=np.float64)) for i, name in enumerate(names)}


def main(cases: Path, values: Path) -> None:
    """Reads the cases and writes the values."""
    tools = {"stardist": stardist_values, "cellpose": cellpose_values}
    found = {name: call for name, call in tools.items() if importlib.util.find_spec(name)}
    written: dict[str, list[dict[str, float | None]]] = {name: [] for name in found}
    with np.load(cases) as stored:
        for i in range(len(stored.files) // 2):
            truth, predicted = list(stored[f"truth_{i}"]), list(stored[f"predicted_{i}"])
            for name, call in found.items():
                of_case = call(truth, predicted)
                written[name].append({k: None if v is None else float(v) for k, v in of_case.items()})
    values.write_text(json.dumps(written), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
