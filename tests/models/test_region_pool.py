"""Pooling on CPUs is torchvision's, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labelloop.models.region_pool import LEVELS, RegionPool

SIZE = 128
CHANNELS = 3


def pyramid(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = {}
    for number, name in enumerate(LEVELS):
        side = SIZE // (4 << number)
        made = torch.randn(2, CHANNELS, side, side, generator=generator, dtype=torch.float64).to(dtype)
        features[name] = made.contiguous(memory_format=torch.channels_last).requires_grad_()
    return features


def boxes(n: int, seed: int) -> Tensor:
    """Of all sizes, from less than a pixel to eight times the image, some beyond its edges."""
    generator = torch.Generator().manual_seed(seed)
    middle = (torch.rand(n, 2, generator=generator) * 1.4 - 0.2) * SIZE
    sides = 0.5 * (8 * SIZE / 0.5) ** torch.rand(n, 2, generator=generator)
    return torch.cat([middle - sides / 2, middle + sides / 2], 1)


def pooled(pool: Callable[..., Tensor], found: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    features = pyramid()
    answer = pool(features, found)
    wanted = torch.randn(answer.shape, generator=torch.Generator().manual_seed(1))
    (answer * wanted).sum().backward()
    return answer.detach(), [features[name].grad for name in LEVELS]  # type: ignore[misc]


def test_features_and_gradients_are_torchvisions_for_boxes_of_every_size_and_place() -> None:
    for side in (7, 14):
        pool = RegionPool(side)
        ours, our_gradients = pooled(pool, [boxes(300, 2), boxes(200, 3)])
        theirs, their_gradients = pooled(pool.by_torchvision, [boxes(300, 2), boxes(200, 3)])
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        for mine, other in zip(our_gradients, their_gradients, strict=True):
            assert mine.abs().max() > 0  # boxes of every level
            torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-4)


def test_torchvision_pools_the_same_whatever_the_size_of_the_batch_before() -> None:
    """The first batch fills nine of its sixteen pixels: 36 of the 64 that it was padded to."""
    pool, generator = RegionPool(7), torch.Generator().manual_seed(7)
    for padded, image in ((64, 36), (SIZE, SIZE), (96, 70)):
        sides = [padded // (4 << number) for number in range(len(LEVELS))]
        levels = [torch.randn(1, CHANNELS, side, side, generator=generator) for side in sides]
        features, whole = dict(zip(LEVELS, levels, strict=True)), float(image)
        found = [torch.tensor([[2.0, 2.0, 20.0, 24.0], [0.0, 0.0, whole, whole]])]
        torch.testing.assert_close(
            pool.by_torchvision(features, found), pool(features, found), atol=1e-4, rtol=1e-4
        )


def test_each_box_is_seen_in_its_own_image() -> None:
    pool, alone = RegionPool(7), boxes(4, 4)
    whole, gradients = pooled(pool, [torch.zeros(0, 4), alone])
    assert len(whole) == 4
    assert all(g[0].abs().max() == 0 for g in gradients)
    features = {name: f[1:] for name, f in pyramid().items()}
    torch.testing.assert_close(pool(features, [alone]), whole)


def test_no_boxes_give_no_features_and_gradients_of_nothing() -> None:
    answer, gradients = pooled(RegionPool(7), [torch.zeros(0, 4), torch.zeros(0, 4)])
    assert answer.shape == (0, CHANNELS, 7, 7)
    assert all((g == 0).all() for g in gradients)


def test_the_gradient_is_the_derivative() -> None:
    pool, features = RegionPool(3), pyramid(torch.float64)
    found = [boxes(5, 5).double(), boxes(4, 6).double()]

    def answer(*levels: Tensor) -> Tensor:
        return pool(dict(zip(LEVELS, levels, strict=True)), found)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(answer, tuple(features[name] for name in LEVELS), fast_mode=True)


def test_a_level_of_one_pixel_is_that_pixel() -> None:
    features = {name: torch.full((1, 1, 1, 1), 2.0 + number) for number, name in enumerate(LEVELS)}
    answer = RegionPool(7)(features, [torch.tensor([[0.0, 0.0, 3.0, 3.0]])])
    torch.testing.assert_close(answer, torch.full((1, 1, 7, 7), 2.0))
