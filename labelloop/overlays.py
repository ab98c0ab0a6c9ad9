"""Objects drawn over their image: contours, a light tint that deepens where objects overlap, the count."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from labelloop.instances import Instances

Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]

_GOLDEN = 0.61803398875  # steps of it around the circle never come close to an earlier hue soon
_TINT = 0.16  # how much of the colour covers an object; two objects over each other show twice


def draw_overlay(
    pixels_8bit: Bytes,
    instances: Instances,
    *,
    min_score: float = 0.0,
    colours: Sequence[Colour] | None = None,
    line_px: int | None = None,
    tint: float = _TINT,
    show_count: bool = True,
) -> Bytes:
    """Draws objects over an image.

    Args:
        pixels_8bit: uint8 (h, w) or (h, w, 3).
        instances: n objects of the same size; each keeps its contour where others lie over it.
        min_score: Objects scored lower are not drawn; annotations always are.
        colours: One per object of ``instances``; well separated hues if None.
        line_px: Width of a contour, drawn inside the object; by the size of the image if None.
        tint: Share of the colour inside an object, 0..1.
        show_count: Writes the number of drawn objects into the upper left corner.

    Returns:
        uint8 (h, w, 3); the image itself is not changed.

    Raises:
        ValueError: The objects belong to an image of another size, or the colours are too few.
    """
    if pixels_8bit.shape[:2] != instances.size_hw:
        raise ValueError(f"objects of a {instances.size_hw} image over one of {pixels_8bit.shape[:2]}")
    if colours is not None and len(colours) != len(instances):
        raise ValueError(f"{len(colours)} colours for {len(instances)} objects")
    canvas = as_rgb(pixels_8bit).copy()
    scores = instances.scores
    shown = [i for i in range(len(instances)) if scores is None or scores[i] >= min_score]
    line = line_px or max(1, round(min(instances.size_hw) / 600))
    contours = []
    for i in shown:
        inside, top, left = instances.crop(i)
        colour = np.array(colours[i] if colours is not None else distinct_colour(i), np.float32)
        region = canvas[top : top + inside.shape[0], left : left + inside.shape[1]]
        region[inside] = ((1 - tint) * region[inside] + tint * colour).astype(np.uint8)
        contours.append((region, contour(inside, line), colour.astype(np.uint8)))
    for region, outline, flat in contours:  # after every tint, so that no contour is dimmed
        region[outline] = flat
    return write_in_corner(canvas, str(len(shown))) if show_count else canvas


def as_rgb(pixels_8bit: Bytes) -> Bytes:
    """Gray as three equal channels; colour as it is."""
    return pixels_8bit if pixels_8bit.ndim == 3 else np.repeat(pixels_8bit[..., None], 3, axis=2)


def contour(inside: Bools, width_px: int = 1) -> Bools:
    """The outermost ``width_px`` pixels of a mask, bool (h, w); outside the array is background."""
    core = inside
    for _ in range(width_px):
        padded = np.pad(core, 1)
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(inside & ~core)


def distinct_colour(index: int) -> Colour:
    """The index-th of a row of saturated colours in which neighbours differ much."""
    hue = (0.08 + index * _GOLDEN) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.95, 0.7)[index % 2], (1.0, 0.95, 0.8)[index % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


def write_in_corner(canvas: Bytes, text: str) -> Bytes:
    """Text in a dark box in the upper left corner, sized by the image; a new array."""
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    size = int(np.clip(min(canvas.shape[:2]) / 18, 9, 64))
    font = ImageFont.load_default(size)
    left, top, right, bottom = draw.textbbox((size // 2, size // 3), text, font=font)
    pad = max(1, size // 4)
    draw.rectangle((left - pad, top - pad, right + pad, bottom + pad), fill=(0, 0, 0))
    draw.text((size // 2, size // 3), text, font=font, fill=(255, 255, 255))
    return np.asarray(image)
