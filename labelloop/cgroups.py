"""What a container or a batch job may use of the machine, by Linux's control groups (version 2)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def allowed_memory_gib(root: Path = _ROOT) -> float | None:
    """Memory that this process's control groups leave to it; None where they set no limit.

    Args:
        root: Of the file system with ``proc`` and ``sys``.
    """
    left = []
    for group in _groups(root):
        most, used = _read(group / "memory.max"), _read(group / "memory.current")
        if most.isdigit() and used.isdigit():
            counts = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            reclaimable = int(counts.get("inactive_file", 0))  # files can be read again
            left.append(int(most) - int(used) + reclaimable)
    return max(min(left), 0) / 2**30 if left else None


def allowed_cores(root: Path = _ROOT) -> float | None:
    """Cores whose time this process's control groups leave to it; None where they set no limit.

    Args:
        root: Of the file system with ``proc`` and ``sys``.
    """
    quotas = [_read(group / "cpu.max").split() for group in _groups(root)]
    cores = [int(quota[0]) / int(quota[1]) for quota in quotas if len(quota) == 2 and quota[0].isdigit()]
    return min(cores, default=None)


def usable_cores(root: Path = _ROOT) -> int:
    """Cores to plan with: those this process is bound to (taskset, SLURM), or fewer where groups say so.

    Args:
        root: Of the file system with ``proc`` and ``sys``.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = allowed_cores(root)
    return bound if allowed is None else min(bound, max(round(allowed), 1))


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's group and of those around it."""
    top = root / "sys" / "fs" / "cgroup"
    lines = _read(root / "proc" / "self" / "cgroup").splitlines()
    inside = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if inside is None:
        return
    group = top / inside.strip("/")
    yield group
    yield from (folder for folder in group.parents if folder.is_relative_to(top))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
