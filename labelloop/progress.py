"""How long work reports itself: the core calls a Progress, whoever shows it implements one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """What long work tells whoever watches. Calls come from one thread."""

    def start(self, stage: str, total: int) -> None:
        """A stage of ``total`` steps begins; the stage before it is over."""

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        """Steps are done; ``facts`` are worth showing beside the bar (losses, counts)."""

    def note(self, message: str) -> None:
        """One line worth keeping on the screen."""

    def finish(self) -> None:
        """No stage is under way any more."""


class Silent:
    """A Progress that shows nothing."""

    def start(self, stage: str, total: int) -> None:
        """Ignored."""

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        """Ignored."""

    def note(self, message: str) -> None:
        """Ignored."""

    def finish(self) -> None:
        """Ignored."""


class OneOfMany:
    """The Progress of one training, as steps of a stage over several.

    Args:
        bar: Shows the stage over all of them.
        facts: Shown with every step, such as which of them it is.
    """

    def __init__(self, bar: Progress, **facts: str) -> None:
        self._bar, self._facts = bar, facts

    def start(self, stage: str, total: int) -> None:
        """The stage over all of them goes on."""

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        """Steps of this one."""
        self._bar.advance(steps, **self._facts)

    def note(self, message: str) -> None:
        """Passed on."""
        self._bar.note(message)

    def finish(self) -> None:
        """The stage over all of them goes on."""


@contextmanager
def stage(progress: Progress, name: str, total: int) -> Iterator[Progress]:
    """One stage that is finished however its block ends."""
    progress.start(name, total)
    try:
        yield progress
    finally:
        progress.finish()
