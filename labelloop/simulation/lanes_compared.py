"""What the lanes of a simulation show: quality over minutes, strategies side by side.

Every model was measured on the same images, so they are resampled together, and seeds with them (two
levels): intervals of differences are paired. The area under the budget curve is the mean of the metric over
the minutes from the start to where the shortest lane ends, linear between rounds. The share of the minutes
after which a strategy is as good as the baseline is at the end is read off monotone curves
(``minutes_shares``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from labelloop.data.groups import groups_of
from labelloop.instances import Instances
from labelloop.metrics.bootstrap import Resampling
from labelloop.metrics.coco_ap import average_precision, rank
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.seeds import FEW_SEEDS, mean_over_seeds
from labelloop.project.ledger import decode_instances
from labelloop.project.project import Project
from labelloop.project.tables import PredictionRow
from labelloop.simulation.lane import Point, read_points, why_ended

METRIC = "coco_ap"
BASELINE = "random"
REPLICATES = 1000
GRID = 200  # places on the axis of minutes

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LaneCurve:
    """One lane.

    Attributes:
        points: The start and each round.
        values: float64 (1 + REPLICATES, points): the metric on all test images, and on each resample.
        ended: Why it ended before its last round, where it did.
    """

    points: Sequence[Point]
    values: Floats
    ended: str = ""

    @property
    def minutes(self) -> Floats:
        """float64 (points,), worked in all."""
        return np.array([point.minutes for point in self.points])

    def at(self, minutes: Floats) -> Floats:
        """float64 (1 + REPLICATES, m): the metric after so many minutes, linear between rounds."""
        return np.stack([np.interp(minutes, self.minutes, row) for row in self.values])


def compare_lanes(
    source: Project, places: Mapping[str, Sequence[Path]], test: Sequence[int], *, rounds: int
) -> dict[str, Any]:
    """Curves of each strategy, and how each compares with a random draw.

    Args:
        source: Holds the truth.
        places: Folders of the lanes by strategy, one per seed, seeds in the same order.
        test: Ids of the images that measure.
        rounds: Looked at; further ones are left out.

    Returns:
        As ``compare_curves``.
    """
    curves = {
        name: [measure_lane(source, folder, test, rounds=rounds) for folder in folders]
        for name, folders in places.items()
    }
    images = [image for image in source.images() if image.id in set(test)]
    labels = source.labels([image.id for image in images])
    holding = np.array([bool((~labels[image.id].crowd).any()) for image in images])
    resampling = Resampling.of(len(images), groups_of(images), replicates=0, seed=0)
    compared = compare_curves(curves, n_images=len(images))
    notes = [*resampling.notes(holding), *compared["notes"], *exhaustion_notes(curves, rounds)]
    return {**compared, "notes": notes}


def compare_curves(curves: Mapping[str, Sequence[LaneCurve]], *, n_images: int) -> dict[str, Any]:
    """Curves of each strategy, and how each compares with a random draw.

    Args:
        curves: By strategy, one per seed, seeds in the same order, all measured on the same images.
        n_images: That measure.

    Returns:
        ``strategies``: ``{name: [{round, minutes, images, value, low, high}, ...]}``, means over seeds;
        ``compared``: ``{name: {area, difference, minutes_share, ...}}``; ``baseline``: the strategy that the
        others are compared with; ``notes``: what a reader of the intervals should know.
    """
    baseline = BASELINE if BASELINE in curves else next(iter(curves))
    return {
        "strategies": {name: _over_rounds(lanes, n_images) for name, lanes in curves.items()},
        "compared": _compared(curves, baseline),
        "baseline": baseline,
        "notes": _notes(max(len(lanes) for lanes in curves.values())),
    }


def exhaustion_notes(curves: Mapping[str, Sequence[LaneCurve]], rounds: int) -> list[str]:
    """Says which lanes ended before their last round, why, and what that cuts short.

    Args:
        curves: By strategy, one per seed.
        rounds: That were asked for.
    """
    notes = []
    for name, lanes in curves.items():
        early = [lane for lane in lanes if lane.points[-1].round < rounds]
        if early:
            first = min(lane.points[-1].round for lane in early)
            seeds = f" ({len(early)} of {len(lanes)} seeds)" if len(lanes) > 1 else ""
            reasons = " or ".join(dict.fromkeys(lane.ended for lane in early))
            notes.append(f"{name} ended after round {first} of {rounds}{seeds}: {reasons}")
    where = "a curve ends with the first of its seeds, and the comparison with the first of all lanes"
    return [*notes, where] if notes else []


def measure_lane(source: Project, folder: Path, test: Sequence[int], *, rounds: int) -> LaneCurve:
    """The curve of one lane; the same test images are drawn for every lane of a project.

    Args:
        source: Holds the truth.
        folder: Of the lane.
        test: Ids of the images that measure.
        rounds: Looked at; further ones are left out.
    """
    images = [image for image in source.images() if image.id in set(test)]
    ids = [image.id for image in images]
    labels = source.labels(ids)
    resampling = Resampling.of(len(images), groups_of(images), replicates=REPLICATES, seed=0)
    times = np.concatenate([np.ones((1, len(images)), np.int32), *resampling.draws()])
    truth = [labels[i] for i in ids]
    return _curve(folder, ids, truth, times, len(source.config.classes), rounds)


def _curve(
    folder: Path,
    ids: Sequence[int],
    truth: Sequence[Instances],
    times: npt.NDArray[np.int32],
    n_classes: int,
    rounds: int,
) -> LaneCurve:
    points = read_points(folder)[: rounds + 1]
    scratch = Project.open(folder)
    columns = []
    for point in points:
        predicted = seen_in_lane(scratch, point.run)
        table = PairTable.build(truth, [predicted[i] for i in ids], n_classes=n_classes)
        columns.append(average_precision(rank(table), times).mean(axis=1))
    return LaneCurve(points=points, values=np.stack(columns, axis=1), ended=why_ended(folder))


def seen_in_lane(scratch: Project, run: str) -> dict[int, Instances]:
    """What the run's promoted model saw; its lane had it look at the test images."""
    which = scratch.run(run).promoted
    statement = select(PredictionRow.image_id, PredictionRow.instances).where(
        PredictionRow.run == run, PredictionRow.which == which
    )
    with scratch.ledger.read() as session:
        return {image_id: decode_instances(stored) for image_id, stored in session.execute(statement)}


def interval(values: Floats) -> dict[str, float | None]:
    """The first of the values, and the 95 % percentile interval of the others; None for what is infinite.

    Resamples in which the metric is undefined are left out.
    """
    low, high = np.nanquantile(values[1:], [0.025, 0.975], method="nearest")
    return {
        key: round(float(value), 5) if np.isfinite(value) else None
        for key, value in (("value", values[0]), ("low", low), ("high", high))
    }


def _notes(n_seeds: int) -> list[str]:
    if n_seeds == 1:
        return ["with one seed, how much trainings differ by chance is not in the intervals"]
    few = f"with {n_seeds} seeds, how much trainings differ by chance is hardly known"
    return [few] if n_seeds < FEW_SEEDS else []


def _over_rounds(lanes: Sequence[LaneCurve], n_images: int) -> list[dict[str, Any]]:
    length = min(len(lane.points) for lane in lanes)
    values = mean_over_seeds(np.stack([lane.values[:, :length] for lane in lanes]))
    return [
        {
            "round": k,
            "minutes": round(float(np.mean([lane.points[k].minutes for lane in lanes])), 2),
            "images": round(float(np.mean([lane.points[k].images for lane in lanes])), 2),
            **interval(values[:, k]),
            "n": n_images,
        }
        for k in range(length)
    ]


def _compared(curves: Mapping[str, Sequence[LaneCurve]], baseline: str) -> dict[str, Any]:
    """Areas under the curves, their differences, and the minutes to where the baseline ends."""
    horizon = min(float(lane.minutes[-1]) for lanes in curves.values() for lane in lanes)
    if horizon <= 0:
        return {}
    grid: Floats = np.linspace(0.0, horizon, GRID, dtype=np.float64)
    mean = {
        name: mean_over_seeds(np.stack([lane.at(grid) for lane in lanes])) for name, lanes in curves.items()
    }
    areas = {name: curve.mean(axis=1) for name, curve in mean.items()}
    compared: dict[str, Any] = {}
    for name, curve in mean.items():
        shares = minutes_shares(curve, mean[baseline])
        compared[name] = {
            "area": interval(areas[name]),
            "difference": None if name == baseline else interval(areas[name] - areas[baseline]),
            "at_the_end": None if name == baseline else interval((curve - mean[baseline])[:, -1]),
            "minutes_share": interval(shares),
            "baseline": baseline,
            "minutes": round(horizon, 2),
        }
    return compared


def minutes_shares(curve: Floats, baseline: Floats) -> Floats:
    """float64 (r,): share of the minutes after which a strategy is as good as the baseline is at the end.

    More labels make a model worse by chance alone, so both curves are made monotone first. The first touch
    of curves as they are comes too early, as it is the best of many chances: two equal strategies with a
    rise no larger than the noise of single trainings had a median share of 65 to 85 %. Of monotone curves it
    is 99 % or more. What is left: where noise is that large, a share is drawn towards 100 %, and a strategy
    that takes half of the minutes seems to take two thirds.

    Args:
        curve: float64 (r, m), a strategy's metric at even steps of the minutes, in each replicate.
        baseline: float64 (r, m).

    Returns:
        Infinite where the strategy does not come that far, NaN where the metric is undefined.
    """
    target = monotone(baseline)[:, -1]
    reached = monotone(curve) >= target[:, None] - 1e-12
    steps = curve.shape[1] - 1
    shares = np.where(reached.any(axis=1), reached.argmax(axis=1) / steps, np.inf)
    return np.where(np.isnan(target), np.nan, shares)


def monotone(curves: Floats) -> Floats:
    """float64 (r, m): the nearest curves, in squares, that never fall; a row with NaN is all NaN.

    What pooling adjacent violators comes to (Ayer et al. 1955, doi:10.1214/aoms/1177728423), as its max-min
    formula, for all rows at once.
    """
    n = curves.shape[1]
    sums = np.pad(np.cumsum(curves, axis=1), ((0, 0), (1, 0)))
    risen = np.full_like(curves, -np.inf)
    for first in range(n):
        means = (sums[:, first + 1 :] - sums[:, first, None]) / np.arange(1, n - first + 1)
        lowest = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        risen[:, first:] = np.maximum(risen[:, first:], lowest)
    return risen
