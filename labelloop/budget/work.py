"""Work: what there is to do in a task of review, and how long outlines are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from labelloop.instances import Instances
from labelloop.review.edits import EDIT_KINDS

DRAWN = ("added", "split", "merged")  # edits that are drawn along an outline; moved ones are corrected
USUAL_OUTLINE_PX = 100.0  # where no outline is known
WRONG_SHARE = 0.2  # of an outline that is corrected, beforehand: 1 - IoU before and after
RATIO_COUNTS = 5.0  # what is known beforehand of outlines counts as if seen in so many objects


@dataclass(frozen=True, kw_only=True)
class Work:
    """What there is to do in a task. Expected numbers need not be whole.

    Attributes:
        objects: That are shown and looked at.
        edits: How many edits, by ``review.edits.EditKind``. ``accepted`` costs nothing but the look.
        spread: 0 where edits were counted. Else they are expected: each task's counts scatter about them, and
            this is the relative standard error that the expectations of all tasks have in common.
        outline_px: Mean length of an outline in this task, as in ``mean_outline_px``; None for that of the
            tasks that were timed.
        drawn_px: Length of all outlines that were drawn anew (added, split, merged); None where it is not
            known, and expected from the numbers of edits.
        corrected_px: Of the outlines that were corrected (moved), each times 1 - IoU before and after; None
            likewise.

    Raises:
        ValueError: A number is negative or not finite, or a kind is unknown.
    """

    objects: float
    edits: Mapping[str, float] = field(default_factory=dict)
    spread: float = 0.0
    outline_px: float | None = None
    drawn_px: float | None = None
    corrected_px: float | None = None

    def __post_init__(self) -> None:
        unknown = set(self.edits) - set(EDIT_KINDS)
        if unknown:
            raise ValueError(f"edits of unknown kinds {sorted(unknown)}; there are {EDIT_KINDS}")
        lengths = (self.outline_px or 0.0, self.drawn_px or 0.0, self.corrected_px or 0.0)
        numbers = (self.objects, self.spread, *lengths, *self.edits.values())
        if not all(math.isfinite(n) and n >= 0 for n in numbers):
            raise ValueError(f"work is finite and not negative, unlike {self}")

    def part(self, share: float) -> Work:
        """This share of the work, as where an image is cut into several tasks."""
        edits = {kind: count * share for kind, count in self.edits.items()}
        drawn_px = None if self.drawn_px is None else self.drawn_px * share
        corrected_px = None if self.corrected_px is None else self.corrected_px * share
        return replace(
            self, objects=self.objects * share, edits=edits, drawn_px=drawn_px, corrected_px=corrected_px
        )

    @property
    def drawn(self) -> float:
        """How many outlines are drawn anew."""
        return sum(self.edits.get(kind, 0.0) for kind in DRAWN)


@dataclass(frozen=True, kw_only=True)
class Outlines:
    """What is usual of outlines, where a task's own are not known.

    Attributes:
        length_px: Mean length of those in a task.
        drawn_ratio: Mean length of those that are drawn, to that of those in their task.
        wrong_ratio: Mean length of those that are corrected, each times 1 - IoU before and after, likewise.
    """

    length_px: float = USUAL_OUTLINE_PX
    drawn_ratio: float = 1.0
    wrong_ratio: float = WRONG_SHARE

    @classmethod
    def of(cls, works: Sequence[Work]) -> Outlines:
        """Those of tasks that were done."""
        lengths = [work.outline_px for work in works if work.outline_px is not None]
        mean = float(np.mean(lengths)) if lengths else USUAL_OUTLINE_PX
        drawn = [(w.drawn_px, w.drawn * (w.outline_px or mean)) for w in works if w.drawn_px is not None]
        corrected = [
            (work.corrected_px, work.edits.get("moved", 0.0) * (work.outline_px or mean))
            for work in works
            if work.corrected_px is not None
        ]
        few = RATIO_COUNTS * mean
        return cls(
            length_px=mean,
            drawn_ratio=(few + sum(p for p, _ in drawn)) / (few + sum(n for _, n in drawn)),
            wrong_ratio=(WRONG_SHARE * few + sum(p for p, _ in corrected))
            / (few + sum(n for _, n in corrected)),
        )

    def drawn_each_px(self, work: Work) -> float:
        """Expected length of an outline that is drawn in such a task."""
        return self.drawn_ratio * (self.length_px if work.outline_px is None else work.outline_px)

    def corrected_each_px(self, work: Work) -> float:
        """Expected length of an outline that is corrected there, times 1 - IoU."""
        return self.wrong_ratio * (self.length_px if work.outline_px is None else work.outline_px)


def mean_outline_px(instances: Instances) -> float | None:
    """Mean length of outlines, px, as if objects were discs of their areas; None where there are none."""
    if not len(instances):
        return None
    return float(2 * np.sqrt(math.pi * instances.areas).mean())
