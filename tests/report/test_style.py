"""Colours can be told from each other, in the light and in the dark."""

from __future__ import annotations

import pytest

from labelloop.report.style import DARK, LIGHT, Palette, contrast, style_sheet

PALETTES = pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
TEXT, GRAPHICS = 4.5, 3.0  # WCAG 2.2, success criteria 1.4.3 and 1.4.11


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#777777") == pytest.approx(1)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@PALETTES
@pytest.mark.parametrize("text", ["ink", "muted", "accent", "good", "bad"])
@pytest.mark.parametrize("behind", ["ground", "surface"])
def test_text_can_be_read(palette: Palette, text: str, behind: str) -> None:
    assert contrast(getattr(palette, text), getattr(palette, behind)) >= TEXT


@PALETTES
@pytest.mark.parametrize("mark", ["accent", "second", "muted", "focus"])
def test_marks_of_plots_and_the_focus_can_be_seen(palette: Palette, mark: str) -> None:
    assert contrast(getattr(palette, mark), palette.ground) >= GRAPHICS


def test_print_is_light_whatever_the_screen_prefers() -> None:
    sheet = style_sheet()
    assert "@media screen and (prefers-color-scheme:dark)" in sheet
    assert sheet.index(LIGHT.ground) < sheet.index(DARK.ground)
