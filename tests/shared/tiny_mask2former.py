"""A Mask2Former that is small enough for a test."""

from __future__ import annotations

from torch import nn

from labelloop.models.mask2former import Mask2FormerFit

TINY_SWIN = {
    "embed_dim": 8,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 2, 2),
    "window_size": 4,
    "drop_path_rate": 0.0,
}
TINY = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 32,
    "dim_feedforward": 32,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "num_attention_heads": 2,
}
FIT = Mask2FormerFit(n_classes=2, input_scale=1.0, queries=12)


def tiny_network(backbone: nn.Module, fit: Mask2FormerFit = FIT) -> nn.Module:
    from labelloop.models.mask2former_network import DecoderConfig, QueryNetwork

    return QueryNetwork(backbone, DecoderConfig(**TINY), n_classes=fit.n_classes, n_queries=fit.queries)


def tiny_swin(fit: Mask2FormerFit = FIT) -> nn.Module:
    """Of random weights."""
    from labelloop.models.mask2former_backbones import swin

    return tiny_network(swin(**TINY_SWIN), fit)
