"""Weak and strong views: one geometry for both, photometry that differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor

from labelloop.data.objects import SoftObjects
from labelloop.data.view_settings import GeometryConfig, PhotometryConfig
from labelloop.masks import resample_mask
from labelloop.models.protocol import Target

FloatImage = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """One draw of the geometry.

    Attributes:
        window: Top, left, height and width of the part of the image that is seen, px.
        view_hw: Size of the view.
        turns: Quarter turns after the flip, 0..3.
        flip: Left-right flip before the turns.
        scale: Pixels of the view per zoomed pixel of the image: below 1 where it is as coarse as a network
            sees it.
    """

    window: tuple[int, int, int, int]
    view_hw: tuple[int, int]
    turns: int
    flip: bool
    scale: float = 1.0


def draw_geometry(
    rng: np.random.Generator, size_hw: tuple[int, int], config: GeometryConfig, *, scale: float = 1.0
) -> Geometry:
    """Draws a zoom, a window and an orientation.

    Args:
        rng: Where the draws come from.
        size_hw: Of the image, px.
        config: What may be drawn.
        scale: See Geometry; it changes no draw.
    """
    if config.zoom_draw == "uniform":
        zoom = float(rng.uniform(*config.zoom))
    else:
        zoom = float(np.exp(rng.uniform(np.log(config.zoom[0]), np.log(config.zoom[1]))))
    sides, starts, view = [], [], []
    for size in size_hw:
        side = min(max(round(config.crop_px / zoom), 1), size)
        sides.append(side)
        starts.append(int(rng.integers(0, size - side + 1)))
        view.append(max(round(side * zoom * scale), 1))
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    return Geometry(
        window=(starts[0], starts[1], sides[0], sides[1]),
        view_hw=(view[0], view[1]),
        turns=turns if config.flips else 0,
        flip=flip,
        scale=scale,
    )


def orient(array: Tensor, geometry: Geometry) -> Tensor:
    """Flips and turns the last two axes."""
    return torch.rot90(array.flip(-1) if geometry.flip else array, geometry.turns, (-2, -1))


def view_image(window: FloatImage, geometry: Geometry) -> Tensor:
    """The view of an image under a geometry: float32 (3, h, w).

    Args:
        window: float32 (3, h, w), 0..1, the geometry's window of the image.
        geometry: A draw for an image of this size.
    """
    height, width = window.shape[1:]
    view = torch.from_numpy(np.ascontiguousarray(window))
    if geometry.view_hw != (height, width):
        shrinks = geometry.view_hw[0] < height
        view = F.interpolate(view[None], geometry.view_hw, mode="bilinear", antialias=shrinks)[0]
    return orient(view, geometry).contiguous()


def view_objects(objects: SoftObjects, geometry: Geometry, *, least_visible: float) -> Target:
    """The objects under a geometry; those outside the view are gone, slivers at its border are ignored.

    What lies beyond the view costs nothing where it is ignored anyway: the unknown area of a partly reviewed
    field is as large as the field. In a view that shows an image smaller an object is there however thin it
    is.
    """
    per_y, per_x = objects.grid_yx
    top, left, height, width = (
        at * per for at, per in zip(geometry.window, (per_y, per_x, per_y, per_x), strict=True)
    )
    rows, columns = slice(round(top), round(top + height)), slice(round(left), round(left + width))
    view_h, view_w = geometry.view_hw
    scale = np.array([view_w / width, view_h / height] * 2, np.float32)
    coarse = geometry.scale < 1
    may_lose = coarse or view_h < height or view_w < width
    kept, masks, ignore = [], [], []
    for i, (crop, (y, x)) in enumerate(zip(objects.crops, objects.offsets_yx, strict=True)):
        inside = crop[
            max(rows.start - y, 0) : max(rows.stop - y, 0),
            max(columns.start - x, 0) : max(columns.stop - x, 0),
        ]
        if not (inside > 127).any():
            continue
        corners = np.array([x, y, x + crop.shape[1], y + crop.shape[0]]) - [left, top, left, top]
        box = (corners * scale).astype(np.float32)
        kept.append(i)
        small, at_y, at_x = resample_mask(crop, box, geometry.view_hw, antialias=coarse)
        if may_lose and small.max() <= 127:  # it is thinner than a pixel, or lies between two
            small, at_y, at_x = resample_mask(crop, box, geometry.view_hw, antialias=True)
            small = np.rint(small * (inside.max() / max(small.max(), 1))).astype(np.uint8)
        mask = np.zeros(geometry.view_hw, np.uint8)
        mask[at_y : at_y + small.shape[0], at_x : at_x + small.shape[1]] = small
        masks.append(mask)
        ignore.append(
            bool(objects.ignore[i]) or _visible_share(inside, crop, view_px=height * width) < least_visible
        )
    stacked = (
        torch.from_numpy(np.stack(masks)) if masks else torch.zeros((0, view_h, view_w), dtype=torch.uint8)
    )
    return Target(
        masks=orient(stacked, geometry).contiguous(),
        labels=torch.from_numpy(objects.labels[kept]),
        weights=torch.from_numpy(objects.weights[kept]),
        ignore=torch.tensor(ignore, dtype=torch.bool),
    )


def _visible_share(inside: npt.NDArray[np.uint8], crop: npt.NDArray[np.uint8], *, view_px: float) -> float:
    """How much of an object a view shows, of what it can show: all of it, or as much as fills the view."""
    most = max(min(np.count_nonzero(crop > 127), view_px), 1)
    return float(np.count_nonzero(inside > 127) / most)


def change_photometry(rng: np.random.Generator, image: Tensor, config: PhotometryConfig) -> Tensor:
    """Changes a view's intensities; the result is clipped to 0..1.

    Args:
        rng: Where the draws come from.
        image: float32 (3, h, w), 0..1.
        config: How much may change.
    """
    jittered, blurred, grayed = (
        rng.random() < config.jitter_p,
        rng.random() < config.blur_p,
        rng.random() < config.gray_p,
    )
    brightness, contrast, saturation = rng.uniform(1 - config.jitter, 1 + config.jitter, 3)
    hue = rng.uniform(-config.hue, config.hue) if config.hue else 0.0
    gamma = float(np.exp(rng.uniform(-config.gamma, config.gamma))) if config.gamma else 1.0
    sigma, noise = float(rng.uniform(0.1, 2.0)), float(rng.uniform(0, config.noise)) if config.noise else 0.0
    if jittered:
        image = TF.adjust_contrast(TF.adjust_brightness(image, brightness), contrast)
        if config.hue and not is_gray(image):
            image = TF.adjust_hue(TF.adjust_saturation(image, saturation), hue)
    if grayed and not is_gray(image):
        image = TF.rgb_to_grayscale(image, 3)
    if gamma != 1.0:
        image = image.clamp(0, 1) ** gamma
    if blurred:
        reach = int(2 * sigma) + 1  # less where the view is smaller: it is reflected at its border once
        across = [2 * min(reach, side - 1) + 1 for side in (image.shape[2], image.shape[1])]
        image = TF.gaussian_blur(image, across, [sigma, sigma])
    if noise > 0:
        grain = rng.standard_normal(image.shape[1:], dtype=np.float32) * noise
        image = image + torch.from_numpy(grain)
    return image.clamp(0, 1)


def is_gray(image: Tensor) -> bool:
    """Whether the three channels are one."""
    return bool(torch.equal(image[0], image[1]) and torch.equal(image[0], image[2]))
