"""A simulated annotator: does to what a task shows what a person would do who knows the truth.

For replaying review without people, and for measuring what labelloop says of people's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labelloop.instances import Instances
from labelloop.review.edits import INSIDE, PART_OF_WHOLE, KeyedInstances
from labelloop.simulation.annotator_time import Clock, perimeter_px, reported_seconds
from labelloop.simulation.sloppy_outlines import jittered

MIN_IOU = 0.5  # an object that agrees less with every true one is spurious
KEY_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
KEY_LENGTH = 10  # as Label Studio makes keys


@dataclass(frozen=True, kw_only=True)
class AnnotatorConfig:
    """How a simulated person works. Shares are 0..1.

    Attributes:
        accept_iou: Objects that agree this well with the truth are left as they are, 0.5..1.
        jitter: How far drawn outlines are off, as a share of the object's radius (standard deviation).
        overlook_missing: Share of the missing objects that are not noticed.
        overlook_spurious: Share of the spurious objects that are not noticed.
        pace: Above 1 is slower.
        mood: Standard deviation of the log of what makes whole tasks slower or faster.
        idle_share: Share of the tasks that are left open for a while.
        doubled_share: Share of the tasks whose time the server counts twice.
    """

    accept_iou: float = 0.8
    jitter: float = 0.0
    overlook_missing: float = 0.0
    overlook_spurious: float = 0.0
    pace: float = 1.0
    mood: float = 0.12
    idle_share: float = 0.0
    doubled_share: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.overlook_missing, self.overlook_spurious, self.idle_share, self.doubled_share)
        if not (MIN_IOU <= self.accept_iou <= 1 and all(0 <= share <= 1 for share in shares)):
            raise ValueError(f"accept_iou is {MIN_IOU}..1 and shares are 0..1, unlike {self}")
        if not (self.jitter >= 0 and self.mood >= 0 and self.pace > 0):
            raise ValueError(f"jitter and mood are not negative and pace is positive, unlike {self}")


PRESETS: Mapping[str, AnnotatorConfig] = {
    "perfect": AnnotatorConfig(),
    "sloppy": AnnotatorConfig(jitter=0.06, accept_iou=0.7, pace=0.9),
    "missing": AnnotatorConfig(overlook_missing=0.3, overlook_spurious=0.3),
    "slow": AnnotatorConfig(pace=1.8),
    "fast": AnnotatorConfig(pace=0.6),
    "idle": AnnotatorConfig(idle_share=0.1),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotated:
    """What a simulated person gives back.

    Attributes:
        returned: The objects, without scores; keys of shown ones are kept.
        untouched: Keys that came back as they were shown.
        seconds: As a server would report them, idle spells included.
        maybe_twice: Whether the server may have counted the time twice.
        active_seconds: Truly worked.
    """

    returned: KeyedInstances
    untouched: frozenset[str]
    seconds: float
    maybe_twice: bool
    active_seconds: float


def annotate(
    shown: KeyedInstances,
    truth: Instances,
    *,
    rng: np.random.Generator,
    config: AnnotatorConfig | None = None,
    worked_s: float = 0.0,
) -> Annotated:
    """Reviews one task.

    Objects that agree with the truth stay; boundaries that agree less well become the true ones; an object
    that covers several true ones is split, parts of one are merged, spurious ones are deleted, missing ones
    drawn and classes set right. True crowds are never drawn, and what lies in one is left as it is.

    Args:
        shown: What the task shows, in the coordinates of its tile.
        truth: The true objects that would be shown there, likewise.
        rng: The only source of chance.
        config: How the person works; perfectly if None.
        worked_s: Seconds worked without a rest before this task, which makes people tired.

    Raises:
        ValueError: Shown and true objects are of images of different sizes.
    """
    if shown.instances.size_hw != truth.size_hw:
        raise ValueError(f"the task is {shown.instances.size_hw} (h, w), the truth {truth.size_hw}")
    config = config or PRESETS["perfect"]
    clock = Clock(rng, pace=config.pace, mood=config.mood, worked_s=worked_s)
    review = _Review(shown, truth, config, rng, clock)
    returned, untouched = review.result()
    reported = reported_seconds(
        clock.seconds, rng, idle_share=config.idle_share, doubled_share=config.doubled_share
    )
    return Annotated(
        returned=returned,
        untouched=untouched,
        seconds=reported.seconds,
        maybe_twice=reported.maybe_twice,
        active_seconds=clock.seconds,
    )


class _Review:
    def __init__(
        self,
        shown: KeyedInstances,
        truth: Instances,
        config: AnnotatorConfig,
        rng: np.random.Generator,
        clock: Clock,
    ) -> None:
        self._keys, self._shown = shown.keys, shown.instances
        self._truth = truth.select(~truth.crowd & (truth.areas > 0))
        self._crowd = truth.select(truth.crowd)
        self._config, self._rng, self._clock = config, rng, clock
        self._iou = np.nan_to_num(self._shown.iou(self._truth))
        areas, true_areas = self._shown.areas[:, None], self._truth.areas[None, :]
        common = self._iou * (areas + true_areas) / (1 + self._iou)
        self._of_shown = common / np.maximum(areas, 1)  # the common share of the shown object,
        self._of_true = common / np.maximum(true_areas, 1)  # and of the true one
        self._masks: dict[str, tuple[bytes, int]] = {}  # what comes back: run lengths and class
        self._untouched: set[str] = set()
        self._partner = self._match()  # true object of each shown one

    def result(self) -> tuple[KeyedInstances, frozenset[str]]:
        """Does all the work, in the order in which a person might."""
        self._clock.orient()
        self._clock.look(len(self._shown))
        done, drawn = self._split_and_merge()
        for i in range(len(self._shown)):
            if i not in done and i in self._partner:
                self._keep(i, self._partner[i])
            elif i not in done:
                self._doubt(i)
        for t in sorted(set(range(len(self._truth))) - drawn - set(self._partner.values())):
            if self._rng.random() >= self._config.overlook_missing:
                self._clock.draw(self._perimeter(t))
                self._give(self._new_key(), t)
        kept = [key for key in self._keys if key in self._masks]
        keys = (*kept, *(key for key in self._masks if key not in self._keys))
        instances = Instances(
            size_hw=self._shown.size_hw,
            rles=tuple(self._masks[key][0] for key in keys),
            labels=np.array([self._masks[key][1] for key in keys], np.int64),
        )
        return KeyedInstances(keys=keys, instances=instances), frozenset(self._untouched)

    def _match(self) -> dict[int, int]:
        """Which shown object is which true one."""
        from scipy.optimize import linear_sum_assignment  # half a second, which importing need not take

        rows, columns = linear_sum_assignment(-np.where(self._iou >= MIN_IOU, self._iou, 0))
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return {i: t for i, t in pairs if self._iou[i, t] >= MIN_IOU}

    def _accepted(self, i: int) -> bool:
        return i in self._partner and bool(self._iou[i, self._partner[i]] >= self._config.accept_iou)

    def _split_and_merge(self) -> tuple[set[int], set[int]]:
        """Shown objects that were split or merged, and the true objects that came of it."""
        done: set[int] = set()
        drawn: set[int] = set()
        for i in range(len(self._shown)):
            parts = self._parts_of(i)
            if len(parts) < 2 or drawn & set(parts):
                continue
            if not _together(self._truth.select(parts), self._shown.select([i])) > self._iou[i, parts].max():
                continue
            done.add(i)
            drawn |= set(parts)
            self._clock.reshape(sum(self._perimeter(t) for t in parts))
            for k, t in enumerate(parts):
                self._give(self._keys[i] if k == 0 else self._new_key(), t)
        for t in range(len(self._truth)):
            pieces = self._pieces_of(t)
            if len(pieces) < 2 or t in drawn or done & set(pieces):
                continue
            if _together(self._shown.select(pieces), self._truth.select([t])) > self._iou[pieces, t].max():
                done |= set(pieces)
                drawn.add(t)
                self._clock.reshape(self._perimeter(t))
                self._give(self._keys[pieces[0]], t)
        return done, drawn

    def _parts_of(self, i: int) -> list[int]:
        """True objects that a shown one covers and that match no other shown one, its own partner first."""
        if self._accepted(i):
            return []
        own = [self._partner[i]] if i in self._partner else []
        big = self._truth.areas >= PART_OF_WHOLE * self._shown.areas[i]
        covered = set(np.flatnonzero((self._of_true[i] >= INSIDE) & big).tolist())
        return own + sorted(covered - set(self._partner.values()), key=lambda t: -self._truth.areas[t])

    def _pieces_of(self, t: int) -> list[int]:
        """Shown objects that lie in a true one and match no other true one, its own partner first."""
        own = [i for i, partner in self._partner.items() if partner == t]
        if any(self._accepted(i) for i in own):
            return []
        big = self._shown.areas >= PART_OF_WHOLE * self._truth.areas[t]
        inside = set(np.flatnonzero((self._of_shown[:, t] >= INSIDE) & big).tolist())
        return own + sorted(inside - set(self._partner), key=lambda i: -self._shown.areas[i])

    def _keep(self, i: int, t: int) -> None:
        """An object that is a true one: its boundary and class are set right where they need it."""
        key, label = self._keys[i], int(self._truth.labels[t])
        same_label = int(self._shown.labels[i]) == label
        if not same_label:
            self._clock.relabel()
        if self._accepted(i):
            self._masks[key] = self._shown.rles[i], label
            if same_label:
                self._untouched.add(key)
        else:
            self._clock.correct(self._perimeter(t), float(self._iou[i, t]))
            self._give(key, t)

    def _doubt(self, i: int) -> None:
        """An object that matches no true one."""
        in_crowd = len(self._crowd) > 0 and _share_inside(self._shown.select([i]), self._crowd) >= INSIDE
        if in_crowd or self._rng.random() < self._config.overlook_spurious:
            self._masks[self._keys[i]] = self._shown.rles[i], int(self._shown.labels[i])
            self._untouched.add(self._keys[i])
        else:
            self._clock.delete()

    def _give(self, key: str, t: int) -> None:
        """A true object as this person draws it."""
        rle = jittered(self._truth.select([t]), self._config.jitter, self._rng).rles[0]
        self._masks[key] = rle, int(self._truth.labels[t])

    def _perimeter(self, t: int) -> float:
        return perimeter_px(self._truth.crop(t)[0])

    def _new_key(self) -> str:
        while True:
            key = "".join(self._rng.choice(list(KEY_LETTERS), KEY_LENGTH))
            if key not in self._masks and key not in self._keys:
                return key


def _together(several: Instances, one: Instances) -> float:
    """IoU of the union of several objects with one."""
    union = np.asarray(several.to_dense().any(axis=0))
    return float(Instances.from_dense(union[None]).iou(one)[0, 0])


def _share_inside(one: Instances, several: Instances) -> float:
    """The share of an object that lies in any of several, 0..1."""
    mask = one.mask(0)
    covered = np.asarray(several.to_dense().any(axis=0))
    return float((mask & covered).sum() / max(int(mask.sum()), 1))
