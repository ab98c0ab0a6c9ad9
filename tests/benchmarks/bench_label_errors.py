"""How many annotation errors the finder ranks high: errors are made in the labels of images with predictions.

    python tests/benchmarks/bench_label_errors.py PROJECT RUN... [--which guided] [--repeats 5]

The ground are the labelled training images that a run has neither learnt nor validated on: its predictions
there are out of fold. In each repeat 1 % of the labels get an error of each kind (5 % in all): taken away,
put where nothing is, two neighbours made one, one cut in two, a boundary moved to an IoU of 0.5 to 0.7. An
error is found where a suspect at its place is in the top of the ranking, whatever kind it names. The top is a
tenth of all positions ranked: labels, and predictions (score 0.05 or more) that no label accounts for;
``tenth of labels`` is harder, as many suspects as a tenth of the labels. What a set's own labels get wrong
counts against the finder. Wrong classes are made in a case of their own, as these sets have one class: larger
or smaller than the median, by the true masks for labels and by the predicted ones for predictions.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_calibration import Scenes, predicted_images, unseen_images
from scipy import ndimage

from labelloop.data.label_errors.find import find_label_errors
from labelloop.data.label_errors.suspects import Suspect
from labelloop.instances import Instances
from labelloop.project.project import Project

Mask = npt.NDArray[np.bool_]
GEOMETRIC = ("missed", "spurious", "merged", "split", "sloppy")
SHARE = 0.01  # of the labels, for each kind
SMALLEST_PX = 30  # smaller objects get no errors
SAME_PLACE_IOU = 0.4  # of a suspected prediction with an object that lost its label
TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Error:
    """An error that was made: its kind, its image, the mask in question and the labels that came of it."""

    kind: str
    image: int
    mask: Mask
    labels: list[int]


class Labels:
    """Masks of all images while errors are made in them; an object gets one error at most."""

    def __init__(self, truth: Scenes, rng: np.random.Generator) -> None:
        self.true = [list(objects.to_dense()) for objects in truth]
        self.masks: list[list[Mask | None]] = [list(masks) for masks in self.true]
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
                count -= bool(getattr(self, f"_{kind}")(image, index))

    def labels(self) -> tuple[Scenes, list[Error]]:
        """The labels with their errors, and the errors by the labels' new indices."""
        made: Scenes = []
        errors = []
        for image, masks in enumerate(self.masks):
            kept = [i for i, mask in enumerate(masks) if mask is not None]
            size = self.true[image][0].shape if self.true[image] else (1, 1)
            stack = np.array([masks[i] for i in kept]).reshape(len(kept), *size)
            made.append(Instances.from_dense(stack, size_hw=size))
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

    def _missed(self, image: int, index: int) -> bool:
        mask, self.masks[image][index] = self.true[image][index], None
        return self._note("missed", image, mask, [])

    def _spurious(self, image: int, index: int) -> bool:
        """A copy of an object where no object is."""
        rows, columns = np.nonzero(self.true[image][index])
        target = int(self._rng.integers(len(self.true)))
        if not self.true[target]:
            return False
        height, width = self.true[target][0].shape
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


def rank_of(error: Error, suspects: list[Suspect], predicted: Scenes) -> tuple[int, str]:
    """Rank of the first suspect at the error's place and its kind; far behind all if there is none."""
    iou = predicted[error.image].iou(Instances.from_dense(error.mask[None]))[:, 0]
    for place, suspect in enumerate(suspects):
        if suspect.image != error.image:
            continue
        at_label = bool(set(suspect.labels) & set(error.labels))
        at_prediction = not suspect.labels and iou[suspect.predictions[0]] >= SAME_PLACE_IOU
        if at_label or (not error.labels and at_prediction):
            return place, suspect.kind
    return 10**9, ""


def by_size(objects: Instances, cut: float) -> Instances:
    """The same objects with class 1 where they are larger than the cut, px, else 0."""
    return Instances(
        size_hw=objects.size_hw,
        rles=objects.rles,
        labels=(objects.areas > cut).astype(np.int64),
        scores=objects.scores,
    )


def geometric_case(truth: Scenes, rng: np.random.Generator) -> tuple[Scenes, list[Error]]:
    """Labels with errors of every kind but wrong classes."""
    labels = Labels(truth, rng)
    count = max(round(SHARE * sum(map(len, truth))), 1)
    for kind in GEOMETRIC:
        labels.make(kind, count)
    return labels.labels()


def class_case(truth: Scenes, rng: np.random.Generator) -> tuple[Scenes, list[Error]]:
    """Labels of which some have the other class."""
    made = [objects.labels.copy() for objects in truth]
    places = [(i, j) for i, labels in enumerate(made) for j in range(len(labels))]
    errors = []
    for place in rng.permutation(len(places))[: max(round(SHARE * len(places)), 1)]:
        image, index = places[place]
        made[image][index] = 1 - made[image][index]
        errors.append(Error(kind="wrong-class", image=image, mask=truth[image].mask(index), labels=[index]))
    scenes = [Instances(size_hw=o.size_hw, rles=o.rles, labels=m) for o, m in zip(truth, made, strict=True)]
    return scenes, errors


def main() -> None:
    """Reads the command line, makes errors and prints how many are found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--which", default="guided", choices=("guided", "supervised"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, help="Only so many images, drawn at random.")
    arguments = parser.parse_args()
    project = Project.open(arguments.project)
    for run in arguments.runs:
        rng = np.random.default_rng(0)
        images = unseen_images(project, run)
        if arguments.images:
            images = [images[i] for i in sorted(rng.permutation(len(images))[: arguments.images])]
        truth, predicted = predicted_images(project, run, arguments.which, images)
        cut = float(np.median(np.concatenate([objects.areas for objects in truth])))
        found: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
        sizes: list[tuple[int, int]] = []
        for _ in range(arguments.repeats):
            sized = [[by_size(o, cut) for o in scenes] for scenes in (truth, predicted)]
            for (labels, errors), seen, classes in (
                (geometric_case(truth, rng), predicted, 1),
                (class_case(sized[0], rng), sized[1], 2),
            ):
                suspects = find_label_errors(labels, seen, n_classes=classes)
                n_labels = sum(map(len, labels))
                sizes.append((n_labels, len(suspects)))
                for error in errors:
                    place, kind = rank_of(error, suspects, seen)
                    found[error.kind].append(
                        (place < 0.1 * len(suspects), place < 0.1 * n_labels, kind == error.kind)
                    )
        n_labels, positions = np.mean(sizes, axis=0)
        print(
            f"{arguments.project.name} {run} {arguments.which}: {len(images)} images, {n_labels:.0f} labels,"
            f" {positions:.0f} positions; share of errors found"
        )
        print("               errors  top tenth of positions  tenth of labels  kind named")
        for kind, hits in found.items():
            top, tenth, named = np.mean(hits, axis=0)
            print(f"  {kind:12} {len(hits):7} {top:20.2f} {tenth:18.2f} {named:13.2f}", flush=True)


if __name__ == "__main__":
    main()
