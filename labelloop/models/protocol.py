"""InstanceModel: what distillation, prediction and metrics need of a network, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from labelloop.instances import Instances


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a model should see in one image.

    Attributes:
        masks: uint8 (n, h, w), 0..255: the probability that a pixel is inside the object, times 255. Hard
            labels are 0 or 255; averaged pseudo-labels may be anything between. Masks may overlap.
        labels: int64 (n,), class index from 0.
        weights: float32 (n,), 0..1, how sure it is that the object is one; 1 for annotations. A model should
            give it this score; its box and mask count so much in the loss.
        ignore: bool (n,), objects that are neither positive nor background (crowds, middle confidence).
        annotated: Whether people made them. Of pseudo-labels a model may leave out those it has no room for.
    """

    masks: Tensor
    labels: Tensor
    weights: Tensor
    ignore: Tensor
    annotated: bool = True

    def to(self, device: torch.device) -> Target:
        """The same target on a device."""
        return Target(
            masks=self.masks.to(device),
            labels=self.labels.to(device),
            weights=self.weights.to(device),
            ignore=self.ignore.to(device),
            annotated=self.annotated,
        )


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model sees in one image, on the CPU, best score first.

    A soft mask is kept as a crop around its object: enough for any image size.

    Attributes:
        size_hw: Height and width of the image, px.
        labels: int64 (n,), class index from 0.
        scores: float32 (n,), 0..1.
        quality: float32 (n,), 0..1, how sharp the mask is: mean over its pixels of |2p - 1|.
        crops: n arrays, uint8 (h_i, w_i), 0..255: probability of the mask times 255; zero outside the crop.
        offsets_yx: int64 (n, 2), the crop's top left pixel in the image; a crop lies inside the image.
        class_scores: float32 (n,), 0..1, the probability of the class alone, from models whose scores hold
            more than that; None where ``scores`` are it.
    """

    size_hw: tuple[int, int]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
    quality: npt.NDArray[np.float32]
    crops: tuple[npt.NDArray[np.uint8], ...]
    offsets_yx: npt.NDArray[np.int64]
    class_scores: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def class_probabilities(self) -> npt.NDArray[np.float32]:
        """float32 (n,), 0..1, of each object's class, whatever else its score holds."""
        return self.scores if self.class_scores is None else self.class_scores


class InstanceModel(Protocol):
    """A network for instance segmentation. Implementations are ``nn.Module`` subclasses.

    Images are float32 (3, h, w), already normalised by ``labelloop.images.normalise`` to about 0..1, of any
    size; a model resizes and batches for itself and answers in the coordinates that it was given. A model is
    built for its data: ``labelloop.models.catalog.build_model`` takes their DataStats.
    """

    def loss(self, images: Sequence[Tensor], targets: Sequence[Target]) -> dict[str, Tensor]:
        """Named scalar losses, already weighted; their sum is what is minimised.

        Args:
            images: b float32 tensors (3, h_i, w_i).
            targets: b targets of the same sizes.
        """

    def predict(self, images: Sequence[Tensor], *, min_score: float = 0.05) -> list[Prediction]:
        """What the model sees, without gradients and in evaluation mode, whatever mode it was in."""

    def module(self) -> nn.Module:
        """The network itself: parameters and buffers to optimise, average and save."""


@runtime_checkable
class Coarse(Protocol):
    """A network that sees images smaller than they are, and need not be shown more of them than it sees.

    Attributes:
        grid_scale: Factor by which it makes images smaller, 1 at most. ``loss`` and ``predict`` take images
            that have been resized by it already, or by less, and are told so by ``resized_by``.
    """

    @property
    def grid_scale(self) -> float:
        """See the class."""

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Target], *, resized_by: float = 1.0
    ) -> dict[str, Tensor]:
        """As InstanceModel's; targets are of the sizes of the images as they are given."""

    def predict(
        self, images: Sequence[Tensor], *, min_score: float = 0.05, resized_by: float = 1.0
    ) -> list[Prediction]:
        """As InstanceModel's; the answers are in the coordinates of the images as they are given."""


def grid_scale(model: InstanceModel) -> float:
    """The factor by which images may be resized before a model is shown them, 1 at most."""
    return model.grid_scale if isinstance(model, Coarse) else 1.0


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much there is to learn in some images; several add up.

    Attributes:
        images: How many.
        objects: How many objects that are learnt, each counted as much as it is sure.
    """

    images: int
    objects: float


@runtime_checkable
class Divided(Protocol):
    """A network whose loss is a sum over objects or queries, divided by how many there are.

    Where a step is seen in parts, its loss does not depend on them if each is divided by what is in the whole
    step: so a crowded image counts as much as in a step that is seen at once. The loss of other networks is
    taken for a mean over images.
    """

    def amount(self, targets: Sequence[Target]) -> Amount:
        """What there is to learn in these targets."""

    def loss(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target],
        *,
        resized_by: float = 1.0,
        whole: Amount | None = None,
    ) -> dict[str, Tensor]:
        """As InstanceModel's, divided by what is in the whole step; None where these images are all of it.

        Only a network that is Coarse too is told ``resized_by``.
        """


def loss_of(
    model: InstanceModel,
    images: Sequence[Tensor],
    targets: Sequence[Target],
    *,
    resized_by: float,
    whole: Amount | None = None,
) -> dict[str, Tensor]:
    """A model's loss on images that have been resized by no more than its ``grid_scale``.

    Args:
        model: Looked at for what it can be told.
        images: Float32 (3, h_i, w_i).
        targets: Of the same sizes.
        resized_by: Images and targets have been resized by this.
        whole: What the step holds that these images are a part of; for models that are Divided.
    """
    if whole is not None:
        assert isinstance(model, Divided)
        if resized_by == 1.0:
            return model.loss(images, targets, whole=whole)
        return model.loss(images, targets, resized_by=resized_by, whole=whole)
    if resized_by == 1.0:
        return model.loss(images, targets)
    assert isinstance(model, Coarse)
    return model.loss(images, targets, resized_by=resized_by)


def seen_by(
    model: InstanceModel, images: Sequence[Tensor], *, min_score: float, resized_by: float
) -> list[Prediction]:
    """What a model sees in images that have been resized by no more than its ``grid_scale``."""
    if resized_by == 1.0:
        return model.predict(images, min_score=min_score)
    assert isinstance(model, Coarse)
    return model.predict(images, min_score=min_score, resized_by=resized_by)


@runtime_checkable
class Paced(Protocol):
    """A network that learns at another rate than Mask R-CNN, which the recipes' rate is meant for.

    Attributes:
        lr_factor: Its learning rate, over the recipe's.
    """

    lr_factor: float


def rank_by_mask_quality(prediction: Prediction, *, min_score: float) -> Prediction:
    """The prediction with each score times its mask's quality, best first.

    How sure a model is of an object and of its outline orders masks better than the first alone (as in Huang
    et al. 2019, Mask Scoring R-CNN, section 3, here without a head that learns the second). Scores that hold
    it already, beside those of the class, stay as they are (Mask2Former's, as published).

    Args:
        prediction: n objects.
        min_score: Objects whose product is below are left out, 0..1.
    """
    quality = prediction.quality if prediction.class_scores is None else np.float32(1)
    scores = (prediction.scores * quality).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= min_score]
    return Prediction(
        size_hw=prediction.size_hw,
        labels=prediction.labels[order],
        scores=scores[order],
        quality=prediction.quality[order],
        crops=tuple(prediction.crops[i] for i in order),
        offsets_yx=prediction.offsets_yx[order],
        class_scores=None if prediction.class_scores is None else prediction.class_scores[order],
    )


def to_instances(prediction: Prediction, *, threshold: float = 0.5) -> Instances:
    """Hard masks of a prediction; objects without a pixel above the threshold are dropped.

    Args:
        prediction: n objects.
        threshold: A pixel is inside where its probability is above this, 0..1.
    """
    from pycocotools import mask as coco_mask

    rles: list[bytes] = []
    kept: list[int] = []
    for i, (crop, (top, left)) in enumerate(zip(prediction.crops, prediction.offsets_yx, strict=True)):
        inside = crop > threshold * 255
        if not inside.any():
            continue
        rles.append(_encode_crop(inside, int(top), int(left), prediction.size_hw, coco_mask))
        kept.append(i)
    return Instances(
        size_hw=prediction.size_hw,
        rles=tuple(rles),
        labels=prediction.labels[kept],
        scores=prediction.scores[kept],
    )


def _encode_crop(
    inside: npt.NDArray[np.bool_], top: int, left: int, size_hw: tuple[int, int], coco_mask: object
) -> bytes:
    """Run lengths of a crop in its image, without painting the image.

    Each column of the crop is a run pattern; columns are joined by the background above and below.
    """
    height, width = size_hw
    crop_height, crop_width = inside.shape
    columns = np.zeros((crop_width, crop_height + 2), np.int8)
    columns[:, 1:-1] = inside.T
    edges = np.diff(columns, axis=1)
    column, row = np.nonzero(edges)
    # Positions, column-major, where the value flips; a run that reaches the bottom and goes on at the top of
    # the next column flips twice at one position, and both flips vanish.
    flips = (left + column) * height + top + row
    if crop_height == height:
        positions, counts = np.unique(flips, return_counts=True)
        flips = positions[counts == 1]
    ends = np.concatenate([[0], flips, [height * width]])
    runs = np.diff(ends)
    if runs[-1] == 0:
        runs = runs[:-1]
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)  # type: ignore[attr-defined]
    counts_bytes: bytes = rle["counts"]
    return counts_bytes
