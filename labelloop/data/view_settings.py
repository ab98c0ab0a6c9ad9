"""How weak and strong views are drawn; ``views`` draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ZoomDraw = Literal["log", "uniform"]


@dataclass(frozen=True, kw_only=True)
class GeometryConfig:
    """Geometry that the weak and the strong view share.

    Attributes:
        zoom: Smallest and largest factor by which images are resized.
        zoom_draw: How it is drawn between them: ``log`` favours small factors, ``uniform`` does not.
        flips: Flips and quarter turns: any of the eight orientations. Without: left-right flips only.
        crop_px: Sides of the view are at most this long, in zoomed image px.
        least_visible: Objects of which a smaller share is left in the view are ignored; of those that are
            larger than the view, where they fill a smaller share of it.
    """

    zoom: tuple[float, float] = (0.75, 1.35)
    zoom_draw: ZoomDraw = "log"
    flips: bool = True
    crop_px: int = 320
    least_visible: float = 0.15

    @property
    def largest_window_px(self) -> float:
        """Side of the largest part of an image that a view shows, px."""
        return self.crop_px / self.zoom[0]


@dataclass(frozen=True, kw_only=True)
class PhotometryConfig:
    """How a view's intensities change.

    Attributes:
        jitter: Brightness and contrast change by up to this share; 0 is off.
        gamma: The image is raised to a power in exp(-gamma)..exp(gamma); 0 is off.
        hue: Saturation changes by up to ``jitter`` and hue by up to this (colour images only).
        jitter_p: How often jitter is applied.
        gray_p: How often colour is dropped.
        blur_p: How often the image is blurred, with a sigma in 0.1..2 px.
        noise: Largest standard deviation of added Gaussian noise, of full scale.
    """

    jitter: float = 0.1
    gamma: float = 0.15
    hue: float = 0.0
    jitter_p: float = 1.0
    gray_p: float = 0.0
    blur_p: float = 0.0
    noise: float = 0.0


# The view of the reference (facts of its code: ColorJitter(0.4, 0.4, 0.4, 0.1) with p 0.8, grayscale p 0.2,
# Gaussian blur with sigma 0.1..2.0 and p 0.5).
STRONG = PhotometryConfig(jitter=0.4, gamma=0.0, hue=0.1, jitter_p=0.8, gray_p=0.2, blur_p=0.5)
