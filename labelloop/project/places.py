"""Where files lie, whatever links lead there."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path


class Places:
    """The real path of a file's folder with the file's own name; each folder is looked up once.

    Paths by different links to a folder are one place. A link to a file is a file of its own.
    """

    def __init__(self) -> None:
        self._real: Callable[[str], str] = cache(os.path.realpath)

    def of(self, path: Path) -> str:
        """The place of this file, there or not."""
        folder, name = os.path.split(path)
        return os.path.join(self._real(folder), name)

    def of_folder(self, folder: Path | str) -> str:
        """The real path of this folder, there or not."""
        return self._real(str(folder))
