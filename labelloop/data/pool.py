"""The training pool: what the data are like, and images on demand."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from labelloop.data.parts import Part
from labelloop.data.view_settings import GeometryConfig
from labelloop.errors import TrainingError
from labelloop.images import black_and_white, normalise
from labelloop.instances import Instances
from labelloop.models.data_stats import DataStats
from labelloop.plurals import plural
from labelloop.project.project import ImageRecord
from labelloop.project.recorded import read_recorded

USUAL_BYTES = 2  # of a decoded pixel: 16-bit gray
SEEN_AT_ONCE = 1.5  # sides of what a network predicts at once, over those of the training crops


def data_stats(
    labels: Sequence[Instances], classes: tuple[str, ...], *, geometry: GeometryConfig | None = None
) -> DataStats:
    """What a model must know of the labelled images.

    Args:
        labels: Of the images that will be trained on.
        classes: Class names.
        geometry: Networks see larger images in its crops, so that no more objects count than lie in the
            largest of these or little around it. None where that is not known: then all of an image counts.

    Raises:
        TrainingError: There is not one object in them.
    """
    areas = np.concatenate([i.areas[~i.crowd] for i in labels]) if labels else np.zeros(0)
    sides = np.concatenate([i.boxes_xywh[~i.crowd, 2:].max(1) for i in labels if len(i)] or [np.zeros(0)])
    areas, sides = areas[areas > 0], sides[sides > 0]
    if len(areas) == 0:
        raise TrainingError(
            "the drawn labels contain no objects",
            value=plural(len(labels), "image"),
            way_out="Draw more labels, or add some.",
        )
    diameters = 2 * np.sqrt(areas / np.pi)
    low, middle, high = (float(d) for d in np.percentile(diameters, (5, 50, 95)))
    sizes = np.array([i.size_hw for i in labels])
    height, width = (int(s) for s in np.median(sizes, axis=0))
    counted_px = None
    if geometry is not None:
        seen_px = SEEN_AT_ONCE * geometry.crop_px
        counted_px = max(seen_px, geometry.largest_window_px)
        height, width = min(height, int(seen_px)), min(width, int(seen_px))
    counts = [_most_in_view(i, counted_px) for i in labels]
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


class _Decoded(NamedTuple):
    """Pixels as in the file, gray or RGB, and the intensities that become 0 and 1."""

    pixels: npt.NDArray[Any]
    low: float
    high: float


class ImageLoader:
    """Normalised images on demand, with a bounded memory of decoded ones. Safe to call from threads.

    What is kept of a field that is cut into parts are the parts that were asked for, and all of it until the
    next such field is read: its parts are often asked for one after another.

    Args:
        parts: The images, or parts of images, that may be asked for.
        intensity_percentile: Low and high percentile of the whole image that become 0 and 1; none for the
            range of its type.
        cache_bytes: Decoded pixels kept at most; of images that are larger the last one is kept beside them,
            as its windows are often asked for one after another.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        *,
        intensity_percentile: tuple[float, ...],
        cache_bytes: int = 192 * 2**20,
    ) -> None:
        self._parts = {part.id: part for part in parts}
        self._percentile = intensity_percentile
        self._cache: OrderedDict[int, _Decoded] = OrderedDict()  # by part
        self._last: dict[bool, tuple[int, _Decoded]] = {}  # the image cut into parts, and one too large
        self._bytes = self._room = cache_bytes
        self._lock = threading.Lock()

    def size_hw(self, part_id: int) -> tuple[int, int]:
        """Height and width of a part, px; nothing is read."""
        return self._parts[part_id].size_hw

    def fits(self, part_ids: Iterable[int]) -> bool:
        """Whether so many parts are likely to be kept all at once; nothing is read, so it is a guess."""
        sides = (self.size_hw(i) for i in part_ids)
        return sum(height * width for height, width in sides) * USUAL_BYTES <= self._bytes

    def __call__(
        self, part_id: int, window: tuple[int, int, int, int] | None = None
    ) -> npt.NDArray[np.float32]:
        """float32 (3, h, w), 0..1: a part, or a window of it.

        Args:
            part_id: Of the part.
            window: Top, left, height and width in the part, px; None for all of it.

        Raises:
            ImageError: The file is gone, cannot be read, or has another size than when it was added.
        """
        part = self._parts[part_id]
        top, left, height, width = window or (0, 0, *part.size_hw)
        pixels, low, high = self._of_part(part)
        return normalise(pixels[top : top + height, left : left + width], low, high)

    def _of_part(self, part: Part) -> _Decoded:
        """A part's own pixels, with the intensities of its whole image."""
        is_whole = part.id == part.image.id
        with self._lock:
            if part.id in self._cache:
                self._cache.move_to_end(part.id)
                return self._cache[part.id]
            last = dict(self._last.values()).get(part.image.id) or self._cache.get(part.image.id)
            if last is None and not is_whole:
                self._last.pop(True, None)  # not two fields at once
        image = last or self._decoded(part.image)
        top, left, height, width = part.window
        own = image.pixels if is_whole else image.pixels[top : top + height, left : left + width].copy()
        loaded, fits = image._replace(pixels=own), own.nbytes <= self._bytes
        with self._lock:
            if not is_whole or not fits:
                self._last[not is_whole] = (part.image.id, image)
            if fits and part.id not in self._cache:
                while self._room < own.nbytes:
                    _, old = self._cache.popitem(last=False)
                    self._room += old.pixels.nbytes
                self._cache[part.id] = loaded
                self._room -= own.nbytes
        return loaded

    def _decoded(self, record: ImageRecord) -> _Decoded:
        """A whole image, read."""
        pixels = read_recorded(record).pixels
        if (
            pixels.ndim == 3
            and np.array_equal(pixels[..., 0], pixels[..., 1])
            and np.array_equal(pixels[..., 0], pixels[..., 2])
        ):
            pixels = np.ascontiguousarray(pixels[..., 0])
        return _Decoded(pixels, *black_and_white(pixels, self._percentile))
