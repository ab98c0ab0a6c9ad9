"""Paths as people type them -> one spelling of each."""

from __future__ import annotations

import os
from pathlib import Path


def plain_path(path: Path) -> Path:
    """The absolute path without ``.`` and ``..``; links stay as they are.

    A ``~`` that stands for a home is replaced by it; in ``~scan.tif`` it is part of the name. A path that is
    told from the project's folder is told from it in one way only, so that a project still finds its images
    after it was moved. Where a link makes ``..`` mean another place, the link is followed.
    """
    absolute = Path(os.path.expanduser(path)).absolute()  # Path.expanduser fails where there is no such user
    plain = Path(os.path.normpath(absolute))
    return plain if plain.resolve() == absolute.resolve() else absolute.resolve()
