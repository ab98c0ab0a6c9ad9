"""Prediction of one image of any size: whole, or by tiles that are merged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from labelloop.images import black_and_white, normalise
from labelloop.instances import Instances
from labelloop.models.data_stats import DataStats
from labelloop.models.precision import autocast_for
from labelloop.models.protocol import InstanceModel, Prediction, rank_by_mask_quality, to_instances
from labelloop.predict.stitch import Piece, pieces_of, stitch
from labelloop.predict.tiles import Tile, TileLayout, plan_tiles, tile_layout
from labelloop.progress import Progress

MIN_SCORE = 0.05  # what predictions keep; every use of them cuts higher
# A pixel is inside where it is likelier than this. Below one half, as the IoU of a mask is best there (Lipton
# et al. 2014, Thresholding classifiers to maximize F1 score, section 4: at half the F1 that is reached), and
# as boxes cut their masks off.
MASK_CUT = 0.42
BATCH_PX = 4_000_000  # of normalised pixels handed to a model at once: 48 MB
BATCH_IMAGES = 16


def predict_array(
    model: InstanceModel,
    pixels: npt.NDArray[Any],
    *,
    stats: DataStats,
    layout: TileLayout | None = None,
    progress: Progress | None = None,
) -> Instances:
    """What a model sees in one image, best score first.

    An image much larger than those the model was trained on is predicted by overlapping tiles; the normalised
    image never exists whole then, and objects are kept packed, so memory is bounded by the image as given.

    Args:
        model: Any InstanceModel.
        pixels: (h, w) or (h, w, 3), in the file's own type.
        stats: What the model was fitted to: the intensities and, without a layout, the tiles.
        layout: How to cut; from ``stats`` if None.
        progress: Hears how many tiles are done and how long the rest will take; no steps of its stage.
    """
    layout = layout or tile_layout(stats, model)
    size_hw = (int(pixels.shape[0]), int(pixels.shape[1]))
    tiles = plan_tiles(size_hw, layout)
    low, high = black_and_white(pixels, stats.intensity_percentile)
    if len(tiles) == 1:
        image = torch.from_numpy(normalise(pixels, low, high))
        return predict_whole(model, [image])[0]
    pieces: list[Piece] = []
    started = time.monotonic()
    for start, batch in _batches(tiles):
        images = [torch.from_numpy(normalise(_cut(pixels, tile), low, high)) for tile in batch]
        predictions = _predict(model, images)
        for index, (tile, prediction) in enumerate(zip(batch, predictions, strict=True), start):
            pieces += pieces_of(prediction, tile, index, layout.margin, mask_cut(prediction))
        if progress is not None:
            progress.advance(0, tiles=_tiles_done(start + len(batch), len(tiles), time.monotonic() - started))
    return stitch(pieces, tiles, size_hw, layout.margin)


def predict_whole(model: InstanceModel, images: Sequence[Tensor]) -> list[Instances]:
    """What a model sees in normalised images, float32 (3, h_i, w_i), each at once, best score first."""
    seen = _predict(model, images)
    return [to_instances(prediction, threshold=mask_cut(prediction)) for prediction in seen]


def mask_cut(prediction: Prediction) -> float:
    """Above which probability a pixel is inside: a half where a mask is scored by what is above it."""
    return MASK_CUT if prediction.class_scores is None else 0.5


def _predict(model: InstanceModel, images: Sequence[Tensor]) -> list[Prediction]:
    parameter = next(model.module().parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    with autocast_for(device):
        seen = model.predict([image.to(device, non_blocking=True) for image in images], min_score=MIN_SCORE)
    return [rank_by_mask_quality(prediction, min_score=MIN_SCORE) for prediction in seen]


def _batches(tiles: Sequence[Tile]) -> Iterator[tuple[int, Sequence[Tile]]]:
    """Tiles that fit a model at once, with the index of the first."""
    height, width = tiles[0].size_hw  # all tiles of a plan have the same size
    step = max(1, min(BATCH_IMAGES, BATCH_PX // (height * width)))
    for start in range(0, len(tiles), step):
        yield start, tiles[start : start + step]


def _tiles_done(done: int, total: int, seconds: float) -> str:
    left = seconds * (total - done) / done
    return f"{done}/{total}, {left / 60:.0f} min left" if left >= 60 else f"{done}/{total}, {left:.0f} s left"


def _cut(pixels: npt.NDArray[Any], tile: Tile) -> npt.NDArray[np.generic]:
    top, left, bottom, right = tile.box
    return pixels[top:bottom, left:right]
