"""Reading many image files at once, to learn which can be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labelloop.errors import ImageError
from labelloop.formats.records import SkippedFile
from labelloop.images import read_image
from labelloop.progress import Progress, stage
from labelloop.project.recorded import file_sha256, file_state
from labelloop.threads import in_threads

_THREADS = 4  # each may hold one decoded image
_CHANGED = "the file changed while it was read; add it again when it is complete"


@dataclass(frozen=True, kw_only=True)
class ReadFile:
    """An image file that was read whole and can be used.

    Attributes:
        path: Absolute.
        sha256: Of the file's bytes.
        page: Page, from 0.
        channel: Channel, from 0; -1 for RGB as it is, or the only or first channel.
        gray: Whether it is one plane; where the channel is -1, that plane is channel 0.
        size_hw: Height and width, px.
        pixel_size_um: Side of a pixel, µm, if the file says.
    """

    path: Path
    sha256: str
    page: int
    channel: int
    gray: bool
    size_hw: tuple[int, int]
    pixel_size_um: float | None


def read_files(
    files: Sequence[Path], *, page: int, channel: int, progress: Progress
) -> tuple[list[ReadFile], list[SkippedFile]]:
    """Reads each file whole, so that none which is broken further in is taken; keeps no pixels.

    Args:
        files: Absolute paths.
        page: Page of stacks, from 0.
        channel: Channel, from 0; -1 for RGB as it is, or the first channel.
        progress: Is told of each file.
    """
    read: list[ReadFile] = []
    skipped: list[SkippedFile] = []
    with stage(progress, "Reading images", len(files)):
        for result in in_threads(lambda path: _read(path, page, channel), files, threads=_THREADS):
            if isinstance(result, ReadFile):
                read.append(result)
            else:
                skipped.append(result)
            progress.advance()
    return read, skipped


def _read(path: Path, page: int, channel: int) -> ReadFile | SkippedFile:
    try:
        before = file_state(path)
        image = read_image(path, page=page, channel=-1 if channel == 0 else channel)
        if channel == 0 and image.pixels.ndim == 2:
            channel = -1  # without a channel the first one is read, and is known as such
        elif channel == 0:
            image = read_image(path, page=page, channel=0)
        sha256 = file_sha256(path)
        if file_state(path) != before:
            return SkippedFile(path=str(path), reason=_CHANGED)
    except ImageError as error:
        return SkippedFile(path=str(path), reason=error.what)
    except OSError as error:
        return SkippedFile(path=str(path), reason=f"the file cannot be read ({error.strerror})")
    return ReadFile(
        path=path,
        sha256=sha256,
        page=page,
        channel=channel,
        gray=image.pixels.ndim == 2,
        size_hw=image.size_hw,
        pixel_size_um=image.pixel_size_um,
    )
