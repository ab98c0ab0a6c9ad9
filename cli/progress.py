"""Progress on stderr: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from labelloop.cli.output import format_seconds, to_stderr
from labelloop.progress import Progress

PLAIN_EVERY_S = 20.0  # a log stays short and still shows life


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A Progress for one command; whatever happens, the terminal is left in order."""
    console = to_stderr()
    live = console.is_terminal and not console.is_dumb_terminal  # what cannot move its cursor gets lines
    progress: Progress = LiveProgress(console) if live else PlainProgress(console)
    try:
        yield progress
    finally:
        progress.finish()


class LiveProgress:
    """A bar per stage with facts, elapsed time and time left; finished stages stay on the screen.

    Args:
        console: A terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None
        self._task = TaskID(0)

    def start(self, stage: str, total: int) -> None:
        """A stage begins; its steps are unknown where ``total`` is 0."""
        self.finish()
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            # The only column that folds where a terminal is narrow.
            TextColumn("{task.fields[facts]}", markup=False, table_column=Column(no_wrap=False)),
            console=self._console,
        )
        self._task = self._bars.add_task(stage, total=total or None, facts="")
        self._bars.start()

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        """Moves the bar and shows the newest facts."""
        if self._bars is None:
            return
        self._bars.advance(self._task, steps)
        if facts:
            self._bars.update(self._task, facts=format_facts(facts))

    def note(self, message: str) -> None:
        """A line above the bar."""
        self._console.print(Text(message), soft_wrap=True)

    def finish(self) -> None:
        """Leaves the bar as it is and the cursor below it."""
        if self._bars is not None:
            (task,) = self._bars.tasks
            if task.total is None:  # now it is known
                self._bars.update(self._task, total=task.completed)
            self._bars.stop()
            self._bars = None


class PlainProgress:
    """A line when a stage begins, every ``every_s`` seconds, and when it ends.

    Args:
        console: Any stream.
        every_s: Seconds between lines.
    """

    def __init__(self, console: Console, *, every_s: float = PLAIN_EVERY_S) -> None:
        self._console = console
        self._every_s = every_s
        self._stage: str | None = None
        self._total = self._done = 0
        self._facts: Mapping[str, float | str] = {}
        self._started = self._printed = 0.0

    def start(self, stage: str, total: int) -> None:
        """A stage begins; its steps are unknown where ``total`` is 0."""
        self.finish()
        self._stage, self._total, self._done, self._facts = stage, total, 0, {}
        self._started = self._printed = time.monotonic()

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        """Counts, and prints a line where the last one is old enough."""
        self._done += steps
        self._facts = facts or self._facts
        now = time.monotonic()
        if self._stage is not None and now - self._printed >= self._every_s:
            self._printed = now
            elapsed = now - self._started
            left = ""
            if self._total > self._done > 0:
                left = f", {format_seconds(elapsed * (self._total - self._done) / self._done)} left"
            self.note(f"{self._counted()}, {format_seconds(elapsed)}{left}")

    def note(self, message: str) -> None:
        """A line of its own."""
        self._console.print(Text(message), soft_wrap=True)

    def finish(self) -> None:
        """The closing line of the stage."""
        if self._stage is not None:
            self.note(f"{self._counted()}, {format_seconds(time.monotonic() - self._started)}")
            self._stage = None

    def _counted(self) -> str:
        total = f"/{self._total}" if self._total else ""
        facts = format_facts(self._facts)
        return f"{self._stage}: {self._done}{total}{'  ' + facts if facts else ''}"


def format_facts(facts: Mapping[str, float | str]) -> str:
    """``loss 0.412  pseudo 21.5``."""
    return "  ".join(
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else format(value, '.4g')}"
        for name, value in facts.items()
    )
