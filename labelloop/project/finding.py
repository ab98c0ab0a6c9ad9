"""Which image files a person means by folders, globs and files."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from labelloop.errors import FormatError
from labelloop.formats.label_image import bare_stem, image_files, made_from
from labelloop.formats.layouts import images_of_labels
from labelloop.formats.records import SkippedFile
from labelloop.images import IMAGE_SUFFIXES
from labelloop.paths import plain_path, plain_paths

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
_NOT_THERE = "there is no such file or folder"


def find_files(paths: Sequence[str], *, leave_out: Sequence[Path] = ()) -> FoundFiles:
    """The files that folders (with the folders in them), globs and file names stand for.

    In folders and globs, hidden files and those that are not images by their names are passed over, and so
    are, with a reason, those that are labels of images by their name or that of their folder, and what
    predict has written. A shell names every file that its pattern matches: labels that are named are taken
    unless their images are named too.

    Args:
        paths: As a person types them, relative to the working folder.
        leave_out: Folders that are not entered.
    """
    found: dict[Path, None] = {}
    skipped: list[SkippedFile] = []
    places = plain_paths(Path(text) for text in paths)
    faults = [_fault(place) if text else _NOT_THERE for text, place in zip(paths, places, strict=True)]
    named = {place for place, fault in zip(places, faults, strict=True) if fault is None}
    folders = _Folders(named, leave_out, skipped)
    for text, place, fault in zip(paths, places, faults, strict=True):
        if fault is None:
            if not folders.hold_images(place):
                continue
            if place.is_dir():
                found.update(dict.fromkeys(_in_folder(place, folders.enter, skipped)))
            else:
                found[place] = None
        elif glob.has_magic(text):
            pattern = os.path.expanduser(text)  # the working folder's name is none
            matches = plain_paths(map(Path, sorted(glob.glob(pattern, recursive=True))))
            if not matches:
                skipped.append(SkippedFile(path=text, reason="no file matches this pattern"))
            start = plain_path(_literal_folder(Path(text)))
            for match in matches:
                if not folders.enter_all(match, below=start):
                    continue
                if os.path.isdir(match):  # False where nobody may look
                    found.update(dict.fromkeys(_in_folder(match, folders.enter, skipped)))
                elif _is_wanted(match.name):
                    found[match] = None
        else:
            skipped.append(SkippedFile(path=text, reason=fault))
    neighbours = _Neighbours(named)
    usable = []
    for path in found:
        if _is_unicode(path):
            image = neighbours.image_of(path)
            if image is None:
                usable.append(path)
                continue
            reason = f"its name says that it is the labels of {image}; name it alone to add it as an image"
            skipped.append(SkippedFile(path=str(path), reason=reason))
        else:
            skipped.append(SkippedFile(path=_shown(path), reason="its name is not Unicode text; rename it"))
    return FoundFiles(files=tuple(usable), skipped=tuple(skipped))


def _fault(place: Path) -> str | None:
    """Why a file or folder that was named cannot be tried, or None."""
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _NOT_THERE
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


def _literal_folder(pattern: Path) -> Path:
    """The folder that a pattern begins with."""
    return Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))


class _Folders:
    """Tells folders of images from those of labels and results.

    Args:
        named: Files and folders that a person named.
        leave_out: Folders that are not entered, unless they are named.
        skipped: Is told the reason for each folder that is passed over.
    """

    def __init__(
        self, named: Collection[Path], leave_out: Collection[Path], skipped: list[SkippedFile]
    ) -> None:
        self._named, self._skipped = named, skipped
        self._left_out = set(map(os.path.realpath, leave_out))  # whatever links lead there
        self._named_in = {parent for path in named for parent in (path, *path.parents)}
        self._images_of: dict[Path, Path | None] = {}  # by folder of labels
        self._entered: dict[Path, bool] = {}
        self._told: set[Path] = set()

    def hold_images(self, place: Path) -> bool:
        """Whether a file or folder that was named is more than the labels of images that were named too."""
        for folder in (place, *place.parents):
            images = self._images_beside(folder)
            if images is not None and images in self._named_in:
                return self._pass_over(folder, _labels_of(images))
        return True

    def enter(self, folder: Path) -> bool:
        """Whether a folder below one that was named is looked into."""
        if folder not in self._entered:
            self._entered[folder] = self._is_entered(folder)
        return self._entered[folder]

    def enter_all(self, match: Path, *, below: Path) -> bool:
        """Whether what a pattern matches can be reached by folders that are entered.

        Args:
            match: A file or folder.
            below: The folder that the pattern begins with.
        """
        folders = [match, *match.parents] if os.path.isdir(match) else match.parents
        between = list(takewhile(lambda folder: folder != below, folders))
        return all(map(self.enter, reversed(between)))

    def _is_entered(self, folder: Path) -> bool:
        if os.path.realpath(folder) in self._left_out:
            return False
        if folder in self._named:
            return self.hold_images(folder)
        if _is_result(folder):
            return self._pass_over(folder, "it holds results of labelloop predict")
        images = self._images_beside(folder)
        if images is not None and any(image_files(folder)):
            return self._pass_over(folder, _labels_of(images))
        return True

    def _images_beside(self, folder: Path) -> Path | None:
        if folder not in self._images_of:
            self._images_of[folder] = images_of_labels(folder)
        return self._images_of[folder]

    def _pass_over(self, folder: Path, reason: str) -> bool:
        if folder not in self._told:
            self._told.add(folder)
            self._skipped.append(SkippedFile(path=_shown(folder), reason=reason))
        return False


def _labels_of(images: Path) -> str:
    return f"it holds the labels of the images in {_shown(images)}; name it alone to add it as images"


def _is_result(folder: Path) -> bool:
    """Whether predict has written this folder."""
    return folder.name in _OUTPUT_FOLDERS and any(
        name.startswith(PREDICTIONS) for name in _names_in(folder.parent)
    )


def _names_in(folder: Path) -> list[str]:
    """What lies in a folder, sorted; nothing where it may be entered, but not listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


class _Neighbours:
    """Finds the image beside a file that is named as its labels.

    Args:
        named: Files that a person named are labels only of images that were named too.
    """

    def __init__(self, named: Collection[Path]) -> None:
        self._named = named
        self._images: dict[Path, dict[str, list[str]]] = {}  # by folder and by what they share with labels

    def image_of(self, path: Path) -> str | None:
        """The name of the image that this file is labels of, or None where it is an image itself."""
        stem = made_from(path)
        if stem is None:
            return None
        folder = path.parent
        if folder not in self._images:
            images: dict[str, list[str]] = defaultdict(list)
            for name in _names_in(folder):
                if _is_wanted(name) and made_from(Path(name)) is None:
                    images[bare_stem(name)].append(name)
            self._images[folder] = images
        beside = self._images[folder].get(stem, [])
        return next(
            (name for name in beside if path not in self._named or folder / name in self._named), None
        )


def folder_files(folder: Path) -> Iterator[Path]:
    """All images under a folder by their names, absolute and sorted; hidden ones are left out."""
    for path in _in_folder(folder, lambda child: not _is_result(child), []):
        if path.suffix.lower() in IMAGE_SUFFIXES and _is_unicode(path):
            yield path


def _in_folder(folder: Path, enter: Callable[[Path], bool], skipped: list[SkippedFile]) -> Iterator[Path]:
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
        folders[:] = [name for name in sorted(folders) if not name.startswith(".") and enter(here / name)]
        yield from (here / name for name in sorted(names) if _is_wanted(name))


def _is_wanted(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return not name.startswith(".") and (suffix in IMAGE_SUFFIXES or suffix in _OTHER_IMAGE_SUFFIXES)


def require_unicode(labels: Path) -> None:
    """Refuses labels whose path the ledger cannot keep.

    Raises:
        FormatError: Their path is not Unicode text.
    """
    if not _is_unicode(labels):
        raise FormatError(
            "the path of the labels is not Unicode text",
            value=_shown(labels),
            way_out="Rename that file or folder.",
        )


def _is_unicode(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: Path) -> str:
    """A path with the bytes of what is not Unicode in it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
