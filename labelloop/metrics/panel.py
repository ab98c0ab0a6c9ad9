"""The panel: every metric of a model with its interval, its parts, and the difference of two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances
from labelloop.metrics.bootstrap import REPLICATES, SEED, Drawn, Resampling
from labelloop.metrics.estimate import Estimate
from labelloop.metrics.matched import BOUNDS_OF_SURPLUS, METRICS, SURPLUS, MatchedModel, Replicates
from labelloop.metrics.overlaps import OverlapSums
from labelloop.metrics.pairs import BoolColumn, PairTable
from labelloop.metrics.subsets import SizeThirds, by_class, by_group, by_size, worst
from labelloop.metrics.working_point import best_threshold
from labelloop.threads import in_threads

Estimates = dict[str, Estimate]

_UNSCORED = "the predictions have no scores and count as 1: coco_ap* ranks nothing and depends on their order"


class Resampled(Protocol):
    """What can be measured on any resample of the images."""

    def values(self, times: npt.NDArray[np.int32]) -> Replicates:
        """Every metric, float64 (r,) each, by int32 (r, n_images): how often each image is there."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The same metrics of parts of the objects or images.

    Attributes:
        of_class: By name of the class; those with a true object or a prediction.
        of_size: By ``small``, ``medium`` and ``large``; empty without true objects.
        of_group: By name of the group, its images resampled; empty where fewer than two are known.
        worst_group: For each metric the name of the group in which it is worst.
        thirds: Where sizes are cut; None without true objects.
    """

    of_class: dict[str, Estimates] = field(default_factory=dict)
    of_size: dict[str, Estimates] = field(default_factory=dict)
    of_group: dict[str, Estimates] = field(default_factory=dict)
    worst_group: dict[str, str] = field(default_factory=dict)
    thirds: SizeThirds | None = None

    def as_dict(self) -> dict[str, Any]:
        """``class``, ``size``, ``group`` and ``worst_group`` as ``--json`` prints them."""
        worst_of = {
            name: {**self.of_group[group][name].as_dict(), "group": group}
            for name, group in self.worst_group.items()
        }
        return {
            "class": {part: estimates_as_dict(found) for part, found in self.of_class.items()},
            "size": {part: estimates_as_dict(found) for part, found in self.of_size.items()},
            "group": {part: estimates_as_dict(found) for part, found in self.of_group.items()},
            "worst_group": worst_of,
        }


@dataclass(frozen=True, kw_only=True)
class Panel:
    """All metrics of one set of predictions.

    Attributes:
        metrics: By name, in the order of ``METRICS``.
        min_score: The score threshold of every metric but ``coco_ap*`` and ``detection_ece``.
        n_images: Number of images, empty ones included.
        max_dets: COCO's maxDets, large enough to cut nothing.
        n_groups: Number of groups that were resampled whole, an image without one being its own; 1 where
            all images are of one group; None where no group is known.
        notes: What a reader of the numbers should know, one sentence each.
        by: The same metrics of classes, sizes and groups; None where they were not asked for.
    """

    metrics: Estimates
    min_score: float
    n_images: int
    max_dets: int
    n_groups: int | None = None
    notes: tuple[str, ...] = ()
    by: Parts | None = None

    def as_dict(self) -> dict[str, Any]:
        """The panel as ``--json`` prints it."""
        by = self.by or Parts()
        thirds = by.thirds
        return {
            "metrics": estimates_as_dict(self.metrics),
            "by": by.as_dict(),
            "size_thirds_px": None if thirds is None else [thirds.largest_small_px, thirds.largest_medium_px],
            "min_score": self.min_score,
            "n_images": self.n_images,
            "n_groups": self.n_groups,
            "max_dets": self.max_dets,
            "notes": list(self.notes),
        }


def estimates_as_dict(estimates: Estimates) -> dict[str, dict[str, Any]]:
    """Estimates by name as ``--json`` prints them."""
    return {name: estimate.as_dict() for name, estimate in estimates.items()}


def evaluate(
    truth: Sequence[Instances],
    predicted: Sequence[Instances],
    *,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    min_score: float = 0.5,
    replicates: int = REPLICATES,
    seed: int = SEED,
    class_names: Sequence[str] | None = None,
    pixel_sizes_um: Sequence[float | None] | None = None,
    parts: bool = True,
) -> Panel:
    """All metrics of predictions, with 95 % bootstrap intervals over images, or over groups where known.

    AP and the calibration error use all predictions with their scores, the other metrics those scored
    ``min_score`` or more. Images without objects count; true objects marked crowd are neither hits nor
    misses.

    Args:
        truth: The annotations, one per image.
        predicted: The predictions of the same images in the same order; without scores all count as 1, and
            the calibration error is null.
        n_classes: Labels are 0..n_classes - 1.
        groups: Plate, well or field of each image; groups are resampled whole, unless all images are of one.
        min_score: The score threshold.
        replicates: Bootstrap replicates; 0 for no intervals.
        seed: Of the bootstrap.
        class_names: What the parts of ``by`` are called; the index where there are none.
        pixel_sizes_um: Side of a pixel of each image, µm; the boundary error is in px unless all are known.
        parts: Whether to look at classes, sizes and groups too.
    """
    table = PairTable.build(truth, predicted, n_classes=n_classes)
    model = MatchedModel.of(table, min_score, pixel_sizes_um)
    resampling = Resampling.of(len(truth), groups, replicates=replicates, seed=seed)
    by = None
    metrics = _estimates(model, resampling)
    if parts:
        names = class_names or [str(label) for label in range(n_classes)]
        by = _parts(model, metrics, resampling, groups, names, pixel_sizes_um)
    return Panel(
        metrics=metrics,
        min_score=min_score,
        n_images=len(truth),
        max_dets=table.max_dets,
        n_groups=resampling.n_groups,
        notes=(*resampling.notes(table.holding()), *(() if table.has_scores else (_UNSCORED,))),
        by=by,
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
    replicates: int = REPLICATES,
    seed: int = SEED,
    pixel_sizes_um: Sequence[float | None] | None = None,
) -> Estimates:
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
        pixel_sizes_um: As in ``evaluate``.
    """
    a, b = (
        MatchedModel.of(PairTable.build(truth, predicted, n_classes=n_classes), min_score, pixel_sizes_um)
        for predicted, min_score in ((predicted_a, min_score_a), (predicted_b, min_score_b))
    )
    resampling = Resampling.of(len(truth), groups, replicates=replicates, seed=seed)
    point_a, point_b = a.point(), b.point()
    drawn_a, drawn_b = resample([a, b], resampling)
    return {
        name: resampling.estimate(
            point_a[name] - point_b[name],
            drawn_a[name].minus(drawn_b[name]),
            undefined=(a if np.isnan(point_a[name]) else b).why_undefined(name),
            surplus=name in SURPLUS,
            unit=a.unit(name),
            holding=[a.holding(name), b.holding(name)],
        )
        for name in METRICS
    }


def best_f1_score_threshold(
    truth: Sequence[Instances], predicted: Sequence[Instances], *, n_classes: int
) -> float:
    """The detection score that as a score threshold gives the best pooled F1 at IoU 0.5.

    Of equally good ones the highest; 0.5 where there is no true object or nothing is ever hit.
    """
    return best_threshold(PairTable.build(truth, predicted, n_classes=n_classes, outlines=False))


def resample(models: Sequence[Resampled], resampling: Resampling) -> list[dict[str, Drawn]]:
    """Every metric of each model in every resample, by name; all models on the same draws."""

    def values(times: npt.NDArray[np.int32]) -> list[Replicates]:
        return [model.values(times) for model in models]

    blocks = list(in_threads(values, resampling.draws()))
    left_out = values(resampling.left_out())
    return [
        {
            name: Drawn(
                replicates=np.concatenate([np.zeros(0), *(block[i][name] for block in blocks)]),
                left_out=of_model[name],
            )
            for name in of_model
        }
        for i, of_model in enumerate(left_out)
    ]


def _estimates(model: MatchedModel, resampling: Resampling) -> Estimates:
    point, (drawn,) = model.point(), resample([model], resampling)
    return {
        name: resampling.estimate(
            point[name],
            drawn[name],
            undefined=model.why_undefined(name),
            surplus=name in SURPLUS,
            bounds=BOUNDS_OF_SURPLUS,
            unit=model.unit(name),
            holding=[model.holding(name)],
        )
        for name in METRICS
    }


def _parts(
    whole: MatchedModel,
    of_all: Estimates,
    resampling: Resampling,
    groups: Sequence[str | None] | None,
    class_names: Sequence[str],
    pixel_sizes_um: Sequence[float | None] | None,
) -> Parts:
    table, thirds = whole.table, SizeThirds.of(whole.table)

    def of_part(part: PairTable, truths: BoolColumn | None = None) -> Estimates:
        if len(part.det_image) == len(table.det_image) and len(part.truth_image) == len(table.truth_image):
            return of_all
        model = MatchedModel.of(part, whole.min_score, pixel_sizes_um)
        if truths is not None:
            every = OverlapSums.of(table, whole.min_score, truths)
            model = replace(model, overlaps=replace(model.overlaps, merges=every.merges, splits=every.splits))
        return _estimates(model, resampling)

    of_group = {}
    several = len({group for group in groups or () if group is not None}) >= 2
    for name, images, part in by_group(table, groups or ()) if several else ():
        sizes = None
        if pixel_sizes_um is not None and whole.pairs.unit == "µm":  # one unit for all, to be compared
            sizes = [pixel_sizes_um[i] for i in np.flatnonzero(images)]
        within = Resampling.of(part.n_images, None, replicates=resampling.replicates, seed=resampling.seed)
        of_group[name] = _estimates(MatchedModel.of(part, whole.min_score, sizes), within)
    worst_groups = {
        name: worst(name, {group: found[name] for group, found in of_group.items()}) for name in METRICS
    }
    return Parts(
        of_class={class_names[label]: of_part(part) for label, part in by_class(table)},
        of_size={}
        if thirds is None
        else {size: of_part(part, truths) for size, part, truths in by_size(table, thirds)},
        of_group=of_group,
        worst_group={name: group for name, group in worst_groups.items() if group is not None},
        thirds=thirds,
    )
