"""Where files lie, whatever links lead there."""

from __future__ import annotations

import os
from pathlib import Path


class Places:
    """The real path of a file's folder with the file's own name; each folder is looked up once.

    Paths by different links to a folder are one place. A link to a file is a file of its own.
    """

    def __init__(self) -> None:
        self._real: dict[str, str] = {}  # by folder as it is named

    def of(self, path: Path) -> str:
        """The place of this file, there or not."""
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return os.path.join(self._real[folder], name)
