"""Which image files a person means by folders, globs and files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelloop.formats.label_image import bare_stem, made_from
from labelloop.formats.records import SkippedFile
from labelloop.images import IMAGE_SUFFIXES
from labelloop.paths import plain_path

# Files that people call images; those which cannot be read are named rather than passed over.
_OTHER_IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".webp", ".czi", ".nd2", ".lif", ".vsi", ".oib", ".oif", ".ims", ".lsm", ".stk", ".svs",
     ".heic", ".jp2", ".dcm")
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """Files to try, in a steady order and each once, and what could not even be tried."""

    files: tuple[Path, ...]
    skipped: tuple[SkippedFile, ...]


PREDICTIONS = ".labelloop-predictions"  # how the names begin of what predict keeps beside its files
_OUTPUT_FOLDERS = ("label-tiff", "overlay")


def find_files(paths: Sequence[str], *, leave_out: Sequence[Path] = ()) -> FoundFiles:
    """The files that folders (with the folders in them), globs and file names stand for.

    In folders and globs, hidden files and those that are not images by their names are passed over, and so
    are those that are labels of an image beside them by theirs, and what predict has written, with a reason.

    Args:
        paths: As a person types them, relative to the working folder.
        leave_out: Folders that are not entered.
    """
    found: dict[Path, None] = {}
    named: set[Path] = set()
    skipped: list[SkippedFile] = []
    for text in paths:
        path = plain_path(Path(text))
        if path.is_dir():
            found.update(dict.fromkeys(_in_folder(path, leave_out, skipped)))
        elif path.exists():
            found[path] = None
            named.add(path)
        elif glob.has_magic(text):
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            if not matches:
                skipped.append(SkippedFile(path=text, reason="no file matches this pattern"))
            for match in matches:
                if match.is_dir():
                    found.update(dict.fromkeys(_in_folder(match, leave_out, skipped)))
                elif _is_wanted(match.name):
                    found[match] = None
        else:
            skipped.append(SkippedFile(path=text, reason="there is no such file or folder"))
    neighbours = _Neighbours()
    usable = []
    for path in found:
        if _is_unicode(path):
            image = None if path in named else neighbours.image_of(path)
            if image is None:
                usable.append(path)
                continue
            reason = f"its name says that it is the labels of {image}; name the file to add it as an image"
            skipped.append(SkippedFile(path=str(path), reason=reason))
        else:
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            skipped.append(SkippedFile(path=shown, reason="its name is not Unicode text; rename it"))
    return FoundFiles(files=tuple(usable), skipped=tuple(skipped))


class _Neighbours:
    """Finds the image beside a file that is named as its labels."""

    def __init__(self) -> None:
        self._images: dict[Path, dict[str, str]] = {}  # by folder and by what it has in common with labels

    def image_of(self, path: Path) -> str | None:
        """The name of the image that this file is labels of, or None where it is an image itself."""
        stem = made_from(path)
        if stem is None:
            return None
        if path.parent not in self._images:
            names = (name for name in sorted(os.listdir(path.parent)) if _is_wanted(name))
            images = (name for name in names if made_from(Path(name)) is None)
            self._images[path.parent] = {bare_stem(name): name for name in images}
        return self._images[path.parent].get(stem)


def folder_files(folder: Path) -> Iterator[Path]:
    """All images under a folder by their names, absolute and sorted; hidden ones are left out."""
    for path in _in_folder(folder, (), []):
        if path.suffix.lower() in IMAGE_SUFFIXES and _is_unicode(path):
            yield path


def _in_folder(folder: Path, leave_out: Sequence[Path], skipped: list[SkippedFile]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        skipped.append(
            SkippedFile(path=str(error.filename), reason=f"the folder cannot be read ({error.strerror})")
        )

    entered: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:  # a link back to a folder above
            folders.clear()
            continue
        entered.add(real)
        here = Path(parent)
        passed = set(_OUTPUT_FOLDERS) if any(name.startswith(PREDICTIONS) for name in names) else set()
        skipped += [
            SkippedFile(path=str(here / name), reason="it holds results of labelloop predict")
            for name in sorted(passed.intersection(folders))
            if here / name not in leave_out
        ]
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and name not in passed and here / name not in leave_out
        )
        yield from (here / name for name in sorted(names) if _is_wanted(name))


def _is_wanted(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return not name.startswith(".") and (suffix in IMAGE_SUFFIXES or suffix in _OTHER_IMAGE_SUFFIXES)


def _is_unicode(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
