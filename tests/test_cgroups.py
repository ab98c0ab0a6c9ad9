"""What control groups leave to a process, from files as Linux writes them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from labelloop.cgroups import allowed_cores, allowed_memory_gib, usable_cores

ROOT = Path(__file__).parent.parent


def write(root: Path, group: str, files: dict[str, str]) -> None:
    proc = root / "proc" / "self" / "cgroup"
    proc.parent.mkdir(parents=True, exist_ok=True)
    proc.write_text("0::/job/step\n")
    folder = root / "sys" / "fs" / "cgroup" / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")


def test_the_narrowest_of_the_groups_around_a_process_counts(tmp_path: Path) -> None:
    write(tmp_path, "job/step", {"memory.max": "max", "memory.current": "5", "cpu.max": "max 100000"})
    assert (allowed_memory_gib(tmp_path), allowed_cores(tmp_path)) == (None, None)
    gib = 2**30
    used = {"memory.current": f"{2 * gib}", "memory.stat": f"anon {gib}\ninactive_file {gib}"}
    write(tmp_path, "job", {"memory.max": f"{4 * gib}", "cpu.max": "150000 100000", **used})
    write(tmp_path, "", {"cpu.max": "800000 100000"})
    assert (allowed_memory_gib(tmp_path), allowed_cores(tmp_path)) == (3.0, 1.5)


@pytest.mark.parametrize("text", ["", "4:memory:/job\n"])
def test_without_groups_of_version_2_nothing_is_said(tmp_path: Path, text: str) -> None:
    write(tmp_path, "job/step", {"memory.max": "1", "memory.current": "0"})
    (tmp_path / "proc" / "self" / "cgroup").write_text(text)
    assert allowed_memory_gib(tmp_path) is None
    assert allowed_cores(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds to a core, as taskset does")
def test_of_the_cores_a_process_is_bound_to_those_count_that_its_groups_leave_it(tmp_path: Path) -> None:
    bound = os.sched_getaffinity(0)
    assert usable_cores(tmp_path) == len(bound)
    write(tmp_path, "job", {"cpu.max": f"{100000 * len(bound) + 200000} 100000"})
    assert usable_cores(tmp_path) == len(bound)
    write(tmp_path, "job", {"cpu.max": "30000 100000"})
    assert usable_cores(tmp_path) == 1
    try:
        os.sched_setaffinity(0, {min(bound)})
        assert usable_cores(tmp_path / "no groups") == 1
    finally:
        os.sched_setaffinity(0, bound)


def test_nothing_else_counts_the_cores_of_the_machine() -> None:
    counting = {
        path.name
        for folder in ("labelloop", "cli", "integrations")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"cpu_count|sched_getaffinity", path.read_text(encoding="utf-8"))
    }
    assert counting == {"cgroups.py"}
