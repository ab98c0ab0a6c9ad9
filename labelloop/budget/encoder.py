"""The network that embeds images, as it comes from ImageNet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelloop.images import normalise, percentiles
from labelloop.models.backbones import IMAGENET_MEAN, IMAGENET_STD, efficientnet_lite0
from labelloop.models.precision import autocast_for

SIDE_PX = 256  # images are looked at with this longer side
LEVELS = (1, 2, 3)  # strides 8, 16 and 32: texture, parts, things
INTENSITY_PERCENTILE = (0.5, 99.5)

Vectors = npt.NDArray[np.float32]


class Encoder:
    """EfficientNet-Lite0 with its ImageNet weights, on the CPU; features are averaged over the image."""

    def __init__(self) -> None:
        self._body: nn.Module = efficientnet_lite0().eval().requires_grad_(False)
        self._mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
        self._std = torch.tensor(IMAGENET_STD)[:, None, None]

    @torch.inference_mode()
    def __call__(self, pixels: npt.NDArray[np.generic]) -> Vectors:
        """float32 (472,) of unit norm; each level counts alike.

        Args:
            pixels: (h, w) or (h, w, 3), in the file's own type.
        """
        low, high = percentiles(pixels, INTENSITY_PERCENTILE)
        image = torch.from_numpy(normalise(pixels, low, high))
        image = (_to_side(image) - self._mean) / self._std
        with autocast_for(torch.device("cpu")):
            features = self._body(image[None])
        pooled = [F.normalize(features[level].float().mean((2, 3)), dim=1) for level in LEVELS]
        vector: Vectors = F.normalize(torch.cat(pooled, 1), dim=1)[0].numpy()
        return vector


def _to_side(image: Tensor) -> Tensor:
    """The image with its longer side at ``SIDE_PX``, no side below 32 px."""
    zoom = SIDE_PX / max(image.shape[1:])
    size_hw = [max(round(side * zoom), 32) for side in image.shape[1:]]
    resized: Tensor = F.interpolate(image[None], size_hw, mode="bilinear", antialias=zoom < 1)[0]
    return resized
