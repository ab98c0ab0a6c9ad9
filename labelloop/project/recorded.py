"""Images as the ledger knows them: a file that has changed since it was added is not the image any more."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from labelloop.errors import ChangedImageError, ImageError
from labelloop.images import Micrograph, read_image
from labelloop.project.project import ImageRecord

_KEPT_HASHES = 100_000  # files
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


def require_unchanged(images: Sequence[ImageRecord]) -> None:
    """Looks whether the files of images are the ones that were added; each file is read once.

    Raises:
        ChangedImageError: Some are not.
        ImageError: One cannot be read.
    """
    changed = list(dict.fromkeys(i.path for i in images if _known_hash(i.path) != i.sha256))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ChangedImageError(
            "files of images have changed since they were added",
            value=f"{changed[0]}{more}",
            way_out=_WAY_OUT,
        )


def is_at(path: Path, sha256: str) -> bool:
    """Whether a file can be read there and has this content."""
    try:
        return _known_hash(path) == sha256
    except ImageError:
        return False


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
        stat = path.stat()
        return _hash_of(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})", value=path) from error


@lru_cache(maxsize=_KEPT_HASHES)
def _hash_of(path: Path, _size: int, _modified_ns: int, _changed_ns: int) -> str:
    return file_sha256(path)
