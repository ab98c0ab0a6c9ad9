"""Test images side by side: image, truth, and each model's hits, misses and false positives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from labelloop.errors import OutputError
from labelloop.instances import Instances
from labelloop.overlays import Bytes, Colour, as_rgb, draw_overlay
from labelloop.plurals import plural

FOUND: Colour = (0, 214, 143)
MADE_UP: Colour = (255, 110, 20)
MISSED: Colour = (255, 232, 66)
TRUTH: Colour = (86, 200, 255)
NOT_COUNTED: Colour = (170, 170, 170)

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_GAP = 8
_INK, _PAPER, _PALE = (20, 20, 20), (255, 255, 255), (95, 95, 95)


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One image of the picture.

    Attributes:
        name: Written under the image.
        pixels_8bit: uint8 (h, w) or (h, w, 3).
        truth: Its annotations.
        predicted: What each model sees, in the order of the picture's models.
    """

    name: str
    pixels_8bit: Bytes
    truth: Instances
    predicted: tuple[Instances, ...]


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """One column of predictions.

    Attributes:
        title: For example "supervised baseline".
        subtitle: For example its AP with its interval; may be empty.
        min_score: Objects scored lower are not shown.
    """

    title: str
    subtitle: str = ""
    min_score: float = 0.5


def write_comparison(
    path: Path, rows: Sequence[ComparisonRow], models: Sequence[ComparedModel], *, panel_px: int = 320
) -> None:
    """Writes the picture of ``draw_comparison`` as PNG.

    Raises:
        OutputError: The file cannot be written.
    """
    picture = Image.fromarray(draw_comparison(rows, models, panel_px=panel_px))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, format="PNG")
    except OSError as error:
        raise OutputError(
            f"the comparison cannot be written ({error.strerror or error})",
            value=path,
            way_out="Choose a place that can be written.",
        ) from error


def draw_comparison(
    rows: Sequence[ComparisonRow], models: Sequence[ComparedModel], *, panel_px: int = 320
) -> Bytes:
    """Images as rows; the image, its truth and each model as columns.

    In a model's column an object is green where it meets an annotation with IoU 0.5 or more, orange where it
    meets none; a yellow line without tint is an annotation that the model missed.

    Args:
        rows: At least one image.
        models: As many as each row has predictions.
        panel_px: Width of a column, px; smaller images are enlarged without smoothing.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: There are no rows, or a row has another number of predictions than there are models.
    """
    if not rows or any(len(row.predicted) != len(models) for row in rows):
        raise ValueError(f"{len(rows)} rows, each of which must hold predictions of {len(models)} models")
    panels = [[_fit(panel, panel_px) for panel in _panels(row, models)] for row in rows]
    captions = [_captions(row, models) for row in rows]
    title, small = ImageFont.load_default(panel_px // 18), ImageFont.load_default(panel_px // 22)
    line = panel_px // 14
    head, foot = 2 * line + _GAP, line + 2 * _GAP
    width = (2 + len(models)) * (panel_px + _GAP) + _GAP
    height = head + sum(row[0].height + line + _GAP for row in panels) + foot
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)
    titles = [("image", ""), ("truth", ""), *((model.title, model.subtitle) for model in models)]
    for column, (text, subtitle) in enumerate(titles):
        x = _GAP + column * (panel_px + _GAP)
        draw.text((x, _GAP // 2), text, font=title, fill=_INK)
        draw.text((x, _GAP // 2 + line), subtitle, font=small, fill=_PALE)
    y = head
    for row, texts in zip(panels, captions, strict=True):
        for column, (panel, text) in enumerate(zip(row, texts, strict=True)):
            x = _GAP + column * (panel_px + _GAP)
            canvas.paste(panel, (x, y))
            draw.text((x, y + panel.height + 2), text, font=small, fill=_PALE)
        y += row[0].height + line + _GAP
    _legend(draw, 2 * (panel_px + _GAP) + _GAP, y + _GAP // 2, panel_px, small)
    return np.asarray(canvas)


def found_by(predicted: Instances, truth: Instances) -> npt.NDArray[np.int64]:
    """Which annotation each prediction meets with IoU 0.5 or more: best score first, each annotation once.

    Returns:
        int64 (n,), index into ``truth`` or -1.
    """
    iou = predicted.iou(truth)
    meets = np.full(len(predicted), -1, np.int64)
    scores = np.zeros(len(predicted)) if predicted.scores is None else predicted.scores
    for i in np.argsort(-scores, kind="stable") if len(truth) else ():
        same_class = predicted.labels[i] == truth.labels
        best = int(np.argmax(np.where(same_class, iou[i], -1.0)))
        if same_class[best] and iou[i, best] >= 0.5:
            meets[i] = best
            iou[:, best] = -1
    return meets


def _panels(row: ComparisonRow, models: Sequence[ComparedModel]) -> list[Bytes]:
    truth = draw_overlay(row.pixels_8bit, row.truth, colours=[TRUTH] * len(row.truth), show_count=False)
    drawn = [as_rgb(row.pixels_8bit), truth]
    for model, predicted in zip(models, row.predicted, strict=True):
        shown = predicted.above(model.min_score)
        meets = found_by(shown, row.truth)
        missed = row.truth.select(np.setdiff1d(np.arange(len(row.truth)), meets))
        canvas = draw_overlay(
            row.pixels_8bit, missed, colours=[MISSED] * len(missed), tint=0, show_count=False
        )
        colours = [FOUND if i >= 0 else MADE_UP for i in meets]
        drawn.append(draw_overlay(canvas, shown, colours=colours, show_count=False))
    return drawn


def _captions(row: ComparisonRow, models: Sequence[ComparedModel]) -> list[str]:
    texts = [_shortened(row.name), plural(len(row.truth), "object")]
    for model, predicted in zip(models, row.predicted, strict=True):
        shown = predicted.above(model.min_score)
        hits = int((found_by(shown, row.truth) >= 0).sum())
        false = plural(len(shown) - hits, "false positive")
        texts.append(f"{hits} found, {len(row.truth) - hits} missed, {false}")
    return texts


def _legend(draw: ImageDraw.ImageDraw, x: int, y: int, panel_px: int, font: _Font) -> None:
    side = panel_px // 26
    for colour, text in ((FOUND, "found"), (MISSED, "missed"), (MADE_UP, "false positive")):
        draw.rectangle((x, y + 2, x + side, y + 2 + side), fill=colour, outline=_PALE)
        draw.text((x + side + 5, y), text, font=font, fill=_INK)
        x += side + panel_px // 4


def _fit(panel: Bytes, width: int) -> Image.Image:
    image = Image.fromarray(panel)
    height = max(1, round(image.height * width / image.width))
    smaller = image.width > width
    return image.resize((width, height), Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST)


def _shortened(name: str) -> str:
    return name if len(name) <= 36 else f"{name[:17]}…{name[-18:]}"
