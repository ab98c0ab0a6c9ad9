"""Lanes in processes of their own: as many at once as there are processors, one thread each.

``python -m labelloop.simulation.lane_process FOLDER SOURCE SEED [STRATEGY]`` is one of them; without a
strategy it makes the start that the lanes of a seed share.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from labelloop.budget.strategies import Budget, Strategy
from labelloop.errors import LabelloopError, ProjectError
from labelloop.progress import Progress, Silent
from labelloop.project.project import Project
from labelloop.simulation.lane import LaneSettings, read_points, run_lane, start_lane

SETTINGS = "settings.json"
LOOK_EVERY_S = 1.0
INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Job:
    """One process.

    Attributes:
        folder: Of the simulation.
        source: Of the project that holds the truth.
        strategy: Of the lane; None for the start that the lanes of a seed share.
        seed: Of the lane.
    """

    folder: Path
    source: Path
    strategy: Strategy | None
    seed: int

    @property
    def place(self) -> Path:
        """The folder of its scratch project."""
        return self.folder / f"seed-{self.seed}" / (self.strategy or "start")

    @property
    def log(self) -> Path:
        """What the process prints."""
        return self.folder / f"seed-{self.seed}" / f"{self.strategy or 'start'}.log"

    def done(self) -> int:
        """Trainings that are finished; the start's is not a lane's."""
        points = len(read_points(self.place))
        return points if self.strategy is None else max(points - 1, 0)


def run_jobs(jobs: Sequence[Job], at_once: int, rounds: int, progress: Progress) -> None:
    """Runs what is not finished yet.

    Args:
        jobs: Each writes into its own folder.
        at_once: Processes at the same time.
        rounds: Of a lane.
        progress: Told of every training that is finished, those of earlier calls at once.

    Raises:
        ProjectError: A process failed; what it printed is in its log.
        KeyboardInterrupt: Passed on to the processes first, which store where they are.
    """
    waiting = list(jobs)
    running: dict[Job, subprocess.Popen[bytes]] = {}
    told = 0
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                if job.done() < (1 if job.strategy is None else rounds):
                    running[job] = _start(job)
            for job, process in list(running.items()):
                code = process.poll()
                if code is not None:
                    del running[job]
                    if code != 0:
                        raise _failed(job)
            told = _tell(jobs, told, progress)
            if running:
                time.sleep(LOOK_EVERY_S)
    finally:
        _stop(list(running.values()))


def _tell(jobs: Sequence[Job], told: int, progress: Progress) -> int:
    done = sum(job.done() for job in jobs)
    if done > told:
        progress.advance(done - told)
    return max(done, told)


def _start(job: Job) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", __name__, str(job.folder), str(job.source), str(job.seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [*command, *([job.strategy] if job.strategy else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # an interruption is passed on once, by us
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait()


def _failed(job: Job) -> ProjectError:
    lines = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = lines[-1].removeprefix("error: ") if lines else "it printed nothing"
    return ProjectError(
        f"a lane of the simulation failed: {said}",
        value=job.log,
        way_out="The same command continues where it stopped.",
    )


def settings_to_json(settings: LaneSettings) -> dict[str, Any]:
    """For the lanes' processes."""
    return {**asdict(settings), "start": {str(seed): list(ids) for seed, ids in settings.start.items()}}


def settings_from_json(document: Mapping[str, Any]) -> LaneSettings:
    """The inverse of ``settings_to_json``."""
    fields = dict(document)
    fields["budget"] = Budget(**fields["budget"])
    fields["start"] = {int(seed): tuple(ids) for seed, ids in fields["start"].items()}
    return LaneSettings(**fields)


class LogProgress(Silent):
    """Progress as lines of a log: stages and notes."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        print(f"{stage} ({total})", flush=True)

    def note(self, message: str) -> None:
        """A sentence."""
        print(message, flush=True)


def main(arguments: Sequence[str]) -> int:
    """One lane or start; its exit code."""
    folder, source, seed = Path(arguments[0]), Project.open(Path(arguments[1])), int(arguments[2])
    settings = settings_from_json(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    strategy = cast("Strategy | None", arguments[3] if len(arguments) > 3 else None)
    job = Job(folder=folder, source=source.root, strategy=strategy, seed=seed)
    start = Job(folder=folder, source=source.root, strategy=None, seed=seed)
    progress = LogProgress()
    # A script's shell has what is in the background ignore this signal, and processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _leave_with_parent()
    try:
        if strategy is None:
            start_lane(source, job.place, settings, seed, progress)
        else:
            run_lane(
                source, start.place, job.place, settings, strategy=strategy, seed=seed, progress=progress
            )
    except LabelloopError as error:
        print(f"error: {error}", flush=True)
        return 1
    except KeyboardInterrupt as interrupt:
        print(f"interrupted. {interrupt}", flush=True)
        return INTERRUPTED
    return 0


def _leave_with_parent() -> None:
    """Stops as if interrupted when the process that started this one is gone, however it ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
