"""Synthetic brightfield organoid micrographs whose truth is known exactly.

A micrograph is light times what everything in it lets through: background (uneven, vignetted, sometimes with
the rim of a gel drop) times one transmission per object. So cysts that lie over each other stay visible
through each other, and their masks overlap. Blur enters each object's own profile, as its depth in the gel
would do it; objects far out of focus are ghosts and are not labelled, and neither is debris.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from labelloop.instances import Instances

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Kind = Literal["cyst", "dense", "ghost"]

_REFERENCE_PX = 256 * 256  # counts in SyntheticConfig are for an image of this many pixels
_MIN_VISIBLE_PX = 24  # a labelled object shows at least so much of itself inside the image
_HARMONICS = (2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """How hard and how varied synthetic micrographs are. Pairs are (low, high) of a uniform draw.

    Attributes:
        objects: Labelled objects in 256x256 px; other sizes get as many per area.
        ghosts: Out-of-focus rings in 256x256 px, not labelled.
        debris: Dark specks in 256x256 px, not labelled.
        radius_px: Radius of an object; small ones are commoner (drawn uniformly in the logarithm).
        overlap_share: Share of the objects that are placed across one that is there already.
        dense_share: Share of the objects without a lumen: dark and grainy instead of ring-shaped.
        contrast: How much light a wall takes away, 0..1.
        blur_px: Blur of labelled objects, standard deviation.
        ghost_blur_px: Blur of ghosts, standard deviation.
        background: Brightness of the empty background, gray levels of 255.
        noise: Standard deviation of the noise at the background's brightness, gray levels.
        drop_edge_share: Share of the images that show the rim of a gel drop.
    """

    objects: tuple[int, int] = (5, 16)
    ghosts: tuple[int, int] = (2, 9)
    debris: tuple[int, int] = (8, 45)
    radius_px: tuple[float, float] = (6.0, 34.0)
    overlap_share: float = 0.35
    dense_share: float = 0.25
    contrast: tuple[float, float] = (0.11, 0.5)
    blur_px: tuple[float, float] = (0.7, 1.7)
    ghost_blur_px: tuple[float, float] = (2.7, 7.0)
    background: tuple[float, float] = (80.0, 190.0)
    noise: tuple[float, float] = (1.5, 4.5)
    drop_edge_share: float = 0.2


@dataclass(frozen=True, kw_only=True)
class _Body:
    """One object: where it lies and how its boundary runs; lengths in px, angles in radians."""

    kind: Kind
    y: float
    x: float
    radius: float
    harmonics: tuple[tuple[int, float, float], ...]  # order, relative amplitude, phase
    wall: float
    blur: float
    contrast: float


def organoid_micrograph(
    rng: np.random.Generator,
    *,
    size_hw: tuple[int, int] = (256, 256),
    n_objects: int | None = None,
    config: SyntheticConfig | None = None,
) -> tuple[npt.NDArray[np.uint8], Instances]:
    """One synthetic micrograph and the masks of its organoids.

    Args:
        rng: The only source of randomness: the same generator state gives the same micrograph.
        size_hw: Height and width, px.
        n_objects: How many organoids are placed; drawn from ``config.objects`` if None. One that shows next
            to nothing inside the image is left out of the truth.
        config: How hard it is; the defaults if None.

    Returns:
        uint8 (h, w) and the truth, class 0 throughout. Masks overlap where organoids do.

    Example:
        >>> pixels, truth = organoid_micrograph(np.random.default_rng(0), size_hw=(64, 96), n_objects=3)
        >>> pixels.shape, truth.size_hw
        ((64, 96), (64, 96))
    """
    config = config or SyntheticConfig()
    per_area = size_hw[0] * size_hw[1] / _REFERENCE_PX
    count = _draw_count(rng, config.objects, per_area) if n_objects is None else n_objects
    light = _background(rng, size_hw, config)
    for _ in range(_draw_count(rng, config.ghosts, per_area)):
        _render(rng, light, _draw_body(rng, size_hw, config, [], "ghost"))
    bodies: list[_Body] = []
    rles: list[bytes] = []
    for _ in range(count):
        kind: Kind = "dense" if rng.random() < config.dense_share else "cyst"
        body = _draw_body(rng, size_hw, config, bodies, kind)
        bodies.append(body)
        inside, top, left = _render(rng, light, body)
        if np.count_nonzero(inside) >= _MIN_VISIBLE_PX:
            rles.append(_rle(inside, top, left, size_hw))
    _scatter_debris(rng, light, _draw_count(rng, config.debris, per_area))
    truth = Instances(size_hw=size_hw, rles=tuple(rles), labels=np.zeros(len(rles), np.int64))
    return _expose(rng, light, config), truth


def _draw_count(rng: np.random.Generator, low_high: tuple[int, int], per_area: float) -> int:
    return int(rng.integers(low_high[0], low_high[1] + 1) * per_area + rng.random())


def _draw_body(
    rng: np.random.Generator,
    size_hw: tuple[int, int],
    config: SyntheticConfig,
    placed: list[_Body],
    kind: Kind,
) -> _Body:
    low, high = np.log(config.radius_px)
    radius = float(np.exp(rng.uniform(low, high)))
    if kind == "dense":
        radius = max(config.radius_px[0], 0.7 * radius)
    y, x = rng.uniform(-0.02, 1.02, 2) * size_hw
    if placed and kind != "ghost" and rng.random() < config.overlap_share:
        under = placed[int(rng.integers(len(placed)))]
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 0.97) * (under.radius + radius)
        y, x = under.y + distance * np.sin(angle), under.x + distance * np.cos(angle)
    rough = 0.3 if kind == "dense" else 0.2
    amplitudes = rng.normal(0, rough, len(_HARMONICS)) / np.square(_HARMONICS)
    phases = rng.uniform(0, 2 * np.pi, len(_HARMONICS))
    return _Body(
        kind=kind,
        y=float(y),
        x=float(x),
        radius=radius,
        harmonics=tuple(zip(_HARMONICS, amplitudes.tolist(), phases.tolist(), strict=True)),
        wall=float(np.clip(radius * rng.uniform(0.06, 0.18), 1.2, 4.5)),
        blur=float(rng.uniform(*(config.ghost_blur_px if kind == "ghost" else config.blur_px))),
        contrast=float(rng.uniform(*config.contrast)),
    )


def _render(rng: np.random.Generator, light: Floats, body: _Body) -> tuple[Bools, int, int]:
    """Takes away from ``light`` what the object absorbs, in place.

    Returns:
        A crop of its mask, and the crop's top and left in the image, px.
    """
    height, width = light.shape
    reach = body.radius * 1.4 + 3 * (body.wall + body.blur)
    top, bottom = max(0, int(body.y - reach)), min(height, int(body.y + reach) + 2)
    left, right = max(0, int(body.x - reach)), min(width, int(body.x + reach) + 2)
    if top >= bottom or left >= right:
        return np.zeros((0, 0), np.bool_), 0, 0
    depth = _depth(body, top, bottom, left, right)
    absorbed = _dense_profile(rng, body, depth) if body.kind == "dense" else _cyst_profile(rng, body, depth)
    light[top:bottom, left:right] *= 1 - absorbed
    return depth >= 0, top, left


def _rle(inside: Bools, top: int, left: int, size_hw: tuple[int, int]) -> bytes:
    """Run lengths of a crop in its image, painting only the columns that it covers."""
    height, width = size_hw
    columns = np.zeros((inside.shape[1], height), np.int8)
    columns[:, top : top + inside.shape[0]] = inside.T
    flips = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0))
    runs = np.diff(np.concatenate([[0], left * height + flips, [height * width]]))
    counted = runs.tolist() if runs[-1] else runs[:-1].tolist()
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counted}, height, width)
    counts: bytes = rle["counts"]
    return counts


def _depth(body: _Body, top: int, bottom: int, left: int, right: int) -> Floats:
    """Radial distance of each pixel inward from the boundary, px; negative outside."""
    dy = np.arange(top, bottom)[:, None] - body.y
    dx = np.arange(left, right)[None, :] - body.x
    angle = np.arctan2(dy, dx)
    boundary = np.ones_like(angle)
    for order, amplitude, phase in body.harmonics:
        boundary += amplitude * np.cos(order * angle + phase)
    return np.asarray(body.radius * boundary - np.hypot(dy, dx))


def _cyst_profile(rng: np.random.Generator, body: _Body, depth: Floats) -> Floats:
    """A dark wall just inside the boundary, a bright fringe on both of its sides, a faintly gray lumen."""
    spread = np.hypot(body.wall / 2, body.blur)
    strength = body.contrast * (body.wall / 2 + 0.6) / (spread + 0.35)
    wall = np.exp(-0.5 * ((depth - body.wall / 2) / spread) ** 2)
    fringe = np.exp(-0.5 * ((depth + body.wall * 0.5 + spread) / spread) ** 2)
    fringe += 0.6 * np.exp(-0.5 * ((depth - body.wall * 1.5 - spread) / spread) ** 2)
    inside = 1 / (1 + np.exp(-np.clip(depth / (0.6 * body.blur + 0.2), -30, 30)))
    lumen = body.contrast * rng.uniform(-0.05, 0.28)
    grain = 0.04 * _clouds(rng, depth.shape, 3 + 2 * body.blur) * inside
    return np.asarray(np.clip(strength * (wall - 0.22 * fringe) + lumen * inside + grain, -0.2, 0.85))


def _dense_profile(rng: np.random.Generator, body: _Body, depth: Floats) -> Floats:
    """A dark grainy body, darkest at its edge."""
    inside = 1 / (1 + np.exp(-np.clip(depth / (0.5 * body.blur + 0.2), -30, 30)))
    edge = np.exp(-0.5 * ((depth - body.wall / 2) / np.hypot(body.wall / 2, body.blur)) ** 2)
    grain = _clouds(rng, depth.shape, 2.5)
    return np.asarray(np.clip(body.contrast * (inside * (0.6 + 0.25 * grain) + 0.4 * edge), -0.1, 0.85))


def _scatter_debris(rng: np.random.Generator, light: Floats, count: int) -> None:
    height, width = light.shape
    for _ in range(count):
        y, x = rng.uniform(0, 1, 2) * (height, width)
        size, stretch, turn = rng.uniform(0.6, 2.4), rng.uniform(1, 1.7), rng.uniform(0, np.pi)
        darkness = rng.uniform(0.08, 0.55)
        top, bottom = max(0, int(y) - 12), min(height, int(y) + 13)
        left, right = max(0, int(x) - 12), min(width, int(x) + 13)
        dy, dx = np.arange(top, bottom)[:, None] - y, np.arange(left, right)[None, :] - x
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        spot = np.exp(-0.5 * ((along / (size * stretch)) ** 2 + (across / size) ** 2))
        light[top:bottom, left:right] *= 1 - darkness * spot


def _background(rng: np.random.Generator, size_hw: tuple[int, int], config: SyntheticConfig) -> Floats:
    """Uneven light, vignetting and sometimes the rim of a gel drop; 1 on average, (h, w)."""
    height, width = size_hw
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    slope_y, slope_x = rng.uniform(-0.16, 0.16, 2)
    centre_y, centre_x = rng.uniform(-0.3, 0.3, 2)
    vignette = rng.uniform(0.02, 0.16) * ((y - centre_y) ** 2 + (x - centre_x) ** 2)
    light = 1 + slope_y * y + slope_x * x - vignette + rng.uniform(0, 0.04) * _clouds(rng, size_hw, 40.0)
    if rng.random() < config.drop_edge_share:
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(1.4, 3.0)
        from_middle = radius + rng.uniform(-0.7, -0.2)
        inward = radius - np.hypot(y - from_middle * np.sin(angle), x - from_middle * np.cos(angle))
        light = light * (1 - rng.uniform(0.2, 0.5) / (1 + np.exp(np.clip(inward / 0.02, -30, 30))))
        light = light * (1 + rng.uniform(0.05, 0.2) * np.exp(-0.5 * (inward / 0.015) ** 2))
    return np.asarray(np.clip(light, 0.15, None))


def _expose(rng: np.random.Generator, light: Floats, config: SyntheticConfig) -> npt.NDArray[np.uint8]:
    """Light to gray levels: exposure, shot noise (grows with the root of the light), camera noise."""
    exposure, noise = rng.uniform(*config.background), rng.uniform(*config.noise)
    shot = rng.standard_normal(light.shape) * np.sqrt(0.15 + 0.85 * light)
    return np.asarray(np.clip(np.rint(light * exposure + noise * shot), 0, 255), np.uint8)


def _clouds(rng: np.random.Generator, size_hw: tuple[int, ...], grain_px: float) -> Floats:
    """Smooth noise of mean about 0 and standard deviation below 1: a coarse grid, stretched bilinearly."""
    height, width = size_hw
    coarse = rng.standard_normal((int(height / grain_px) + 2, int(width / grain_px) + 2))
    return _stretch(_stretch(coarse, height, grain_px).T, width, grain_px).T


def _stretch(rows: Floats, length: int, step: float) -> Floats:
    position = np.arange(length) / step
    lower = position.astype(np.int64)
    share = (position - lower)[:, None]
    return np.asarray((1 - share) * rows[lower] + share * rows[lower + 1])
