"""Effort: how long a person works on a task, learnt from the times that the annotation server reported.

The seconds of a task are a fixed part, plus a look at each object that is shown, plus every edit by its kind,
plus the outlines that are drawn by their length; a person's own factor multiplies them. What an action takes
is known beforehand from the literature, roughly, and is learnt from then on (``effort_fit``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from labelloop.budget.effort_fit import (
    NEVER_TWICE,
    POSSIBLE,
    UNKNOWN,
    EffortPrior,
    Fit,
    Timed,
    fit_effort,
    worked_seconds,
)
from labelloop.budget.work import DRAWN, Outlines, Work

ACTIONS = ("fixed", "look", "moved", "deleted", "added", "reshaped", "relabelled", "drawing", "correcting")
_ACTION_OF = {"moved": 2, "deleted": 3, "added": 4, "split": 5, "merged": 5, "relabelled": 6}
_EDITS = slice(2, 7)  # of the actions
OUTLINE_UNIT_PX = 100.0  # the actions "drawing" and "correcting" are so much of an outline

OWN_FACTOR_FROM = 10  # tasks of a person; with fewer a few hard tasks would pass for slowness
IMAGES_DIFFER = 0.35  # relative standard deviation of edits among tasks alike in scores, beyond Poisson's
Z_80, Z_95 = 1.2816, 1.9600  # an 80 or 95 % interval reaches so many standard deviations to each side

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TimedTask:
    """A task that was done, and how long it is said to have taken.

    Attributes:
        who: The person.
        seconds: As the server reported them: idle spells, and what it counted twice, are in there.
        work: What was done.
        maybe_twice: Whether the server may have counted a draft's time twice; None where that is not known.
    """

    who: str
    seconds: float
    work: Work
    maybe_twice: bool | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"a task takes a positive number of seconds, not {self.seconds}")


@dataclass(frozen=True, kw_only=True)
class Minutes:
    """A person's time.

    Attributes:
        value: Expected, minutes.
        low: Lower end of the 80 % interval.
        high: Upper end.
        shared: Relative standard deviation of what makes all tasks longer or shorter together, and so does
            not cancel out in a sum.
    """

    value: float
    low: float
    high: float
    shared: float

    @classmethod
    def of(cls, value: float, *, own: float, shared: float) -> Minutes:
        """With the interval that follows from ``shared`` and from the relative variance of the rest."""
        reach = math.exp(Z_80 * math.sqrt(math.log1p(own + shared**2)))
        return cls(value=value, low=value / reach, high=value * reach, shared=shared)

    @property
    def own(self) -> float:
        """Relative variance of what is this task's own."""
        if self.value == 0:
            return 0.0
        return max(math.expm1((math.log(self.high / self.value) / Z_80) ** 2) - self.shared**2, 0.0)

    def as_dict(self) -> dict[str, float]:
        """As the ledger keeps it."""
        return {key: round(number, 4) for key, number in asdict(self).items()}


def together(parts: Sequence[Minutes]) -> Minutes:
    """The time of several tasks together, of which only the predictions are known.

    As ``EffortModel.total``, but that what the tasks share is taken to be wrong in the same direction in all
    of them, which makes the interval slightly wider where their work differs in kind.

    Args:
        parts: One per task; none take no time.
    """
    total = sum(part.value for part in parts)
    if total == 0:
        return Minutes.of(0.0, own=0.0, shared=0.0)
    own = sum(part.value**2 * part.own for part in parts) / total**2
    return Minutes.of(total, own=own, shared=sum(part.value * part.shared for part in parts) / total)


def literature_prior() -> EffortPrior:
    """What actions take before anybody was timed; seconds, as medians of wide distributions.

    - fixed 15: opening, orientation and submitting; no published number was found (our guess is 10 to 20).
    - look 1.5: verifying proposed masks takes about 1 s each when they come in groups (1M masks in 290 hours,
      listed in the project's facts); singly it takes somewhat longer.
    - added 10, and drawing 7 for each 100 px: together between 8.4 s per nucleus (15 h for 6409, PLOS ONE
      0250093, Fig. 3C), 15 to 40 s per object in street scenes (arXiv 2207.01725) and about 80 s per COCO
      polygon. How it is shared out is our guess.
    - moved 5, and correcting 30 for each 100 px times 1 - IoU: correcting by clicks is up to 3 times as fast
      as drawing (arXiv 1903.10830).
    - reshaped 7 (split or merged) and the drawing, deleted 2, relabelled 3: our guesses.

    A factor of 1.8 either way is within one standard deviation of each; tools and objects make all of
    them slower or faster together, by a factor of 1.5, and people differ by a factor of 1.35.
    """
    seconds = {
        "fixed": 15.0, "look": 1.5, "moved": 5.0, "deleted": 2.0,
        "added": 10.0, "reshaped": 7.0, "relabelled": 3.0, "drawing": 7.0, "correcting": 30.0,
    }  # fmt: skip
    return EffortPrior(
        log_seconds=np.log([seconds[action] for action in ACTIONS]), own_sd=0.6, common_sd=0.4, people_sd=0.3
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class EffortModel:
    """Seconds by action, with what is not known of them.

    Attributes:
        found: Logarithms of the seconds by ``ACTIONS`` and of the factors of ``people``, with covariance.
        people: Those who have a factor of their own, in the order of ``found``.
        shares: float64 (len(people),), which share of the timed tasks each of them did.
        people_sd: Standard deviation of the logarithm of an unknown person's factor.
        outlines: What is usual of the timed tasks' outlines; taken where those of a task are not known.
    """

    found: Fit
    people: tuple[str, ...]
    shares: Floats
    people_sd: float
    outlines: Outlines

    @classmethod
    def prior(cls) -> EffortModel:
        """The model before anybody was timed."""
        return cls.fit([])

    @classmethod
    def fit(cls, tasks: Sequence[TimedTask]) -> EffortModel:
        """Learns from timed tasks, in any order; from few it learns little.

        Tasks that took far longer or shorter than their work can explain count for nothing, and those that
        took about twice as long are taken for counted twice (Label Studio before 1.14 did so with drafts)
        where a part of those that can be shows it. Where nearly all tasks are counted twice this cannot be
        told from slow work, but for what is expected: most times that can be counted twice are, where the
        server is known to do so, and few where that is not known.

        Args:
            tasks: Empty for the prior.
        """
        prior = literature_prior()
        times = Counter(task.who for task in tasks)
        people = tuple(sorted(who for who, count in times.items() if count >= OWN_FACTOR_FROM))
        outlines = Outlines.of([task.work for task in tasks])
        found = fit_effort(_timed(tasks, people, outlines), n_people=len(people), prior=prior)
        shares = np.array([times[who] / len(tasks) for who in people], np.float64)
        return cls(found=found, people=people, shares=shares, people_sd=prior.people_sd, outlines=outlines)

    @property
    def seconds(self) -> dict[str, float]:
        """What each of ``ACTIONS`` takes, seconds, for a person whose factor is 1."""
        return dict(zip(ACTIONS, np.exp(self.found.mean[: len(ACTIONS)]).tolist(), strict=True))

    @property
    def factors(self) -> dict[str, float]:
        """The factors of those who have one: above 1 is slower."""
        return dict(zip(self.people, np.exp(self.found.mean[len(ACTIONS) :]).tolist(), strict=True))

    def worked_seconds(self, tasks: Sequence[TimedTask]) -> Floats:
        """float64 (n,), how long people worked on these tasks, without idle spells and what counts twice.

        What a time most probably is (worked, counted twice, left open) is told by the task's work; one that
        was left open takes what such work takes.

        Args:
            tasks: Those that the model learnt from, or others.
        """
        timed = _timed(tasks, self.people, self.outlines)
        return worked_seconds(self.found, timed, n_people=len(self.people), prior=literature_prior())

    def predict(self, work: Work, who: str | None = None) -> Minutes:
        """The time of one task, without idle spells.

        Args:
            work: Counted or expected.
            who: Does it; None for those who did the tasks so far, in the same shares.
        """
        return self.total([work], who)

    def total(self, works: Sequence[Work], who: str | None = None) -> Minutes:
        """The time of several tasks together.

        Their own scatter partly cancels out; what is not known of actions, people and expectations does not.
        So the interval is narrower than the sum of intervals and wider than if tasks were independent.

        Args:
            works: One per task; none take no time.
            who: Does them; None for those who did the tasks so far, in the same shares.
        """
        if not works:
            return Minutes.of(0.0, own=0.0, shared=0.0)
        people, log_factor, factor_variance = self._person(who)
        counts = np.array([_counts(work, self.outlines) for work in works])
        per_action = np.exp(self.found.mean[: len(ACTIONS)] + log_factor + self.found.noise**2 / 2)
        seconds = counts @ per_action
        total = float(seconds.sum())
        scatter = float(np.square(seconds).sum()) * math.expm1(self.found.noise**2)
        per_edit = per_action[_EDITS] + self._along_outlines(works) @ per_action[-2:]
        edits = counts[:, _EDITS]
        edit_seconds = (edits * per_edit).sum(axis=1)
        expected = np.array([work.spread > 0 for work in works])
        scatter += float((edits * np.square(per_edit))[expected].sum())
        scatter += float(np.square(IMAGES_DIFFER * edit_seconds[expected]).sum())
        common = float(np.array([work.spread for work in works]) @ edit_seconds)
        slope = np.concatenate([counts.sum(axis=0) * per_action / total, people])
        shared = (common / total) ** 2 + float(slope @ self.found.covariance @ slope) + factor_variance
        return Minutes.of(total / 60, own=scatter / total**2, shared=math.sqrt(shared))

    def _along_outlines(self, works: Sequence[Work]) -> Floats:
        """float64 (n, edits, 2): how much drawing and correcting each edit of each task needs."""
        drawn = np.array([self.outlines.drawn_each_px(work) for work in works]) / OUTLINE_UNIT_PX
        corrected = np.array([self.outlines.corrected_each_px(work) for work in works]) / OUTLINE_UNIT_PX
        needs = np.zeros((len(works), _EDITS.stop - _EDITS.start, 2))
        needs[:, _ACTION_OF["moved"] - _EDITS.start, 1] = corrected
        for kind in DRAWN:
            needs[:, _ACTION_OF[kind] - _EDITS.start, 0] = drawn
        return needs

    def _person(self, who: str | None) -> tuple[Floats, float, float]:
        """How much of each person, the mean log factor, and its variance apart from the fit's covariance."""
        logs = self.found.mean[len(ACTIONS) :]
        if who is None:
            mean = float(self.shares @ logs)
            others = 1 - float(self.shares.sum())
            return self.shares, mean, float(self.shares @ np.square(logs - mean)) + others * self.people_sd**2
        if who in self.people:
            is_who = np.array([person == who for person in self.people], np.float64)
            return is_who, float(is_who @ logs), 0.0
        return np.zeros(len(self.people)), 0.0, self.people_sd**2


def _timed(tasks: Sequence[TimedTask], people: Sequence[str], usual: Outlines) -> Timed:
    column = {who: k for k, who in enumerate(people)}
    maybe_twice = {False: NEVER_TWICE, None: UNKNOWN, True: POSSIBLE}
    return Timed(
        counts=np.array([_counts(task.work, usual) for task in tasks]).reshape(-1, len(ACTIONS)),
        seconds=np.array([task.seconds for task in tasks], np.float64),
        person=np.array([column.get(task.who, -1) for task in tasks], np.int64),
        maybe_twice=np.array([maybe_twice[task.maybe_twice] for task in tasks], np.int64),
    )


def _counts(work: Work, usual: Outlines) -> list[float]:
    """How often each of ``ACTIONS`` is done."""
    counts = [1.0, work.objects, *[0.0] * (len(ACTIONS) - 2)]
    for kind, count in work.edits.items():
        if kind in _ACTION_OF:
            counts[_ACTION_OF[kind]] += count
    drawn_px, corrected_px = work.drawn_px, work.corrected_px
    if drawn_px is None:
        drawn_px = work.drawn * usual.drawn_each_px(work)
    if corrected_px is None:
        corrected_px = work.edits.get("moved", 0.0) * usual.corrected_each_px(work)
    counts[-2:] = drawn_px / OUTLINE_UNIT_PX, corrected_px / OUTLINE_UNIT_PX
    return counts
