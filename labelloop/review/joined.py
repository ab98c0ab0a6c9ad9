"""Joined: what is known of an image of which some parts were reviewed, and others not, or not yet."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from labelloop.instances import BoolArray, Instances


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """What is known of an image.

    Attributes:
        objects: That are there; no crowds, without scores.
        undecided: Objects of which a part was looked at, but not by whom they belong to.
        unreadable: Regions that somebody left and that cannot be used, as of a class that the project lacks.
        unseen: bool (h, w), where nobody has looked, or what was drawn there cannot be read.
    """

    objects: Instances
    undecided: Instances
    unreadable: Instances
    unseen: BoolArray

    @classmethod
    def nothing(cls, size_hw: tuple[int, int]) -> Joined:
        """Nobody has looked at the image."""
        empty = Instances(size_hw=size_hw)
        return cls(objects=empty, undecided=empty, unreadable=empty, unseen=np.ones(size_hw, np.bool_))

    @classmethod
    def of_labels(cls, labels: Instances) -> Joined:
        """An image's labels; what is crowd in them nobody has looked at."""
        empty = Instances(size_hw=labels.size_hw)
        return cls(
            objects=replace(labels.select(~labels.crowd), scores=None),
            undecided=empty,
            unreadable=empty,
            unseen=union_mask(labels.select(labels.crowd)),
        )

    @property
    def unknown(self) -> BoolArray:
        """Bool (h, w), what is not known: unseen, an undecided object, or an unreadable region."""
        return self.unseen | union_mask(self.undecided) | union_mask(self.unreadable)

    def labels(self, n_classes: int) -> Instances:
        """The labels: the objects, and what is not known as a crowd of every class."""
        crowds = [*self.undecided.rles, *self.unreadable.rles]
        if self.unseen.any():
            crowds.append(Instances.from_dense(self.unseen[None]).rles[0])
        n_objects, every = len(self.objects), np.repeat(np.arange(n_classes), len(crowds))
        return Instances(
            size_hw=self.objects.size_hw,
            rles=(*self.objects.rles, *crowds * n_classes),
            labels=np.concatenate([self.objects.labels, every]),
            crowd=np.arange(n_objects + len(every)) >= n_objects,
        )


def union_mask(instances: Instances) -> BoolArray:
    """Bool (h, w), what lies in any of them; each mask is made once, however many classes share it."""
    union = np.zeros(instances.size_hw, np.bool_)
    for i in {rle: i for i, rle in enumerate(instances.rles)}.values():
        union |= instances.mask(i)
    return union
