"""Who starts the processes of a team: a launcher outside (torchrun, SLURM's srun), or labelloop itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed.rendezvous import rendezvous

from labelloop.cgroups import usable_cores
from labelloop.channel import PATIENCE, member
from labelloop.errors import LabelloopError, TeamError, UsageError
from labelloop.team import REASON_WITHIN_S, Team

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store, TCPStore

LOOK_EVERY_S = 0.2
INTERRUPTED = 130
_SLURM_PORTS = 15000  # and the last four digits of the job for its first step: what Lightning takes too


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a launcher has put this process.

    Attributes:
        rank: Among all processes.
        size: How many there are; 2 or more.
        local_rank: Among those of its machine.
        meeting: Where they find each other, as ``torch.distributed.rendezvous`` takes it.
    """

    rank: int
    size: int
    local_rank: int
    meeting: str


def outside_place(environment: Mapping[str, str]) -> Place | None:
    """What torchrun (``fabric run`` too) or srun says of this process; None where it is alone.

    A batch script of SLURM is alone, however many tasks its job has: only srun starts them all.
    """
    if "RANK" in environment and int(environment.get("WORLD_SIZE", "1")) > 1:
        return Place(
            rank=int(environment["RANK"]),
            size=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
            meeting="env://",
        )
    size = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if size == 1:
        return None
    nodes = environment.get("SLURM_STEP_NODELIST", environment.get("SLURM_NODELIST", "127.0.0.1"))
    host = environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    job, step = environment.get("SLURM_JOB_ID", "0"), environment.get("SLURM_STEP_ID", "0")
    # Several steps of a job may run at once, and jobs with the next numbers on the same machine.
    own = int(job[-4:]) if step == "0" else zlib.crc32(f"{job}.{step}".encode()) % 10_000
    port = environment.get("MASTER_PORT") or _SLURM_PORTS + own
    rank = int(environment["SLURM_PROCID"])
    return Place(
        rank=rank,
        size=size,
        local_rank=int(environment["SLURM_LOCALID"]),
        meeting=f"tcp://{host}:{port}?rank={rank}&world_size={size}",
    )


@contextmanager
def placed(place: Place, *, device_type: str) -> Iterator[Team]:
    """This process in the team that a launcher has started; all but the first end here.

    Of an error or an interruption the first process speaks; the others leave with its exit code.

    Raises:
        SystemExit: In all processes but the first one, when the block is over.
    """
    try:
        with ExitStack() as stack:
            try:
                store, _, _ = next(rendezvous(place.meeting, timeout=PATIENCE))
                team = stack.enter_context(
                    member(
                        store,
                        rank=place.rank,
                        size=place.size,
                        local_rank=place.local_rank,
                        device_type=device_type,
                    )
                )
            except RuntimeError as error:
                raise TeamError(
                    "the processes cannot find each other",
                    value=f"process {place.rank + 1} of {place.size}, {str(error).splitlines()[0]}",
                    way_out="Start all of them at once, on machines that reach each other.",
                ) from error
            yield team
    except LabelloopError as error:
        if place.rank > 0:
            raise SystemExit(2 if isinstance(error, UsageError) else 1) from error
        raise
    except KeyboardInterrupt as error:
        if place.rank > 0:
            raise SystemExit(INTERRUPTED) from error
        raise
    if place.rank > 0:
        raise SystemExit(0)


def _store(size: int) -> TCPStore:
    """Where the processes of this machine meet; no other machine reaches it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        host, port = listening.getsockname()
        store: TCPStore = dist.TCPStore(  # type: ignore[attr-defined]
            host,
            port,
            size,
            is_master=True,
            wait_for_workers=False,
            timeout=PATIENCE,
            master_listen_fd=listening.fileno(),
        )
        listening.detach()  # it is the store's now
    return store


@contextmanager
def started(
    arguments: Sequence[str], *, size: int, device_type: str, logs: Path, way_out: str
) -> Iterator[Team]:
    """Starts the other processes of a team on this machine and leads them; they end with the block.

    Args:
        arguments: Of Python: ``-m``, a module that calls ``take_part``, and what it needs.
        size: Processes, this one included.
        device_type: cpu or cuda.
        logs: Folder of what they say; a log stays only where its process failed.
        way_out: Of the error where one of them ends without a message.

    Raises:
        TeamError: One of them failed.
    """
    store = _store(size)
    threads = str(max(usable_cores() // size, 1))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, "LABELLOOP_TEAM": f"{store.port} {size}"}
    others: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(1, size):
            with _log(logs, rank, os.getpid()).open("wb") as log:
                others.append(
                    subprocess.Popen(
                        [sys.executable, "-P", *arguments],  # what lies in the current folder is not ours
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env={**environment, "LOCAL_RANK": str(rank)},
                        start_new_session=True,  # an interruption is told by this process
                    )
                )
        with threads_for(size, device_type=device_type):
            _await(store, others)
            with member(store, rank=0, size=size, local_rank=0, device_type=device_type) as team:
                yield team
    except TeamError as error:
        how = _said(others, logs)
        raise TeamError(
            error.what,
            value=" ".join(part for part in (error.value, how and f"({how})") if part),
            way_out=error.way_out or way_out,
        ) from error
    finally:
        for process in others:
            process.kill()  # nothing is lost: only this process writes
        for rank, process in enumerate(others, 1):
            process.wait()
            said = _log(logs, rank, os.getpid())
            if process.returncode > 0 and _says(said):
                said.replace(_log(logs, rank))
            else:
                said.unlink(missing_ok=True)


@contextmanager
def take_part(*, device_type: str) -> Iterator[Team]:
    """A process that ``started`` has started, as a member of its team; it ends when the leader does."""
    port, size = os.environ["LABELLOOP_TEAM"].split()
    rank = int(os.environ["LOCAL_RANK"])
    _leave_with(os.getppid())
    store: Store = dist.TCPStore("127.0.0.1", int(port), int(size), timeout=PATIENCE)  # type: ignore[attr-defined]
    store.set(f"here/{rank}", "")
    with member(store, rank=rank, size=int(size), local_rank=rank, device_type=device_type) as team:
        yield team


@contextmanager
def threads_for(size: int, *, device_type: str) -> Iterator[None]:
    """Computes on a share of the cores, as each of so many processes on CPUs should."""
    before = torch.get_num_threads()
    if device_type == "cpu" and size > 1:
        torch.set_num_threads(min(max(usable_cores() // size, 1), before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _log(logs: Path, rank: int, leader: int | None = None) -> Path:
    """Of a process that has failed; until then with a leader's name, as others may have the same folder."""
    return logs / (f"process-{rank + 1}.log" if leader is None else f".process-{rank + 1}-{leader}.log")


def _says(log: Path) -> bool:
    try:
        return log.stat().st_size > 0
    except FileNotFoundError:  # a person may clear the folder
        return False


def _await(store: Store, others: Sequence[subprocess.Popen[bytes]]) -> None:
    """Until every process is there.

    Raises:
        TeamError: One has ended before.
    """
    while not store.check([f"here/{rank}" for rank in range(1, len(others) + 1)]):
        if any(process.poll() is not None for process in others):
            raise TeamError("a process that shares the work did not start")
        time.sleep(LOOK_EVERY_S)


def _said(others: Sequence[subprocess.Popen[bytes]], logs: Path) -> str:
    """How the first process that failed ended: where its traceback is, or the signal that ended it."""
    until = time.monotonic() + REASON_WITHIN_S
    while all(process.poll() is None for process in others) and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)
    for rank, process in enumerate(others, 1):
        if process.returncode is not None and process.returncode < 0:
            return f"process {rank + 1} of {len(others) + 1}, signal {-process.returncode}"
        if process.returncode and _says(_log(logs, rank, os.getpid())):
            return f"see {_log(logs, rank)}"
    return ""


def _leave_with(parent: int) -> None:
    """Ends this process when the one that started it is gone, however it ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
