from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labelloop.whole_files import partial_of, replacing

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from labelloop.whole_files import replacing
with replacing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["a" * 251 + ".tif", "µ" * 125 + ".png"], ids=["ascii", "two-byte"])
def test_a_name_as_long_as_a_file_can_have_is_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_processes_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    other = "import sys; from pathlib import Path; from labelloop.whole_files import replacing\n"
    other += "with replacing(Path(sys.argv[1])) as partial: partial.write_text('theirs, and longer')"
    with replacing(path) as partial:
        partial.write_text("ours")
        subprocess.run([sys.executable, "-c", other, str(path)], check=True)
        assert path.read_text() == "theirs, and longer"
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_no_result_and_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(path)], check=False)
    assert killed.returncode < 0
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    assert left.suffix == ".partial"
    with replacing(tmp_path / "b.png") as partial:
        partial.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == ["b.png"]


def test_what_a_running_process_or_another_machine_writes_stays(tmp_path: Path) -> None:
    ours = partial_of(tmp_path / "a.png")
    running = ours.with_name(ours.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
    elsewhere = ours.with_name(".0123456789ab-0123456789ab-999999999.partial")
    for file in (running, elsewhere):
        file.write_text("half")
    with replacing(tmp_path / "b.png") as partial:
        partial.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([running, elsewhere, tmp_path / "b.png"])
