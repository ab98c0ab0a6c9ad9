"""find_label_errors: ranks every label, and every prediction without one, by how wrong the labels look there.

The idea is ObjectLab's (Tkachenko et al. 2023, arXiv:2309.00832: overlooked, badly located and swapped boxes,
found with out-of-sample predictions), carried over to masks, and with merged and split objects. Scores are
first calibrated on the labels themselves: most of them are right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances
from labelloop.label_errors.evidence import Evidence, Floats, Ints, stacked
from labelloop.label_errors.suspects import Kind, Suspect
from labelloop.metrics.calibration import Calibration

FOUND = 0.3  # presence from which the model sees something of a label
SURE = 0.5  # chance from which the IoU of a match says something of boundaries
MATCHED_IOU = 0.4
TOUCHED_IOU = 0.3  # below it there is no boundary to compare
WITHOUT_LABEL = 0.5  # predictions that labels account for by less are positions of their own
IN_CROWD = 0.5  # share of a prediction from which a crowd accounts for it
LIKE_SIZE = 10  # the tenth of the labels that is nearest in area is of like size
FEWEST_ALIKE = 30  # but so many at least
# These two weigh kinds against each other; set on made errors in images that no test set holds.
UNSEEN = 0.9  # a model overlooks more objects than people invent
MERGED_POWER = 0.5  # two objects in a label have both to be seen, which is rarer than one
NAMED = 0.6  # of the highest score: the more telling kind is named where its score reaches it
Reason = tuple[float, tuple[int, ...], tuple[int, ...]]  # how surely, of which labels, by which predictions
_TELLING: tuple[Kind, ...] = (
    "wrong-class",
    "merged",
    "split",
    "sloppy",
    "spurious",
)  # the most telling first


def find_label_errors(
    truth: Sequence[Instances], predicted: Sequence[Instances], *, n_classes: int
) -> list[Suspect]:
    """All positions, the most suspicious first: each label, and each prediction that no label accounts for.

    Kinds are told apart by what the predictions show: nothing at a label is *spurious*; a likely object
    without a label *missed*; two objects in a label *merged*; labels that are two parts of an object *split*;
    a match with a low IoU, as matches of these predictions go, *sloppy*; another class *wrong-class*. A label
    has one suspect; parts of one split object share one. Crowds are never suspects, and nothing in them is
    missed.

    Args:
        truth: The labels, one per image.
        predicted: All that models see in these images that have not learnt their labels, with scores.
        n_classes: Labels are 0..n_classes - 1.
    """
    calibration = Calibration.fit(truth, predicted, n_classes=n_classes)
    sides = [
        _Side.of(image, labels, seen, calibration.probability(seen), n_classes=n_classes)
        for image, (labels, seen) in enumerate(zip(truth, predicted, strict=True))
    ]
    typical = np.sort(stacked([_matched_ious(side) for side in sides]))
    presence = stacked([side.presence for side in sides])
    findable = _findable(stacked([side.area for side in sides]), presence)
    ends = np.cumsum([len(side.index) for side in sides])
    found: list[Suspect] = []
    for side, end in zip(sides, ends, strict=True):
        found += _of_labels(side, typical, findable[end - len(side.index) : end])
        found += side.missed
    return sorted(found, key=lambda suspect: -suspect.score)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """What is known of one image and its t labels that are not crowds; the matrices of pairs are gone.

    Attributes:
        image: Index of the image.
        index: int64 (t,), where these labels are among all.
        area: float64 (t,), px.
        presence: float64 (t,), 0..1, how surely something is there.
        best: int64 (t,), the prediction that fits best; -1 where nothing touches.
        best_iou: float64 (t,), of these; 0 where nothing touches.
        best_chance: float64 (t,), of these; 0 where nothing touches.
        reasons: For each label the kinds of error that its image alone can tell.
        missed: Predictions that neither a label nor a crowd accounts for.
    """

    image: int
    index: Ints
    area: Floats
    presence: Floats
    best: Ints
    best_iou: Floats
    best_chance: Floats
    reasons: tuple[Mapping[Kind, Reason], ...]
    missed: tuple[Suspect, ...]

    @classmethod
    def of(
        cls, image: int, labels: Instances, predicted: Instances, chance: Floats, *, n_classes: int
    ) -> _Side:
        """Compares the labels and the predictions of one image."""
        index = np.flatnonzero(~labels.crowd).astype(np.int64)
        ordinary = labels.select(index)
        evidence = Evidence.of(ordinary, predicted, chance, n_classes=n_classes)
        accounted = evidence.accounted
        touched = np.flatnonzero(evidence.best >= 0)
        best, best_iou, best_chance = evidence.best.copy(), np.zeros(len(index)), np.zeros(len(index))
        best[touched] = evidence.kept[evidence.best[touched]]
        best_iou[touched] = evidence.iou[touched, evidence.best[touched]]
        best_chance[touched] = evidence.chance[evidence.best[touched]]
        return cls(
            image=image,
            index=index,
            area=evidence.label_area,
            presence=np.asarray((accounted * evidence.chance).max(axis=1, initial=0.0)),
            best=best,
            best_iou=best_iou,
            best_chance=best_chance,
            reasons=tuple(_reasons(evidence, ordinary.labels)),
            missed=tuple(_missed(image, evidence, accounted, predicted, crowds=labels.select(labels.crowd))),
        )


def _matched_ious(side: _Side) -> Floats:
    """IoU of each label that is matched for sure, in no order."""
    return np.asarray(side.best_iou[(side.best_chance > SURE) & (side.best_iou > MATCHED_IOU)])


def _findable(area: Floats, presence: Floats) -> Floats:
    """float64 (t,), 0..1: the share of labels of like size that are found at all."""
    order = np.argsort(area, kind="stable")
    reach = max(len(area) // LIKE_SIZE, FEWEST_ALIKE) // 2
    found = np.concatenate([[0.0], np.cumsum(presence[order] > FOUND)])
    low = np.maximum(np.arange(len(area)) - reach, 0)
    high = np.minimum(np.arange(len(area)) + reach + 1, len(area))
    share = np.zeros(len(area))
    share[order] = (found[high] - found[low]) / np.maximum(high - low, 1)
    return share


def _of_labels(side: _Side, typical: Floats, findable: Floats) -> Iterator[Suspect]:
    """One suspect for each label; parts of one object share theirs."""
    told: set[tuple[int, ...]] = set()
    for label, reasons in enumerate(side.reasons):
        best = int(side.best[label])
        why: dict[Kind, Reason] = {
            **reasons,
            "sloppy": (_sloppiness(side, label, typical), (label,), () if best < 0 else (best,)),
            "spurious": (float(UNSEEN * (1 - side.presence[label]) * findable[label]), (label,), ()),
        }
        highest = max(score for score, _, _ in why.values())
        named = (kind for kind in _TELLING if why[kind][0] >= NAMED * highest and highest > 0)
        kind: Kind = next(named, "sloppy")  # nothing speaks against the label
        _, labels, predictions = why[kind]
        if kind == "split":
            if labels in told:
                continue
            told.add(labels)
        yield Suspect(
            kind=kind,
            score=highest,
            image=side.image,
            labels=tuple(int(side.index[i]) for i in labels),
            predictions=predictions,
            area_px=int(side.area[label]),
        )


def _reasons(evidence: Evidence, classes: Ints) -> Iterator[dict[Kind, Reason]]:
    """What speaks against each label, as far as its image alone can tell."""
    splits = _splits(evidence)
    for label in range(len(classes)):
        merged, parts = evidence.merged(label)
        split, pieces, whole = splits.get(label, (0.0, (), -1))
        swapped, instead = _swapped(evidence, label, int(classes[label]))
        yield {
            "wrong-class": (swapped, (label,), instead),
            "merged": (merged**MERGED_POWER, (label,), tuple(int(evidence.kept[p]) for p in parts)),
            "split": (split, pieces, () if whole < 0 else (int(evidence.kept[whole]),)),
        }


def _splits(evidence: Evidence) -> dict[int, tuple[float, tuple[int, ...], int]]:
    """For each label that may be a part: how surely, which labels are the parts, and of which prediction."""
    surest: dict[int, tuple[float, tuple[int, ...], int]] = {}
    for prediction in range(len(evidence.kept)):
        score, parts = evidence.split(prediction)
        for label in parts:
            if score > surest.get(label, (0.0, (), -1))[0]:
                surest[label] = score, parts, prediction
    return surest


def _sloppiness(side: _Side, label: int, typical: Floats) -> float:
    """The chance of the label's match times the share of matches that fit better."""
    if side.best_iou[label] <= TOUCHED_IOU or not len(typical):
        return 0.0
    worse = np.searchsorted(typical, side.best_iou[label], side="right") / len(typical)
    return float(side.best_chance[label] * (1 - worse))


def _swapped(evidence: Evidence, label: int, own_class: int) -> tuple[float, tuple[int, ...]]:
    """How surely a label has the wrong class, and the prediction that has another."""
    chances = evidence.classes[label].copy()
    own, chances[own_class] = float(chances[own_class]), 0.0
    other = int(chances.argmax())
    best = int(evidence.best[label])
    if chances[other] <= own or best < 0:
        return 0.0, ()
    return float(chances[other] * (1 - own)), (int(evidence.kept[best]),)


def _missed(
    image: int, evidence: Evidence, accounted: Floats, predicted: Instances, *, crowds: Instances
) -> Iterator[Suspect]:
    """One suspect for each prediction that neither a label nor a crowd accounts for."""
    covered = accounted.max(axis=0, initial=0.0)
    ignored = _crowded(predicted.select(evidence.kept), crowds)
    for place in np.flatnonzero((covered < WITHOUT_LABEL) & ~ignored):
        yield Suspect(
            kind="missed",
            score=float(evidence.chance[place] * (1 - covered[place])),
            image=image,
            labels=(),
            predictions=(int(evidence.kept[place]),),
            area_px=int(evidence.kept_area[place]),
        )


def _crowded(shown: Instances, crowds: Instances) -> npt.NDArray[np.bool_]:
    """Which predictions, bool (k,), lie in a crowd by half of their area or more."""
    iou = shown.iou(crowds)
    total = shown.areas[:, None].astype(np.float64) + crowds.areas
    inside = iou * total / (1 + iou) / np.maximum(shown.areas[:, None], 1)
    return np.asarray((inside >= IN_CROWD).any(axis=1))
