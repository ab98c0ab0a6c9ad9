"""How seconds by action are learnt from reported times: Bayesian, on the log scale, with outliers.

    log seconds = log(sum over actions of count x exp(theta)) + log factor of the person + scatter

Theta and log factors are normal beforehand, so seconds are never negative. A reported time is one of three
things: worked time with normal scatter, the same counted twice, or anything (a tab left open). Which of them
each is, is estimated together with the rest by expectation maximisation (Dempster et al. 1977; a mixture with
a flat component for outliers as in Banfield and Raftery 1993).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TWICE = math.log(2)
NOISE = 0.25  # standard deviation of log seconds beforehand,
NOISE_COUNTS = 8.0  # which counts as if seen in so many tasks
NEVER_TWICE, UNKNOWN, POSSIBLE = 0, 1, 2  # whether a time may have been counted twice
# Of the last two beforehand: (counted twice, not so), in tasks. Servers that are known to do so added a
# draft's time as a rule (Label Studio's pull request 6406), and where all are doubled only this tells.
TWICE_SHARES = ((2.0, 6.0), (6.0, 2.0))
ANYTHING_SHARE = (1.0, 14.0)  # beforehand: (outliers, others), in tasks
ANYTHING_DENSITY = 0.15  # of outliers per unit of log seconds: anything over some seven units
STEPS = 80
FIRST_NOISE, SHRINK = 1.0, 0.85  # scatter is taken to be large at first, so that no task is out too early
NEVER = 1e-300
MAX_STEP = 1.0  # of a log per step

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class EffortPrior:
    """What is known beforehand.

    Attributes:
        log_seconds: float64 (a,), of each action.
        own_sd: Standard deviation of each action's log, apart from the others.
        common_sd: Standard deviation of what all actions share.
        people_sd: Standard deviation of the log of a person's factor.
    """

    log_seconds: Floats
    own_sd: float
    common_sd: float
    people_sd: float

    def covariance(self, n_people: int) -> Floats:
        """float64 (a + n_people, a + n_people), of logs of actions and then of people."""
        a = len(self.log_seconds)
        covariance = np.zeros((a + n_people, a + n_people))
        covariance[:a, :a] = self.common_sd**2 + self.own_sd**2 * np.eye(a)
        covariance[a:, a:] = self.people_sd**2 * np.eye(n_people)
        return covariance


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """What was found.

    Attributes:
        mean: float64 (a + people,), logs of the seconds of actions and of the factors of people.
        covariance: float64, of the same.
        noise: Standard deviation of the log seconds of a task.
        twice_shares: Shares of the times that were counted twice, 0..1: of those of which it is not known
            whether they may have been, and of those that may.
        outlier_share: Share of the tasks whose time says nothing, 0..1.
    """

    mean: Floats
    covariance: Floats
    noise: float
    twice_shares: tuple[float, float]
    outlier_share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Timed:
    """n timed tasks as numbers.

    Attributes:
        counts: float64 (n, a), how often each action was done.
        seconds: float64 (n,), reported, positive.
        person: int64 (n,), 0..people - 1, or -1 for people without a factor of their own.
        maybe_twice: int64 (n,), ``NEVER_TWICE``, ``UNKNOWN`` or ``POSSIBLE``.
    """

    counts: Floats
    seconds: Floats
    person: Ints
    maybe_twice: Ints


def fit_effort(timed: Timed, *, n_people: int, prior: EffortPrior) -> Fit:
    """The most probable explanation of timed tasks.

    Args:
        timed: The tasks.
        n_people: Number of people.
        prior: What is known beforehand.
    """
    problem = _Problem(timed, n_people, prior)
    plain = _State(theta=problem.start.copy(), noise=FIRST_NOISE, twice=(0.02, 0.02), anything=0.07)
    fits = [problem.climb(plain)]
    if len(timed.seconds):
        # Times counted twice can pass for slower work with more scatter: begin once more from faster work.
        faster = fits[0].theta.copy()
        faster[: timed.counts.shape[1]] -= TWICE / 2
        fits.append(problem.climb(_State(theta=faster, noise=NOISE, twice=(0.4, 0.8), anything=0.07)))
    return problem.finish(max(fits, key=problem.log_posterior))


def worked_seconds(found: Fit, timed: Timed, *, n_people: int, prior: EffortPrior) -> Floats:
    """float64 (n,), how long people worked, expected over the three things that a reported time may be.

    Args:
        found: What was learnt, from these tasks or from others.
        timed: The tasks. Of a time that says nothing, their work tells how long they took.
        n_people: As for ``fit_effort``.
        prior: Likewise.
    """
    problem = _Problem(timed, n_people, prior)
    state = _State(
        theta=found.mean, noise=found.noise, twice=found.twice_shares, anything=found.outlier_share
    )
    return problem.worked(state)


@dataclass(kw_only=True, eq=False)
class _State:
    theta: Floats
    noise: float
    twice: tuple[float, float]
    anything: float


class _Problem:
    def __init__(self, timed: Timed, n_people: int, prior: EffortPrior) -> None:
        self._counts, self._log_seconds = timed.counts, np.log(timed.seconds)
        self._maybe_twice = timed.maybe_twice
        self._is_person = (timed.person[:, None] == np.arange(n_people)).astype(np.float64)
        self.start = np.concatenate([prior.log_seconds, np.zeros(n_people)])
        self._precision = np.linalg.inv(prior.covariance(n_people))

    def climb(self, state: _State) -> _State:
        """Expectation maximisation; the scatter shrinks to what it is from what the state begins with."""
        floor = state.noise
        n = len(self._log_seconds)
        for _ in range(STEPS):
            residual, slopes = self._residual(state.theta)
            once, twice = np.exp(self._log_weights(residual, state)[:2])
            weight = once + twice
            off = once * residual + twice * (residual - TWICE)
            precision = self._precision + slopes.T @ (slopes * weight[:, None]) / state.noise**2
            pull = slopes.T @ off / state.noise**2 - self._precision @ (state.theta - self.start)
            step = np.linalg.solve(precision, pull)
            floor *= SHRINK
            squares = once @ np.square(residual) + twice @ np.square(residual - TWICE)
            fitted = np.trace(np.linalg.solve(precision, precision - self._precision))  # effective parameters
            freedom = max(NOISE_COUNTS + weight.sum() - fitted, 1.0)
            variance = (NOISE_COUNTS * NOISE**2 + squares) / freedom
            state = _State(
                theta=state.theta + np.clip(step, -MAX_STEP, MAX_STEP),
                noise=max(floor, math.sqrt(variance)),
                twice=(self._twice_share(UNKNOWN, twice), self._twice_share(POSSIBLE, twice)),
                anything=(ANYTHING_SHARE[0] + (1 - weight).sum()) / (sum(ANYTHING_SHARE) + n),
            )
        return state

    def _twice_share(self, which: int, twice: Floats) -> float:
        """Of the times of this kind, given how probable it is of each time that it was counted twice."""
        yes, no = TWICE_SHARES[which - UNKNOWN]
        mine = self._maybe_twice == which
        return float((yes + twice[mine].sum()) / (yes + no + mine.sum()))

    def log_posterior(self, state: _State) -> float:
        """Up to a constant; what the two ways to begin are compared by."""
        residual, _ = self._residual(state.theta)
        away = state.theta - self.start
        logs = self._log_densities(residual, state)
        shares = sum(
            yes * math.log(share) + no * math.log1p(-share)
            for (yes, no), share in zip(
                (*TWICE_SHARES, ANYTHING_SHARE), (*state.twice, state.anything), strict=True
            )
        )
        scatter = -NOISE_COUNTS * (math.log(state.noise) + (NOISE / state.noise) ** 2 / 2)
        return float(
            np.logaddexp.reduce(logs, axis=0).sum() - away @ self._precision @ away / 2 + shares + scatter
        )

    def finish(self, state: _State) -> Fit:
        """The state with the covariance that the second derivative gives (Laplace)."""
        residual, slopes = self._residual(state.theta)
        once, twice = np.exp(self._log_weights(residual, state)[:2])
        precision = self._precision + slopes.T @ (slopes * (once + twice)[:, None]) / state.noise**2
        return Fit(
            mean=state.theta,
            covariance=np.linalg.inv(precision),
            noise=state.noise,
            twice_shares=state.twice,
            outlier_share=state.anything,
        )

    def worked(self, state: _State) -> Floats:
        """See ``worked_seconds``."""
        residual, _ = self._residual(state.theta)
        once, twice, anything = np.exp(self._log_weights(residual, state))
        reported = np.exp(self._log_seconds)
        expected = np.exp(self._log_seconds - residual + state.noise**2 / 2)
        return np.asarray(once * reported + twice * reported / math.exp(TWICE) + anything * expected)

    def _residual(self, theta: Floats) -> tuple[Floats, Floats]:
        """float64 (n,), log seconds less the expected; (n, parameters), slopes of the expected."""
        parts = self._counts * np.exp(theta[: self._counts.shape[1]])
        total = parts.sum(axis=1)
        expected = np.log(total) + self._is_person @ theta[self._counts.shape[1] :]
        return self._log_seconds - expected, np.hstack([parts / total[:, None], self._is_person])

    def _log_densities(self, residual: Floats, state: _State) -> Floats:
        """float64 (3, n): of worked time, of time counted twice and of anything, with their shares."""
        share = np.array([0.0, *state.twice])[self._maybe_twice]
        usual = np.maximum(1 - share - state.anything, 1e-6)
        scale = math.log(state.noise * math.sqrt(2 * math.pi))
        return np.stack(
            [
                np.log(usual) - scale - np.square(residual / state.noise) / 2,
                np.log(np.maximum(share, NEVER)) - scale - np.square((residual - TWICE) / state.noise) / 2,
                np.full(len(residual), math.log(state.anything * ANYTHING_DENSITY)),
            ]
        )

    def _log_weights(self, residual: Floats, state: _State) -> Floats:
        """float64 (3, n): how probable each of the three is for each task."""
        logs = self._log_densities(residual, state)
        weights: Floats = logs - np.logaddexp.reduce(logs, axis=0)
        return weights
