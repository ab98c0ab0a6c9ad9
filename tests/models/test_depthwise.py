"""Depthwise convolutions are the ones they replace, forwards and backwards."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from labelloop.models.depthwise import DepthwiseConv2d


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("size_hw", [(13, 13), (26, 17), (5, 8)])
def test_values_and_gradients_are_those_of_the_convolution_it_replaces(
    kernel: int, stride: int, same: bool, size_hw: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    conv = (
        Conv2dSame(12, 12, kernel, stride=stride, groups=12)
        if same
        else nn.Conv2d(12, 12, kernel, stride=stride, padding=kernel // 2, groups=12)
    )
    x = torch.randn(2, 12, *size_hw)
    ours = DepthwiseConv2d(conv)
    found = []
    for layer in (conv, ours):
        given = x.clone().requires_grad_(True)
        conv.zero_grad()
        y = layer(given)
        y.square().sum().backward()
        found.append((y, *(torch.clone(t.grad) for t in (given, conv.weight, conv.bias))))
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_it_learns_in_full_precision_and_predicts_in_the_narrow_one() -> None:
    conv = DepthwiseConv2d(nn.Conv2d(4, 4, 5, padding=2, groups=4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(torch.randn(1, 4, 9, 9)).dtype == torch.float32
        with torch.no_grad():
            assert conv(torch.randn(1, 4, 9, 9)).dtype == torch.bfloat16
