"""Weights, checkpoints and pseudo-labels of a run, each written whole or not at all."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labelloop.errors import TrainingError
from labelloop.models.protocol import Prediction
from labelloop.runs.files import whole_file, write_whole


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
