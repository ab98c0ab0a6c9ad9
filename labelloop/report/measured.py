"""What a report shows of measured images: their hits, misses and false positives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances
from labelloop.metrics.pairs import FloatColumn, IntColumn, PairTable
from labelloop.metrics.reliability import ReliabilityBins
from labelloop.metrics.working_point import in_crowd, match, tally
from labelloop.project.project import ImageRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredImage:
    """An image with truth and predictions.

    Attributes:
        name: For people.
        truth: Its annotations.
        predicted: All that was predicted in it, with scores or without.
        path: Where its pixels are; None where that is not known.
        record: What the ledger knows of it; None without a project.
        pixel_size_um: Side of a pixel, µm; None where it is not known.
    """

    name: str
    truth: Instances
    predicted: Instances
    path: Path | None = None
    record: ImageRecord | None = None
    pixel_size_um: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageOutcome:
    """What became of the objects of one image at the score threshold.

    Attributes:
        image: The image.
        shown: Its predictions scored high enough.
        hit: bool (shown,), which of them meet a true object with IoU 0.5 or more.
        made_up: bool (shown,), false positives, which meet none; those in crowds are neither.
        missed: bool (truth,), true objects that none meets, crowds left out.
        true: Number of true objects, crowds left out.
        quality: Sum of IoU / (found + false positives / 2 + missed / 2), 0..1 (panoptic quality of the one
            image, all classes together); None where there is nothing to find and nothing was predicted.
    """

    image: MeasuredImage
    shown: Instances
    hit: npt.NDArray[np.bool_]
    made_up: npt.NDArray[np.bool_]
    missed: npt.NDArray[np.bool_]
    true: int
    quality: float | None

    @property
    def predicted(self) -> int:
        """Number of predicted objects, those in crowds left out."""
        return int(self.hit.sum() + self.made_up.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What became of all objects of all images.

    Attributes:
        images: In the order given.
        true_area: float64 (m,), of the matched true objects, in ``unit`` squared.
        predicted_area: float64 (m,), of the predictions that meet them.
        unit: ``µm`` where the pixel size of every image is known, else ``px``.
        mean_score: float64 (b,), of the bins of detections by score, all scores; rising. No bins where scores
            are not between 0 and 1.
        right: float64 (b,), share of hits in each bin.
        in_bin: int64 (b,), detections.
    """

    images: tuple[ImageOutcome, ...]
    true_area: FloatColumn
    predicted_area: FloatColumn
    unit: str
    mean_score: FloatColumn
    right: FloatColumn
    in_bin: IntColumn


def images_of(
    names: Sequence[str],
    truth: Sequence[Instances],
    predicted: Sequence[Instances],
    *,
    folders: Sequence[Path],
) -> tuple[MeasuredImage, ...]:
    """Images without a project; their pixels are looked for under their names.

    Args:
        names: Of the image files, as an annotation file has them.
        truth: One per name.
        predicted: One per name.
        folders: Where the files may be, or their folder ``images``; with the folders of the name or without.
    """
    places = [place for folder in folders for place in (folder, folder / "images")]
    return tuple(
        MeasuredImage(name=name, truth=true, predicted=seen, path=_found(name, places))
        for name, true, seen in zip(names, truth, predicted, strict=True)
    )


def outcomes_of(images: Sequence[MeasuredImage], *, n_classes: int, min_score: float) -> Outcomes:
    """Matches predictions with the truth as the metrics do, and keeps what pictures need.

    Args:
        images: With truth and predictions.
        n_classes: Labels are 0..n_classes - 1.
        min_score: The score threshold.
    """
    truth, predicted = [image.truth for image in images], [image.predicted for image in images]
    table = PairTable.build(truth, predicted, n_classes=n_classes, outlines=False)
    matched = match(table, min_score)
    areas, unit = _areas(images, table, matched)
    bins = ReliabilityBins.of(table)
    n = bins.n.sum(axis=0)
    filled = (n > 0) & (bins.undefined is None)
    return Outcomes(
        images=_outcomes(images, table, matched, min_score),
        true_area=areas[0],
        predicted_area=areas[1],
        unit=unit,
        mean_score=bins.scores.sum(axis=0)[filled] / n[filled],
        right=bins.hits.sum(axis=0)[filled] / n[filled],
        in_bin=n[filled].astype(np.int64),
    )


def best_middle_worst(outcomes: Sequence[ImageOutcome], each: int) -> list[tuple[str, ImageOutcome]]:
    """Images by their quality: the best, those in the middle, the worst; each once.

    Args:
        outcomes: Those without objects are left out.
        each: How many of a kind.

    Returns:
        ``best``, ``middle`` or ``worst`` with the image, from the best on.
    """
    ranked = sorted(
        (o for o in outcomes if o.quality is not None), key=lambda o: (-(o.quality or 0.0), o.image.name)
    )
    n = len(ranked)
    first = max(0, (n - each) // 2)
    places = [
        *(("best", i) for i in range(min(each, n))),
        *(("middle", i) for i in range(first, min(n, first + each))),
        *(("worst", i) for i in range(max(0, n - each), n)),
    ]
    if n <= 3 * each:
        third = [("best", "middle", "worst")[min(2, 3 * i // max(n, 1))] for i in range(n)]
        if n >= 2:
            third[-1] = "worst"  # of two it would be one in the middle
        places = list(zip(third, range(n), strict=True))
    return [(kind, ranked[i]) for kind, i in places]


def _found(name: str, places: Sequence[Path]) -> Path | None:
    """The file of this name; None where none of the places has it."""
    path = PurePosixPath(name.replace("\\", "/"))
    tried = [place / each for place in places for each in (path, path.name)]
    return next((each for each in tried if os.path.isfile(each)), None)  # Path.is_file raises at long names


def _outcomes(
    images: Sequence[MeasuredImage], table: PairTable, matched: IntColumn, min_score: float
) -> tuple[ImageOutcome, ...]:
    hit = np.zeros(len(table.det_score), np.bool_)
    hit[table.pair_det[matched]] = True
    found = np.zeros(len(table.truth_crowd), np.bool_)
    found[table.pair_truth[matched]] = True
    kept = table.det_score >= min_score
    made_up, missed = kept & ~hit & ~in_crowd(table), ~found & ~table.truth_crowd
    counts = tally(table, min_score, matched)
    overlap = counts.overlap.sum(axis=1)
    weight = (counts.hits + counts.false_alarms / 2 + counts.misses / 2).sum(axis=1)
    dets = np.searchsorted(table.det_image, np.arange(table.n_images + 1))
    truths = np.searchsorted(table.truth_image, np.arange(table.n_images + 1))
    result = []
    for i, image in enumerate(images):
        mine, true = slice(dets[i], dets[i + 1]), slice(truths[i], truths[i + 1])
        here = kept[mine]
        result.append(
            ImageOutcome(
                image=image,
                shown=image.predicted.select(np.flatnonzero(here)),
                hit=hit[mine][here],
                made_up=made_up[mine][here],
                missed=missed[true],
                true=int((~table.truth_crowd[true]).sum()),
                quality=float(overlap[i] / weight[i]) if weight[i] > 0 else None,
            )
        )
    return tuple(result)


def _areas(
    images: Sequence[MeasuredImage], table: PairTable, matched: IntColumn
) -> tuple[tuple[FloatColumn, FloatColumn], str]:
    """True and predicted areas of the matched pairs, and the unit of a length."""
    truths, dets = table.pair_truth[matched], table.pair_det[matched]
    known = [image.pixel_size_um for image in images if image.pixel_size_um is not None]
    unit = "µm" if known and len(known) == len(images) else "px"
    scale = np.asarray(known)[table.truth_image[truths]] ** 2 if unit == "µm" else np.ones(len(truths))
    return (table.truth_area[truths] * scale, table.det_area[dets] * scale), unit
