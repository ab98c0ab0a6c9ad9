"""How good the models of a run are, side by side on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelloop.instances import Instances
from labelloop.metrics.calibration import Calibration, threshold_for_precision
from labelloop.metrics.panel import best_f1_score_threshold, difference, evaluate
from labelloop.project.project import ImageRecord

REPLICATES = 1000
PRECISIONS = (0.8, 0.9, 0.95)  # for which a score is looked for


@dataclass(frozen=True, kw_only=True)
class ScoredImages:
    """The images that measure a run.

    Attributes:
        split: val or test.
        images: In the order of the ledger.
        truth: Their labels, in the same order.
        pixel_size_um: Side of a pixel, µm, of images whose files do not say.
    """

    split: str
    images: tuple[ImageRecord, ...]
    truth: tuple[Instances, ...]
    pixel_size_um: float | None = None

    @property
    def groups(self) -> list[str | None]:
        """The group of each image."""
        return [image.group for image in self.images]

    @property
    def pixel_sizes_um(self) -> list[float | None]:
        """Side of a pixel of each image, µm, where it is known."""
        return [image.pixel_size_um or self.pixel_size_um for image in self.images]


def compare(
    scored: ScoredImages,
    seen: Mapping[str, Sequence[Instances]],
    *,
    n_classes: int,
    thresholds: Mapping[str, float],
) -> dict[str, Any]:
    """The metrics panel of each model, and of guided minus supervised, as ``train --json`` prints them."""
    result: dict[str, Any] = {"supervised": None, "guided": None, "difference": None}
    for which, predicted in seen.items():
        panel = evaluate(
            scored.truth,
            predicted,
            n_classes=n_classes,
            groups=scored.groups,
            pixel_sizes_um=scored.pixel_sizes_um,
            min_score=thresholds[which],
            replicates=REPLICATES,
            parts=False,
        )
        result[which] = {name: estimate.as_dict() for name, estimate in panel.metrics.items()}
    if len(seen) == 2:
        paired = difference(
            scored.truth,
            seen["guided"],
            seen["supervised"],
            n_classes=n_classes,
            groups=scored.groups,
            pixel_sizes_um=scored.pixel_sizes_um,
            min_score_a=thresholds["guided"],
            min_score_b=thresholds["supervised"],
            replicates=REPLICATES,
        )
        result["difference"] = {name: estimate.as_dict() for name, estimate in paired.items()}
    return result


def working_thresholds(
    scored: ScoredImages | None, seen: Mapping[str, Sequence[Instances]], *, n_classes: int
) -> dict[str, float]:
    """The score threshold of each model: best F1 on validation images, 0.5 where there are none."""
    if scored is None or scored.split != "val" or not any(len(t) for t in scored.truth):
        return {which: 0.5 for which in seen}
    return {
        which: float(
            np.clip(best_f1_score_threshold(scored.truth, predicted, n_classes=n_classes), 0.05, 0.95)
        )
        for which, predicted in seen.items()
    }


def worth_of_scores(
    scored: ScoredImages | None, seen: Mapping[str, Sequence[Instances]], *, n_classes: int
) -> dict[str, dict[str, Any] | None]:
    """What each model's scores are worth by validation images; None where there are none.

    Returns:
        Of each model ``calibration`` (``Calibration.as_dict``) and ``score_for_precision``: by share of right
        objects, as text, the lowest score above which it can be shown; None where it cannot.
    """
    if scored is None or scored.split != "val":
        return {which: None for which in seen}
    return {
        which: {
            "calibration": Calibration.fit(scored.truth, predicted, n_classes=n_classes).as_dict(),
            "score_for_precision": {
                str(target): threshold_for_precision(
                    scored.truth, predicted, target, n_classes=n_classes, groups=scored.groups
                )
                for target in PRECISIONS
            },
        }
        for which, predicted in seen.items()
    }
