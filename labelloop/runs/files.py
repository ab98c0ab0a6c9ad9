"""A run's files: where they lie, and how they are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from labelloop.errors import OutputError
from labelloop.whole_files import replacing

CHECKPOINT_EVERY_S = 60.0  # a checkpoint of the light model takes a tenth of a second
CHECKPOINT_PAUSE = 30.0  # of what a checkpoint takes, which is long for a large model: 5 GB for DINOv2-L


def checkpoint_due(since_s: float, took_s: float) -> bool:
    """Whether another checkpoint is worth its time: checkpoints take a thirtieth of a run at most.

    Args:
        since_s: Seconds since the last one was there, or since the stage began.
        took_s: Seconds that the last one took; 0 where there is none.
    """
    return since_s > max(CHECKPOINT_EVERY_S, CHECKPOINT_PAUSE * took_s)


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Where a run keeps what it makes.

    Attributes:
        folder: runs/<run>.
    """

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The schedule under way."""
        return self.folder / "checkpoint.pt"

    def weights(self, which: str) -> Path:
        """Finished weights: teacher, supervised or guided."""
        return self.folder / f"{which}.pt"

    def pseudo_labels(self, maker: str) -> Path:
        """The predictions of the frozen teacher, or of the student when it becomes the teacher."""
        return self.folder / f"pseudo_labels_{maker}.npz"

    @property
    def config(self) -> Path:
        """Everything that was decided before the first step."""
        return self.folder / "config.json"

    @property
    def metrics(self) -> Path:
        """The result, as ``train --json`` prints it."""
        return self.folder / "metrics.json"

    @property
    def log(self) -> Path:
        """One JSON line per step."""
        return self.folder / "log.jsonl"


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; whoever reads, even after a power cut, sees the old or the new one.

    Raises:
        OutputError: The disk is full or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(
            f"a file of the run cannot be written ({error.strerror})",
            value=path,
            way_out="Free space or make the folder writable, then run the same command with --resume.",
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all."""
    with whole_file(path) as file:
        file.write(data)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes readable JSON, whole or not at all."""
    write_whole(path, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
