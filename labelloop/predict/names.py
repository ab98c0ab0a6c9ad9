"""Names for images and their outputs: equal names in different folders never meet in one output file."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence, Set
from pathlib import Path, PurePosixPath


def unique_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Names of images, made unique by as many of their folders as that takes.

    Pages and channels of one file have no folder that tells them apart: they get numbers.

    Args:
        names: What each image is called, with ``/`` between folders.
        paths: Where each image lies, absolute.
    """
    unique = [PurePosixPath(name) for name in names]
    while True:
        files = Counter(name for name, _ in set(zip(unique, paths, strict=True)))
        longer = [
            _with_next_folder(name, path) if files[name] > 1 else name
            for name, path in zip(unique, paths, strict=True)
        ]
        if longer == unique:
            plain = [str(name) for name in unique]
            return _numbered(plain, as_one=str, kept=frozenset(plain))
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
    return _numbered(chosen, as_one=_as_file_system)


def _with_next_folder(name: PurePosixPath, path: Path) -> PurePosixPath:
    """The name with one more folder of the path before it; itself where there is none or no folder fits."""
    parts = path.parts[1:]
    depth = len(name.parts)
    if parts[-depth:] != name.parts:
        return PurePosixPath(*parts) if len(parts) > depth else name
    return PurePosixPath(*parts[-depth - 1 :])


def _numbered(names: list[str], *, as_one: Callable[[str], str], kept: Set[str] = frozenset()) -> list[str]:
    """Adds -2, -3 ... before the suffix of names that are taken; no name that is to be kept is made so."""
    taken: set[str] = set()
    unique: list[str] = []
    for name in names:
        candidate, number = name, 1
        while as_one(candidate) in taken or (number > 1 and candidate in kept):
            number += 1
            pure = PurePosixPath(name)
            candidate = str(pure.with_name(f"{pure.stem}-{number}{pure.suffix}"))
        taken.add(as_one(candidate))
        unique.append(candidate)
    return unique


def _safe(name: str) -> str:
    """The name as a path that stays below the output folder."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(part.replace(":", "_") for part in parts) or "image"


def _as_file_system(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
