"""Strategies: which images a person should look at, under a budget of tasks or of minutes.

- ``random``: every image of the pool is as likely as any other, so the draw ends at the first that does not
  fit: going on to those that do would favour the cheap ones. Of an image that is cut it takes one tile.
- ``foreground-random``: likewise, but two thirds of the tasks show at least one object (the baseline that no
  method reliably beat in nnActive, arXiv 2511.19183).
- ``uncertainty``: those that the model doubts most.
- ``diversity``: those that cover the pool, typical ones first.
- ``auto``: a random arm of a quarter, which tells whether the rest is worth it (of tasks rounded: none of 1,
  1 of 2 to 5); images without objects, at most one in twenty tasks; and for the rest, doubt per minute of
  work with noise that fades from round to round (after ClaSP PE, arXiv 2601.13677), then the best of each
  cluster of the foremost candidates (uncertainty first, diversity second: arXiv 2309.16139). Without a model
  the rest covers the pool, group by group. What is left of the budget is filled from what they all left: no
  random draw from the pool, so an arm of its own. Near-duplicates are not taken, even where part of the
  budget is left unspent.

All of them take images in turns: a second tile of one only when every image was asked about once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from labelloop.budget.diversity import Vectors, clusters, is_near_duplicate, typical_first
from labelloop.plurals import plural

Strategy = Literal["auto", "random", "foreground-random", "uncertainty", "diversity"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
NEED_A_MODEL = ("uncertainty", "foreground-random")
NEED_DOUBT = ("uncertainty", "auto")  # where there is a model; the others do not ask how sure it is

RANDOM_ARM = "random"
EMPTY_ARM = "empty"
FILL_ARM = "fill"
FILLED_BEFORE = "drawn at random, to fill the budget"  # why, in rounds in which its arm was called random
RANDOM_SHARE = 0.25  # of auto's budget; of 10 tasks and more that is 20 to 30 %
EMPTY_SHARE = 0.05  # of auto's budget, for images in which the model sees nothing
FOREGROUND_SHARE = 2 / 3
FOREMOST = 4  # candidates per task among which auto looks for variety
NOISE = 0.5  # of the logarithm of doubt per minute, in the first round; it fades with the root of the round

Floats = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a round may cost; one of the two.

    Attributes:
        tasks: Number of tasks.
        minutes: Predicted minutes of a person's time.
    """

    tasks: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.tasks is None) == (self.minutes is None) or (self.tasks or self.minutes or 0) <= 0:
            raise ValueError(f"a budget is a number of tasks or of minutes above 0, not {self}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """The n tasks that may be asked: images, or tiles of large ones.

    Attributes:
        minutes: float64 (n,), predicted work.
        shown: int64 (n,), objects that would be shown.
        doubt: float64 (n,), decisions of the model that are expected to be wrong; None without a model, and
            without meaning for a strategy that does not need it.
        vectors: float32 (n, d), embeddings of unit norm.
        known: float32 (m, d), embeddings of what has labels or was asked before.
        groups: int64 (n,), the group (plate, donor) of each; one number for all where none are known.
        known_groups: int64 (m,), likewise of what is known.
        images: int64 (n,), the image of each, by any number.
        asked: int64 (n,), how many tasks of its image were asked about before.
    """

    minutes: Floats
    shown: IntArray
    doubt: Floats | None
    vectors: Vectors
    known: Vectors
    groups: IntArray
    known_groups: IntArray
    images: IntArray
    asked: IntArray

    def __len__(self) -> int:
        return len(self.minutes)


@dataclass(frozen=True, kw_only=True)
class Pick:
    """One choice.

    Attributes:
        index: In the pool.
        arm: random, empty, fill, or the strategy that chose.
        why: For people.
    """

    index: int
    arm: str
    why: str


def choose(
    pool: Pool, budget: Budget, strategy: Strategy, rng: np.random.Generator, *, round_number: int = 1
) -> list[Pick]:
    """Fills a budget; one image at least, as long as the pool holds one.

    Args:
        pool: What there is.
        budget: What it may cost.
        strategy: How to choose.
        rng: Same generator, same pool, same choice.
        round_number: From 1; auto trusts its scores more from round to round.
    """
    picking = _Picking(pool, budget, rng)
    if strategy == "random":
        picking.fill(_random(picking), RANDOM_ARM, lambda i: "drawn at random", fair=True)
    elif strategy == "foreground-random":
        why = "drawn at random"
        picking.fill(_seeing(picking), strategy, lambda i: why, share=FOREGROUND_SHARE, fair=True)
        picking.fill(_random(picking), strategy, lambda i: why, fair=True)
    elif strategy == "uncertainty":
        picking.fill(_most_doubted(picking), strategy, _doubted(pool))
    elif strategy == "diversity":
        picking.fill(_covering(picking), strategy, lambda i: "typical of images like it")
    else:
        _auto(picking, round_number)
    return picking.picks


def _auto(picking: _Picking, round_number: int) -> None:
    pool, why = picking.pool, "drawn at random, to compare with"
    picking.fill(_random(picking), RANDOM_ARM, lambda i: why, share=RANDOM_SHARE, fair=True)
    if pool.doubt is None:
        order = _covering_groups(picking)
        picking.fill(order, "diversity", lambda i: "typical of images like it", no_duplicates=True)
    else:
        empty = [i for i in _random(picking) if pool.shown[i] == 0]
        why = "the model sees nothing in it"
        picking.fill(empty, EMPTY_ARM, lambda i: why, share=EMPTY_SHARE, no_duplicates=True)
        order = _doubt_then_variety(picking, round_number)
        picking.fill(order, "auto", _doubted(pool), no_duplicates=True)
    order, why = _random(picking), "drawn from what was left, to fill the budget"
    picking.fill(order, FILL_ARM, lambda i: why, no_duplicates=True)
    if not picking.picks:  # everything looks like something known
        picking.fill(order[:1], FILL_ARM, lambda i: why)


def passed_over(pool: Pool, budget: Budget, picks: Sequence[Pick]) -> int:
    """How many tasks would each still fit into the budget; after ``auto`` these are near-duplicates."""
    cost, total = _cost(pool, budget)
    picked = [pick.index for pick in picks]
    return int((np.delete(cost, picked) <= total - cost[picked].sum() + 1e-9).sum())


def _cost(pool: Pool, budget: Budget) -> tuple[Floats, float]:
    """float64 (n,), what each task takes of the budget, and the budget."""
    if budget.tasks is not None:
        return np.ones(len(pool)), float(budget.tasks)
    return pool.minutes, float(budget.minutes or 0)


class _Picking:
    """What was picked so far, and what the budget has left."""

    def __init__(self, pool: Pool, budget: Budget, rng: np.random.Generator) -> None:
        self.pool = pool
        self.rng = rng
        self.picks: list[Pick] = []
        self._varies = budget.tasks is None  # what a pick costs
        self._cost, self._total = _cost(pool, budget)
        self._left = self._total
        self._taken = np.zeros(len(pool), np.bool_)

    def wanted(self) -> int:
        """About how many picks the rest of the budget is worth."""
        if not len(self.pool):
            return 0
        return max(1, math.ceil(self._left / max(float(np.mean(self._cost)), 1e-9)))

    def free(self) -> IntArray:
        """Indices that were not picked."""
        return np.flatnonzero(~self._taken)

    def in_turns(self, order: IntArray) -> list[int]:
        """Those of this order that are free: one task of each image first, then a second one, and so on.

        What was asked about before and what is picked has had its turns.
        """
        order = order[~self._taken[order]]
        images = self.pool.images[order]
        by_image = np.argsort(images, kind="stable")
        starts = np.flatnonzero(np.diff(images[by_image], prepend=-1))
        turn = np.empty(len(order), np.int64)
        turn[by_image] = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        picked = np.bincount(self.pool.images[self._taken], minlength=images.max(initial=0) + 1)
        turn += self.pool.asked[order] + picked[images]
        return [int(i) for i in order[np.argsort(turn, kind="stable")]]

    def fill(
        self,
        order: Iterable[int],
        arm: str,
        why: Callable[[int], str],
        *,
        share: float = 1.0,
        no_duplicates: bool = False,
        fair: bool = False,
    ) -> None:
        """Picks in this order what fits; up to a share of the whole budget.

        Args:
            order: Indices in the pool.
            arm: Of the picks.
            why: For people, by index.
            share: Of the budget.
            no_duplicates: Passes over what looks like something known or picked.
            fair: Passes over nothing for its cost, as that would favour what is cheap: the first that does
                not fit is the last, taken by a chance that makes the expected cost the share, if the whole
                budget has room for it. A share of tasks, which all cost the same, is rounded.
        """
        of_budget = share * self._total
        if fair and not self._varies:
            of_budget = math.floor(of_budget + 0.5)
        room = min(self._left, of_budget)
        cheapest = float(self._cost.min()) if len(self._cost) else 0.0
        for i in order:
            cost = float(self._cost[i])
            first = not self.picks and self._left == self._total
            fits = cost <= room + 1e-9 or (first and share == 1.0)
            if self._taken[i] or not (fits or fair):
                continue
            if not fits:
                if not self._varies or cost > self._left + 1e-9 or self.rng.random() >= room / cost:
                    break
            if no_duplicates and self._looks_known(i):
                continue
            self._taken[i] = True
            self.picks.append(Pick(index=int(i), arm=arm, why=why(int(i))))
            self._left -= cost
            room -= cost
            if not fits or room < (0 if fair else cheapest) - 1e-9:
                break

    def _looks_known(self, i: int) -> bool:
        """Whether it is almost one of those that are known or picked; nothing is copied for it."""
        vector, picked = self.pool.vectors[i], [pick.index for pick in self.picks]
        known = self.pool.known
        return is_near_duplicate(vector, known) or is_near_duplicate(vector, self.pool.vectors[picked])


def _random(picking: _Picking) -> list[int]:
    """What is free: any image first, any of its tiles."""
    pool, rng = picking.pool, picking.rng
    images = rng.permutation(int(pool.images.max(initial=-1)) + 1)
    tasks = rng.permutation(len(pool))
    return picking.in_turns(tasks[np.argsort(images[pool.images[tasks]], kind="stable")])


def _seeing(picking: _Picking) -> list[int]:
    """At random, of those in which the model sees something."""
    return [i for i in _random(picking) if picking.pool.shown[i] > 0]


def _most_doubted(picking: _Picking) -> list[int]:
    """Most wrong decisions per object first: the sum alone would choose the most crowded images."""
    pool = picking.pool
    assert pool.doubt is not None
    return picking.in_turns(np.argsort(-pool.doubt / np.maximum(pool.shown, 1), kind="stable"))


def _covering(picking: _Picking) -> list[int]:
    pool = picking.pool
    first = typical_first(pool.vectors, pool.known, picking.wanted() * 2, picking.rng)
    left = set(range(len(pool))) - set(first)
    rest = [i for i in _random(picking) if i in left]
    return picking.in_turns(np.array([*first, *rest], np.int64))


def _covering_groups(picking: _Picking) -> list[int]:
    """Covers each group by itself and takes from the groups in turns, the larger ones more often.

    What is known of a group, and of no other, counts as asked about. Of many groups only those are looked at
    whose turn may come.
    """
    pool, wanted, rng = picking.pool, picking.wanted(), picking.rng
    turns: list[tuple[float, int, int]] = []
    shares = {}
    groups, sizes = np.unique(pool.groups, return_counts=True)
    for group, size, tie in zip(groups.tolist(), sizes.tolist(), rng.permutation(len(groups)), strict=True):
        known = int((pool.known_groups == group).sum())
        shares[group] = min(size, math.ceil(wanted * size / len(pool)) + 1)
        turns += [((known + i + 0.5) / (known + size), int(tie), group) for i in range(shares[group])]
    order = [group for _, _, group in sorted(turns)[: FOREMOST * wanted]]
    first = {}
    for group in dict.fromkeys(order):
        members = np.flatnonzero(pool.groups == group)
        known_there = pool.known[pool.known_groups == group]
        typical = typical_first(pool.vectors[members], known_there, shares[group], rng)
        first[group] = iter(members[typical])
    return picking.in_turns(np.array([next(first[group]) for group in order], np.int64))


def _doubt_then_variety(picking: _Picking, round_number: int) -> list[int]:
    """The best of each cluster of the foremost candidates, best first; then the others of them."""
    pool, free, rng = picking.pool, picking.free(), picking.rng
    assert pool.doubt is not None
    if not len(free):
        return []
    gain = np.log((pool.doubt[free] + 1e-3) / pool.minutes[free])
    gain += rng.gumbel(size=len(free)) * NOISE / math.sqrt(round_number)
    wanted = min(picking.wanted(), len(free))
    order = free[np.argsort(-gain, kind="stable")]
    foremost = np.array(picking.in_turns(order)[: FOREMOST * wanted], np.int64)
    label = clusters(pool.vectors[foremost], min(wanted, len(foremost)), rng)
    seen: dict[int, int] = {}
    turns = []
    for place, (index, cluster) in enumerate(zip(foremost.tolist(), label.tolist(), strict=True)):
        turns.append((seen.get(cluster, 0), place, index))
        seen[cluster] = seen.get(cluster, 0) + 1
    return picking.in_turns(np.array([index for _, _, index in sorted(turns)], np.int64))


def _doubted(pool: Pool) -> Callable[[int], str]:
    """Says how much the model doubts an image."""
    doubt = pool.doubt
    assert doubt is not None
    return lambda i: (
        f"about {doubt[i]:.1f} of the model's decisions may be wrong ({plural(int(pool.shown[i]), 'object')})"
    )
