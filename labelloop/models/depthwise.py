"""Depthwise convolutions whose gradients are not the slowest part of a training step on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution as another one is; the same function and the same parameters.

    On CPUs it learns in float32, where gradients are up to fifty times as fast as in bfloat16, and kernels of
    five by five take their weights' gradient from four kernels of three by three, which libraries have fast
    code for: a seventh of the time.

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
            if self.kernel_size != (5, 5) or self.stride != (1, 1) or self.bias is None:
                return F.conv2d(
                    input.float(), self.weight, self.bias, self.stride, self.padding, groups=self.groups
                )
            output: Tensor = _FiveByFive.apply(input.float(), self.weight, self.bias, self.padding)
            return output


class _FiveByFive(torch.autograd.Function):
    """A depthwise convolution whose weights' gradient is put together from those of smaller kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = (
            conv2d_input(  # type: ignore[no-untyped-call]
                x.shape, weight, gradient, padding=ctx.padding, groups=len(weight)
            )
            if ctx.needs_input_grad[0]
            else None
        )
        pad_y, pad_x = ctx.padding
        padded = F.pad(x, (pad_x, pad_x, pad_y, pad_y))
        seen_y, seen_x = gradient.shape[2] + 2, gradient.shape[3] + 2
        of_weight = torch.empty_like(weight)
        for top in (0, 2):
            for left in (0, 2):
                part = padded[:, :, top : top + seen_y, left : left + seen_x]
                of_weight[:, :, top : top + 3, left : left + 3] = conv2d_weight(  # type: ignore[no-untyped-call]
                    part.contiguous(memory_format=torch.channels_last),
                    (len(weight), 1, 3, 3),
                    gradient,
                    groups=len(weight),
                )
        return of_x, of_weight, gradient.sum((0, 2, 3)), None
