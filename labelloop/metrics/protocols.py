"""Protocols: how the numbers of published tables are measured, each with its interval.

``coco``
    What pycocotools prints for masks: ``ap``, ``ap50``, ``ap75``; ``ap_small`` (area up to 32 x 32 px),
    ``ap_medium`` and ``ap_large`` (from 96 x 96 px); ``ar100``. The best 100 detections of an image and class
    count; the panel's ``coco_ap`` cuts nothing. Areas are those of the masks.
``cityscapes``
    What cityscapesScripts prints: ``ap`` and ``ap50``.
``cellpose``
    ``ap50``, ``ap55`` .. ``ap100`` as ``cellpose.metrics.average_precision`` has them, mean over images, of
    the detections that reach the score threshold (the panel's ``cellpose_ap*`` at other IoUs too), and
    ``ap``, their mean: what OrgaSegment's authors measure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances
from labelloop.metrics.bootstrap import REPLICATES, SEED, Resampling
from labelloop.metrics.cityscapes_ap import SteppedClass, cityscapes_average_precision, step_classes
from labelloop.metrics.coco_ap import EVERY_AREA_PX, RankedClass, average_precision, average_recall, rank
from labelloop.metrics.matched import BOUNDS_OF_SURPLUS, Replicates
from labelloop.metrics.matching import IOU_THRESHOLDS
from labelloop.metrics.pairs import BoolColumn, PairTable
from labelloop.metrics.panel import Estimates, estimates_as_dict, resample
from labelloop.metrics.working_point import Tally, cellpose_ap, match, tally

Protocol = Literal["coco", "cityscapes", "cellpose"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

CELLPOSE_IOUS_PERCENT = range(50, 101, 5)
COCO_MAX_DETS = 100
COCO_AREAS_PX = {
    "ap_small": (0.0, 32.0**2),
    "ap_medium": (32.0**2, 96.0**2),
    "ap_large": (96.0**2, math.inf),
}


@dataclass(frozen=True, kw_only=True)
class ProtocolResult:
    """What a protocol says of one set of predictions.

    Attributes:
        name: Of the protocol.
        metrics: By name.
        of_class: The same of each class that has a true object that counts; empty for ``cellpose``, which
            knows no classes, and where they were not asked for.
    """

    name: Protocol
    metrics: Estimates
    of_class: Mapping[str, Estimates] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The result as ``--json`` prints it."""
        by_class = {part: estimates_as_dict(found) for part, found in self.of_class.items()}
        return {"name": self.name, "metrics": estimates_as_dict(self.metrics), "by": {"class": by_class}}


def evaluate_protocol(
    name: Protocol,
    truth: Sequence[Instances],
    predicted: Sequence[Instances],
    *,
    n_classes: int,
    groups: Sequence[str | None] | None = None,
    min_score: float = 0.5,
    replicates: int = REPLICATES,
    seed: int = SEED,
    class_names: Sequence[str] = (),
) -> ProtocolResult:
    """The numbers of a protocol, with 95 % bootstrap intervals over images, or over groups where known.

    Args:
        name: Of the protocol.
        truth: The annotations, one per image.
        predicted: The predictions of the same images in the same order; without scores all count as 1.
        n_classes: Labels are 0..n_classes - 1.
        groups: As in ``panel.evaluate``.
        min_score: The working threshold of ``cellpose``; the others have none.
        replicates: Bootstrap replicates; 0 for no intervals.
        seed: Of the bootstrap.
        class_names: What the classes are called; without them they are not looked at one by one.
    """
    measured = _measured(name, truth, predicted, n_classes, min_score)
    resampling = Resampling.of(len(truth), groups, replicates=replicates, seed=seed)
    of_class = measured.classes() if class_names else {}
    return ProtocolResult(
        name=name,
        metrics=_estimates(measured, resampling),
        of_class={class_names[label]: _estimates(part, resampling) for label, part in of_class.items()},
    )


def protocol_difference(
    name: Protocol,
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
) -> Estimates:
    """Each number of a minus that of b, paired, as ``panel.difference``."""
    a = _measured(name, truth, predicted_a, n_classes, min_score_a)
    b = _measured(name, truth, predicted_b, n_classes, min_score_b)
    resampling = Resampling.of(len(truth), groups, replicates=replicates, seed=seed)
    point_a, point_b = _point(a), _point(b)
    drawn_a, drawn_b = resample([a, b], resampling)
    return {
        metric: resampling.estimate(
            point_a[metric] - point_b[metric],
            drawn_a[metric].minus(drawn_b[metric]),
            undefined=a.undefined,
            surplus=metric in a.surplus,
            holding=[a.holding(metric), b.holding(metric)],
        )
        for metric in point_a
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Coco:
    """Ranked classes: of all areas, and of the objects of each name of ``COCO_AREAS_PX``."""

    all_areas: list[RankedClass]
    of_area: dict[str, list[RankedClass]]
    table: PairTable
    undefined = "there are no true objects, or none of this size"
    surplus = ("ap", "ap50", "ap75", *COCO_AREAS_PX)

    @classmethod
    def of(cls, table: PairTable) -> _Coco:
        cut = _best_detections(table, COCO_MAX_DETS)
        return cls(
            all_areas=rank(cut, area_px=EVERY_AREA_PX),
            of_area={name: rank(cut, area_px=area_px) for name, area_px in COCO_AREAS_PX.items()},
            table=table,
        )

    def values(self, times: npt.NDArray[np.int32]) -> Replicates:
        ap = average_precision(self.all_areas, times)
        return {
            "ap": ap.mean(axis=1),
            "ap50": ap[:, 0],
            "ap75": ap[:, int(np.argmin(np.abs(IOU_THRESHOLDS - 0.75)))],
            **{name: average_precision(of, times).mean(axis=1) for name, of in self.of_area.items()},
            "ar100": average_recall(self.all_areas, times),
        }

    def holding(self, name: str) -> BoolColumn:
        return self.table.holding(COCO_AREAS_PX.get(name, EVERY_AREA_PX))

    def classes(self) -> dict[int, _Coco]:
        return {
            ranked.label: _Coco(
                all_areas=[ranked],
                of_area={
                    name: [other for other in of if other.label == ranked.label]
                    for name, of in self.of_area.items()
                },
                table=self.table.of_class(ranked.label),
            )
            for ranked in self.all_areas
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cityscapes:
    """Classes with their detections in steps of the score."""

    stepped: list[SteppedClass]
    table: PairTable
    undefined = "there are no true objects that are large enough"
    surplus = ("ap", "ap50")  # the curve starts at precision 1, which lifts what is seldom hit

    def values(self, times: npt.NDArray[np.int32]) -> Replicates:
        ap = cityscapes_average_precision(self.stepped, times)
        return {"ap": ap.mean(axis=1), "ap50": ap[:, 0]}

    def holding(self, name: str) -> BoolColumn:
        return self.table.holding()

    def classes(self) -> dict[int, _Cityscapes]:
        return {
            of.label: _Cityscapes(stepped=[of], table=self.table.of_class(of.label)) for of in self.stepped
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cellpose:
    """Counts at each of the IoU thresholds."""

    tallies: dict[str, Tally]
    table: PairTable
    undefined = "there are no true objects"
    surplus = ()

    @classmethod
    def of(cls, table: PairTable, min_score: float) -> _Cellpose:
        def counted(iou: float) -> Tally:
            return tally(table, min_score, match(table, min_score, iou=iou, most=True))

        tallies = {f"ap{percent}": counted(percent / 100) for percent in CELLPOSE_IOUS_PERCENT}
        return cls(tallies=tallies, table=table)

    def values(self, times: npt.NDArray[np.int32]) -> Replicates:
        at = {name: cellpose_ap(of, times.astype(np.float64)) for name, of in self.tallies.items()}
        return {"ap": np.mean(list(at.values()), axis=0), **at}

    def holding(self, name: str) -> BoolColumn:
        return self.table.holding()

    def classes(self) -> dict[int, _Cellpose]:
        return {}


_Measured = _Coco | _Cityscapes | _Cellpose


def _measured(
    name: Protocol,
    truth: Sequence[Instances],
    predicted: Sequence[Instances],
    n_classes: int,
    min_score: float,
) -> _Measured:
    table = PairTable.build(truth, predicted, n_classes=n_classes, outlines=False)
    match name:
        case "coco":
            return _Coco.of(table)
        case "cityscapes":
            return _Cityscapes(stepped=step_classes(truth, table), table=table)
        case "cellpose":
            return _Cellpose.of(table, min_score)


def _best_detections(table: PairTable, most: int) -> PairTable:
    """The table with at most so many detections of each image and class, the best scored ones."""
    order = np.lexsort((-table.det_score, table.det_label, table.det_image))
    cell = (table.det_image * table.n_classes + table.det_label)[order]
    kept = np.zeros(len(order), np.bool_)
    kept[order] = np.arange(len(cell)) - np.searchsorted(cell, cell) < most
    return table.select(kept, np.ones(len(table.truth_image), np.bool_))


def _point(measured: _Measured) -> dict[str, float]:
    """Every number of all images, each once."""
    once = measured.values(np.ones((1, measured.table.n_images), np.int32))
    return {name: float(value[0]) for name, value in once.items()}


def _estimates(measured: _Measured, resampling: Resampling) -> Estimates:
    point, (drawn,) = _point(measured), resample([measured], resampling)
    return {
        name: resampling.estimate(
            value,
            drawn[name],
            undefined=measured.undefined,
            surplus=name in measured.surplus,
            bounds=BOUNDS_OF_SURPLUS,
            holding=[measured.holding(name)],
        )
        for name, value in point.items()
    }
