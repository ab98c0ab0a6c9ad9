"""Images as the ledger knows them: a file that has changed since it was added is not the image any more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from labelloop.errors import ChangedImageError, ImageError
from labelloop.images import Micrograph, read_image
from labelloop.progress import Progress, Silent, stage
from labelloop.project.project import ImageRecord

_HASHES: dict[Path, tuple[tuple[int, int, int], str]] = {}  # what a file looked like when it was read
_WAY_OUT = (
    "Put back what was added; or add what is there now with labelloop add images, and its labels with"
    " labelloop add labels."
)


def read_recorded(image: ImageRecord) -> Micrograph:
    """Reads an image and looks whether it has the size that it had: labels are drawn in these pixels.

    This is quick enough for a whole pool, and misses other content of the same size.

    Raises:
        ChangedImageError: The file is another image than the one that was added.
        ImageError: It cannot be read.
    """
    if image.replaced:
        raise ChangedImageError(
            "the image was replaced by another file of the same path",
            value=image.path,
            way_out="Put the old file back and run labelloop add images on it.",
        )
    micrograph = read_image(image.path, page=image.page, channel=image.channel)
    if micrograph.size_hw != image.size_hw:
        then, now = (f"{width} x {height} px" for height, width in (image.size_hw, micrograph.size_hw))
        raise ChangedImageError(
            f"the file has changed since it was added (it had {then}, and has {now} now)",
            value=image.path,
            way_out=_WAY_OUT,
        )
    return micrograph


def read_unchanged(image: ImageRecord) -> Micrograph:
    """Reads an image and looks whether its file has changed at all.

    Raises:
        ChangedImageError: The file is not the one that was added.
        ImageError: It cannot be read.
    """
    if not image.replaced and _known_hash(image.path) != image.sha256:
        raise ChangedImageError("the file has changed since it was added", value=image.path, way_out=_WAY_OUT)
    return read_recorded(image)


def require_unchanged(images: Sequence[ImageRecord], progress: Progress | None = None) -> None:
    """Looks whether the files of images are the ones that were added; each file is read once.

    Raises:
        ChangedImageError: Some are not.
        ImageError: One cannot be read.
    """
    look_at([image.path for image in images], progress or Silent())
    changed = list(dict.fromkeys(i.path for i in images if _known_hash(i.path) != i.sha256))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ChangedImageError(
            "files of images have changed since they were added",
            value=f"{changed[0]}{more}",
            way_out=_WAY_OUT,
        )


def look_at(paths: Iterable[Path], progress: Progress) -> None:
    """Reads those files whose content is not known as they are now, so that later questions cost no reading.

    Those that cannot be read are left to whoever asks.

    Args:
        paths: Of the files.
        progress: Is told of each file that is read.
    """
    unread = [path for path in dict.fromkeys(paths) if not _is_known(path)]
    if unread:
        with stage(progress, "checking files", len(unread)):
            for path in unread:
                with suppress(ImageError):
                    _known_hash(path)
                progress.advance()


def is_at(path: Path, sha256: str) -> bool:
    """Whether a file can be read there and has this content."""
    try:
        return _known_hash(path) == sha256
    except ImageError:
        return False


def file_state(path: Path) -> tuple[int, int, int]:
    """What changes with the content of a file: its size in bytes, and two times in ns.

    Raises:
        OSError: It cannot be looked at.
    """
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known_hash(path: Path) -> str:
    """The hash of a file, read again only where its size or its times have changed."""
    try:
        now = file_state(path)
        then, sha256 = _HASHES.get(path, (None, ""))
        if now != then:
            sha256 = file_sha256(path)
            _HASHES[path] = now, sha256
        return sha256
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})", value=path) from error


def _is_known(path: Path) -> bool:
    try:
        return path in _HASHES and _HASHES[path][0] == file_state(path)
    except OSError:
        return False
