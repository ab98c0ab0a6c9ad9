"""Depthwise convolutions whose gradients are not the slowest part of a training step on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

# The taps of five that a smaller kernel has, by stride: first, end, step. With stride 2 even taps see the
# even rows of the input, odd taps the odd rows, each with stride 1; with stride 1 two kernels share a tap.
_CUTS = {1: ((0, 3, 1), (2, 5, 1)), 2: ((0, 5, 2), (1, 5, 2))}


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution as another one is; the same function and the same parameters.

    On CPUs it learns in float32, where gradients are up to fifty times as fast as in bfloat16, and kernels of
    five by five take their weights' gradient from four smaller kernels of stride 1, which libraries have fast
    code for: a seventh of the time, or a quarter with stride 2.

    Args:
        conv: What it replaces; padding may be that of TensorFlow (``timm.layers.Conv2dSame``).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        assert conv.groups == conv.in_channels == conv.out_channels
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            groups=conv.groups,
        )
        self.pads_same = isinstance(conv, Conv2dSame)
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, input: Tensor) -> Tensor:
        """As ``nn.Conv2d``."""
        if self.pads_same:
            input = pad_same(input, self.kernel_size, self.stride)
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        if input.device.type != "cpu" or not learns:
            return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        with torch.autocast("cpu", enabled=False):
            if self.kernel_size != (5, 5) or self.stride not in ((1, 1), (2, 2)) or self.bias is None:
                return F.conv2d(
                    input.float(), self.weight, self.bias, self.stride, self.padding, groups=self.groups
                )
            output: Tensor = _FiveByFive.apply(
                input.float(), self.weight, self.bias, self.padding, self.stride[0]
            )
            return output


class _FiveByFive(torch.autograd.Function):
    """A depthwise convolution whose weights' gradient is put together from those of smaller kernels."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int], stride: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.stride = padding, stride
        return F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = (
            conv2d_input(  # type: ignore[no-untyped-call]
                x.shape, weight, gradient, stride=ctx.stride, padding=ctx.padding, groups=len(weight)
            )
            if ctx.needs_input_grad[0]
            else None
        )
        pad_y, pad_x = ctx.padding
        padded = F.pad(x, (pad_x, pad_x, pad_y, pad_y))
        of_weight = torch.empty_like(weight)
        for top, bottom, step in _CUTS[ctx.stride]:
            for left, right, _ in _CUTS[ctx.stride]:
                taps = of_weight[:, :, top:bottom:step, left:right:step]
                height, width = taps.shape[-2:]
                seen = padded[:, :, top :: ctx.stride, left :: ctx.stride]
                seen = seen[:, :, : gradient.shape[2] + height - 1, : gradient.shape[3] + width - 1]
                taps.copy_(
                    conv2d_weight(  # type: ignore[no-untyped-call]
                        seen.contiguous(memory_format=torch.channels_last),
                        (len(weight), 1, height, width),
                        gradient,
                        groups=len(weight),
                    )
                )
        return of_x, of_weight, gradient.sum((0, 2, 3)), None, None
