"""What a forecast is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from labelloop.budget.span import Span
from labelloop.forecast.curves import CurvePoint, Floats
from labelloop.forecast.learnt import Learnt
from labelloop.metrics.estimate import Estimate

REACHED, REACHABLE, OUT_OF_REACH, CANNOT_TELL = "reached", "reachable", "out of reach", "cannot tell"
EXPECTED = "expected"


@dataclass(frozen=True, kw_only=True)
class Level:
    """A finished run, measured: short trainings give the curve its shape, runs its height.

    Attributes:
        run: Its name.
        n_images: Labelled images that it learnt from, 1 or more.
        value: The metric, 0..1.
        se: Standard error of it over the measured images.
        measured: Which images measured it; runs of one text were measured on the same.
    """

    run: str
    n_images: int
    value: float
    se: float
    measured: str = ""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked.

    Attributes:
        metric: Name of a metric in 0..1 that is better when larger.
        labelled: Images with labels now; one that is known in part is one, here and in all that is counted.
        target: The metric's value to reach; None if that is not asked.
        minutes: Minutes of annotation to spend; None likewise. Without both, twice the labels
            are looked at.
        minutes_per_image: What such an image costs, with its 95 % interval; None or without value if not
            known.
        unlabelled: Images of the pool without labels, which could get some; None where that is not known.
        learnt: How many of its labels a full run learns; all, if not said.
    """

    metric: str
    labelled: int
    target: float | None = None
    minutes: float | None = None
    minutes_per_image: Estimate | None = None
    unlabelled: int | None = None
    learnt: Learnt = Learnt()  # noqa: RUF009 (frozen)

    def learns(self, more: float = 0.0) -> float:
        """Images that a full run learns with so many more labels: its size on the curve."""
        return self.learnt.of(self.labelled + more)


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """The curves as a picture shows them.

    Attributes:
        sizes: float64 (k,), numbers of labelled images that are learnt, rising.
        middle: float64 (k,), the metric.
        low: float64 (k,), lower end of its interval.
        high: float64 (k,), upper end.
    """

    sizes: Floats
    middle: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecast:
    """The answer.

    Attributes:
        question: That was asked.
        verdict: reached, reachable, out of reach, expected (where no target was named) or cannot tell.
        reason: Why it cannot be told; None where it can.
        images: Images to label still, or those that the minutes are enough for.
        minutes: What they cost, or the minutes that were named.
        expected: The metric after these images; None where a target alone was asked for.
        points: What the curves were fitted to.
        band: The curves; None where there are none.
        widened: What intervals were multiplied with, 1 or more, because larger subsets or runs with more
            labels were not foreseen.
        families: How much each family of curves counts.
        levels: The runs that set the height, oldest first; empty where none did.
        now: The metric with the labels there are; None where ``expected`` is.
        gain: From now to then, of a mean model; likewise.
        told_from_zero: Whether growth can be seen, and so many images more are expected to bring a gain above
            zero; None where that is not asked, cannot be told, or no image more is bought.
    """

    question: Question
    verdict: str
    reason: str | None
    images: Span
    minutes: Span
    expected: Span | None
    points: Sequence[CurvePoint]
    band: Band | None = None
    widened: float = 1.0
    families: dict[str, float] | None = None
    levels: Sequence[Level] = ()
    now: Span | None = None
    gain: Span | None = None
    told_from_zero: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """As ``forecast --json`` prints it, less what the command adds."""
        document: dict[str, Any] = {
            "metric": self.question.metric,
            "target": self.question.target,
            "images": self.images.as_dict(),
            "minutes": self.minutes.as_dict(),
            "verdict": self.verdict,
            "reason": self.reason,
            "labelled": self.question.labelled,
            "learnt": round(self.question.learns()),
            "widened": round(self.widened, 3),
            "unlabelled": self.question.unlabelled,
            "expected": None if self.expected is None else self.expected.as_dict(),
            "now": None if self.now is None else self.now.as_dict(),
            "gain": None if self.gain is None else self.gain.as_dict(),
            "told_from_zero": self.told_from_zero,
            "families": self.families,
            "level": self.levels[-1].run if self.levels else None,
            "past_runs": [
                {"run": level.run, "n_images": level.n_images, "value": level.value, "se": level.se}
                for level in self.levels[:-1]
            ],
            "points": [
                {"n_images": p.n_images, "value": p.value, "se": p.se, "seed": p.seed} for p in self.points
            ],
        }
        return document
