"""Which image files a person means: by folder, glob or file, and by what annotations call them."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from labelloop.formats.label_image import bare_stem, is_named_as_labels
from labelloop.formats.records import LabelledImage, SkippedFile
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


def find_files(paths: Sequence[str], *, leave_out: Sequence[Path] = ()) -> FoundFiles:
    """The files that folders (with the folders in them), globs and file names stand for.

    In folders and globs, hidden files and those that are no images by their names are passed over.

    Args:
        paths: As a person types them, relative to the working folder.
        leave_out: Folders that are not entered.
    """
    found: dict[Path, None] = {}
    skipped: list[SkippedFile] = []
    for text in paths:
        path = plain_path(Path(text))
        if path.is_dir():
            found.update(dict.fromkeys(_in_folder(path, leave_out, skipped)))
        elif path.exists():
            found[path] = None
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
    usable = [path for path in found if _is_unicode(path)]
    for path in found:
        if not _is_unicode(path):
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            skipped.append(SkippedFile(path=shown, reason="its name is no Unicode text; rename it"))
    return FoundFiles(files=tuple(usable), skipped=tuple(skipped))


class ImageIndex:
    """Finds image files by what annotations call them: by relative path, else by a base name that is unique.

    Args:
        files: All files that can be meant.
        root: Folder that relative names start from.
    """

    def __init__(self, files: Iterable[Path], root: Path) -> None:
        self._by_path: dict[str, list[Path]] = {}
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem_path: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for file in files:
            inside = file.is_relative_to(root)
            relative = _key(file.relative_to(root).as_posix() if inside else str(file))
            stem = bare_stem(relative)
            for table, key in (
                (self._by_path, relative),
                (self._by_name, relative.rpartition("/")[2]),
                (self._by_stem_path, stem),
                (self._by_stem, stem.rpartition("/")[2]),
            ):
                table.setdefault(key, []).append(file)

    def find(self, record: LabelledImage) -> Path | str:
        """The file of these labels, or the reason why there is none."""
        name = _key(record.image).removeprefix("./")
        stem = bare_stem(name)
        lookups = [(self._by_path, name)]
        if record.by_stem:
            lookups += [(self._by_stem_path, stem), (self._by_stem, stem.rpartition("/")[2])]
        else:
            lookups += [(self._by_name, name.rpartition("/")[2])]
        for table, key in lookups:
            files = table.get(key, [])
            if record.by_stem:  # x.png and x_masks.png are of one stem
                files = [file for file in files if not is_named_as_labels(file)] or files
            if len(files) == 1:
                return files[0]
            if files:
                return f"several images could be meant: {', '.join(map(str, files[:3]))}"
        return "its image is not there"


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
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and here / name not in leave_out
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


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/"))
