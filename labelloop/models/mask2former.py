"""Mask2Former (Cheng et al. 2022, Masked-attention Mask Transformer for Universal Image Segmentation)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labelloop.models.data_stats import DataStats
from labelloop.models.inputs import ResizingModule, input_scale
from labelloop.models.mask2former_criterion import CriterionConfig, QueryOutput, QueryTarget, query_losses
from labelloop.models.protocol import Amount, Prediction, Target
from labelloop.models.query_masks import query_prediction

MASK_STRIDE = 4  # input px per cell of the masks
QUERIES_PER_OBJECT = 1.5  # headroom over the fullest labelled image
LARGEST_VIEW = 1.5  # sides of what is seen at once, over those of the training crops
MOST_LOGITS = 2**26  # of one output of the decoder that a prediction holds at once: 268 MB


@dataclass(frozen=True, kw_only=True)
class Mask2FormerFit:
    """What follows from the data. ``fit_to`` makes one.

    Attributes:
        n_classes: Classes without "no object".
        input_scale: The network sees images resized by this factor.
        queries: At most so many objects are seen at once.
    """

    n_classes: int
    input_scale: float
    queries: int


def fit_to(
    stats: DataStats, *, target_diameter_px: float, input_side_px: int, least_queries: int
) -> Mask2FormerFit:
    """What the labelled data ask for.

    There are as many queries as the fullest labelled view has objects, and half as many again as long as
    objects of the median size fit side by side into a view. Of a large field a model sees crops and tiles.

    Args:
        stats: Of the labelled images.
        target_diameter_px: Equivalent diameter of the median object in the network's input.
        input_side_px: Side of the training crops in the network's input.
        least_queries: However few objects there are.
    """
    scale = input_scale(stats, target_diameter_px=target_diameter_px)
    view_px = (LARGEST_VIEW * input_side_px / scale) ** 2
    fit = view_px / (math.pi / 4 * stats.diameter_px[1] ** 2)
    most = stats.objects_per_image[1]
    wanted = min(QUERIES_PER_OBJECT * most, max(fit, most))
    return Mask2FormerFit(
        n_classes=len(stats.classes),
        input_scale=scale,
        queries=max(least_queries, math.ceil(wanted / 10) * 10),
    )


class Mask2Former(ResizingModule):
    """A network of queries as an InstanceModel.

    Args:
        network: Sees QueryOutputs in a padded batch, the last one last.
        fit: What follows from the data.
        criterion: What the network learns by.
        lr_factor: See Paced.
    """

    def __init__(
        self,
        network: nn.Module,
        fit: Mask2FormerFit,
        criterion: CriterionConfig,
        *,
        lr_factor: float = 1.0,
    ) -> None:
        super().__init__(fit.input_scale)
        self.network: Callable[[Tensor], Sequence[QueryOutput]] = network
        self.fit = fit
        self.criterion = criterion
        self.lr_factor = lr_factor

    def amount(self, targets: Sequence[Target]) -> Amount:
        """See Divided."""
        weights = [target.weights[_learnt(target, self.fit.queries)] for target in targets]
        return Amount(images=len(targets), objects=float(torch.cat(weights).sum()) if weights else 0.0)

    def loss(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target],
        *,
        resized_by: float = 1.0,
        whole: Amount | None = None,
    ) -> dict[str, Tensor]:
        """Losses ``class``, ``mask`` and ``dice``; see Coarse and Divided.

        Raises:
            TrainingError: An image has more annotated objects than there are queries.
        """
        batch, _ = self.batch(images, resized_by)
        height, width = batch.tensors.shape[-2:]
        wanted = [
            query_target(target, extent_xy=(w / width, h / height), queries=self.fit.queries)
            for target, (h, w) in zip(targets, batch.image_sizes, strict=True)
        ]
        return query_losses(self.network(batch.tensors), wanted, self.criterion, whole)

    @torch.inference_mode()
    def predict(
        self, images: Sequence[Tensor], *, min_score: float = 0.05, resized_by: float = 1.0
    ) -> list[Prediction]:
        """What the model sees; see Coarse."""
        was_training = self.training
        self.eval()
        scale = self.fit.input_scale / resized_by
        largest = max(image.shape[-2] * image.shape[-1] for image in images) * scale**2
        step = max(int(MOST_LOGITS / (self.fit.queries * largest / MASK_STRIDE**2)), 1)
        seen: list[Prediction] = []
        for start in range(0, len(images), step):
            some = images[start : start + step]
            batch, scales = self.batch(some, resized_by)
            last = self.network(batch.tensors)[-1]
            for i, (image, (x, y)) in enumerate(zip(some, scales, strict=True)):
                seen.append(
                    query_prediction(
                        last.classes_BQK[i],
                        last.masks_BQHW[i],
                        cells_per_px_xy=(x / MASK_STRIDE, y / MASK_STRIDE),
                        size_hw=(int(image.shape[-2]), int(image.shape[-1])),
                        min_score=min_score,
                    )
                )
        self.train(was_training)
        return seen


def query_target(target: Target, *, extent_xy: tuple[float, float], queries: int) -> QueryTarget:
    """A target as the criterion takes it.

    Args:
        target: Of one image.
        extent_xy: The share of the padded batch that the image fills.
        queries: How many there are.
    """
    counted = _learnt(target, queries)
    ignored = target.masks[target.ignore]
    return QueryTarget(
        masks=target.masks[counted],
        labels=target.labels[counted],
        weights=target.weights[counted],
        ignored=ignored.amax(0) if len(ignored) else None,
        extent_xy=torch.tensor(extent_xy, device=target.masks.device),
    )


def _learnt(target: Target, queries: int) -> Tensor:
    """Which objects of a target are learnt, int64 (m,), ascending.

    Where there are more pseudo-labels than queries, the least sure ones are left out: averaged over views
    they may be many.
    """
    filled = target.masks.flatten(1).amax(1) > 127
    counted = torch.where(filled & ~target.ignore)[0]
    if len(counted) > queries and not target.annotated:
        by_weight = counted[torch.argsort(target.weights[counted], descending=True, stable=True)]
        counted = by_weight[:queries].sort().values
    return counted
