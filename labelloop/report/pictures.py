"""Test images in the report: the truth and the predictions side by side, small enough to mail."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from labelloop.errors import ImageError
from labelloop.images import read_image, render_8bit
from labelloop.instances import Instances
from labelloop.overlays import Bytes, Colour, as_rgb, draw_overlay
from labelloop.plurals import plural
from labelloop.project.recorded import read_unchanged
from labelloop.report.comparison import FOUND, MADE_UP, MISSED, NOT_COUNTED, TRUTH
from labelloop.report.markup import Markup, note, tag
from labelloop.report.measured import ImageOutcome
from labelloop.report.metric_words import NO_NUMBER

LONGEST_SIDE_PX = 480
QUALITY = 82  # of JPEG
_LINE_PX = 1.6  # of a contour, as it is seen
KEY = (
    ("found", FOUND),
    ("missed", MISSED),
    ("false positive", MADE_UP),
    ("truth", TRUTH),
    ("where the truth is unknown", NOT_COUNTED),
)


def colour_key(outcomes: Sequence[ImageOutcome]) -> Markup:
    """What the colours of contours mean in the pictures of these images."""
    uncounted = any(not (outcome.hit | outcome.made_up).all() for outcome in outcomes)
    return tag(
        "ul",
        [
            tag("li", tag("i", style=f"border-color:{_hex(colour)}", aria_hidden="true"), word)
            for word, colour in (KEY if uncounted else KEY[:-1])
        ],
        class_="key",
    )


def picture_pair(kind: str, outcome: ImageOutcome) -> Markup:
    """Truth and prediction of one image with a caption; without pixels, the caption and the reason.

    Args:
        kind: best, middle or worst.
        outcome: What became of its objects.
    """
    name, true = outcome.image.name, outcome.true
    found, made_up = int(outcome.hit.sum()), int(outcome.made_up.sum())
    said = (
        f"{found} of {plural(true, 'object')} found, {int(outcome.missed.sum())} missed, "
        f"{plural(made_up, 'false positive')}"
    )
    quality = NO_NUMBER if outcome.quality is None else f"{outcome.quality:.3f}"
    of_kind = tag("span", f" {kind}", class_="soft")
    caption = tag("figcaption", tag("b", name), of_kind, tag("br"), f"{said}; quality {quality}")
    try:
        pixels = _pixels(outcome)
    except ImageError as error:
        picture = tag("div", f"The image is not shown: {error.what}.", class_="missing")
        return tag("figure", picture, caption)
    truth, predicted = draw_outcome(pixels, outcome)
    return tag(
        "figure",
        tag(
            "div",
            _image(truth, f"{name} with the outlines of {plural(true, 'true object')}"),
            _image(predicted, f"{name} with predictions: {said}"),
            class_="pair",
        ),
        caption,
    )


def how_to_read() -> Markup:
    """The line above the pictures."""
    return note(
        "Left: the truth. Right: the prediction. Images are ordered by panoptic quality: how many objects "
        "are right, and how well their outlines fit."
    )


def _pixels(outcome: ImageOutcome) -> Bytes:
    image = outcome.image
    if image.path is None:
        raise ImageError("its file was not found", value=image.name)
    micrograph = read_image(image.path) if image.record is None else read_unchanged(image.record)
    pixels = render_8bit(micrograph.pixels)
    if pixels.shape[:2] != image.truth.size_hw:
        raise ImageError("its file has another size than its labels", value=image.path)
    return pixels


def draw_outcome(pixels: Bytes, outcome: ImageOutcome) -> tuple[Bytes, Bytes]:
    """The truth, and the predictions by what became of them, on an image of uint8 (H, W) or (H, W, 3)."""
    truth, shown = outcome.image.truth, outcome.shown
    longest = max(truth.size_hw)
    line = max(1, round(_LINE_PX * longest / LONGEST_SIDE_PX))
    drawn = _each_crowd_once(truth)
    left = draw_overlay(
        pixels, drawn, colours=[TRUTH] * len(drawn), line_px=line, tint=0.08, show_count=False
    )
    missed = truth.select(np.flatnonzero(outcome.missed))
    right = draw_overlay(
        pixels, missed, colours=[MISSED] * len(missed), line_px=line, tint=0, show_count=False
    )
    colours = [
        FOUND if hit else MADE_UP if made_up else NOT_COUNTED
        for hit, made_up in zip(outcome.hit, outcome.made_up, strict=True)
    ]
    return left, draw_overlay(right, shown, colours=colours, line_px=line, tint=0.08, show_count=False)


def _each_crowd_once(truth: Instances) -> Instances:
    """Without the copies of a crowd that several classes share."""
    first = {rle: i for i, rle in reversed(list(enumerate(truth.rles)))}
    return truth.select([i for i, rle in enumerate(truth.rles) if not truth.crowd[i] or first[rle] == i])


def _image(pixels: Bytes, alt: str) -> Markup:
    image = Image.fromarray(as_rgb(pixels))
    scale = LONGEST_SIDE_PX / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return tag("img", src=f"data:image/jpeg;base64,{data}", alt=alt, width=size[0], height=size[1])


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
