"""How good the models of a run are, side by side on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labelloop.data.groups import groups_of
from labelloop.instances import Instances
from labelloop.metrics.calibration import Calibration, threshold_for_precision
from labelloop.metrics.panel import best_f1_score_threshold, difference, estimates_as_dict, evaluate
from labelloop.metrics.protocols import Protocol, evaluate_protocol, protocol_difference
from labelloop.project.project import ImageRecord

OUT_OF_FOLD = "out-of-fold"  # the split of labelled images that are seen by models which have not learnt them
PRECISIONS = (0.8, 0.9, 0.95)  # for which a score is looked for


@dataclass(frozen=True, kw_only=True)
class ScoredImages:
    """The images that measure a run.

    Attributes:
        split: val, out-of-fold or test.
        images: In the order of the ledger.
        truth: Their labels, in the same order.
        pixel_size_um: Side of a pixel, µm, of images whose files do not say.
    """

    split: str
    images: tuple[ImageRecord, ...]
    truth: tuple[Instances, ...]
    pixel_size_um: float | None = None

    @property
    def may_choose(self) -> bool:
        """Whether models and thresholds may be chosen by these images; by test images nothing is."""
        return self.split in ("val", OUT_OF_FOLD)

    def n_classes(self, known: int) -> int:
        """Classes of a run, and those that the labels have got since it began.

        Args:
            known: Classes of the run.
        """
        return max([known, *(int(truth.labels.max()) + 1 for truth in self.truth if len(truth))])

    @property
    def groups(self) -> list[str | None]:
        """The group of each image, as ``groups_of`` has it."""
        return groups_of(self.images)

    @property
    def pixel_sizes_um(self) -> list[float | None]:
        """Side of a pixel of each image, µm, where it is known."""
        return [image.pixel_size_um or self.pixel_size_um for image in self.images]


def compare(
    scored: ScoredImages | None,
    seen: Mapping[str, Sequence[Instances]],
    *,
    n_classes: int,
    thresholds: Mapping[str, float],
    protocol: Protocol | None = None,
) -> dict[str, Any]:
    """Measures each model, and guided minus supervised.

    Args:
        scored: The images; None where there are none.
        seen: What each model sees in them.
        n_classes: Labels are 0..n_classes - 1.
        thresholds: Working threshold of each model.
        protocol: By which the models are measured as well.

    Returns:
        As ``train --json`` prints it: the panel's metrics as ``supervised``, ``guided`` and ``difference``
        (all None without images), and ``protocol``, the same three and its ``name``; None without one.
    """
    result: dict[str, Any] = {"supervised": None, "guided": None, "difference": None, "protocol": None}
    if scored is None:
        return result
    by_protocol: dict[str, Any] = {"name": protocol, "supervised": None, "guided": None, "difference": None}
    of_both: dict[str, Any] = {"n_classes": n_classes, "groups": scored.groups}
    sizes = scored.pixel_sizes_um
    for which, predicted in seen.items():
        of_model = {**of_both, "min_score": thresholds[which]}
        panel = evaluate(scored.truth, predicted, pixel_sizes_um=sizes, parts=False, **of_model)
        result[which] = estimates_as_dict(panel.metrics)
        if protocol is not None:
            found = evaluate_protocol(protocol, scored.truth, predicted, **of_model)
            by_protocol[which] = estimates_as_dict(found.metrics)
    if len(seen) == 2:
        pair = (scored.truth, seen["guided"], seen["supervised"])
        of_both |= {"min_score_a": thresholds["guided"], "min_score_b": thresholds["supervised"]}
        result["difference"] = estimates_as_dict(difference(*pair, pixel_sizes_um=sizes, **of_both))
        if protocol is not None:
            by_protocol["difference"] = estimates_as_dict(protocol_difference(protocol, *pair, **of_both))
    return {**result, "protocol": None if protocol is None else by_protocol}


def working_thresholds(
    scored: ScoredImages | None, seen: Mapping[str, Sequence[Instances]], *, n_classes: int
) -> dict[str, float]:
    """The score threshold of each model: best F1 on images that may choose, 0.5 where there are none."""
    if scored is None or not scored.may_choose or not any(len(t) for t in scored.truth):
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
    """What each model's scores are worth by images that may choose; None where there are none.

    Returns:
        Of each model ``calibration`` (``Calibration.as_dict``) and ``score_for_precision``: by share of right
        objects, as text, the lowest score above which it can be shown; None where it cannot.
    """
    if scored is None or not scored.may_choose:
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
