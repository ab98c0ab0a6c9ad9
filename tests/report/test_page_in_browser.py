"""The page in Chromium: it asks for nothing, says nothing to the console, and fits a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labelloop.report.page import write_report_of_files

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium on this machine", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")

pytestmark = pytest.mark.slow

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
LONG = "a-name-without-any-place-to-break-it-" * 5


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def file(images, document_of, tmp_path: Path) -> Path:
    """A page with names that are long and hostile."""
    images = [replace(image, name=f"<script>alert(1)</script>{LONG}{image.name}") for image in images]
    document = document_of(images, groups=[LONG, LONG, LONG, "b", "b", "b"])
    document["notes"] = [LONG]
    return write_report_of_files(tmp_path / "page.html", document, images, title=LONG, classes=[LONG])


def opened(browser: Any, file: Path, *, scheme: str = "light", **options: Any) -> tuple[Any, list[str]]:
    """The page with everything unfolded, and what it asked for or complained about."""
    page = browser.new_context(color_scheme=scheme, **options).new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append("dialog") or dialog.dismiss())
    page.on("request", lambda request: heard.append(request.url))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    return page, [each for each in heard if not each.startswith(("data:image/jpeg", file.as_uri()))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_asks_for_nothing_and_is_as_wide_as_the_window(browser: Any, file: Path, scheme: str) -> None:
    for viewport in (PHONE, DESK):
        page, heard = opened(browser, file, scheme=scheme, viewport=viewport)
        assert heard == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert page.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")


def test_it_follows_the_scheme_of_the_screen_and_plots_follow_it(browser: Any, file: Path) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page, _ = opened(browser, file, scheme=scheme)
        colours.append(
            page.evaluate(
                "[getComputedStyle(document.body).backgroundColor,"
                " getComputedStyle(document.querySelector('svg.plot text')).fill]"
            )
        )
    (light_ground, light_text), (dark_ground, dark_text) = colours
    assert len({light_ground, light_text, dark_ground}) == 3
    assert dark_text not in (light_text, dark_ground)


def test_the_keyboard_reaches_the_sections_and_what_folds(browser: Any, file: Path) -> None:
    page, _ = opened(browser, file, viewport=DESK)
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.tagName + document.activeElement.className"))
    assert reached[0] == "Askip"
    assert {"A", "DIVscroll", "SUMMARY"} <= set(reached)


def test_paper_cuts_off_no_table(browser: Any, file: Path) -> None:
    page = browser.new_context(viewport={"width": 680, "height": 960}).new_page()  # A4 within its margins
    page.emulate_media(media="print")
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 680


def test_paper_shows_what_is_folded_on_the_screen(browser: Any, file: Path) -> None:
    page = browser.new_page()
    page.goto(file.as_uri())
    page.emulate_media(media="print")
    heights = page.evaluate("[...document.querySelectorAll('details .inside')].map(e => e.offsetHeight)")
    assert heights
    assert min(heights) > 0
    assert page.pdf(format="A4").startswith(b"%PDF")
