"""From images of any size to the padded batch that a network sees."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from labelloop.models.backbones import IMAGENET_MEAN, IMAGENET_STD
from labelloop.models.data_stats import DataStats

STRIDE = 32  # inputs are padded to a multiple of it
MOST_ENLARGED = 1.5  # larger inputs show hardly more and cost as much more time as they have pixels
LEAST_DIAMETER_PX = 32.0  # but objects that would be smaller than this are enlarged up to twice


def input_scale(stats: DataStats, *, target_diameter_px: float) -> float:
    """The factor that brings the median object to a diameter, as far as enlarging images pays.

    A factor that the recipe sets is taken as it is.
    """
    if stats.input_scale > 0:
        return stats.input_scale
    median = stats.diameter_px[1]
    scale = min(target_diameter_px / median, max(MOST_ENLARGED, LEAST_DIAMETER_PX / median))
    return min(max(scale, 1 / 16), 2.0)


def resized(image: Tensor, scale: float) -> tuple[Tensor, tuple[float, float]]:
    """An image in the size that a network wants.

    Args:
        image: float32 (c, h, w).
        scale: The factor, up to whole pixels.

    Returns:
        The image, and the factors along x and y.
    """
    height, width = image.shape[-2:]
    new = max(round(height * scale), 1), max(round(width * scale), 1)
    if new != (height, width):
        image = F.interpolate(image[None], new, mode="bilinear", antialias=new[0] < height)[0]
    return image, (new[1] / width, new[0] / height)


class ResizingModule(nn.Module):
    """The part of an InstanceModel that resizes images by one factor and normalises them as ImageNet's.

    Args:
        input_scale: The network sees images resized by this factor.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, input_scale: float) -> None:
        super().__init__()
        self.input_scale = input_scale
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def module(self) -> nn.Module:
        """Itself."""
        return self

    @property
    def stride_px(self) -> float:
        """Image px between neighbours on the coarsest grid: shifts by it change predictions least."""
        return STRIDE / self.input_scale

    @property
    def grid_scale(self) -> float:
        """See Coarse."""
        return min(self.input_scale, 1.0)

    def batch(
        self, images: Sequence[Tensor], resized_by: float
    ) -> tuple[ImageList, list[tuple[float, float]]]:
        """One padded batch, and the factors along x and y by which each image was resized.

        Args:
            images: float32 (3, h_i, w_i), 0..1.
            resized_by: They have been resized by this already.
        """
        inputs, scales = [], []
        for image in images:
            normal, factors = resized((image - self.mean) / self.std, self.input_scale / resized_by)
            inputs.append(normal)
            scales.append(factors)
        padded = [max(i.shape[d] for i in inputs) for d in (1, 2)]
        padded = [math.ceil(side / STRIDE) * STRIDE for side in padded]
        tensor = inputs[0].new_zeros((len(images), 3, *padded))
        for slot, image in zip(tensor, inputs, strict=True):
            slot[:, : image.shape[1], : image.shape[2]] = image
        tensor = tensor.contiguous(memory_format=torch.channels_last)
        return ImageList(tensor, [(int(i.shape[1]), int(i.shape[2])) for i in inputs]), scales
