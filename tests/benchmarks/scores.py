"""Scores of trained models in small files, so that a benchmark of hours can be made in several sittings.

A score holds a model's metrics and its AP in resamples of the images. All scores of one set use the same
resamples, so the difference of any two models is paired, whenever and wherever each was trained.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelloop.instances import Instances
from labelloop.metrics.bootstrap import Resampling
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.panel import MatchedModel
from labelloop.metrics.seeds import mean_over_seeds
from labelloop.runs.files import write_json

REPLICATES = 1000
METRICS = ("coco_ap", "coco_ap50", "coco_ap75", "f1_50", "precision_50", "recall_50", "pq")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One model, measured.

    Attributes:
        n_images: Images that it was measured on.
        metrics: By name, fractions of one.
        resampled_ap: AP in each resample of the images, in ten-thousandths.
        facts: How the model was made: iterations, seconds by stage, date, whatever a table should say.
    """

    n_images: int
    metrics: dict[str, float]
    resampled_ap: list[int]
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        write_json(path, asdict(self) | {"resampled_ap": " ".join(map(str, self.resampled_ap))})

    @classmethod
    def load(cls, path: Path) -> Score:
        """Reads what ``save`` wrote."""
        document = json.loads(path.read_text(encoding="utf-8"))
        return cls(**document | {"resampled_ap": [int(v) for v in document["resampled_ap"].split()]})


def measure(
    truth: Sequence[Instances], seen: Sequence[Instances], *, min_score: float, facts: dict[str, Any]
) -> Score:
    """The score of predictions of one class, images in the same order."""
    matched = MatchedModel.of(PairTable.build(truth, seen, n_classes=1), min_score)
    point = matched.values(np.ones((1, len(truth)), np.int32))
    draws = Resampling.of(len(truth), None, replicates=REPLICATES, seed=0).draws()
    resampled = np.concatenate([matched.values(times)["coco_ap"] for times in draws])
    return Score(
        n_images=len(truth),
        metrics={name: round(float(point[name][0]), 5) for name in METRICS},
        resampled_ap=[round(1e4 * v) for v in resampled],
        facts=facts,
    )


def mean_difference(pairs: Sequence[tuple[Score, Score]]) -> tuple[float, float, float]:
    """Mean over seeds of the paired difference of AP, and its 95 % interval, AP points.

    Seeds are drawn anew as well as images, so the interval holds for other seeds and other images alike.

    Args:
        pairs: One (a, b) for each seed; positive where a is better.
    """
    rows = np.array([[[1e4 * s.metrics["coco_ap"], *s.resampled_ap] for s in pair] for pair in pairs])
    means = mean_over_seeds(rows[:, 0] - rows[:, 1]) / 100
    low, high = np.percentile(means[1:], (2.5, 97.5))
    return float(means[0]), float(low), float(high)


def percent(value: float) -> str:
    """A fraction as a table shows it."""
    return f"{100 * value:.1f}"


def commit() -> str:
    """The version of the code, with a plus where it was changed since."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return described.stdout.strip()
