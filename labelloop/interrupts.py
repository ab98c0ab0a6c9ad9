"""Ctrl-C, and the signals with which schedulers stop a job: between steps, never inside one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGUSR1)  # of schedulers: they mean what Ctrl-C means


@contextmanager
def stops_interrupt() -> Iterator[None]:
    """Inside the block the signals with which a scheduler stops a job raise KeyboardInterrupt.

    Outside the main thread nothing changes, since only that thread receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_held() -> Iterator[Callable[[], bool]]:
    """Holds back the first Ctrl-C and all ``STOPS``; gives a function that says whether one came.

    Whoever asks finishes the step, stores it and raises KeyboardInterrupt; what came after the last question
    is raised at the end of the block. A second Ctrl-C is not held back; a scheduler may send its signals more
    than once.
    Outside the main thread nothing is held back, since only that thread receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = threading.Event()

    def hold(number: int, frame: FrameType | None) -> None:
        if came.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.set()

    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, *STOPS)}
    try:
        yield came.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came.is_set():
        raise KeyboardInterrupt


@contextmanager
def interrupts_say(way_out: str) -> Iterator[None]:
    """Gives an interrupt inside the block the sentence that tells how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(way_out) from interrupt
