"""Which of a teacher's predictions become labels; ``pseudo_labels`` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Thresholded = Literal["model", "class"]

# (quarter turns, flip); those that differ most come first: flipped or not by turns, opposite turns first.
ORIENTATIONS = (
    (0, False), (0, True), (2, False), (2, True), (1, False), (1, True), (3, False), (3, True),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig:
    """Which predictions become labels.

    Attributes:
        score: What decides whether an object is a label, and how sure one: ``model``, the model's score, or
            ``class``, the probability of the class alone (reference). They differ where a model's score
            counts its mask too, as Mask2Former's does.
        min_score: Objects below are not labels. Reference: 0.7.
        ignore_score: Objects from here up to ``min_score`` are ignored, neither object nor background; None
            makes them background, as the reference does.
        min_quality: Objects whose masks are less sharp are ignored.
        min_area_px: Objects with a smaller soft area, px of the image, are not labels. Reference: sum of mask
            probabilities above 5 on the stride-4 grid, which is 80 px.
        min_area_share: The same relative to the data: share of the area of a 5th-percentile object.
        soft_scores: The student learns to be as sure of an object as the teacher was, from ``min_score`` on;
            else every label is certain (reference).
        soft_masks: Masks keep the teacher's probabilities; else they are cut at one half (reference).
        mask_cut: The probability that becomes one half, where an object's outline lies. Reference: 0.5. Boxes
            cut their masks off, each view's elsewhere, so the mean of the views is too small at one half.
        views: Flips and turns that the cached predictions are averaged over, 1..8.
        zooms: Sizes of the views, by turns; small organoids show more when they are enlarged.
    """

    score: Thresholded = "model"
    min_score: float = 0.7
    ignore_score: float | None = None
    min_quality: float = 0.0
    min_area_px: float = 80.0
    min_area_share: float = 0.0
    soft_scores: bool = False
    soft_masks: bool = False
    mask_cut: float = 0.5
    views: int = 1
    zooms: tuple[float, ...] = (1.0,)

    @property
    def pixels_per_image(self) -> float:
        """How many times its own pixels a teacher looks at to label an image."""
        return sum(self.zooms[i % len(self.zooms)] ** 2 for i in range(self.views))
