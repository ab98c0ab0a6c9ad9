"""RoIAlign over a feature pyramid, quick to learn through on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign

SAMPLES = 2  # per bin and axis
LEVELS = ("0", "1", "2", "3")
FIRST_STRIDE_PX = 4  # of level 0; it doubles from level to level


class RegionPool(nn.Module):
    """The features of boxes, each from the level of the pyramid that suits its size.

    The function of torchvision's ``MultiScaleRoIAlign`` (He et al. 2017, Mask R-CNN, section 3; levels by Lin
    et al. 2017, Feature pyramid networks, eq. 1), which it is wherever the features are not on a CPU. On CPUs
    a bin is a weighted sum of rows of one table, the pixels of all levels, and the gradient of a row is a
    weighted sum of bins: a fifth of the time of torchvision's loops.

    Args:
        side: Bins per axis.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.reference = MultiScaleRoIAlign([*LEVELS], output_size=side, sampling_ratio=SAMPLES)

    def forward(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Features of the boxes.

        Args:
            features: Level to float32 (images, channels, h, w).
            boxes: Per image (n, 4), x1, y1, x2, y2 in px of the network's input.

        Returns:
            (boxes of all images, channels, side, side).
        """
        levels = [features[name] for name in LEVELS]
        if levels[0].device.type != "cpu":
            return self.by_torchvision(features, boxes)
        image = torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)])
        rows, weights = _entries(torch.cat(list(boxes)), image, levels, self.side)
        channels = levels[0].shape[1]
        table = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in levels])
        bins: Tensor = _WeightedRows.apply(table, rows, weights)
        return bins.view(-1, self.side, self.side, channels).permute(0, 3, 1, 2)

    def by_torchvision(self, features: Mapping[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """As ``forward``, on any device."""
        # torchvision infers the strides once, from the first images it is told of: they must fill the levels.
        height, width = (FIRST_STRIDE_PX * side for side in features[LEVELS[0]].shape[-2:])
        pooled: Tensor = self.reference(dict(features), list(boxes), [(height, width)] * len(boxes))
        return pooled


def _entries(boxes: Tensor, image: Tensor, levels: Sequence[Tensor], side: int) -> tuple[Tensor, Tensor]:
    """Rows of the table that make up each bin, int32, and their weights; both (boxes * side², samples)."""
    n, n_images = len(boxes), len(levels[0])
    heights, widths = (torch.tensor([level.shape[axis] for level in levels]) for axis in (-2, -1))
    sizes = n_images * heights * widths
    first = sizes.cumsum(0) - sizes
    level = _level_of(boxes, len(levels))
    height, width = heights[level, None], widths[level, None]
    corners = boxes / (FIRST_STRIDE_PX * 2.0**level)[:, None]
    y, y_weight = _axis(corners[:, 1], corners[:, 3], height, side)
    x, x_weight = _axis(corners[:, 0], corners[:, 2], width, side)
    start = first[level] + image * (heights * widths)[level]
    row_start = start[:, None, None] + y * width[..., None]  # (n, side, 2 * SAMPLES), as y and x
    rows = row_start[:, :, None, :, None] + x[:, None, :, None]
    weights = y_weight[:, :, None, :, None] * x_weight[:, None, :, None]
    shape = (n * side**2, (2 * SAMPLES) ** 2)
    return rows.reshape(shape).int(), weights.reshape(shape)


def _level_of(boxes: Tensor, n_levels: int) -> Tensor:
    """The level of each box by its size: 224 px belong to the level of stride 16."""
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return (torch.floor(4 + torch.log2(side / 224) + 1e-6) - 2).clamp(0, n_levels - 1).long()


def _axis(low: Tensor, high: Tensor, pixels: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The pixels along one axis that make up each bin, and their weights.

    Args:
        low: (n,) where the boxes begin, px of their level.
        high: (n,) where they end.
        pixels: (n, 1) how many there are.
        side: Bins.

    Returns:
        Places and weights, both (n, side, 2 * SAMPLES): each sample lies between two pixels.
    """
    length = (high - low).clamp(min=1.0)
    steps = (torch.arange(side * SAMPLES, dtype=low.dtype) + 0.5) / (side * SAMPLES)
    at = low[:, None] + steps * length[:, None]
    inside = (at >= -1) & (at <= pixels)
    last = (pixels - 1).to(at.dtype)
    at = torch.minimum(at.clamp(min=0), last)
    before = at.floor()
    share = at - before
    after = torch.minimum(before + 1, last)
    places = torch.stack([before, after], -1).long()
    weights = torch.stack([1 - share, share], -1) * (inside[..., None] / SAMPLES)
    shape = (len(low), side, 2 * SAMPLES)
    return places.view(shape), weights.view(shape)


class _WeightedRows(torch.autograd.Function):
    """Each bin is a weighted sum of rows of a table; the gradient is the same sum the other way round."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.n_rows = len(table)
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights.to(table.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, weights = ctx.saved_tensors
        ordered, order = torch.sort(rows.view(-1))
        first = torch.searchsorted(ordered, torch.arange(ctx.n_rows, dtype=ordered.dtype))
        bins = torch.div(order, rows.shape[1], rounding_mode="floor")
        summed = F.embedding_bag(
            bins.int(),
            gradient.contiguous(),
            first.int(),
            mode="sum",
            per_sample_weights=weights.view(-1)[order].to(gradient.dtype),
        )
        return summed, None, None
