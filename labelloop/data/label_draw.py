"""The label draw: which labelled images a run may see, and which of them validate."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labelloop.data.groups import units_of
from labelloop.errors import TrainingError, UsageError
from labelloop.plurals import plural
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


def set_aside(drawn: int, share: float) -> int:
    """How many of so many drawn labels validate, if each can be set aside alone: 0 of a small draw."""
    if share <= 0 or drawn < FEWEST_FOR_VALIDATION:
        return 0
    return max(math.ceil(drawn * share), FEWEST_VALIDATION_IMAGES)


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
            value=plural(len(images), "image"),
            way_out="Add some with labelloop add labels.",
        )
    rng = np.random.default_rng([seed, 1])
    order = _grouped_order(labelled, rng)
    drawn = order if budget is None else order[:budget]
    train: list[ImageRecord] = list(drawn)
    val: list[ImageRecord] = []
    if wanted := set_aside(len(drawn), validation_share):
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
    asked = {image.id for image in order[:wanted]}
    begun = {image.id for unit in units_of(order) if any(i.id in asked for i in unit) for image in unit}
    whole = [image for image in order if image.id in begun]
    val = whole if len(whole) <= MOST_VALIDATION * len(order) else order[:wanted]
    train = [image for image in drawn if image.id not in begun]
    # Where one group holds everything groups cannot be kept apart.
    return train or [image for image in drawn if image.id not in asked], val


def _grouped_order(images: Sequence[ImageRecord], rng: np.random.Generator) -> list[ImageRecord]:
    units = units_of(sorted(images, key=lambda image: image.sha256))
    return [image for i in rng.permutation(len(units)) for image in units[i]]
