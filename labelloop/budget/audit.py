"""Audit: whether the part of the rounds that was chosen found more to correct than the random part did.

A person's minute is worth what it corrects. Every round of ``auto`` holds images that were drawn at random
from the same pool; corrections per minute of the others over corrections per minute of these is the gain,
with a bootstrap over tasks. Two arms count as neither: what only filled a budget was drawn from what the
clever part had left over; and the few images in which the model sees nothing are asked about to find what it
overlooks, though most have nothing to correct, so they would make an equal choice look worse.

Rounds without a model do not count: nothing is proposed in them, so a correction is an object that was drawn,
and both arms tell only how full images are.

Where the choice is worse, ``auto`` draws one round at random and tries again in the next, so that later
rounds can revise the verdict. It does not fall back where a gain is merely not shown: that takes more tasks
than most projects have, and a choice that is dropped until it has proved itself gathers no evidence. The
verdict says that no gain is shown, and the choice goes on. In simulated projects of five rounds of 40 tasks,
with 6 corrections in each (SD 4), it falls back at least once in 99, 50 and 7 % at true gains of 0.7, 1.0 and
1.2: in 1.6, 0.5 and 0.1 rounds on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from labelloop.budget.strategies import EMPTY_ARM, FILL_ARM, FILLED_BEFORE, RANDOM_ARM
from labelloop.budget.timed_tasks import ReviewedTask, reviewed_tasks
from labelloop.plurals import plural
from labelloop.project.project import Project
from labelloop.project.tables import RoundRow
from labelloop.review.rounds import rounds

FEWEST_TASKS = 8  # in each arm; fewer say nothing
ENOUGH_TASKS = 40  # in each arm, for the best guess to decide where the interval leaves it open
REPLICATES = 2000
NOT_CHOSEN = (None, RANDOM_ARM, FILL_ARM, EMPTY_ARM)  # all other arms are what the audit is of
LONGEST_TASK = 5.0  # times the median; a longer one was left open, and counts as this

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ArmReport:
    """What one arm brought.

    Attributes:
        tasks: That were reviewed.
        corrections: Objects that a person changed, added or deleted in them.
        minutes: That it took.
    """

    tasks: int
    corrections: int
    minutes: float


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The clever arms against the random one, over all rounds so far.

    Attributes:
        chosen: What was chosen on purpose.
        random: What was drawn at random.
        gain: Corrections per minute of the first over those of the second; None if it is unknown.
        low: Lower end of its 95 % interval.
        high: Upper end.
        falls_back: Whether the next round of auto is drawn at random.
        verdict: In words.
    """

    chosen: ArmReport
    random: ArmReport
    gain: float | None
    low: float | None
    high: float | None
    falls_back: bool
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """As it is printed with ``--json`` and kept with a round."""
        return asdict(self)


def audit_rounds(project: Project, server: str) -> Audit | None:
    """The audit of the rounds of ``auto`` on a server; None where there is nothing to compare."""
    here = {
        record.id
        for record in rounds(project)
        if record.server == server and record.strategy == "auto" and record.run is not None
    }
    tasks = [each for each in reviewed_tasks(project) if each.task.round_id in here and each.seconds]
    arms = [(each, _arm(each)) for each in tasks]
    return audit(
        [each for each, arm in arms if arm not in NOT_CHOSEN],
        [each for each, arm in arms if arm == RANDOM_ARM],
        fell_back=_fell_back(project, server),
    )


def _fell_back(project: Project, server: str) -> bool:
    """Whether the newest round that auto was asked for was drawn at random."""
    statement = (
        select(RoundRow.strategy)
        .where(RoundRow.server == server, RoundRow.settings["asked_strategy"].as_string() == "auto")
        .order_by(RoundRow.id.desc())
        .limit(1)
    )
    with project.ledger.read() as session:
        return session.scalar(statement) == "random"


def _arm(reviewed: ReviewedTask) -> str | None:
    """What chose a task; what filled the budget was called random in rounds of earlier versions."""
    chosen = reviewed.task.chosen or {}
    return FILL_ARM if chosen.get("why") == FILLED_BEFORE else chosen.get("arm")


def audit(
    chosen: Sequence[ReviewedTask],
    drawn: Sequence[ReviewedTask],
    *,
    fell_back: bool = False,
    seed: int = 0,
) -> Audit | None:
    """Compares what was chosen with what was drawn at random, times known; None where one is empty.

    It falls back where the whole interval lies below one, or, with ``ENOUGH_TASKS`` in each arm, where the
    gain itself does; but never twice running.

    Args:
        chosen: Tasks that were chosen on purpose.
        drawn: Tasks that were drawn at random.
        fell_back: Whether the last round of auto was drawn at random already.
        seed: Of the bootstrap.
    """
    if not chosen or not drawn:
        return None
    found = [_Found.of(tasks) for tasks in (chosen, drawn)]
    reports = [arm.report() for arm in found]
    fewest = min(report.tasks for report in reports)
    if fewest < FEWEST_TASKS or not reports[1].corrections or not reports[0].minutes:
        why = (
            f"{plural(fewest, 'reviewed task')} in one arm" if fewest < FEWEST_TASKS else "nothing to correct"
        )
        verdict = f"too early to say whether the choice is better than a random draw: {why}"
        return _audit(reports, None, (None, None), falls_back=False, verdict=verdict)
    rng = np.random.default_rng(seed)
    ratios = found[0].rates(rng) / np.maximum(found[1].rates(rng), 1e-9)
    gain = found[0].rate() / found[1].rate()
    low, high = (float(end) for end in np.quantile(ratios, (0.025, 0.975)))
    worse = high < 1 or (fewest >= ENOUGH_TASKS and gain < 1)
    said = f"{gain:.2f} [{low:.2f}, {high:.2f}] times the corrections per minute of a random draw"
    verdict = f"what was chosen brought {said}: {_judged(low, high)}"
    if worse and fell_back:
        verdict += "; the last round was drawn at random, and the next one tries the choice again"
    elif worse:
        verdict += "; the next round is drawn at random"
    return _audit(reports, gain, (low, high), falls_back=worse and not fell_back, verdict=verdict)


def _judged(low: float, high: float) -> str:
    if low > 1:
        return "a gain"
    return "a loss" if high < 1 else "not shown to be a gain"


def _audit(
    reports: Sequence[ArmReport],
    gain: float | None,
    interval: tuple[float | None, float | None],
    *,
    falls_back: bool,
    verdict: str,
) -> Audit:
    return Audit(
        chosen=reports[0],
        random=reports[1],
        gain=gain,
        low=interval[0],
        high=interval[1],
        falls_back=falls_back,
        verdict=verdict,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """The tasks of one arm as columns."""

    corrections: Floats
    minutes: Floats

    @classmethod
    def of(cls, tasks: Sequence[ReviewedTask]) -> _Found:
        minutes = np.array([(task.seconds or 0.0) / 60 for task in tasks])
        longest = LONGEST_TASK * float(np.median(minutes))
        return cls(
            corrections=np.array([float(_corrections(task)) for task in tasks]),
            minutes=np.minimum(minutes, longest),
        )

    def report(self) -> ArmReport:
        return ArmReport(
            tasks=len(self.minutes),
            corrections=int(self.corrections.sum()),
            minutes=float(self.minutes.sum()),
        )

    def rate(self) -> float:
        return float(self.corrections.sum() / max(self.minutes.sum(), 1e-9))

    def rates(self, rng: np.random.Generator) -> Floats:
        """float64 (REPLICATES,), corrections per minute of tasks drawn anew."""
        drawn = rng.integers(len(self.minutes), size=(REPLICATES, len(self.minutes)))
        return np.asarray(
            self.corrections[drawn].sum(axis=1) / np.maximum(self.minutes[drawn].sum(axis=1), 1e-9)
        )


def _corrections(task: ReviewedTask) -> int:
    return sum(edit.kind != "accepted" for edit in task.edits)
