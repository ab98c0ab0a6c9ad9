"""How many of its labelled images a full run learns: the one conversion between labels and sizes of a curve.

Without validation images ``train`` sets a part of many labels aside to measure and to choose by. A run with
folds sets none aside: models of its folds measure, and its own models learn all labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from labelloop.data.label_draw import draw_labels, set_aside
from labelloop.distill.recipe import find_recipe
from labelloop.project.project import Project


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """Labelled images that a full run learns.

    Attributes:
        share: Of many labels that are set aside, 0..1; 0 where none are.
        rest: Of the images that were learnt if each could be set aside alone, those that are, above 0: mostly
            less than 1 where whole groups are set aside.
    """

    share: float = 0.0
    rest: float = 1.0

    def of(self, labels: float) -> float:
        """Images that are learnt of so many labelled ones."""
        aside = set_aside(round(labels), self.share)
        return (labels - aside) * self.rest if aside else labels

    def labels(self, learnt: float, *, least: int) -> int:
        """The fewest labelled images, at least so many, of which so many are learnt."""
        labels = max(least, math.ceil(learnt - 1e-9))
        while self.of(labels) < learnt - 1e-9:
            labels += 1
        return labels


def learnt_of(project: Project) -> Learnt:
    """What the next run learns, if it is asked for as the newest finished one was.

    Args:
        project: Whose labels. How whole groups are set aside is taken from the labels there are now.
    """
    runs = project.finished_runs(deleted=True)
    config = runs[-1].config if runs else {}
    if config.get("folds") or project.images(split="val", labelled=True):
        return Learnt()
    share = config.get("recipe", {}).get("validation_share", find_recipe(None).validation_share)
    labelled = {image.id for image in project.images(split="train", labelled=True)}
    aside = set_aside(len(labelled), share)
    if not aside:
        return Learnt(share=share)
    images, seed = project.images(split="train"), runs[-1].seed if runs else 0
    draw = draw_labels(images, labelled, budget=None, seed=seed, validation_share=share)
    return Learnt(share=share, rest=len(draw.train) / (len(labelled) - aside))
