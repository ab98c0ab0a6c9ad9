"""Teams of two processes: what they tell each other, and what the leader says when the other one fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from labelloop.channel import PATIENCE, own_gpu
from labelloop.errors import TeamError, UsageError
from labelloop.processes import outside_place, started
from labelloop.team import ALONE, Team


def pair(tmp_path: Path, others_part: str, *, patience: timedelta = PATIENCE):
    code = f"""
        import datetime
        import os
        import torch
        from labelloop import team
        from labelloop.errors import ImageError, UsageError
        from labelloop.processes import take_part
        team.PATIENCE = {patience!r}
        with take_part(device_type="cpu") as team:
    """
    program = textwrap.dedent(code) + textwrap.indent(textwrap.dedent(others_part), "    ")
    return started(["-c", program], size=2, device_type="cpu", logs=tmp_path, way_out="Go on.")


def test_what_is_told_gathered_voted_added_and_copied_is_the_same_in_both(tmp_path):
    others = """
        seen = [team.tell(None), team.gather("other"), team.any(True), list(team.share("abc"))]
        numbers = torch.tensor([1.0, 2.0])
        team.add(numbers)
        copied = torch.zeros(2, 3)[:, 1:]
        team.copy_leader([copied])
        team.gather((*seen, numbers.tolist(), copied.tolist()))
        team.wait()
    """
    with pair(tmp_path, others) as team:
        ours = [team.tell("told"), team.gather("leader"), team.any(False), list(team.share("abc"))]
        numbers = torch.tensor([10.0, 20.0])
        team.add(numbers)
        team.copy_leader([torch.ones(2, 3)[:, 1:]])
        _, theirs = team.gather(None)
        team.wait()
    assert ours == ["told", ["leader", "other"], True, ["a", "c"]]
    assert theirs == ("told", ["leader", "other"], True, ["b"], [11.0, 22.0], [[1.0, 1.0], [1.0, 1.0]])
    assert list(tmp_path.iterdir()) == []


def test_the_leader_says_what_went_wrong_in_the_other_process(tmp_path):
    others = """
        import sys
        try:
            raise ImageError("the file is torn", value="a.tif", way_out="Copy it again.")
        except ImageError as error:
            team.fail(error)
            sys.exit(1)
    """
    with pytest.raises(TeamError, match="the file is torn") as caught, pair(tmp_path, others) as team:
        team.gather("here")
    assert str(caught.value) == "in process 2 of 2: the file is torn: a.tif. Copy it again."


def test_a_bug_in_the_other_process_keeps_its_traceback(tmp_path):
    with pytest.raises(TeamError, match="process 2 of 2: a bug, ZeroDivisionError") as caught:
        with pair(tmp_path, "1 / 0") as team:
            team.wait()
    log = tmp_path / "process-2.log"
    assert str(log) in caught.value.value
    assert "ZeroDivisionError" in log.read_text()
    assert caught.value.way_out == "Go on."


def test_a_team_that_did_not_come_together_says_so_and_the_next_one_does(tmp_path, monkeypatch):
    def closed(*_: object, **__: object) -> None:
        raise RuntimeError("Gloo connectFullMesh failed: Connection closed by peer\nat ...")

    monkeypatch.setattr("labelloop.channel.PATIENCE", timedelta(seconds=20))
    with monkeypatch.context() as broken:
        broken.setattr("torch.distributed.distributed_c10d.ProcessGroupGloo", closed)
        with pytest.raises(TeamError, match="ended without a message") as caught:
            with pair(tmp_path, "team.wait()"):
                pass
    assert caught.value.value.startswith("Gloo connectFullMesh failed: Connection closed by peer")
    with pair(tmp_path, "team.gather('other')") as team:
        assert team.gather("leader") == ["leader", "other"]


def test_what_stops_one_process_before_the_work_begins_is_said_by_all(tmp_path):
    others = """
        fault = UsageError("there is no GPU left", value="3 GPUs", way_out="Start fewer.")
        try:
            team.agree(fault)
        except UsageError as error:
            team.gather(str(error))
    """
    with pair(tmp_path, others) as team:
        with pytest.raises(UsageError, match="there is no GPU left") as caught:
            team.agree(None)
        _, theirs = team.gather(None)
    assert (caught.value.value, caught.value.way_out) == ("3 GPUs", "Start fewer.")
    assert theirs == str(caught.value)
    ALONE.agree(None)


def test_each_process_of_a_machine_has_a_gpu_of_its_own_or_is_shown_one_alone():
    assert [own_gpu(place, 4) for place in range(4)] == [0, 1, 2, 3]
    assert [own_gpu(place, 1) for place in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize(("place", "gpus"), [(2, 2), (7, 4), (0, 0)])
def test_more_processes_than_gpus_on_a_machine_are_refused(place, gpus):
    with pytest.raises(UsageError, match="more processes on a machine than GPUs") as caught:
        own_gpu(place, gpus)
    assert caught.value.value == f"process {place + 1}, {gpus} GPUs"
    assert "--device cpu" in caught.value.way_out


def test_a_process_that_does_not_start_is_not_waited_for(tmp_path):
    with (
        pytest.raises(TeamError, match="did not start") as caught,
        started(["-c", "nonsense"], size=2, device_type="cpu", logs=tmp_path, way_out="Go on."),
    ):
        pass
    log = tmp_path / "process-2.log"
    assert str(log) in caught.value.value
    assert "NameError" in log.read_text()


def test_who_has_ended_its_part_waits_for_the_others_longer_than_for_an_answer(tmp_path, monkeypatch):
    others = """
        import time
        with team.apart():
            time.sleep(12)
        team.gather("other")
    """
    patience = timedelta(seconds=6)
    monkeypatch.setattr("labelloop.channel.PATIENCE", patience)
    with pair(tmp_path, others, patience=patience) as team:
        began = time.monotonic()
        with team.apart():
            pass
        assert time.monotonic() - began > 10
        assert team.gather("leader") == ["leader", "other"]


def test_who_waits_for_a_process_that_is_killed_at_work_says_so_soon(tmp_path):
    others = """
        import os, signal, time
        with team.apart():
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    began = time.monotonic()
    with pytest.raises(TeamError, match="signal 9"), pair(tmp_path, others) as team, team.apart():
        began = time.monotonic()
    assert time.monotonic() - began < 60


def test_who_waits_is_told_why_another_one_fails_at_work(tmp_path):
    others = """
        with team.apart():
            raise ImageError("the file is torn", value="a.tif", way_out="Copy it again.")
    """
    with pytest.raises(TeamError, match=r"the file is torn: a\.tif"), pair(tmp_path, others) as team:
        with team.apart():
            pass


def test_who_waits_can_be_interrupted(tmp_path):
    others = """
        import time
        with team.apart():
            time.sleep(300)
    """
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), pair(tmp_path, others) as team, team.apart():
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert time.monotonic() - began < 100


ANOTHER_TEAM = """
import sys
from pathlib import Path
from labelloop.processes import started
with started(["-c", "pass"], size=2, device_type="cpu", logs=Path(sys.argv[1]), way_out=""):
    pass
"""


def test_another_team_with_the_same_folder_of_logs_takes_no_log_away(tmp_path):
    command = [sys.executable, "-c", ANOTHER_TEAM, str(tmp_path)]
    with pytest.raises(TeamError, match="ZeroDivisionError") as caught:  # noqa: PT012
        with pair(tmp_path, "print('at work', flush=True); team.wait(); 1 / 0") as team:
            another = subprocess.run(command, capture_output=True, text=True)
            team.wait()
            team.wait()
    assert "did not start" in another.stderr
    log = tmp_path / "process-2.log"
    assert str(log) in caught.value.value
    assert log.read_text().startswith("at work")
    assert list(tmp_path.iterdir()) == [log]


def test_one_process_alone_talks_to_itself():
    assert (ALONE.tell(1), ALONE.gather(1), ALONE.any(True), ALONE.share([1, 2])) == (1, [1], True, [1, 2])
    assert ALONE.leads
    assert not Team(rank=1, size=2).leads


SLURM = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_JOB_ID": "1234567",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


def test_two_steps_of_one_job_do_not_meet_each_other():
    places = [
        outside_place({**SLURM, "SLURM_JOB_ID": job, "SLURM_STEP_ID": step})
        for job in ("1234567", "1234568")
        for step in ("0", "1", "2")
    ]
    assert len({place.meeting for place in places}) == len(places)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux says who listens")
def test_nobody_outside_of_this_machine_reaches_the_meeting(tmp_path):
    with pair(tmp_path, "team.gather(os.environ['LABELLOOP_TEAM'])") as team:
        port = int(team.gather(None)[1].split()[0])
        lines = [
            line.split()
            for file in ("tcp", "tcp6")
            for line in Path("/proc/net", file).read_text().splitlines()[1:]
            if line.split()[3] == "0A"  # it listens
        ]
    hosts = {
        host for host, _, number in (fields[1].partition(":") for fields in lines) if int(number, 16) == port
    }
    assert hosts == {"0100007F"}


def test_what_lies_in_the_current_folder_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    with pair(tmp_path, "team.gather('other')") as team:
        assert team.gather("leader") == ["leader", "other"]


def test_the_place_is_what_the_launcher_says():
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    found = outside_place(torchrun)
    assert (found.rank, found.size, found.local_rank, found.meeting) == (5, 8, 1, "env://")
    found = outside_place(SLURM)
    assert (found.rank, found.size, found.local_rank) == (3, 4, 1)
    assert found.meeting == "tcp://node07:19567?rank=3&world_size=4"


@pytest.mark.parametrize(
    "environment",
    [{}, {"RANK": "0", "WORLD_SIZE": "1"}, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}],
    ids=["nothing", "torchrun with one process", "a batch script of SLURM"],
)
def test_who_is_not_launched_with_others_is_alone(environment):
    assert outside_place(environment) is None
