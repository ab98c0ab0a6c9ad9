"""A GPU whose memory is too small for a step: an error that says how to make the step smaller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

import torch

from labelloop.errors import TrainingError


@contextmanager
def full_memory_says(accumulate: int) -> Iterator[None]:
    """Inside the block a GPU without enough memory is a TrainingError that names ``--accumulate``.

    Args:
        accumulate: The parts in which each process sees its images of a step now.

    Raises:
        TrainingError: The memory of the GPU is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the GPU's memory is too small for what it sees of a step at once",
            value=shorten(str(error), 160) or "out of memory",
            way_out=f"Train a new run with --accumulate {2 * accumulate}, which sees a step in smaller parts,"
            " one after the other; or with fewer images in a step, or smaller views, in the recipe.",
        ) from error
