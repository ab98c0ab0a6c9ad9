"""DataStats: what a model must know of its data before it is built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataStats:
    """What a model must know of the labelled data before it is built. JSON-able with ``dataclasses.asdict``.

    Attributes:
        classes: Class names; the index in it is the label.
        image_size_hw: Median height and width of the labelled images, px.
        diameter_px: 5th, 50th and 95th percentile of the objects' equivalent diameter 2*sqrt(area/pi), px.
        box_side_px: 5th, 50th and 95th percentile of the longer side of the objects' boxes, px.
        objects_per_image: Mean and maximum of the objects in an image, or in the fullest view of a large one.
        intensity_percentile: Low and high percentiles (0..100) that images are normalised between; none for
            the range of their type.
        input_scale: Factor by which networks see images resized; 0 where it follows from the diameters.
    """

    classes: tuple[str, ...]
    image_size_hw: tuple[int, int]
    diameter_px: tuple[float, float, float]
    box_side_px: tuple[float, float, float]
    objects_per_image: tuple[float, float]
    intensity_percentile: tuple[float, ...] = (0.5, 99.5)
    input_scale: float = 0.0
