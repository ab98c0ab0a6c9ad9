"""Annotation errors made in true labels, for benchmarks of the finder and of the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from labelloop.instances import Instances

Mask = npt.NDArray[np.bool_]
KINDS = ("missed", "spurious", "merged", "split", "sloppy", "wrong-class")
SMALLEST_PX = 30  # smaller objects get no errors
TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Error:
    """An error that was made: its kind, its image, the mask in question and the labels that came of it."""

    kind: str
    image: int
    mask: Mask
    labels: list[int]


def with_errors(
    truth: Sequence[tuple[Instances, Mask]], rng: np.random.Generator, *, share: float
) -> tuple[list[Instances], list[Error]]:
    """Labels of two classes in which a share of the objects has an error of each of the six kinds.

    Args:
        truth: Of each image its n objects, and bool (n,), whose class nobody could mistake.
        rng: Decides which objects get an error, and how large it is.
        share: Of all objects, for each kind.
    """
    labels = _Labels(truth, rng)
    for kind in KINDS:
        labels.make(kind, max(round(share * sum(len(objects) for objects, _ in truth)), 1))
    return labels.labels()


class _Labels:
    """Masks of all images while errors are made in them; an object gets one error at most."""

    def __init__(self, truth: Sequence[tuple[Instances, Mask]], rng: np.random.Generator) -> None:
        self.sizes = [objects.size_hw for objects, _ in truth]
        self.true = [list(objects.to_dense()) for objects, _ in truth]
        self.clear = [clear.tolist() for _, clear in truth]
        self.masks: list[list[Mask | None]] = [list(masks) for masks in self.true]
        self.classes = [objects.labels.tolist() for objects, _ in truth]
        self.errors: list[Error] = []
        self._rng = rng
        self._free = [
            (i, j) for i, masks in enumerate(self.true) for j, m in enumerate(masks) if m.sum() >= SMALLEST_PX
        ]

    def make(self, kind: str, count: int) -> None:
        """Makes so many errors of a kind, fewer where there is no room for more."""
        for place in self._rng.permutation(len(self._free)):
            if count == 0:
                break
            image, index = self._free[place]
            if self.masks[image][index] is self.true[image][index]:  # nothing was done to it
                count -= bool(getattr(self, f"_{kind.replace('-', '_')}")(image, index))

    def labels(self) -> tuple[list[Instances], list[Error]]:
        """The labels with their errors, and the errors by the labels' new indices."""
        made = []
        errors = []
        for image, masks in enumerate(self.masks):
            kept = [i for i, mask in enumerate(masks) if mask is not None]
            size_hw = self.sizes[image]
            stack = np.array([masks[i] for i in kept], np.bool_).reshape(len(kept), *size_hw)
            classes = [self.classes[image][i] for i in kept]
            made.append(Instances.from_dense(stack, classes, size_hw=size_hw))
            new = {old: i for i, old in enumerate(kept)}
            errors += [
                Error(kind=e.kind, image=image, mask=e.mask, labels=[new[i] for i in e.labels])
                for e in self.errors
                if e.image == image
            ]
        return made, errors

    def _note(self, kind: str, image: int, mask: Mask, labels: list[int]) -> bool:
        self.errors.append(Error(kind=kind, image=image, mask=mask, labels=labels))
        return True

    def _wrong_class(self, image: int, index: int) -> bool:
        if not self.clear[image][index]:
            return False
        self.masks[image][index] = self.true[image][index].copy()  # an object that has its error
        self.classes[image][index] = 1 - self.classes[image][index]
        return self._note("wrong-class", image, self.true[image][index], [index])

    def _missed(self, image: int, index: int) -> bool:
        mask, self.masks[image][index] = self.true[image][index], None
        return self._note("missed", image, mask, [])

    def _spurious(self, image: int, index: int) -> bool:
        """A copy of an object where no object is."""
        rows, columns = np.nonzero(self.true[image][index])
        target = int(self._rng.integers(len(self.true)))
        height, width = self.sizes[target]
        for _ in range(TRIES):
            top = self._rng.integers(0, max(height - np.ptp(rows), 1))
            left = self._rng.integers(0, max(width - np.ptp(columns), 1))
            y, x = rows - rows.min() + top, columns - columns.min() + left
            if y.max() >= height or x.max() >= width:
                continue
            mask = np.zeros((height, width), np.bool_)
            mask[y, x] = True
            if all((mask & true).sum() <= 0.1 * min(mask.sum(), true.sum()) for true in self.true[target]):
                self.masks[target].append(mask)
                self.classes[target].append(self.classes[image][index])
                return self._note("spurious", target, mask, [len(self.masks[target]) - 1])
        return False

    def _merged(self, image: int, index: int) -> bool:
        """The object and its nearest neighbour, not further than half a diameter, as one."""
        mask = self.true[image][index]
        distance = ndimage.distance_transform_edt(~mask)
        neighbours = [
            (float(distance[other].min()), i)
            for i, other in enumerate(self.true[image])
            if i != index
            and self.masks[image][i] is other
            and other.sum() >= SMALLEST_PX
            and (mask & other).sum() < 0.3 * min(mask.sum(), other.sum())
        ]
        gap, other = min(neighbours, default=(np.inf, -1))
        if gap > 0.5 * np.sqrt(mask.sum()):
            return False
        reach = int(np.ceil(gap / 2)) + 1
        both = mask | self.true[image][other]
        closed = ndimage.binary_closing(np.pad(both, reach + 1), iterations=reach)
        both |= closed[reach + 1 : -reach - 1, reach + 1 : -reach - 1]
        self.masks[image][index], self.masks[image][other] = both, None
        return self._note("merged", image, both, [index])

    def _split(self, image: int, index: int) -> bool:
        """The object cut in two by a line at random."""
        mask = self.true[image][index]
        rows, columns = np.nonzero(mask)
        angle = self._rng.uniform(0, np.pi)
        along = (rows - rows.mean()) * np.sin(angle) + (columns - columns.mean()) * np.cos(angle)
        first = np.zeros_like(mask)
        near = along < np.quantile(along, self._rng.uniform(0.35, 0.65))
        first[rows[near], columns[near]] = True
        if not near.any() or near.all():
            return False
        self.masks[image][index] = first
        self.masks[image].append(mask & ~first)
        self.classes[image].append(self.classes[image][index])
        return self._note("split", image, mask, [index, len(self.masks[image]) - 1])

    def _sloppy(self, image: int, index: int) -> bool:
        """The object grown, shrunk or shifted to an IoU of 0.5 to 0.7."""
        mask, wanted = self.true[image][index], self._rng.uniform(0.5, 0.7)
        how, angle = int(self._rng.integers(3)), self._rng.uniform(0, 2 * np.pi)
        for step in range(1, max(mask.shape)):
            if how == 0:
                changed = ndimage.binary_dilation(mask, iterations=step)
            elif how == 1:
                changed = ndimage.binary_erosion(mask, iterations=step)
            else:
                shift = np.rint((step * np.sin(angle), step * np.cos(angle))).astype(int)
                changed = ndimage.shift(mask, shift, order=0, cval=False)
            iou = (changed & mask).sum() / (changed | mask).sum()
            if iou <= wanted:
                break
        if iou < 0.4 or iou > wanted:
            return False
        self.masks[image][index] = changed
        return self._note("sloppy", image, changed, [index])
