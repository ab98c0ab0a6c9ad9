"""The objects of a PairTable by class, by size and by group of images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labelloop.metrics.estimate import Estimate
from labelloop.metrics.pairs import MATCH_IOU, BoolColumn, IntColumn, PairTable

SIZES = ("small", "medium", "large")
_LOWER_IS_BETTER = (
    "merges_per_100", "splits_per_100", "misses_per_100", "spurious_per_100",
    "count_mae", "boundary_error", "detection_ece",
)  # fmt: skip
_NEAR_ZERO_IS_BETTER = ("count_bias", "area_bias", "area_low_loa", "area_high_loa")


@dataclass(frozen=True, kw_only=True)
class SizeThirds:
    """Small, medium and large objects, a third of the true objects each.

    Attributes:
        largest_small_px: Area of the largest small object, px.
        largest_medium_px: Area of the largest medium object, px.
    """

    largest_small_px: float
    largest_medium_px: float

    @classmethod
    def of(cls, table: PairTable) -> SizeThirds | None:
        """Cuts at the terciles of the true objects' areas, all classes together, crowds left out.

        Returns:
            None where there is no true object.
        """
        areas = table.truth_area[~table.truth_crowd]
        if len(areas) == 0:
            return None
        small, medium = np.quantile(areas, [1 / 3, 2 / 3])
        return cls(largest_small_px=float(small), largest_medium_px=float(medium))

    def which(self, areas: IntColumn) -> IntColumn:
        """0, 1 or 2 for each area, px."""
        return np.searchsorted([self.largest_small_px, self.largest_medium_px], areas, side="left")


def by_class(table: PairTable) -> Iterator[tuple[int, PairTable]]:
    """The objects of each class with a true object or a detection, all images."""
    for label in np.union1d(table.det_label, table.truth_label).tolist():
        yield label, table.of_class(label)


def by_size(table: PairTable, thirds: SizeThirds) -> Iterator[tuple[str, PairTable, BoolColumn]]:
    """The objects of each size, all images; and bool (t,), which true objects of the whole table they are.

    What merges or splits objects is often of another size than these, and so is what they are merged with:
    both are looked up in the whole table. A detection is of the size of the true object with which it has the
    highest IoU, 0.5 or more; else of its own. So false alarms count for the size that they seem to be, and a
    hit of another size remains a hit. Crowds stay in every part.
    """
    true_size = thirds.which(table.truth_area)
    det_size = thirds.which(table.det_area)
    close = np.flatnonzero((table.pair_overlap >= MATCH_IOU) & ~table.truth_crowd[table.pair_truth])
    worst_first = close[np.argsort(table.pair_overlap[close], kind="stable")]
    det_size[table.pair_det[worst_first]] = true_size[table.pair_truth[worst_first]]  # the last one stays
    for size, name in enumerate(SIZES):
        of_size = true_size == size
        yield name, table.select(det_size == size, of_size | table.truth_crowd), of_size


def by_group(table: PairTable, groups: Sequence[str | None]) -> Iterator[tuple[str, BoolColumn, PairTable]]:
    """The images of each known group: its name, bool (n_images,) which they are, and their objects."""
    for name in sorted({group for group in groups if group is not None}):
        images = np.asarray([group == name for group in groups])
        yield name, images, table.select(images[table.det_image], images[table.truth_image], images)


def worst(name: str, of_group: Mapping[str, Estimate]) -> str | None:
    """The group in which a metric is worst; None where it is defined in none.

    Lowest, highest, or farthest from zero, as the metric goes; of equally bad ones the first. The worst of
    many small groups is bad by chance too: its interval says how bad it may be.
    """

    def badness(group: str) -> float:
        value = of_group[group].value or 0.0
        if name in _NEAR_ZERO_IS_BETTER:
            return abs(value)
        return value if name in _LOWER_IS_BETTER else -value

    known = [group for group, estimate in of_group.items() if estimate.value is not None]
    return max(known, key=badness) if known else None
