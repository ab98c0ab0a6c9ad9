"""Suspect: one place where a label is probably wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["missed", "spurious", "merged", "split", "sloppy", "wrong-class"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One labelled object, or one predicted object without a label, and what may be wrong with it.

    Attributes:
        kind: missed (an object without a label), spurious (a label without an object), merged (one label over
            two objects), split (labels that are parts of one object), sloppy (a boundary that is off) or
            wrong-class.
        score: 0..1, the surer the higher; orders suspects of all kinds, but is not a probability.
        image: Index of the image.
        labels: Indices of the labels in question; none where one is missed, all parts where one is split.
        predictions: Indices of the predictions that say so; none where a label is spurious.
        area_px: Of the first label, or of the object that was missed.
    """

    kind: Kind
    score: float
    image: int
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    area_px: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON prints it; whoever prints it names the image."""
        return {
            "kind": self.kind,
            "score": self.score,
            "image": self.image,
            "labels": list(self.labels),
            "predictions": list(self.predictions),
            "area_px": self.area_px,
        }
