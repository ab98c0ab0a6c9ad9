"""The panel: every metric of a model with its interval, and the difference of two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances
from labelloop.metrics.bootstrap import Resampling
from labelloop.metrics.coco_ap import RankedClass, average_precision, rank
from labelloop.metrics.estimate import Estimate
from labelloop.metrics.matching import IOU_THRESHOLDS
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.working_point import (
    Tally,
    best_threshold,
    count_errors,
    f1,
    panoptic,
    precision,
    recall,
    tally,
)

METRICS = (
    "coco_ap", "coco_ap50", "coco_ap75", "f1_50", "precision_50", "recall_50",
    "pq", "sq", "rq", "count_bias", "count_mae",
)  # fmt: skip

Replicates = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """All metrics of one set of predictions.

    Attributes:
        metrics: By name, in the order of ``METRICS``.
        min_score: The working threshold of every metric but ``coco_ap*``.
        n_images: Number of images, empty ones included.
        max_dets: COCO's maxDets, large enough to cut nothing.
        n_groups: Number of groups that were resampled whole; None where images were.
        notes: What a reader of the numbers should know, one sentence each.
    """

    metrics: dict[str, Estimate]
    min_score: float
    n_images: int
    max_dets: int
    n_groups: int | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The panel as ``--json`` prints it."""
        return {
            "metrics": {name: estimate.as_dict() for name, estimate in self.metrics.items()},
            "min_score": self.min_score,
            "n_images": self.n_images,
            "n_groups": self.n_groups,
            "max_dets": self.max_dets,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchedModel:
    """One model's predictions after matching: all that a metric of any resample is computed from.

    A new metric adds what it needs here and its name in ``values``; intervals and differences follow.
    """

    ranked: list[RankedClass]
    at_half: Tally
    beyond_half: Tally

    @classmethod
    def of(cls, table: PairTable, min_score: float) -> MatchedModel:
        """Matches once, in COCO's way and at the working threshold."""
        at_half = tally(table, min_score)
        exact_half = bool((table.pair_overlap == 0.5).any())
        beyond_half = tally(table, min_score, beyond=True) if exact_half else at_half
        return cls(ranked=rank(table), at_half=at_half, beyond_half=beyond_half)

    def values(self, times: npt.NDArray[np.int32]) -> Replicates:
        """Every metric of every resample: float64 (r,), NaN where undefined.

        Args:
            times: int32 (r, n_images), how often each image is in each resample.
        """
        weights = times.astype(np.float64)
        ap = average_precision(self.ranked, times)
        pq, sq, rq = panoptic(self.beyond_half, weights)
        bias, mae = count_errors(self.at_half, weights)
        return {
            "coco_ap": ap.mean(axis=1),
            "coco_ap50": ap[:, 0],
            "coco_ap75": ap[:, _threshold_index(0.75)],
            "f1_50": f1(self.at_half, weights),
            "precision_50": precision(self.at_half, weights),
            "recall_50": recall(self.at_half, weights),
            "pq": pq,
            "sq": sq,
            "rq": rq,
            "count_bias": bias,
            "count_mae": mae,
        }


def evaluate(
    truth: Sequence[Instances],
    predicted: Sequence[Instances],
    *,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    min_score: float = 0.5,
    replicates: int = 1000,
    seed: int = 0,
) -> Panel:
    """All metrics with their intervals.

    Args:
        truth: The annotations, one per image; an image without objects counts.
        predicted: The predictions of the same images in the same order; without scores they count as 1.
        n_classes: Labels are 0..n_classes - 1.
        groups: The group (plate, donor, field) of each image, None where unknown. Where two or more are
            known, groups are resampled whole.
        min_score: The working threshold of every metric but ``coco_ap*``.
        replicates: Bootstrap replicates.
        seed: Of the bootstrap.
    """
    table = PairTable.build(truth, predicted, n_classes=n_classes)
    model = MatchedModel.of(table, min_score)
    resampling = Resampling.of(len(truth), groups, replicates=replicates, seed=seed)
    point, drawn = _point(model, len(truth)), _replicates([model], resampling)[0]
    return Panel(
        metrics={
            name: resampling.estimate(point[name], drawn[name], undefined=_why(name, table, min_score))
            for name in METRICS
        },
        min_score=min_score,
        n_images=len(truth),
        max_dets=table.max_dets,
        n_groups=resampling.n_units if resampling.by_group else None,
        notes=resampling.notes(),
    )


def difference(
    truth: Sequence[Instances],
    predicted_a: Sequence[Instances],
    predicted_b: Sequence[Instances],
    *,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    min_score_a: float = 0.5,
    min_score_b: float = 0.5,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Each metric of a minus that of b, paired: both are computed on the same resamples of the images.

    Args:
        truth: The annotations, one per image.
        predicted_a: Predictions of the same images.
        predicted_b: Predictions of the same images by another model.
        n_classes: Labels are 0..n_classes - 1.
        groups: As in ``evaluate``.
        min_score_a: Working threshold of a.
        min_score_b: Working threshold of b.
        replicates: Bootstrap replicates.
        seed: Of the bootstrap.
    """
    sides = ((predicted_a, min_score_a), (predicted_b, min_score_b))
    tables = [PairTable.build(truth, predicted, n_classes=n_classes) for predicted, _ in sides]
    models = [MatchedModel.of(table, score) for table, (_, score) in zip(tables, sides, strict=True)]
    resampling = Resampling.of(len(truth), groups, replicates=replicates, seed=seed)
    point_a, point_b = (_point(model, len(truth)) for model in models)
    drawn_a, drawn_b = _replicates(models, resampling)
    result = {}
    for name in METRICS:
        undefined_side = 0 if np.isnan(point_a[name]) else 1
        why = _why(name, tables[undefined_side], sides[undefined_side][1])
        result[name] = resampling.estimate(
            point_a[name] - point_b[name], drawn_a[name] - drawn_b[name], undefined=why
        )
    return result


def best_f1_score_threshold(
    truth: Sequence[Instances], predicted: Sequence[Instances], *, n_classes: int
) -> float:
    """The detection score that as a working threshold gives the best pooled F1 at IoU 0.5.

    Of equally good ones the highest; 0.5 where there is no true object or nothing is ever hit.
    """
    return best_threshold(PairTable.build(truth, predicted, n_classes=n_classes))


def _point(model: MatchedModel, n_images: int) -> dict[str, float]:
    values = model.values(np.ones((1, n_images), np.int32))
    return {name: float(values[name][0]) for name in METRICS}


def _replicates(models: list[MatchedModel], resampling: Resampling) -> list[Replicates]:
    """The replicates of each model, all on the same draws."""
    blocks = [[model.values(times) for model in models] for times in resampling.draws()]
    return [
        {name: np.concatenate([np.zeros(0), *(block[i][name] for block in blocks)]) for name in METRICS}
        for i in range(len(models))
    ]


def _why(name: str, table: PairTable, min_score: float) -> str:
    """Why a metric is undefined on all images."""
    if table.n_images == 0:
        return "there are no images"
    if name == "precision_50":
        return f"there are no predictions scored {min_score:g} or more"
    if bool(table.truth_crowd.all()):
        return "there are no true objects"
    return f"no prediction scored {min_score:g} or more matches a true object"


def _threshold_index(iou: float) -> int:
    return int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))
