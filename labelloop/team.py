"""Processes that share one piece of work: what they tell each other, and how they end together.

Every process calls the methods of its Team in the same order. One process alone is a team too, and pays
nothing for it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from labelloop.errors import LabelloopError, TeamError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

REASON_WITHIN_S = 5.0  # a process that fails says why before its connections close
MEET_EVERY_S = 0.5  # processes that work apart
_REASON = "reason"
_DONE, _AT_WORK, _FAILED = range(3)  # of several processes the greatest counts


class Channel(Protocol):
    """How the processes of a team reach each other; all call the same methods in the same order.

    Raises:
        RuntimeError: From each method, where another process is gone.
    """

    def device(self, device: torch.device, local_rank: int) -> torch.device:
        """The device of a process, of which this is the kind: of several GPUs each takes its own."""

    def tell(self, value: T) -> T:
        """The leader's value."""

    def gather(self, value: T, size: int) -> list[T]:
        """The values of so many processes, by rank."""

    def greatest(self, number: int) -> int:
        """The greatest of all numbers."""

    def add(self, tensor: Tensor) -> None:
        """The tensor becomes the sum of all."""

    def copy_leader(self, tensors: Sequence[Tensor]) -> None:
        """The tensors become the leader's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Team:
    """The processes that share the work, as one of them sees them.

    Attributes:
        rank: Which one this is; the first one, 0, leads: it alone writes files and the ledger.
        size: How many there are.
        local_rank: Which one of its machine.
        store: Where a process that fails leaves the reason; None for one process alone.
        channel: Through which they speak; None for one process alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Store | None = None
    channel: Channel | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes what all have made."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The device of this process: of several GPUs each takes its own."""
        return device if self.channel is None else self.channel.device(device, self.local_rank)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """What of a list is this process's; every item is one process's."""
        return items[self.rank :: self.size]

    def tell(self, value: T) -> T:
        """The leader's value, in every process."""
        if self.channel is None:
            return value
        with self.together():
            return self.channel.tell(value)

    def gather(self, value: T) -> list[T]:
        """Every process's value, in every process, by rank."""
        if self.channel is None:
            return [value]
        with self.together():
            return self.channel.gather(value, self.size)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.channel is None:
            return flag
        with self.together():
            return bool(self.channel.greatest(int(flag)))

    def add(self, tensor: Tensor) -> None:
        """Every process's tensor becomes the sum of all."""
        if self.channel is not None:
            with self.together():
                self.channel.add(tensor)

    def copy_leader(self, tensors: Sequence[Tensor]) -> None:
        """Every process's tensors become the leader's."""
        if self.channel is not None:
            with self.together():
                self.channel.copy_leader(tensors)

    def agree(self, fault: LabelloopError | None) -> None:
        """Goes on where no process has found a fault; else all raise the first one's."""
        for found in self.gather(fault):
            if found is not None:
                raise found

    def wait(self) -> None:
        """Until every process is here."""
        self.tell(None)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Work that each process does by itself; the block ends when all have ended theirs, however late.

        Nothing is told in the block. That another process has failed, or is gone, is reported at its end.
        """
        if self.channel is None:
            yield
            return
        company = _Company(self.channel)
        try:
            yield
            company.say(_DONE)
            company.end()
        except BaseException:
            company.say(_FAILED)
            company.end(REASON_WITHIN_S)
            raise
        if company.heard != _DONE:
            raise self._failed(company.error) from company.error

    def fail(self, error: BaseException) -> None:
        """Leaves the reason why this process ends; the first reason counts."""
        if self.store is not None and not isinstance(error, TeamError):
            try:
                self.store.compare_set(_REASON, "", json.dumps(_as_reason(self.rank, error)))
            except RuntimeError:
                return  # the leader is gone, and nobody is left to tell

    @contextmanager
    def together(self) -> Iterator[None]:
        """What all processes of the team do at the same time; that one has ended is said as it was meant."""
        try:
            yield
        except RuntimeError as error:
            raise self._failed(error) from error

    def _failed(self, error: RuntimeError | None) -> TeamError | KeyboardInterrupt:
        """Why another process has ended, as far as it could say so; else what this one saw of it."""
        assert self.store is not None
        until = time.monotonic() + REASON_WITHIN_S
        try:
            while not self.store.check([_REASON]) and time.monotonic() < until:
                time.sleep(0.05)
            reason = json.loads(self.store.get(_REASON)) if self.store.check([_REASON]) else None
        except RuntimeError:
            reason = None
        if reason is None:
            seen = str(error or "").partition("\n")[0]
            return TeamError("a process that shares the work has ended without a message", value=seen)
        if reason["what"] is None:
            return KeyboardInterrupt()
        return TeamError(
            f"in process {reason['rank'] + 1} of {self.size}: {reason['what']}",
            value=reason["value"],
            way_out=reason["way_out"],
        )


ALONE = Team()


class _Company:
    """A thread that meets those of the other processes, again and again while any of them is at work.

    So each meeting is soon over, and ends with an error where a process is gone.

    Args:
        channel: Of the team.

    Attributes:
        heard: The greatest of what all said last.
        error: Of a meeting that came to nothing.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.heard = _AT_WORK
        self.error: RuntimeError | None = None
        self._says = _AT_WORK
        self._news = threading.Event()
        self._thread = threading.Thread(target=self._meet, name="labelloop-team", daemon=True)
        self._thread.start()

    def say(self, what: int) -> None:
        """What the others hear from now on."""
        self._says = what
        self._news.set()

    def end(self, within_s: float | None = None) -> None:
        """Waits for the last meeting."""
        self._thread.join(within_s)

    def _meet(self) -> None:
        try:
            while self.heard == _AT_WORK:
                self._news.wait(MEET_EVERY_S)  # who has nothing new waits for the others in the meeting
                self.heard = self._channel.greatest(self._says)
        except RuntimeError as error:
            self.error = error


def _as_reason(rank: int, error: BaseException) -> dict[str, object]:
    if isinstance(error, KeyboardInterrupt):
        return {"rank": rank, "what": None, "value": "", "way_out": ""}
    if isinstance(error, LabelloopError):
        return {"rank": rank, **error.as_dict()}
    return {"rank": rank, "what": f"a bug, {type(error).__name__}", "value": str(error), "way_out": ""}
