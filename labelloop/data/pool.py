"""The training pool: which labels are drawn, what the data are like, and images on demand."""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.data.parts import Part
from labelloop.errors import TrainingError, UsageError
from labelloop.images import normalise, percentiles, read_image
from labelloop.instances import Instances
from labelloop.models.protocol import DataStats
from labelloop.project.project import ImageRecord

FEWEST_FOR_VALIDATION = 20  # drawn labels from which a fifth of them validates
FEWEST_VALIDATION_IMAGES = 5
MOST_VALIDATION = 1 / 3  # of the drawn labels, where the rest of a group is added


def parse_label_budget(text: str, *, pool: int) -> int | None:
    """How many labelled images ``--labels`` asks for; None means all.

    Args:
        text: ``5%`` (of the pool, rounded up, at least 1), ``15`` (images) or ``all``.
        pool: Images of the training pool, labelled and unlabelled.

    Raises:
        UsageError: The text is none of these.
    """
    if text == "all":
        return None
    share = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text)
    if share and 0 < float(share[1]) <= 100:
        return max(math.ceil(float(share[1]) / 100 * pool - 1e-9), 1)
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(
        "--labels is neither a share, nor a number of images, nor an existing file",
        value=text,
        way_out="Give a share like 5%, a number of images like 15, all, or a file that lists images.",
    )


@dataclass(frozen=True, kw_only=True)
class LabelDraw:
    """Which labelled images a run may see.

    Attributes:
        train: Images to learn from.
        val: Images taken from the draw for validation; empty where the draw is small or the project has a
            validation split.
        pool: All other images of the train split; their labels, if any, are not used. Of a group that is too
            large to validate whole it holds the rest.
    """

    train: tuple[ImageRecord, ...]
    val: tuple[ImageRecord, ...]
    pool: tuple[ImageRecord, ...]


def draw_labels(
    images: Sequence[ImageRecord],
    labelled_ids: set[int],
    *,
    budget: int | None,
    seed: int,
    validation_share: float,
) -> LabelDraw:
    """Draws the labelled images of a run: whole groups at a time, smaller draws inside larger ones.

    Args:
        images: The train split.
        labelled_ids: Those of it that have labels.
        budget: How many to draw; None for all. The group that crosses it is cut, so that the number is exact.
        seed: The same seed draws nested subsets.
        validation_share: Share of a large enough draw that is kept for validation; 0 for none.

    Raises:
        TrainingError: No image of the train split has labels.
    """
    labelled = [image for image in images if image.id in labelled_ids]
    if not labelled:
        raise TrainingError(
            "no training image has labels",
            value=f"{len(images)} images",
            way_out="Add some with labelloop add labels.",
        )
    rng = np.random.default_rng([seed, 1])
    order = _grouped_order(labelled, rng)
    drawn = order if budget is None else order[:budget]
    train: list[ImageRecord] = list(drawn)
    val: list[ImageRecord] = []
    if validation_share > 0 and len(drawn) >= FEWEST_FOR_VALIDATION:
        wanted = max(math.ceil(len(drawn) * validation_share), FEWEST_VALIDATION_IMAGES)
        train, val = _without_shared_groups(drawn, wanted, np.random.default_rng([seed, 2]))
    used = {image.id for image in (*train, *val)}
    return LabelDraw(train=tuple(train), val=tuple(val), pool=tuple(i for i in images if i.id not in used))


def _without_shared_groups(
    drawn: Sequence[ImageRecord], wanted: int, rng: np.random.Generator
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """What trains and what validates, so many: no group does both.

    The group that crosses the number validates whole, unless that were more than a third of all; its rest
    does neither then.
    """
    order = _grouped_order(drawn, rng)
    groups = {image.group for image in order[:wanted]} - {None}
    whole = [image for i, image in enumerate(order) if i < wanted or image.group in groups]
    val = whole if len(whole) <= MOST_VALIDATION * len(order) else order[:wanted]
    chosen = {image.id for image in val}
    train = [image for image in drawn if image.id not in chosen and image.group not in groups]
    # Where one group holds everything groups cannot be kept apart.
    return train or [image for image in drawn if image.id not in chosen], val


def _grouped_order(images: Sequence[ImageRecord], rng: np.random.Generator) -> list[ImageRecord]:
    groups: OrderedDict[object, list[ImageRecord]] = OrderedDict()
    for image in sorted(images, key=lambda i: i.sha256):
        groups.setdefault(image.group if image.group is not None else image.id, []).append(image)
    members = list(groups.values())
    return [image for g in rng.permutation(len(members)) for image in members[g]]


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
