"""SoftObjects: what training should see in one image, as crops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelloop.instances import Instances


@dataclass(frozen=True, kw_only=True)
class SoftObjects:
    """Objects of one image whose masks may be probabilities: annotations (hard) or pseudo-labels.

    Attributes:
        size_hw: Height and width of the image on the grid of the crops.
        labels: int64 (n,), class index from 0.
        weights: float32 (n,), 0..1, how sure it is that the object is one.
        ignore: bool (n,), neither positive nor background.
        crops: n arrays, uint8 (h_i, w_i), 0..255: probability times 255; zero outside the crop.
        offsets_yx: int64 (n, 2), the crop's top left pixel in the image.
        grid_yx: Pixels of the crops per pixel of the image, along y and x: pseudo-labels are kept as finely
            as a network sees the image.
    """

    size_hw: tuple[int, int]
    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    ignore: npt.NDArray[np.bool_]
    crops: tuple[npt.NDArray[np.uint8], ...]
    offsets_yx: npt.NDArray[np.int64]
    grid_yx: tuple[float, float] = (1.0, 1.0)

    def __len__(self) -> int:
        return len(self.crops)

    def known_share(self, window: tuple[int, int, int, int] | None = None) -> float:
        """How much of the image is not ignored, 0..1; ignored areas that overlap count twice.

        Args:
            window: Top, left, height and width of the part that is asked about, on the grid of the crops;
                None for all of it.
        """
        top, left, height, width = window or (0, 0, *self.size_hw)
        ignored = 0
        for i in np.flatnonzero(self.ignore):
            y, x = self.offsets_yx[i]
            rows = slice(max(top - y, 0), max(top + height - y, 0))
            columns = slice(max(left - x, 0), max(left + width - x, 0))
            ignored += np.count_nonzero(self.crops[i][rows, columns] > 127)
        return max(1.0 - ignored / max(height * width, 1), 0.0)


def objects_of(instances: Instances) -> SoftObjects:
    """Annotations as training sees them: hard masks of weight 1, crowds ignored, empty masks left out.

    A crowd of several classes is there once: what is ignored is ignored for all.
    """
    kept, crops, offsets = [], [], []
    crowds: set[bytes] = set()
    for i in range(len(instances)):
        if instances.crowd[i]:
            if instances.rles[i] in crowds:
                continue
            crowds.add(instances.rles[i])
        crop, top, left = instances.crop(i)
        if crop.any():
            kept.append(i)
            crops.append(np.where(crop, np.uint8(255), np.uint8(0)))
            offsets.append((top, left))
    return SoftObjects(
        size_hw=instances.size_hw,
        labels=instances.labels[kept],
        weights=np.ones(len(kept), np.float32),
        ignore=instances.crowd[kept],
        crops=tuple(crops),
        offsets_yx=np.asarray(offsets, np.int64).reshape(-1, 2),
    )
