"""The training pool: what the data are like, and images on demand."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.data.parts import Part
from labelloop.errors import TrainingError
from labelloop.images import normalise, percentiles, read_image
from labelloop.instances import Instances
from labelloop.models.protocol import DataStats
from labelloop.project.project import ImageRecord


def data_stats(
    labels: Sequence[Instances], classes: tuple[str, ...], *, longest_view_px: float | None = None
) -> DataStats:
    """What a model must know of the labelled images.

    Args:
        labels: Of the images that will be trained on.
        classes: Class names.
        longest_view_px: Networks see larger images in crops of this side, so that no more objects count than
            lie in such a crop or little around it.

    Raises:
        TrainingError: There is not one object in them.
    """
    areas = np.concatenate([i.areas[~i.crowd] for i in labels]) if labels else np.zeros(0)
    sides = np.concatenate([i.boxes_xywh[~i.crowd, 2:].max(1) for i in labels if len(i)] or [np.zeros(0)])
    areas, sides = areas[areas > 0], sides[sides > 0]
    if len(areas) == 0:
        raise TrainingError(
            "the drawn labels contain no objects",
            value=f"{len(labels)} images",
            way_out="Draw more labels, or add some.",
        )
    diameters = 2 * np.sqrt(areas / np.pi)
    low, middle, high = (float(d) for d in np.percentile(diameters, (5, 50, 95)))
    sizes = np.array([i.size_hw for i in labels])
    height, width = (int(s) for s in np.median(sizes, axis=0))
    if longest_view_px is not None:
        height, width = min(height, int(longest_view_px)), min(width, int(longest_view_px))
    counts = [_most_in_view(i, longest_view_px) for i in labels]
    box = np.percentile(sides, (5, 50, 95))
    return DataStats(
        classes=classes,
        image_size_hw=(height, width),
        diameter_px=(low, middle, high),
        box_side_px=(float(box[0]), float(box[1]), float(box[2])),
        objects_per_image=(float(np.mean(counts)), float(max(counts))),
    )


def _most_in_view(labels: Instances, side_px: float | None) -> int:
    """At least as many objects as any square view holds, at most those of three halves of its side."""
    boxes = labels.boxes_xyxy[~labels.crowd]
    if side_px is None or max(labels.size_hw) <= side_px or not len(boxes):
        return len(boxes)
    cells = ((boxes[:, :2] + boxes[:, 2:]) / side_px).astype(np.int64)  # of middles, half a view each
    grid = np.zeros(cells.max(axis=0) + 3, np.int64)
    np.add.at(grid, (cells[:, 0], cells[:, 1]), 1)
    return int(np.lib.stride_tricks.sliding_window_view(grid, (3, 3)).sum(axis=(2, 3)).max())


class ImageLoader:
    """Normalised images on demand, with a bounded memory of decoded ones. Safe to call from threads.

    Args:
        parts: The images, or parts of images, that may be asked for.
        intensity_percentile: Low and high percentile of the whole image that become 0 and 1.
        cache_bytes: Decoded pixels kept at most; an image that is larger is kept alone, as its windows are
            often asked for one after another.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        *,
        intensity_percentile: tuple[float, float],
        cache_bytes: int = 192 * 2**20,
    ) -> None:
        self._parts = {part.id: part for part in parts}
        self._percentile = intensity_percentile
        self._cache: OrderedDict[int, tuple[npt.NDArray[Any], float, float]] = OrderedDict()
        self._room = cache_bytes
        self._lock = threading.Lock()

    def size_hw(self, part_id: int) -> tuple[int, int]:
        """Height and width of a part, px; nothing is read."""
        return self._parts[part_id].size_hw

    def __call__(
        self, part_id: int, window: tuple[int, int, int, int] | None = None
    ) -> npt.NDArray[np.float32]:
        """float32 (3, h, w), 0..1: a part, or a window of it.

        Args:
            part_id: Of the part.
            window: Top, left, height and width in the part, px; None for all of it.

        Raises:
            ImageError: The file is gone or cannot be read.
        """
        part = self._parts[part_id]
        top, left, height, width = window or (0, 0, *part.size_hw)
        top, left = top + part.window[0], left + part.window[1]
        pixels, low, high = self._decoded(part.image)
        return normalise(pixels[top : top + height, left : left + width], low, high)

    def _decoded(self, record: ImageRecord) -> tuple[npt.NDArray[Any], float, float]:
        """The image's pixels with the intensities that become 0 and 1."""
        with self._lock:
            kept = self._cache.get(record.id)
            if kept is not None:
                self._cache.move_to_end(record.id)
                return kept
        pixels = read_image(record.path, page=record.page, channel=record.channel).pixels
        if (
            pixels.ndim == 3
            and np.array_equal(pixels[..., 0], pixels[..., 1])
            and np.array_equal(pixels[..., 0], pixels[..., 2])
        ):
            pixels = np.ascontiguousarray(pixels[..., 0])
        loaded = (pixels, *percentiles(pixels, self._percentile))
        with self._lock:
            while record.id not in self._cache and self._cache and self._room < pixels.nbytes:
                _, (old, _, _) = self._cache.popitem(last=False)
                self._room += old.nbytes
            if record.id not in self._cache:
                self._cache[record.id] = loaded
                self._room -= pixels.nbytes
        return loaded
