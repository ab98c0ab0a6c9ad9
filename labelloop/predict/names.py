"""Names for images and their outputs: equal names in different folders never meet in one output file."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath


def unique_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Names of images, made unique by as many of their folders as that takes.

    Args:
        names: What each image is called, with ``/`` between folders.
        paths: Where each image lies, absolute; an image that is there twice gets a number.
    """
    unique = [PurePosixPath(name) for name in names]
    while True:
        counts = Counter(unique)
        longer = [
            _with_next_folder(name, path) if counts[name] > 1 else name
            for name, path in zip(unique, paths, strict=True)
        ]
        if longer == unique:
            return _numbered([str(name) for name in unique], by_file_system=False)
        unique = longer


def output_stems(names: Sequence[str]) -> list[str]:
    """Where the outputs of images go: their names without the suffix, with it where two would be one file.

    Names that differ only in case or Unicode form are one file to some file systems and are told apart too.

    Args:
        names: Unique names of images, with ``/`` between folders.
    """
    full = [_safe(name) for name in names]
    stems = [_safe(str(PurePosixPath(name).with_suffix(""))) for name in full]
    counts = Counter(_as_file_system(stem) for stem in stems)
    chosen = [
        name if counts[_as_file_system(stem)] > 1 else stem for name, stem in zip(full, stems, strict=True)
    ]
    return _numbered(chosen, by_file_system=True)


def _with_next_folder(name: PurePosixPath, path: Path) -> PurePosixPath:
    """The name with one more folder of the path before it; itself where there is none or no folder fits."""
    parts = path.parts[1:]
    depth = len(name.parts)
    if parts[-depth:] != name.parts:
        return PurePosixPath(*parts) if len(parts) > depth else name
    return PurePosixPath(*parts[-depth - 1 :])


def _numbered(names: list[str], *, by_file_system: bool) -> list[str]:
    """Adds -2, -3 ... before the suffix of names that are taken."""
    taken: set[str] = set()
    unique: list[str] = []
    for name in names:
        candidate, number = name, 1
        while (_as_file_system(candidate) if by_file_system else candidate) in taken:
            number += 1
            pure = PurePosixPath(name)
            candidate = str(pure.with_name(f"{pure.stem}-{number}{pure.suffix}"))
        taken.add(_as_file_system(candidate) if by_file_system else candidate)
        unique.append(candidate)
    return unique


def _safe(name: str) -> str:
    """The name as a path that stays below the output folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(part.replace(":", "_") for part in parts) or "image"


def _as_file_system(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
