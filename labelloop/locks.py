"""Waiting for a file that another labelloop has locked."""

from __future__ import annotations

import time
from typing import IO

from labelloop.progress import Progress

LOOK_EVERY_S = 0.2


def wait_for_lock(file: IO[str], progress: Progress, message: str) -> None:
    """Locks an open file for this process; the lock ends with it, however it ends.

    Args:
        file: Open for writing.
        progress: Is told once where this has to wait.
        message: What it is told.
    """
    import fcntl  # not on every system, and most commands do without

    told = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not told:
                progress.note(message)
            told = True
            time.sleep(LOOK_EVERY_S)
