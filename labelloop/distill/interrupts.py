"""Ctrl-C and SIGTERM between steps, never inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_held() -> Iterator[Callable[[], bool]]:
    """Holds back the first Ctrl-C (and SIGTERM); gives a function that says whether one came.

    Whoever asks finishes the step, stores it and raises KeyboardInterrupt. A second Ctrl-C is not held back.
    Outside the main thread nothing is held back, since only that thread receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = threading.Event()

    def hold(number: int, frame: FrameType | None) -> None:
        if came.is_set():
            raise KeyboardInterrupt
        came.set()

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_say(way_out: str) -> Iterator[None]:
    """Gives an interrupt inside the block the sentence that tells how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(way_out) from interrupt
