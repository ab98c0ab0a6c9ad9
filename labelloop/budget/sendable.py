"""Which of the tasks that could be asked can be sent: those of images that can be read, for one.

A file may go at any time after a model has looked at it. Only what is picked is read again, as reading a
whole pool costs as much as looking at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from labelloop.budget.strategies import Budget, Pick, Pool, Strategy, choose, passed_over
from labelloop.errors import ImageError
from labelloop.project.project import ImageRecord
from labelloop.project.recorded import read_unchanged

MAX_NAMED = 20  # images that are left out and named; the others are counted


def reading_fault(image: ImageRecord) -> str | None:
    """Why an image cannot be read now, or is not the one that was added; None where it can be shown."""
    try:
        read_unchanged(image)
    except ImageError as error:
        return f"{error.what}: {error.value}"
    return None


def reading_faults(images: Sequence[ImageRecord]) -> dict[int, str]:
    """Why each of these images cannot be read, by id, without those that can."""
    faults = {image.id: reading_fault(image) for image in images}
    return {image_id: fault for image_id, fault in faults.items() if fault is not None}


def named(faults: Sequence[str]) -> tuple[str, ...]:
    """The first faults, and how many more there are."""
    more = len(faults) - MAX_NAMED
    return (*faults[:MAX_NAMED], *([f"and {more} more"] if more > 0 else []))


@dataclass(frozen=True, kw_only=True, eq=False)
class Picked:
    """What was picked, all of it of images that can be read.

    Attributes:
        picks: Their indices are those of the whole pool.
        faults: Why images were left out, by id.
        alike: Near-duplicates that ``auto`` passed over though the budget had room for each.
    """

    picks: list[Pick]
    faults: dict[int, str]
    alike: int = 0


def choose_readable(
    pool: Pool,
    images: Sequence[ImageRecord],
    budget: Budget,
    strategy: Strategy,
    *,
    allowed: npt.NDArray[np.int64],
    seed: tuple[int, int],
) -> Picked:
    """Fills a budget; where an image that was picked cannot be read, once more without it.

    Args:
        pool: What there is.
        images: The image of each task in the pool.
        budget: What it may cost.
        strategy: How to choose.
        allowed: Indices of the tasks that may be picked.
        seed: Of the draw, and the round's number from 1.
    """
    faults: dict[int, str] = {}
    while len(allowed):
        part = _part(pool, allowed)
        picks = choose(part, budget, strategy, np.random.default_rng(seed), round_number=seed[1])
        alike = passed_over(part, budget, picks) if strategy == "auto" else 0
        picks = [replace(pick, index=int(allowed[pick.index])) for pick in picks]
        picked = {images[pick.index].id: images[pick.index] for pick in picks}
        fresh = reading_faults(list(picked.values()))
        if not fresh:
            return Picked(picks=picks, faults=faults, alike=alike)
        # Where one file has gone others have: all that are missing are left out at once.
        rest = {images[i].id: images[i] for i in allowed.tolist() if images[i].id not in picked}
        gone = [image for image in rest.values() if not image.path.is_file()]
        faults |= fresh | reading_faults(gone)
        allowed = np.array([i for i in allowed.tolist() if images[i].id not in faults], np.int64)
    return Picked(picks=[], faults=faults)


def _part(pool: Pool, indices: npt.NDArray[np.int64]) -> Pool:
    """Some of the tasks of a pool."""
    return replace(
        pool,
        minutes=pool.minutes[indices],
        shown=pool.shown[indices],
        doubt=None if pool.doubt is None else pool.doubt[indices],
        vectors=pool.vectors[indices],
        groups=pool.groups[indices],
        images=pool.images[indices],
        asked=pool.asked[indices],
    )
