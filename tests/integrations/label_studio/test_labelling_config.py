"""The labelling configuration: what is written is what Label Studio reads, and what is lacking is named."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from labelloop.errors import ProjectError, UsageError
from labelloop.integrations.label_studio.labelling_config import ControlNames, check_config, labelling_config

OURS = ControlNames(image="image", polygon="polygon", brush="brush")
ODD_NAMES = ("a \"b\" 'c'", "<b onclick='x'>&amp;</b>", "two\nlines\tand tab", "ünï 細胞 🦠", "$x", " edge ")


def config(body: str) -> str:
    return f"<View>{body}</View>"


def labels(*names: str) -> str:
    return "".join(f'<Label value="{name}"/>' for name in names)


THEIRS = config(
    '<Header value="Look closely"/><Image name="photo" value="$image"/><Image name="other" value="$second"/>'
    f'<View><PolygonLabels name="p0" toName="other">{labels("a", "b")}</PolygonLabels></View>'
    f'<PolygonLabels name="p1" toName="photo">{labels("a")}</PolygonLabels>'
    f'<View><PolygonLabels name="p2" toName="other, photo">{labels("c", "b", "a")}</PolygonLabels></View>'
    f'<BrushLabels name="b1" toName="photo"><Label alias="a" value="Organoid"/>{labels("b")}</BrushLabels>'
    '<Choices name="quality" toName="photo"><Choice value="good"/></Choices>'
)


@pytest.mark.parametrize("classes", [("organoid",), ODD_NAMES, tuple(f"class {i}" for i in range(30))])
def test_label_studio_reads_the_very_names_that_were_written(classes: tuple[str, ...]) -> None:
    written = labelling_config(classes)
    assert check_config(written, classes) == OURS
    interface = LabelInterface(written)
    interface.validate()
    assert {control.name: list(control.labels) for control in interface.controls} == {
        "polygon": list(classes),
        "brush": list(classes),
    }


@given(st.lists(st.text(min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=4, unique=True))
def test_any_name_is_a_label_or_refused(names: list[str]) -> None:
    try:
        written = labelling_config(names)
    except UsageError:
        codes = [ord(character) for character in "".join(names)]
        assert any(code < 0x20 or 0xD800 <= code < 0xE000 or code in (0xFFFE, 0xFFFF) for code in codes)
        return
    assert check_config(written, names) == OURS
    tags = Counter(tag.tag for tag in ElementTree.fromstring(written).iter())
    assert tags == {"View": 1, "Image": 1, "PolygonLabels": 1, "BrushLabels": 1, "Label": 2 * len(names)}


def test_each_of_many_classes_has_a_colour_of_its_own_and_the_same_in_both_controls() -> None:
    root = ElementTree.fromstring(labelling_config([str(i) for i in range(14)]))
    colours = [
        [label.get("background") for control in root.iter(tag) for label in control]
        for tag in ("PolygonLabels", "BrushLabels")
    ]
    assert colours[0] == colours[1]
    assert len(set(colours[0])) == 14


def test_without_a_class_there_is_nothing_to_choose_from() -> None:
    with pytest.raises(UsageError, match="class names"):
        labelling_config([])


def test_a_project_of_its_own_names_with_more_than_is_needed_will_do() -> None:
    assert check_config(THEIRS, ["a", "b"]) == ControlNames(image="photo", polygon="p2", brush="b1")


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("", "not XML"),
        ("<View>", "not XML"),
        ("<View>&unknown;</View>", "not XML"),
        ("\ud800", "not XML"),
        ('<!DOCTYPE v [<!ENTITY a "aa">]><View>&a;</View>', "DOCTYPE"),
        (config(""), r"an Image with the value \$image"),
        (config('<Image name="i" value="$photo"/>'), r"an Image with the value \$image"),
        (config('<Image name="i" value="$image"/>'), "PolygonLabels for the image i; BrushLabels for"),
        (THEIRS.replace('toName="photo"', 'toName="other"'), "BrushLabels for the image photo"),
        (
            THEIRS.replace('<Label value="b"/></BrushLabels>', "</BrushLabels>"),
            "in BrushLabels b1 the labels 'b'",
        ),
        (THEIRS.replace('alias="a"', ""), "in BrushLabels b1 the labels 'a'"),
    ],
)
def test_what_is_lacking_is_named_with_a_way_out(xml: str, reason: str) -> None:
    with pytest.raises(ProjectError, match=reason) as caught:
        check_config(xml, ["a", "b"])
    assert caught.value.way_out


def test_entities_that_grow_are_never_opened() -> None:
    levels = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    bomb = f'<!DOCTYPE v [<!ENTITY e0 "ha">{levels}]><View>&e11;</View>'
    with pytest.raises(ProjectError, match="DOCTYPE"):
        check_config(bomb, ["a"])
