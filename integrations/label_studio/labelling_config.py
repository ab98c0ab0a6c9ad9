"""The labelling configuration of a Label Studio project: written, and checked where a project has its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from labelloop.errors import ProjectError, UsageError

# Okabe and Ito's colours, which people with any colour vision tell apart, without the black; from the eighth
# class on the same again, half-way to white.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")
_IMAGE = {
    "name": "image",
    "value": "$image",
    "zoom": "true",
    "zoomControl": "true",
    "brightnessControl": "true",
    "contrastControl": "true",
    "rotateControl": "false",  # regions of a turned image would not lie where they are
    "crosshair": "false",
    "smoothing": "false",  # pixels are seen as they are
}
_DRAWING = {
    "polygon": {"strokeWidth": "1", "opacity": "0.15", "pointSize": "small"},
    "brush": {"opacity": "0.4"},
}
_TAGS = {"polygon": "PolygonLabels", "brush": "BrushLabels"}


@dataclass(frozen=True, kw_only=True)
class ControlNames:
    """What a labelling configuration calls the parts that labelloop needs.

    Attributes:
        image: The image.
        polygon: The polygons with labels on it.
        brush: The brush masks with labels on it.
    """

    image: str
    polygon: str
    brush: str


def labelling_config(classes: Sequence[str]) -> str:
    """The labelling configuration for these classes, XML.

    Strokes are thin and fills faint, since objects touch and overlap.

    Args:
        classes: Names as they are, whatever characters they have.

    Raises:
        UsageError: There is none, or one has a character that XML cannot hold.
    """
    if not classes:
        raise UsageError(
            "people need class names to choose from",
            way_out="Add labels or write classes into labelloop.toml.",
        )
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", _IMAGE)
    for name, tag in _TAGS.items():
        control = ElementTree.SubElement(
            view, tag, {"name": name, "toName": _IMAGE["name"], **_DRAWING[name]}
        )
        for i, class_name in enumerate(classes):
            if not all(map(_is_xml, class_name)):
                raise UsageError(
                    "a class name has a character that Label Studio cannot hold",
                    value=ascii(class_name),
                    way_out="Rename the class in labelloop.toml.",
                )
            ElementTree.SubElement(control, "Label", {"value": class_name, "background": _colour(i)})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode")


def check_config(xml: str, classes: Sequence[str]) -> ControlNames:
    """Finds what labelloop needs in a project's labelling configuration; anything else may be there too.

    Args:
        xml: The configuration.
        classes: Each must be a label of the polygons and of the brush.

    Raises:
        ProjectError: It is not a configuration, or lacks something; all that is missing is named.
    """
    root = _parse(xml)
    images = [tag.get("name", "") for tag in root.iter("Image") if tag.get("value", "").strip() == "$image"]
    if not any(images):
        raise _lacking("an Image with the value $image")
    faults = []
    for image in filter(None, images):
        found, missing = _controls(root, image, classes)
        if not missing:
            return ControlNames(image=image, **found)
        faults.append(missing)
    raise _lacking("; ".join(sorted(faults, key=len)[0]))


def _controls(
    root: ElementTree.Element, image: str, classes: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """The names of the two controls of an image, and what is missing."""
    found: dict[str, str] = {}
    missing: list[str] = []
    for kind, tag in _TAGS.items():
        controls = [c for c in root.iter(tag) if c.get("name") and image in _names(c.get("toName", ""))]
        lacks = [(control, [n for n in classes if n not in _labels(control)]) for control in controls]
        if not controls:
            missing.append(f"{tag} for the image {image}")
            continue
        control, without = min(lacks, key=lambda pair: len(pair[1]))
        found[kind] = control.get("name", "")
        if without:
            missing.append(f"in {tag} {found[kind]} the labels {', '.join(map(repr, without))}")
    return found, missing


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _labels(control: ElementTree.Element) -> set[str]:
    """What results call the labels of a control: by their alias, where they have one."""
    return {label.get("alias") or label.get("value") or "" for label in control.iter("Label")}


def _parse(xml: str) -> ElementTree.Element:
    if "<!DOCTYPE" in xml:  # entities that grow or read files begin there, and no configuration has one
        raise ProjectError(
            "the project's labelling configuration has a DOCTYPE",
            way_out="Remove it in Label Studio under Settings, Labeling Interface.",
        )
    try:
        return ElementTree.fromstring(xml)
    except (ElementTree.ParseError, UnicodeEncodeError) as error:
        raise ProjectError(
            f"the project's labelling configuration is not XML ({error})",
            way_out="Set it up in Label Studio under Settings, Labeling Interface.",
        ) from error


def _lacking(missing: str) -> ProjectError:
    return ProjectError(
        "the labelling configuration of the Label Studio project lacks something",
        value=missing,
        way_out="Add it in Label Studio under Settings, Labeling Interface, or let labelloop connect make a "
        "project of its own.",
    )


def _colour(index: int) -> str:
    """The colour of a class, #RRGGBB."""
    colour = _COLOURS[index % len(_COLOURS)]
    if index < len(_COLOURS):
        return colour
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{(channel + 255) // 2:02X}" for channel in channels)


def _is_xml(character: str) -> bool:
    """Whether XML 1.0 has this character."""
    code = ord(character)
    return character in "\t\n\r" or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
