"""Paths as people type them -> one spelling of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path


def plain_path(path: Path) -> Path:
    """The absolute path without ``.`` and ``..``; links stay as they are.

    A ``~`` that stands for a home is replaced by it; in ``~scan.tif`` it is part of the name. A path that is
    told from the project's folder is told from it in one way only, so that a project still finds its images
    after it was moved. Where a link makes ``..`` mean another place, the link is followed.
    """
    return _plain(path, os.path.realpath)


def plain_paths(paths: Iterable[Path]) -> list[Path]:
    """The same of many paths; the links of a folder are followed once, not for each file in it."""
    real = cache(os.path.realpath)
    return [_plain(path, real) for path in paths]


def _plain(path: Path, real: Callable[[str], str]) -> Path:
    absolute = Path(os.path.expanduser(path)).absolute()  # Path.expanduser fails where there is no such user
    if ".." not in absolute.parts:
        return absolute
    folder, name = os.path.split(absolute)
    if name == "..":
        folder, name = str(absolute), ""
    plain_folder = os.path.normpath(folder)
    plain = Path(plain_folder, name)
    if real(folder) == real(plain_folder):
        return plain
    meant, other = (_followed(os.path.join(real(each), name)) for each in (folder, plain_folder))
    return plain if meant == other else Path(meant)


def _followed(path: str) -> str:
    """The real path of what lies in a folder whose path is real."""
    return os.path.realpath(path) if os.path.islink(path) else path
