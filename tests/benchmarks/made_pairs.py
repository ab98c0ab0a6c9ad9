"""Pairs of made models on made images: discs, some found, moved, doubled, and scored by how well they fit.

The two models of a pair agree on most objects, as guided and supervised models of one run do, which share a
teacher (``ONE_RUN``), or on few, as those of two runs do. The shares were set until the gate's verdicts were
about those on real runs (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances

Scenes = list[Instances]
Floats = npt.NDArray[np.float64]

SIDE = 96  # px, of an image
OBJECTS = 8.0  # mean of an image
FOUND = 0.85  # of the objects; less in some images than in others
UNEVEN = 0.12  # standard deviation of that share over images
FALSE_ALARMS = 0.8  # mean of an image


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How much two models of a pair have in common.

    Attributes:
        agree: Share of the objects with which both do the same.
        apart: Standard deviation over images of the difference of the shares that they find.
    """

    agree: float
    apart: float


ONE_RUN = Kind(agree=0.95, apart=0.0)
TWO_RUNS = Kind(agree=0.5, apart=0.06)


def made_pair(kind: Kind, n_images: int, seed: int) -> tuple[Scenes, Scenes, Scenes]:
    """Truth and what two models see, on so many images."""
    rng = np.random.default_rng(seed)
    made = [_image(kind, rng) for _ in range(n_images)]
    truth, first, second = (list(side) for side in zip(*made, strict=True))
    return truth, first, second


def made_pairs(n_images: int, n_pairs: int) -> Iterator[tuple[str, bool, Scenes, Scenes, Scenes]]:
    """Name, whether of one run, truth and both predictions, for so many pairs of each kind."""
    for seed in range(n_pairs):
        for same_run, kind in ((True, ONE_RUN), (False, TWO_RUNS)):
            yield f"made pair {seed}", same_run, *made_pair(kind, n_images, seed)


def _image(kind: Kind, rng: np.random.Generator) -> tuple[Instances, Instances, Instances]:
    n = max(int(rng.poisson(OBJECTS)), 1)
    discs = np.column_stack([rng.uniform(10, SIDE - 10, (n, 2)), rng.uniform(6, 11, n)])
    found_here = FOUND + rng.normal(0, UNEVEN)
    seen = [_seen(discs, rng) for _ in range(2)]
    alike = rng.random(n) < kind.agree
    seen[1][alike] = seen[0][alike]
    tells = rng.random(n)  # below the share of a model: the object is found
    chances = np.where(alike, tells, rng.random(n)), tells
    models = []
    alarms = [_false_alarms(rng) for _ in range(2)]
    if rng.random() < kind.agree:
        alarms[1] = alarms[0]
    for discs_seen, chance, false in zip(seen, chances, alarms, strict=True):
        found = chance < found_here + rng.normal(0, kind.apart)
        objects = np.concatenate([discs_seen[found], false])
        models.append(_drawn(objects[:, :3], objects[:, 3]))
    return _drawn(discs), models[0], models[1]


def _seen(discs: Floats, rng: np.random.Generator) -> Floats:
    """float64 (n, 4): each disc as a model draws it, and its score, higher where it fits better."""
    off = rng.normal(0, 0.09, (len(discs), 3)) * discs[:, 2:]
    fit = 1 - np.abs(off).sum(axis=1) / discs[:, 2]
    sure = 6 * (fit - 0.5) + rng.normal(0, 1, len(discs))
    return np.column_stack([discs + off, 1 / (1 + np.exp(-sure))])


def _false_alarms(rng: np.random.Generator) -> Floats:
    """float64 (n, 4): discs where nothing is, and their scores."""
    n = int(rng.poisson(FALSE_ALARMS))
    places = rng.uniform(10, SIDE - 10, (n, 2))
    return np.column_stack([places, rng.uniform(6, 11, n), rng.uniform(0.05, 0.7, n)])


def _drawn(discs: Floats, scores: Floats | None = None) -> Instances:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    y, x, radius = (discs[:, i, None, None] for i in range(3))
    masks = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    given = None if scores is None else scores.astype(np.float32)
    return Instances.from_dense(masks, None, given, size_hw=(SIDE, SIDE))
