"""Images made of discs, of whose predictions the outcome is known; and what every page must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from labelloop.instances import Instances
from labelloop.metrics.panel import evaluate
from labelloop.report.measured import MeasuredImage

SIZE_HW = (60, 80)
CENTRES = ((15, 15), (15, 40), (15, 65), (45, 15), (45, 40))  # of the true discs, y and x


def disc(y: float, x: float, radius: float = 8) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def discs(centres, *, scores=None, radius: float = 8) -> Instances:
    masks = np.array([disc(y, x, radius) for y, x in centres]).reshape(-1, *SIZE_HW)
    return Instances.from_dense(masks, np.zeros(len(masks), np.int64), scores=scores)


def _measured_image(folder: Path | None, name: str, *, missed: int, made_up: int) -> MeasuredImage:
    """Five true discs, of which the first few are missed; further ones lie where nothing is."""
    elsewhere = [(45, 65), (30, 28)][:made_up]
    centres = [*CENTRES[missed:], *elsewhere]
    scores = np.linspace(0.95, 0.6, len(centres)).astype(np.float32) if centres else np.zeros(0, np.float32)
    path = None
    if folder is not None:
        path = folder / f"{missed}-{made_up}.png"
        pixels = np.full(SIZE_HW, 90, np.uint8)
        for y, x in CENTRES:
            pixels[disc(y, x)] = 160
        Image.fromarray(pixels).save(path)
    return MeasuredImage(name=name, truth=discs(CENTRES), predicted=discs(centres, scores=scores), path=path)


def _document_of(images, **options) -> dict:
    """As ``evaluate --json`` prints it, with few replicates."""
    panel = evaluate(
        [image.truth for image in images],
        [image.predicted for image in images],
        n_classes=1,
        replicates=40,
        **options,
    )
    return panel.as_dict()


VOID = {"br", "hr", "img", "meta", "link", "input"}


@dataclass
class Element:
    """An element with its attributes and the text inside."""

    name: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Outline(HTMLParser):
    """All elements of a page in their order; raises AssertionError where one is not closed in turn."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        assert len(attrs) == len(element.attributes), f"<{tag}> has an attribute twice"
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def named(self, *names: str) -> list[Element]:
        """The elements of these names."""
        return [element for element in self.elements if element.name in names]


def _outline(page: str) -> Outline:
    """A page's elements, all of them closed."""
    found = Outline()
    found.feed(page)
    found.close()
    assert found.open == []
    return found


def _check_page(page: str) -> Outline:
    """What holds for every page: nothing from elsewhere, headings in order, alternatives for pictures."""
    assert page.startswith("<!doctype html>")
    found = _outline(page)
    assert found.named("html")[0].attributes["lang"] == "en"
    for element in found.elements:
        for name in ("src", "href", "data", "poster", "srcset", "action"):
            value = element.attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), f"<{element.name} {name}={value}>"
        assert not any(name.startswith("on") for name in element.attributes), element
    assert not found.named("script", "link", "iframe", "object", "embed", "base", "form")
    style = found.named("style")[0].text
    assert "url(" not in style
    assert "@import" not in style
    levels = [int(e.name[1]) for e in found.named("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all((image.attributes.get("alt") or "").strip() for image in found.named("img"))
    titles = {e.attributes["id"] for e in found.named("title") if "id" in e.attributes}
    for svg in found.named("svg"):
        hidden = svg.attributes.get("aria-hidden") == "true"
        named = svg.attributes.get("role") == "img" and svg.attributes.get("aria-labelledby") in titles
        assert hidden or named
    ids = Counter(e.attributes["id"] for e in found.elements if "id" in e.attributes)
    assert [name for name, times in ids.items() if times > 1] == []
    targets = {
        e.attributes["href"][1:] for e in found.elements if (e.attributes.get("href") or "").startswith("#")
    }
    assert targets <= set(ids)
    return found


@pytest.fixture
def measured_image() -> Callable[..., MeasuredImage]:
    """Makes an image of five discs."""
    return _measured_image


@pytest.fixture
def document_of() -> Callable[..., dict[str, Any]]:
    """Measures images."""
    return _document_of


@pytest.fixture
def check_page() -> Callable[[str], Outline]:
    """Checks what holds for every page, and returns its elements."""
    return _check_page


@pytest.fixture
def images(tmp_path: Path) -> list[MeasuredImage]:
    """Six images: from all found to three missed and two false positives."""
    kinds = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (3, 2)]
    return [_measured_image(tmp_path, f"well-{m}{u}.png", missed=m, made_up=u) for m, u in kinds]
