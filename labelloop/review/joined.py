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
        unseen: bool (h, w), where nobody has looked.
    """

    objects: Instances
    undecided: Instances
    unseen: BoolArray

    @classmethod
    def nothing(cls, size_hw: tuple[int, int]) -> Joined:
        """Nobody has looked at the image."""
        empty = Instances(size_hw=size_hw)
        return cls(objects=empty, undecided=empty, unseen=np.ones(size_hw, np.bool_))

    @classmethod
    def of_labels(cls, labels: Instances) -> Joined:
        """An image's labels; what is crowd in them nobody has looked at."""
        return cls(
            objects=replace(labels.select(~labels.crowd), scores=None),
            undecided=Instances(size_hw=labels.size_hw),
            unseen=_union(labels.select(labels.crowd)),
        )

    @property
    def unknown(self) -> BoolArray:
        """Bool (h, w), what is not known: unseen, or an undecided object."""
        return self.unseen | _union(self.undecided)

    def labels(self) -> Instances:
        """The labels: the objects, and as crowd what is not known."""
        crowds = list(zip(self.undecided.rles, self.undecided.labels.tolist(), strict=True))
        if self.unseen.any():
            crowds.append((Instances.from_dense(self.unseen[None]).rles[0], 0))
        n_objects = len(self.objects)
        return Instances(
            size_hw=self.objects.size_hw,
            rles=(*self.objects.rles, *(rle for rle, _ in crowds)),
            labels=np.concatenate([self.objects.labels, np.array([label for _, label in crowds], np.int64)]),
            crowd=np.arange(n_objects + len(crowds)) >= n_objects,
        )


def _union(instances: Instances) -> BoolArray:
    """Bool (h, w), what lies in any of them."""
    return np.asarray(instances.to_dense().any(axis=0), np.bool_)
