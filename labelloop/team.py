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
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from labelloop.errors import LabelloopError, TeamError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # with a process that does not answer; the first one may measure for a while
REASON_WITHIN_S = 5.0  # a process that fails says why before its connections close
MEET_EVERY_S = 0.5  # processes that work apart
_REASON = "reason"
_DONE, _AT_WORK, _FAILED = range(3)  # of several processes the greatest counts


@dataclass(frozen=True, kw_only=True, eq=False)
class Team:
    """The processes that share the work, as one of them sees them.

    Attributes:
        rank: Which one this is; the first one, 0, leads: it alone writes files and the ledger.
        size: How many there are.
        local_rank: Which one of its machine.
        store: Where a process that fails leaves the reason; None for one process alone.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Store | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes what all have made."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """The device of this process: of several GPUs each takes its own."""
        if self.size == 1 or device.type != "cuda":
            return device
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """What of a list is this process's; every item is one process's."""
        return items[self.rank :: self.size]

    def tell(self, value: T) -> T:
        """The leader's value, in every process."""
        if self.size == 1:
            return value
        told: list[T] = [value]
        with self._together():
            dist.broadcast_object_list(told, src=0)
        return told[0]

    def gather(self, value: T) -> list[T]:
        """Every process's value, in every process, by rank."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        with self._together():
            dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        votes = torch.tensor([int(flag)])
        with self._together():
            dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes.item())

    def add(self, tensor: Tensor) -> None:
        """Every process's tensor becomes the sum of all."""
        if self.size > 1:
            with self._together():
                dist.all_reduce(tensor, op=dist.ReduceOp.SUM)

    def copy_leader(self, tensors: Sequence[Tensor]) -> None:
        """Every process's tensors become the leader's."""
        if self.size > 1:
            with self._together():
                for tensor in tensors:
                    whole = tensor.detach().contiguous()
                    dist.broadcast(whole, src=0)
                    tensor.detach().copy_(whole)

    def wait(self) -> None:
        """Until every process is here."""
        self.tell(None)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Work that each process does by itself; the block ends when all have ended theirs, however late.

        Nothing is told in the block. That another process has failed, or is gone, is reported at its end.
        """
        if self.size == 1:
            yield
            return
        company = _Company()
        try:
            yield
            company.say(_DONE)
            company.end()
        except BaseException:
            company.say(_FAILED)
            company.end(REASON_WITHIN_S)
            raise
        if company.heard != _DONE:
            raise self._failed() from company.error

    def fail(self, error: BaseException) -> None:
        """Leaves the reason why this process ends; the first reason counts."""
        if self.store is not None and not isinstance(error, TeamError):
            try:
                self.store.compare_set(_REASON, "", json.dumps(_as_reason(self.rank, error)))
            except RuntimeError:
                return  # the leader is gone, and nobody is left to tell

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self._failed() from error

    def _failed(self) -> TeamError | KeyboardInterrupt:
        """Why another process has ended, as far as it could say so."""
        assert self.store is not None
        until = time.monotonic() + REASON_WITHIN_S
        try:
            while not self.store.check([_REASON]) and time.monotonic() < until:
                time.sleep(0.05)
            reason = json.loads(self.store.get(_REASON)) if self.store.check([_REASON]) else None
        except RuntimeError:
            reason = None
        if reason is None:
            return TeamError("a process that shares the work has ended without a message")
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

    Attributes:
        heard: The greatest of what all said last.
        error: Of a meeting that came to nothing.
    """

    def __init__(self) -> None:
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
                said = torch.tensor([self._says])
                dist.all_reduce(said, op=dist.ReduceOp.MAX)
                self.heard = int(said.item())
        except RuntimeError as error:
            self.error = error


@contextmanager
def member(store: Store, *, rank: int, size: int, local_rank: int, device_type: str) -> Iterator[Team]:
    """This process as one of several, for as long as the block runs.

    Args:
        store: Where they find each other.
        rank: Of this process.
        size: Of the team.
        local_rank: Of this process on its machine.
        device_type: cpu or cuda; gradients of GPUs go from GPU to GPU.

    Raises:
        TeamError: Another one ended before they had found each other, or later.
    """
    prefixed = dist.PrefixStore  # type: ignore[attr-defined]
    team = Team(rank=rank, size=size, local_rank=local_rank, store=prefixed("team", store))
    if device_type == "cuda":
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    group = prefixed("group", store)
    with team._together():
        try:
            dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=PATIENCE)
        except RuntimeError:
            # The group's number is part of its keys. torch sets it back only after a group that was whole,
            # and with another number this process would never find the next team it is in.
            dist.distributed_c10d._world.group_count = 0
            raise
    try:
        yield team
    except BaseException as error:  # whatever it is, the others must not wait for this process
        team.fail(error)
        raise
    finally:
        dist.destroy_process_group()


def _as_reason(rank: int, error: BaseException) -> dict[str, object]:
    if isinstance(error, KeyboardInterrupt):
        return {"rank": rank, "what": None, "value": "", "way_out": ""}
    if isinstance(error, LabelloopError):
        return {"rank": rank, **error.as_dict()}
    return {"rank": rank, "what": f"a bug, {type(error).__name__}", "value": str(error), "way_out": ""}
