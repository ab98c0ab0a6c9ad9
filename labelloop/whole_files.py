"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write in place of ``path``: it takes that name when the block ends well, else it goes.

    Whoever reads ``path`` sees the old file or the new one.

    Args:
        path: What is to be written; its folder is there.

    Yields:
        Where to write it.

    Raises:
        OSError: The disk is full, the folder cannot be written, or the like.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
