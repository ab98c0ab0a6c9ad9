"""How the labels and the predictions of one image lie to one another, as far as suspicion needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances

SAME_PLACE_IOU = 0.5  # of two predictions the better one speaks
INSIDE = 0.6  # share of an object in another from which the other accounts for it
PART = 0.5  # share of an object in another from which it can be a part of it
APART = 0.4  # parts of one object share less than this with each other
LIKELY = 0.3  # predictions less likely do not excuse a label as a whole
FULL_GAIN = 0.1  # of IoU: two parts that fit together this much better than one are two beyond doubt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """The t labels of one image beside its k predictions at different places.

    Attributes:
        labels: The labels.
        shown: These predictions.
        kept: int64 (k,), which predictions these are, likeliest first.
        chance: float64 (k,), 0..1, how likely each is right.
        label_area: float64 (t,), px.
        kept_area: float64 (k,), px.
        iou: float64 (t, k).
        in_label: float64 (t, k), share of the prediction that lies in the label.
        in_kept: float64 (t, k), share of the label that lies in the prediction.
        best: int64 (t,), the prediction with the highest chance times IoU; -1 where nothing touches.
        classes: float64 (t, n_classes), the chance of the best prediction of each class at the label's place.
    """

    labels: Instances
    shown: Instances
    kept: Ints
    chance: Floats
    label_area: Floats
    kept_area: Floats
    iou: Floats
    in_label: Floats
    in_kept: Floats
    best: Ints
    classes: Floats

    @classmethod
    def of(cls, labels: Instances, predicted: Instances, chance: Floats, *, n_classes: int) -> Evidence:
        """Compares the masks of one image.

        Args:
            labels: Annotations, t objects.
            predicted: What a model sees there that has not learnt these labels.
            chance: float64 (n,), how likely each prediction is right.
            n_classes: Labels are 0..n_classes - 1.
        """
        kept = _one_per_place(predicted, chance)
        shown, sure = predicted.select(kept), chance[kept]
        label_area, kept_area = labels.areas.astype(np.float64), shown.areas.astype(np.float64)
        shared = _shared_px(labels, shown)
        iou = _over(shared, label_area[:, None] + kept_area - shared)
        return cls(
            labels=labels,
            shown=shown,
            kept=kept,
            chance=sure,
            label_area=label_area,
            kept_area=kept_area,
            iou=iou,
            in_label=_over(shared, np.broadcast_to(kept_area, shared.shape)),
            in_kept=_over(shared, np.broadcast_to(label_area[:, None], shared.shape)),
            best=_best(iou * sure),
            classes=_class_chances(labels, predicted, chance, n_classes),
        )

    @property
    def accounted(self) -> Floats:
        """float64 (t, k), 0..1: how far a label and a prediction can be about the same thing.

        Wholly from IoU 0.5 on; partly where most of one lies in the other.
        """
        inside = np.maximum(
            np.where(self.in_label >= INSIDE, self.in_label, 0.0),
            np.where(self.in_kept >= INSIDE, self.in_kept, 0.0),
        )
        return np.asarray(np.minimum(1.0, np.maximum(2 * self.iou, inside)))

    def merged(self, label: int) -> tuple[float, tuple[int, ...]]:
        """How surely a label lies over two objects, 0..1, and which two of the k predictions say so."""
        likely = self.iou[label, self.chance >= LIKELY].max(initial=0.0)
        return _two_parts(
            np.flatnonzero(self.in_label[label] >= PART),
            whole=float(self.label_area[label]),
            areas=self.kept_area,
            inside=self.in_label[label] * self.kept_area,
            objects=self.shown,
            chance=self.chance,
            single=float(likely),
        )

    def split(self, prediction: int) -> tuple[float, tuple[int, ...]]:
        """How surely two labels are parts of one predicted object, 0..1, and which two."""
        score, parts = _two_parts(
            np.flatnonzero(self.in_kept[:, prediction] >= PART),
            whole=float(self.kept_area[prediction]),
            areas=self.label_area,
            inside=self.in_kept[:, prediction] * self.label_area,
            objects=self.labels,
            chance=np.ones(len(self.label_area)),
            single=float(self.iou[:, prediction].max(initial=0.0)),
        )
        return score * float(self.chance[prediction]), parts


def _two_parts(
    candidates: Ints,
    *,
    whole: float,
    areas: Floats,
    inside: Floats,
    objects: Instances,
    chance: Floats,
    single: float,
) -> tuple[float, tuple[int, ...]]:
    """The two candidates that together fit the whole better than anything alone; else 0 and none."""
    best: tuple[float, tuple[int, ...]] = (0.0, ())
    if len(candidates) < 2:
        return best
    some = objects.select(candidates)
    shared_px = _shared_px(some, some)
    for n, b in enumerate(candidates.tolist()):
        for m, a in enumerate(candidates[:n].tolist()):
            shared = shared_px[m, n]
            if shared >= APART * min(areas[a], areas[b]):
                continue
            covered = inside[a] + inside[b] - min(shared, inside[a], inside[b])
            together = covered / max(whole + areas[a] + areas[b] - shared - covered, 1.0)
            gain = min(max((together - single) / FULL_GAIN, 0.0), 1.0)
            score = float(min(chance[a], chance[b]) * gain)
            if score > best[0]:
                best = score, (a, b)
    return best


def _one_per_place(predicted: Instances, chance: Floats) -> Ints:
    """Indices, likeliest first, without those that a likelier one covers; empty masks are nowhere."""
    order = np.argsort(-chance, kind="stable")
    order = order[predicted.areas[order] > 0]
    same = predicted.iou(predicted) >= SAME_PLACE_IOU
    kept: list[int] = []
    for index in order.tolist():
        if not same[index, kept].any():
            kept.append(index)
    return np.asarray(kept, np.int64)


def _best(score: Floats) -> Ints:
    """int64 (t,): where each row is highest; -1 where it is nowhere above 0."""
    best = np.full(len(score), -1, np.int64)
    touched = score.max(axis=1, initial=0.0) > 0
    if touched.any():
        best[touched] = score.argmax(axis=1)[touched]
    return best


def _class_chances(labels: Instances, predicted: Instances, chance: Floats, n_classes: int) -> Floats:
    """float64 (t, n_classes): chance of the best prediction of each class with IoU >= 0.5."""
    at_place = (labels.iou(predicted) >= SAME_PLACE_IOU) * chance
    found = np.zeros((len(labels), n_classes))
    for label in range(n_classes):
        found[:, label] = at_place[:, predicted.labels == label].max(axis=1, initial=0.0)
    return found


def _shared_px(a: Instances, b: Instances) -> Floats:
    """float64 (n, m): pixels that each pair of masks shares."""
    iou = np.nan_to_num(a.iou(b))
    shared = a.areas[:, None].astype(np.float64) + b.areas
    shared *= iou
    iou += 1
    shared /= iou
    return np.asarray(np.rint(shared, out=shared))


def _over(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))


def stacked(parts: Sequence[npt.NDArray[np.generic]]) -> Floats:
    """float64 (n,), one after the other; empty for none."""
    together: Floats = np.concatenate([np.zeros(0), *parts]).astype(np.float64)
    return together
