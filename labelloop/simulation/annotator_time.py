"""How long a simulated annotator takes.

The form is deliberately not that of the effort model (``budget.effort``), which is measured against it:
drawing grows with the length of the outline, correcting with how much of it is wrong, looking with how
crowded the task is, everything with tiredness, and every single action is drawn from a skewed distribution.
Lognormal times are the usual finding for human reactions (Ulrich and Miller 1993). The medians are of the
size of those in ``effort.literature_prior``; nobody was measured for them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

TIRED_AFTER_S, TIRED_BY = 3600.0, 0.25  # after an hour of work people are about a sixth slower
ORIENT_SHAPE, ORIENT_SCALE_S = 6.0, 2.0  # gamma: 12 s on average
LOOK_S, LOOK_SPREAD = 0.9, 0.6  # medians in seconds, and standard deviations of logs
CROWDED_BY = 0.01  # slower for each other object
DELETE_S, DELETE_SPREAD = 1.8, 0.5
RELABEL_S, RELABEL_SPREAD = 2.2, 0.5
CORRECT_S, CORRECT_S_PER_PX, CORRECT_SPREAD = 3.0, 0.12, 0.5
DRAW_S, DRAW_S_PER_PX, DRAW_SPREAD = 3.0, 0.11, 0.45
RESHAPE_S, RESHAPE_S_PER_PX, RESHAPE_SPREAD = 6.0, 0.05, 0.5
PERIMETER_POWER = 0.9  # long outlines are drawn somewhat faster per px
PX_PER_STEP = math.pi / 4  # mean length of a smooth outline for each pixel side that it runs along

IDLE_S, IDLE_SPREAD = 300.0, 1.3  # an idle spell: minutes as a rule, hours at times
TWICE = (1.8, 2.0)  # what a time that is counted twice is multiplied by: drafts begin a little late


class Clock:
    """Sums the time of one task.

    Args:
        rng: The only source of chance.
        pace: Of the person: above 1 is slower.
        mood: Standard deviation of the log of a factor of the whole task.
        worked_s: Seconds worked without a rest before this task.
    """

    def __init__(self, rng: np.random.Generator, *, pace: float, mood: float, worked_s: float) -> None:
        self._rng = rng
        self._pace = pace * math.exp(mood * float(rng.standard_normal()))
        self._before = worked_s
        self.seconds = 0.0

    def orient(self) -> None:
        """Opening a task, a first look at the whole, submitting."""
        self._add(float(self._rng.gamma(ORIENT_SHAPE, ORIENT_SCALE_S)))

    def look(self, n_objects: int) -> None:
        """Looking at all objects that are shown."""
        median = LOOK_S * (1 + CROWDED_BY * n_objects)
        self._add(float(self._rng.lognormal(math.log(median), LOOK_SPREAD, n_objects).sum()))

    def delete(self) -> None:
        """Deleting an object."""
        self._take(DELETE_S, DELETE_SPREAD)

    def relabel(self) -> None:
        """Giving an object another class."""
        self._take(RELABEL_S, RELABEL_SPREAD)

    def correct(self, perimeter_px: float, iou: float) -> None:
        """Correcting a boundary; the more of it is wrong, the longer."""
        wrong = min(1.0, 2.5 * (1 - iou))
        self._take(CORRECT_S + CORRECT_S_PER_PX * wrong * perimeter_px**PERIMETER_POWER, CORRECT_SPREAD)

    def draw(self, perimeter_px: float) -> None:
        """Drawing an object."""
        self._take(DRAW_S + DRAW_S_PER_PX * perimeter_px**PERIMETER_POWER, DRAW_SPREAD)

    def reshape(self, perimeter_px: float) -> None:
        """Splitting an object, or merging some."""
        self._take(RESHAPE_S + RESHAPE_S_PER_PX * perimeter_px**PERIMETER_POWER, RESHAPE_SPREAD)

    def _take(self, median_s: float, spread: float) -> None:
        self._add(float(self._rng.lognormal(math.log(median_s), spread)))

    def _add(self, seconds: float) -> None:
        tired = 1 + TIRED_BY * -math.expm1(-(self._before + self.seconds) / TIRED_AFTER_S)
        self.seconds += seconds * self._pace * tired


class Reported(NamedTuple):
    """A time as a server reports it.

    Attributes:
        seconds: Idle spells included.
        maybe_twice: The task had a draft whose time may have been counted twice.
    """

    seconds: float
    maybe_twice: bool


def reported_seconds(
    active_s: float, rng: np.random.Generator, *, idle_share: float, doubled_share: float
) -> Reported:
    """What a server reports of worked seconds.

    Args:
        active_s: Worked, seconds.
        rng: The only source of chance.
        idle_share: Share of the tasks that stay open while nobody works.
        doubled_share: Share of the tasks whose time is counted about twice, as by Label Studio before
            September 2024 (its pull request 6406), which added the drafts' times to the annotation's. As many
            tasks again had a draft and are counted once.
    """
    is_idle, is_twice, is_drafted = rng.random(3) < (idle_share, doubled_share, doubled_share)
    idle_s = float(rng.lognormal(math.log(IDLE_S), IDLE_SPREAD)) if is_idle else 0.0
    times = float(rng.uniform(*TWICE)) if is_twice else 1.0
    return Reported(seconds=(active_s + idle_s) * times, maybe_twice=bool(is_twice or is_drafted))


def perimeter_px(mask: npt.NDArray[np.bool_]) -> float:
    """Length of a mask's outlines, holes included, px."""
    padded = np.pad(mask, 1)
    steps = (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    return float(steps) * PX_PER_STEP
