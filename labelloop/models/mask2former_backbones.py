"""Backbones of Mask2Former: timm's, Swin and DINOv2 with a pyramid, and where their weights come from.

Importing this imports transformers, which is an extra.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    Dinov2Backbone,
    Dinov2Config,
    Mask2FormerForUniversalSegmentation,
    PreTrainedConfig,
    SwinBackbone,
    SwinConfig,
)
from transformers.utils import logging

from labelloop.errors import ModelError
from labelloop.models.mask2former_network import QueryNetwork, load_decoders
from labelloop.plurals import plural

DINO_STRIDE = 16  # input px per patch, after the input was resized for it
STAGES = ["stage1", "stage2", "stage3", "stage4"]


class TimmLevels(nn.Module):
    """A timm ``features_only`` model with features at strides 4, 8, 16 and 32."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.channels: tuple[int, ...] = tuple(body.feature_info.channels())  # type: ignore[operator, union-attr]

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """See FourLevels."""
        features: Sequence[Tensor] = self.body(images)
        return features


class SwinLevels(nn.Module):
    """Swin Transformer (Liu et al. 2021)."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.body = SwinBackbone(config)
        self.channels: tuple[int, ...] = tuple(self.body.channels)

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """See FourLevels."""
        features: Sequence[Tensor] = self.body(images).feature_maps
        return features


class DinoPyramid(nn.Module):
    """DINOv2 (Oquab et al. 2023) with the simple pyramid of ViTDet (Li et al. 2022, section 3).

    The patches of the last layer become strides 4 and 8 by transposed convolutions, and 32 by pooling. The
    input is resized so that a patch is 16 px of it.
    """

    def __init__(self, config: Dinov2Config) -> None:
        super().__init__()
        self.body = Dinov2Backbone(config)
        width = config.hidden_size
        self.patch_px = int(config.patch_size)
        self.to_8 = nn.ConvTranspose2d(width, width // 2, 2, 2)
        self.to_4 = nn.Sequential(
            nn.ConvTranspose2d(width, width // 2, 2, 2),
            nn.GroupNorm(1, width // 2),
            nn.GELU(),
            nn.ConvTranspose2d(width // 2, width // 4, 2, 2),
        )
        self.channels = (width // 4, width // 2, width, width)

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """See FourLevels."""
        size = [side // DINO_STRIDE * self.patch_px for side in images.shape[-2:]]
        resized = F.interpolate(images, size, mode="bilinear", antialias=True)
        (patches,) = self.body(resized).feature_maps
        return self.to_4(patches), self.to_8(patches), patches, F.max_pool2d(patches, 2)


def swin(**sizes: Any) -> SwinLevels:
    """Swin Transformer of the given sizes (names of transformers' SwinConfig), random weights."""
    return SwinLevels(SwinConfig(**sizes, out_features=STAGES))


def dinov2(**sizes: Any) -> DinoPyramid:
    """DINOv2 of the given sizes (names of transformers' Dinov2Config), random weights."""
    config = Dinov2Config(image_size=518, patch_size=14, **sizes)
    config.out_features = [f"stage{config.num_hidden_layers}"]
    return DinoPyramid(config)


def load_pretrained(network: QueryNetwork, source: str) -> None:
    """Takes over pretrained weights: a backbone's, or those of a whole Mask2Former.

    Args:
        network: On a SwinLevels or a DinoPyramid.
        source: A folder as transformers writes it, or a name on its hub. What ``config.json`` calls
            ``mask2former`` is a whole network, ``swin`` or ``dinov2`` a backbone.

    Raises:
        ModelError: The weights cannot be found or downloaded, or are of another kind or size.
    """
    body: Any = network.backbone.body
    try:
        with _quiet():
            kind = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
            if kind == "mask2former":
                theirs = _whole(Mask2FormerForUniversalSegmentation, source)
                body.load_state_dict(theirs.model.pixel_level_module.encoder.state_dict())
                load_decoders(network.decoders, theirs)
                return
            if kind != body.config.model_type:
                raise ModelError(
                    f"these weights are not of a {body.config.model_type} backbone or a mask2former",
                    value=f"{source} ({kind})",
                    way_out="config.json in a folder of weights says what they are of, as model_type.",
                )
            found = _whole(type(body), source, out_features=body.config.out_features)
            body.load_state_dict(found.state_dict())
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"pretrained weights could not be found or do not fit ({_first_line(error)})",
            value=source,
            way_out="Give a folder as transformers writes it, with config.json, after a colon: NAME:FOLDER;"
            " mask2former-lite needs no download.",
        ) from error


def _whole(kind: Any, source: str, **settings: Any) -> Any:
    """A module with all of its weights, but for those that only a Mask2Former adds to a backbone."""
    found, about = kind.from_pretrained(source, output_loading_info=True, **settings)
    added = ("hidden_states_norms.", "criterion.")
    missing = [name for name in sorted(about["missing_keys"]) if not name.startswith(added)]
    if missing:
        tensors = plural(len(missing), "of its tensors is", "of its tensors are")
        raise RuntimeError(f"{tensors} missing, {missing[0]} among them")
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' reports and progress bars."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
