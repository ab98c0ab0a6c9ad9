"""torch.distributed as the channel through which the processes of a team speak, and how one joins it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from labelloop.errors import UsageError
from labelloop.plurals import plural
from labelloop.team import Team

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)  # with a process that does not answer; the first one may measure for a while


class TorchChannel:
    """torch's default group; it implements ``labelloop.team.Channel``."""

    def device(self, device: torch.device, local_rank: int) -> torch.device:
        """The device of a process, of which this is the kind: of several GPUs each takes its own."""
        if device.type != "cuda":
            return device
        return torch.device("cuda", own_gpu(local_rank, torch.cuda.device_count()))

    def tell(self, value: T) -> T:
        """The leader's value."""
        told: list[T] = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def gather(self, value: T, size: int) -> list[T]:
        """The values of so many processes, by rank."""
        values: list[T] = [value] * size
        dist.all_gather_object(values, value)
        return values

    def greatest(self, number: int) -> int:
        """The greatest of all numbers."""
        said = torch.tensor([number])
        dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return int(said.item())

    def add(self, tensor: Tensor) -> None:
        """The tensor becomes the sum of all."""
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)

    def copy_leader(self, tensors: Sequence[Tensor]) -> None:
        """The tensors become the leader's."""
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, src=0)
            tensor.detach().copy_(whole)


def own_gpu(local_rank: int, gpus: int) -> int:
    """Which of the GPUs that a process sees is its own.

    Args:
        local_rank: Of the process on its machine.
        gpus: How many it sees; a launcher may show each process one alone.

    Raises:
        UsageError: Processes before it have taken all.
    """
    if gpus == 1:
        return 0
    if local_rank >= gpus:
        raise UsageError(
            "there are more processes on a machine than GPUs",
            value=f"process {local_rank + 1}, {plural(gpus, 'GPU')}",
            way_out="Start as many on each machine as it has GPUs, or use --device cpu.",
        )
    return local_rank


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
        UsageError: One has no GPU of its own; all say so.
    """
    fault = None
    prefixed = dist.PrefixStore  # type: ignore[attr-defined]
    team = Team(
        rank=rank, size=size, local_rank=local_rank, store=prefixed("team", store), channel=TorchChannel()
    )
    if device_type == "cuda":
        try:
            torch.cuda.set_device(own_gpu(local_rank, torch.cuda.device_count()))
        except UsageError as error:
            fault = error  # said when all have met: for one that stays away the others would wait long
    backend = "cpu:gloo,cuda:nccl" if device_type == "cuda" else "gloo"
    group = prefixed("group", store)
    with team.together():
        try:
            dist.init_process_group(backend, store=group, rank=rank, world_size=size, timeout=PATIENCE)
        except RuntimeError:
            # The group's number is part of its keys. torch sets it back only after a group that was whole,
            # and with another number this process would never find the next team it is in.
            dist.distributed_c10d._world.group_count = 0
            raise
    try:
        if device_type == "cuda":
            team.agree(fault)
        yield team
    except BaseException as error:  # whatever it is, the others must not wait for this process
        team.fail(error)
        raise
    finally:
        dist.destroy_process_group()
