"""How many annotation errors ``check --labels`` ranks high, when its models learn labels that have them.

    python tests/benchmarks/bench_label_errors.py DATA WORK --set m-orgaquant [--repeats 5] [--steps 300]

DATA holds the sets as folders with COCO files; WORK keeps projects and what models see. 1 % of the labels of
the training images get an error of each kind (6 % in all): taken away, put where nothing is, two neighbours
made one, one cut in two, a boundary moved to an IoU of 0.5 to 0.7, the other class. These sets have one
class, so objects are called dark or bright beside what is around them, parted by Otsu's cut; only objects
clearly on one side of it get the other class. The labels with errors become a project, whose models are
trained out of fold as ``check --labels`` trains them; further repeats make other errors in labels that these
models have not learnt, and say nothing about the luck of the trainings.

An error is found where a suspect at its place is in the first tenth of all positions ranked, whatever kind it
names: positions are labels, and predictions (score 0.05 or more) that no label accounts for; ``tenth of
labels`` is harder, as many suspects as a tenth of the labels. What a set's own labels get wrong counts
against the finder.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from made_errors import KINDS, Error, with_errors
from scipy import ndimage

from labelloop.formats.coco import coco_dataset, read_coco
from labelloop.images import read_image
from labelloop.instances import Instances
from labelloop.label_errors.find import find_label_errors
from labelloop.label_errors.out_of_fold import OutOfFoldSettings, out_of_fold
from labelloop.label_errors.suspects import Suspect
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import FILE_NAME, ProjectConfig
from labelloop.project.project import Project

Clear = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
FILES = {"m-orgaquant": ("labeled.json", "labeled"), "dsb2018": ("train.json", "train")}
CLASSES = ("dark", "bright")
RING_PX = 8
CLEAR = 0.5  # deviations of the image from the cut
SHARE = 0.01  # of the labels, for each kind
SAME_PLACE_IOU = 0.4  # of a suspected prediction with an object that lost its label


def true_labels(data: Path, name: str) -> dict[str, tuple[Instances, Clear]]:
    """By file name the objects of each training image, dark (0) or bright (1), and which are clearly so."""
    labels, folder = FILES[name]
    files = {r.image: r.instances for r in read_coco(data / name / labels).records}
    contrast = {file: contrasts(data / name / folder / file, objects) for file, objects in files.items()}
    cut = otsu(np.concatenate([*contrast.values()]))
    return {
        file: (
            Instances(
                size_hw=objects.size_hw, rles=objects.rles, labels=(contrast[file] > cut).astype(np.int64)
            ),
            np.abs(contrast[file] - cut) >= CLEAR,
        )
        for file, objects in files.items()
    }


def contrasts(path: Path, objects: Instances) -> Floats:
    """float64 (n,): how much brighter each object is than the ring around it, in the image's deviations."""
    pixels = read_image(path).pixels.astype(np.float64)
    gray = pixels.mean(axis=tuple(range(2, pixels.ndim)))
    masks = objects.to_dense()
    nothing = ~masks.any(axis=0)
    found = []
    for mask in masks:
        ring = ndimage.binary_dilation(mask, iterations=RING_PX) & nothing
        around = gray[ring] if ring.any() else gray[nothing] if nothing.any() else gray
        found.append((gray[mask].mean() - around.mean()) / max(gray.std(), 1e-6) if mask.any() else 0.0)
    return np.asarray(found, np.float64)


def otsu(values: Floats) -> float:
    """The cut that leaves the least variance on its sides (Otsu 1979)."""
    ordered = np.sort(values)
    n = np.arange(1, len(ordered))
    low, high = np.cumsum(ordered)[:-1] / n, np.cumsum(ordered[::-1])[::-1][1:] / n[::-1]
    best = int(np.argmax(n * n[::-1] * (low - high) ** 2))
    return float(ordered[best : best + 2].mean())


def project_with_errors(data: Path, work: Path, name: str) -> Project:
    """The set with the errors of the first repeat, as a project; made once."""
    root = work / f"label-errors-{name}"
    if (root / FILE_NAME).exists():
        return Project.open(root)
    truth = true_labels(data, name)
    labels, _ = with_errors(list(truth.values()), np.random.default_rng(0), share=SHARE)
    files = [(file, objects.size_hw) for file, (objects, _) in truth.items()]
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{name}.json"
    path.write_text(json.dumps(coco_dataset(files, labels, CLASSES)))
    project = Project.init(root, ProjectConfig(name=root.name, classes=CLASSES))
    add_labels(project, LabelSource(path=str(path), images=str(data / name / FILES[name][1])))
    return project


def rank_of(error: Error, suspects: list[Suspect], predicted: Sequence[Instances]) -> tuple[int, str]:
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


def main() -> None:
    """Reads the command line, makes errors and prints how many are found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--set", choices=FILES, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=OutOfFoldSettings().steps, help="of each training")
    arguments = parser.parse_args()
    truth = true_labels(arguments.data, arguments.set)
    project = project_with_errors(arguments.data.absolute(), arguments.work.absolute(), arguments.set)
    seen = out_of_fold(project, OutOfFoldSettings(steps=arguments.steps))
    images = [truth[Path(image.file_name).name] for image in seen.images]
    found: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    sizes: list[tuple[int, int]] = []
    for repeat in range(arguments.repeats):
        labels, errors = with_errors(images, np.random.default_rng(repeat), share=SHARE)
        suspects = find_label_errors(labels, seen.predicted, n_classes=len(CLASSES))
        n_labels = sum(map(len, labels))
        sizes.append((n_labels, len(suspects)))
        for error in errors:
            place, kind = rank_of(error, suspects, seen.predicted)
            at = (place < 0.1 * len(suspects), place < 0.1 * n_labels, kind == error.kind)
            found[error.kind].append(at)
    n_labels, positions = np.mean(sizes, axis=0)
    print(
        f"{arguments.set}, {arguments.steps} steps: {len(images)} images, {n_labels:.0f} labels,"
        f" {positions:.0f} positions; share of errors found"
    )
    print("               errors  top tenth of positions  tenth of labels  kind named")
    for kind in KINDS:
        top, tenth, named = np.mean(found[kind], axis=0)
        print(f"  {kind:12} {len(found[kind]):7} {top:20.2f} {tenth:18.2f} {named:13.2f}", flush=True)


if __name__ == "__main__":
    main()
