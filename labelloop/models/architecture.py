"""Architecture: what the catalogue knows of a kind of network before one is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import InstanceModel


class BuildsModel(Protocol):
    """Makes a network for its data."""

    def __call__(self, stats: DataStats, *, variant: str | None, pretrained: bool) -> InstanceModel:
        """A fresh network.

        Args:
            stats: Of the labelled images.
            variant: What follows the colon in ``NAME:VARIANT``; None without one.
            pretrained: False leaves all weights random, for a network whose weights are loaded next.

        Raises:
            ModelError: Its weights, or software that it needs, cannot be found.
        """


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One thing that ``--model`` takes. docs/extending.md adds one.

    Attributes:
        name: What ``--model`` takes.
        description: One line.
        parameters_m: Millions of parameters, for one class; None where they depend on the variant.
        weights: Where pretrained weights come from.
        licence: Licence of the weights.
        build: Makes a network for its data.
        training_view_px: Side of the crops that it is trained on, image px, for such data: larger images are
            never seen whole.
        variant: What may follow the name after a colon, in words; empty if nothing may.
        missing: What it takes to build one here, in words; empty where nothing is missing.
        note: What else one should know here.
    """

    name: str
    description: str
    parameters_m: float | None
    weights: str
    licence: str
    build: BuildsModel
    training_view_px: Callable[[DataStats], int]
    variant: str = ""
    missing: Callable[[], str] = str
    note: Callable[[], str] = str
