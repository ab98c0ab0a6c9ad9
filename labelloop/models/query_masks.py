"""From logits on a coarse grid to soft masks in image pixels, each only where its object is."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from torch import Tensor

from labelloop.models.protocol import Prediction

LEAST_PROBABILITY = 0.1  # a crop holds every pixel that is likelier than this

Floats = npt.NDArray[np.float32]


@torch.inference_mode()
def query_prediction(
    classes: Tensor,
    masks: Tensor,
    *,
    cells_per_px_xy: tuple[float, float],
    size_hw: tuple[int, int],
    min_score: float,
) -> Prediction:
    """What the queries see in one image.

    A query is one object, of its likeliest class. Its mask is where its logit is above zero; its score is the
    probability of the class times the mean probability inside the mask, as in the authors' code; its class
    score is the first alone. Masks may overlap.

    Args:
        classes: float (q, k + 1), logits; the last one is "no object".
        masks: float (q, h, w), logits on a grid that begins where the image begins.
        cells_per_px_xy: Cells of the grid per pixel of the image, along x and y.
        size_hw: The image, px.
        min_score: Objects scored lower are left out.
    """
    probability, labels = classes.float().softmax(-1)[:, :-1].max(-1)
    kept = torch.where((probability >= min_score) & (masks > 0).flatten(1).any(1))[0]
    grids = masks[kept].float()
    boxes = _boxes(grids > math.log(LEAST_PROBABILITY / (1 - LEAST_PROBABILITY))).cpu().numpy()
    windows = grids.cpu().numpy()
    probabilities, classes_of = probability[kept].tolist(), labels[kept].tolist()
    rows = []
    for i, (top, left, bottom, right) in enumerate(boxes):
        down, rows_used, y = _resampling(top, bottom, grids.shape[1], cells_per_px_xy[1], size_hw[0])
        across, columns_used, x = _resampling(left, right, grids.shape[2], cells_per_px_xy[0], size_hw[1])
        soft = expit(down @ windows[i, rows_used, columns_used] @ across.T)
        inside = soft > 0.5
        if not inside.any():
            continue  # it lies in the padding, or between the pixels
        mean = float(soft[inside].mean())
        sure = float(probabilities[i])
        if sure * mean >= min_score:
            crop = np.rint(soft * 255).astype(np.uint8)
            rows.append((sure * mean, int(classes_of[i]), mean, crop, (y, x), sure))
    rows.sort(key=lambda row: -row[0])
    return Prediction(
        size_hw=size_hw,
        labels=np.array([row[1] for row in rows], np.int64),
        scores=np.array([row[0] for row in rows], np.float32),
        quality=np.array([2 * row[2] - 1 for row in rows], np.float32),
        crops=tuple(row[3] for row in rows),
        offsets_yx=np.array([row[4] for row in rows], np.int64).reshape(-1, 2),
        class_scores=np.array([row[5] for row in rows], np.float32),
    )


def _boxes(inside: Tensor) -> Tensor:
    """Cells around each mask, int64 (n, 4): top, left, bottom, right; ends are exclusive."""
    n, height, width = inside.shape
    rows, columns = inside.any(2).int(), inside.any(1).int()
    return torch.stack(
        [
            rows.argmax(1),
            columns.argmax(1),
            height - rows.flip(1).argmax(1),
            width - columns.flip(1).argmax(1),
        ],
        1,
    ).reshape(n, 4)


def _resampling(
    first: int, end: int, cells: int, cells_per_px: float, pixels: int
) -> tuple[Floats, slice, int]:
    """How the pixels on and around cells ``first`` to ``end`` are made from cells, along one axis.

    Bilinear between the centres of cells, as ``torch.nn.functional.interpolate`` has it; beyond the outermost
    centres the outermost cells go on.

    Returns:
        Weights (pixels, cells), which cells they are of, and the first pixel.
    """
    low = max(math.floor((first - 0.5) / cells_per_px - 0.5), 0)
    high = min(math.ceil((end + 0.5) / cells_per_px + 0.5), pixels)
    at = np.clip((np.arange(low, high, dtype=np.float32) + 0.5) * cells_per_px - 0.5, 0, cells - 1)
    used = slice(max(first - 2, 0), min(end + 2, cells))
    weights = np.maximum(1 - np.abs(at[:, None] - np.arange(used.start, used.stop, dtype=np.float32)), 0)
    return weights.astype(np.float32), used, low
