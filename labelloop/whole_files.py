"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write in place of ``path``: it takes that name when the block ends well, else it goes.

    Whoever reads ``path`` sees the old file or the new one, also where several processes write it.

    Args:
        path: What is to be written; its folder is there.

    Yields:
        Where to write it.

    Raises:
        OSError: The disk is full, the folder cannot be written, or the like.
    """
    _clear_once(path.parent.absolute())
    partial = partial_of(path)
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def partial_of(path: Path) -> Path:
    """Where this process writes ``path`` before it is whole: hidden, of its own, and short for any name."""
    return path.with_name(f".{_short_hash(os.fsencode(path.name))}-{_machine()}-{os.getpid()}.partial")


@cache
def _clear_once(folder: Path) -> None:
    """Removes what killed processes of this machine have left in a folder; looks once."""
    for left in folder.glob(f".*-{_machine()}-*.partial"):
        process = left.stem.rpartition("-")[2]
        if process.isdecimal() and not _runs(int(process)):
            with suppress(OSError):  # it is in nobody's way
                left.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another person's
        return True
    return True


@cache
def _machine() -> str:
    return _short_hash(os.fsencode(platform.node()))


def _short_hash(name: bytes) -> str:
    return sha256(name).hexdigest()[:12]
