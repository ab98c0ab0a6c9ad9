"""A run's files: weights, checkpoints and pseudo-labels, each written whole or not at all."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from labelloop.errors import OutputError, TrainingError
from labelloop.models.protocol import Prediction
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


def save_tensors(path: Path, document: Mapping[str, Any]) -> None:
    """Writes tensors and plain values, whole or not at all, and holds one tensor's copy at a time.

    Raises:
        OutputError: The disk is full or cannot be written.
    """
    with whole_file(path) as file:
        try:
            torch.save(dict(document), file)
        except RuntimeError as error:  # torch goes on after a failed write, and says that bytes are missing
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_tensors(path: Path, *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Reads what ``save_tensors`` wrote; runs no code from the file.

    Raises:
        TrainingError: The file is missing or damaged.
    """
    try:
        loaded: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"a file of the run cannot be read ({type(error).__name__})", value=path, way_out="Train again."
        ) from error
    return loaded


def save_predictions(path: Path, predictions: Mapping[int, Prediction]) -> None:
    """Writes predictions by image id, compressed and exact."""
    ids = list(predictions)
    rows = [predictions[i] for i in ids]
    crops = [crop for p in rows for crop in p.crops]
    sure = [p.class_scores for p in rows if p.class_scores is not None]  # of all, or of none
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        ids=np.array(ids, np.int64),
        sizes=np.array([p.size_hw for p in rows], np.int64).reshape(-1, 2),
        counts=np.array([len(p) for p in rows], np.int64),
        labels=np.concatenate([p.labels for p in rows]) if rows else np.zeros(0, np.int64),
        scores=np.concatenate([p.scores for p in rows]) if rows else np.zeros(0, np.float32),
        quality=np.concatenate([p.quality for p in rows]) if rows else np.zeros(0, np.float32),
        offsets=np.concatenate([p.offsets_yx for p in rows]) if rows else np.zeros((0, 2), np.int64),
        shapes=np.array([c.shape for c in crops], np.int64).reshape(-1, 2),
        pixels=np.concatenate([c.ravel() for c in crops]) if crops else np.zeros(0, np.uint8),
        class_scores=np.concatenate(sure) if sure and len(sure) == len(rows) else np.zeros(0, np.float32),
    )
    write_whole(path, buffer.getvalue())


def load_predictions(path: Path) -> dict[int, Prediction]:
    """Reads what ``save_predictions`` wrote."""
    with np.load(path) as stored:
        a = {name: stored[name] for name in stored.files}
    ends = np.cumsum(a["shapes"].prod(1)) if len(a["shapes"]) else np.zeros(0, np.int64)
    pixels = np.split(a["pixels"], ends[:-1]) if len(ends) else []
    crops = [p.reshape(h, w) for p, (h, w) in zip(pixels, a["shapes"], strict=True)]
    sure = a.get("class_scores", np.zeros(0, np.float32))  # older files have none
    predictions, first = {}, 0
    for image_id, (height, width), n in zip(a["ids"], a["sizes"], a["counts"], strict=True):
        part = slice(first, first + int(n))
        predictions[int(image_id)] = Prediction(
            size_hw=(int(height), int(width)),
            labels=a["labels"][part],
            scores=a["scores"][part],
            quality=a["quality"][part],
            crops=tuple(crops[part]),
            offsets_yx=a["offsets"][part],
            class_scores=sure[part] if len(sure) == len(a["scores"]) else None,
        )
        first += int(n)
    return predictions


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """For loading what a file holds into networks and optimisers.

    Raises:
        TrainingError: It does not fit, as a network of this name was built otherwise when it was written.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch's, of tensors and of groups of parameters
        raise TrainingError(
            f"the file does not fit the network ({str(error).splitlines()[0]})",
            value=path,
            way_out="It is from another version of labelloop, or of the model. Train again.",
        ) from error
