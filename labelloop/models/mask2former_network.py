"""The network of Mask2Former: transformers' pixel and query decoders on any backbone with four levels.

Importing this imports transformers, which is an extra: only who builds a Mask2Former does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)

from labelloop.models.mask2former_criterion import QueryOutput


class FourLevels(Protocol):
    """A backbone.

    Attributes:
        channels: Widths of its features at strides 4, 8, 16 and 32.
    """

    channels: tuple[int, int, int, int]

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        """Features at strides 4, 8, 16 and 32 of images, float32 (b, 3, h, w), normalised as ImageNet."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of the decoders under transformers' names; the defaults are the paper's.

    Attributes:
        feature_size: Width of the pixel decoder; a multiple of 32.
        mask_feature_size: Width of the embeddings whose products are the masks.
        hidden_dim: Width of the query decoder.
        encoder_feedforward_dim: Width inside the layers of the pixel decoder.
        dim_feedforward: Width inside the layers of the query decoder.
        encoder_layers: Layers of multi-scale deformable attention in the pixel decoder.
        decoder_layers: Outputs of the query decoder; one more than it has layers.
        num_attention_heads: Of both.
    """

    feature_size: int = 256
    mask_feature_size: int = 256
    hidden_dim: int = 256
    encoder_feedforward_dim: int = 1024
    dim_feedforward: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 10
    num_attention_heads: int = 8


class FullPrecisionGroupNorm(nn.GroupNorm):
    """A group normalisation whose answers are float32 whatever precision the rest computes in.

    The pixel decoder says where it samples in the type of these answers; bfloat16 would be off by up to a
    256th of the image.
    """

    def forward(self, x: Tensor) -> Tensor:
        """See nn.GroupNorm."""
        return super().forward(x.float())


class Decoders(Mask2FormerPreTrainedModel):  # type: ignore[misc]
    """What follows the backbone, initialised as transformers initialises it.

    Args:
        config: transformers' own.
        channels: Widths of the backbone's features.
    """

    def __init__(self, config: Mask2FormerConfig, channels: Sequence[int]) -> None:
        super().__init__(config)
        self.pixels = Mask2FormerPixelDecoder(config, feature_channels=list(channels))
        self.queries = Mask2FormerTransformerModule(in_features=config.feature_size, config=config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        for projection in self.pixels.input_projections:
            projection[1] = FullPrecisionGroupNorm(projection[1].num_groups, projection[1].num_channels)
        self.post_init()


class QueryNetwork(nn.Module):
    """Backbone, pixel decoder and query decoder.

    Args:
        backbone: A module that is a FourLevels.
        decoder: Sizes.
        n_classes: Classes without "no object".
        n_queries: At most so many objects are seen in an image.
    """

    def __init__(
        self, backbone: nn.Module, decoder: DecoderConfig, *, n_classes: int, n_queries: int
    ) -> None:
        super().__init__()
        config = Mask2FormerConfig(**asdict(decoder), num_queries=n_queries, num_labels=n_classes)
        self.backbone = backbone
        self.decoders = Decoders(config, cast(FourLevels, backbone).channels)

    def forward(self, images: Tensor) -> list[QueryOutput]:
        """What the queries see after each layer of the decoder, the last one last.

        Args:
            images: float32 (b, 3, h, w), normalised as ImageNet; sides are multiples of 32.
        """
        features = [level.float() for level in self.backbone(images)]
        pixels = self.decoders.pixels(features)
        seen = self.decoders.queries(
            multi_scale_features=pixels.multi_scale_features, mask_features=pixels.mask_features
        )
        return [
            QueryOutput(classes_BQK=self.decoders.class_predictor(states.transpose(0, 1)), masks_BQHW=masks)
            for states, masks in zip(seen.intermediate_hidden_states, seen.masks_queries_logits, strict=True)
        ]


@torch.no_grad()
def load_decoders(decoders: Decoders, theirs: Any) -> None:
    """Takes over the decoders of a whole Mask2Former of transformers.

    Of its queries so many are taken as there is room for, the rest stay as they are; so does the class head
    unless it is for as many classes.

    Args:
        decoders: Of the same sizes.
        theirs: A ``Mask2FormerForUniversalSegmentation``.

    Raises:
        RuntimeError: It has other sizes.
    """
    decoders.pixels.load_state_dict(theirs.model.pixel_level_module.decoder.state_dict())
    state, own = theirs.model.transformer_module.state_dict(), decoders.queries.state_dict()
    for name in ("queries_embedder.weight", "queries_features.weight"):
        if own[name].shape[1] == state[name].shape[1]:
            room = min(len(own[name]), len(state[name]))
            state[name] = torch.cat([state[name][:room], own[name][room:]])
    decoders.queries.load_state_dict(state)
    if theirs.class_predictor.weight.shape == decoders.class_predictor.weight.shape:
        decoders.class_predictor.load_state_dict(theirs.class_predictor.state_dict())
