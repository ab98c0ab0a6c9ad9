"""Regions written and read: shapes whose pixels are known, Label Studio's own checks, and any JSON at all."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter.brush import mask2rle
from label_studio_sdk.label_interface import LabelInterface

from labelloop.instances import Instances
from labelloop.integrations.label_studio.labelling_config import ControlNames, labelling_config
from labelloop.integrations.label_studio.regions import (
    has_same_shape,
    is_untouched,
    read_regions,
    shape_facts,
    to_regions,
)

Mask = npt.NDArray[np.bool_]
CLASSES = ("organoid", 'de"bris & <b>')
CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")
H, W = 60, 90


def disc(x: float, y: float, radius: float, size_hw: tuple[int, int] = (H, W)) -> Mask:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.asarray((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2)


def shapes() -> Mask:
    """A disc, a ring, a pair, a disc over the border, one pixel, and a disc over the first."""
    ring = disc(60, 30, 14) & ~disc(60, 30, 6)
    pair = disc(8, 50, 5) | disc(30, 50, 5)
    return np.stack([disc(20, 20, 12), ring, pair, disc(90, 0, 9), disc(45.5, 5.5, 0.1), disc(24, 22, 11)])


def objects(scores: bool = True) -> Instances:
    masks = shapes()
    found = np.linspace(0.5, 1, len(masks)) if scores else None
    return Instances.from_dense(masks, [0, 1, 0, 1, 0, 0], None if found is None else found.tolist())


KEYS = ("aB3", "k1", "k2", "k3", "k4", "k5")


def region(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "r", "type": kind, "from_name": "x", "to_name": "image", "original_width": W,
            "original_height": H, "image_rotation": 0, "value": value, **more}  # fmt: skip


def masks_of(result: Any, size_hw: tuple[int, int] = (H, W)) -> Mask:
    read = read_regions(result, size_hw, CLASSES)
    assert read.unusable == ()
    rles = tuple(found.rle for found in read.regions)
    return Instances(size_hw=size_hw, rles=rles, labels=np.zeros(len(rles), np.int64)).to_dense()


def one_mask(kind: str, value: dict[str, Any], size_hw: tuple[int, int] = (H, W)) -> Mask:
    height, width = size_hw
    found = region(kind, {**value, kind: ["organoid"]}, original_width=width, original_height=height)
    (mask,) = masks_of([found], size_hw)
    return np.asarray(mask)


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def reason(result: Any) -> str:
    read = read_regions(result, (H, W), CLASSES)
    assert read.regions == ()
    ((_, why),) = read.unusable
    return why


def test_objects_come_back_with_keys_and_labels_and_masks() -> None:
    result = json.loads(json.dumps(to_regions(objects(), KEYS, CLASSES, CONTROLS)))
    read = read_regions(result, (H, W), CLASSES)
    assert read.unusable == ()
    assert [found.key for found in read.regions] == list(KEYS)
    assert [found.label for found in read.regions] == [0, 1, 0, 1, 0, 0]
    kinds = [found.kind for found in read.regions]
    assert kinds == ["polygon", "brush", "brush", "polygon", "polygon", "polygon"]
    for kind, mask, found in zip(kinds, shapes(), masks_of(result), strict=True):
        assert iou(mask, found) >= (0.98 if kind == "polygon" else 1)


def test_a_region_holds_what_label_studio_wants() -> None:
    first, ring = to_regions(objects(), KEYS, CLASSES, CONTROLS)[:2]
    points = first["value"].pop("points")
    assert first == {
        "id": "aB3", "type": "polygonlabels", "from_name": "polygon", "to_name": "image",
        "original_width": W, "original_height": H, "image_rotation": 0, "score": 0.5,
        "value": {"closed": True, "polygonlabels": ["organoid"]},
    }  # fmt: skip
    assert len(points) < 30
    assert all(0 <= number <= 100 and number == round(number, 4) for point in points for number in point)
    assert bytes(ring["value"]["rle"]).rstrip(b"\0") == bytes(mask2rle(shapes()[1] * np.uint8(255))).rstrip(
        b"\0"
    )
    assert all("score" not in r for r in to_regions(objects(scores=False), KEYS, CLASSES, CONTROLS))


def test_label_studio_accepts_what_is_written() -> None:
    interface = LabelInterface(labelling_config(CLASSES))
    prediction = {"result": to_regions(objects(), KEYS, CLASSES, CONTROLS), "score": 0.4}
    assert interface.validate_prediction(prediction, return_errors=True) == []
    prediction["result"][0]["from_name"] = "unknown"  # type: ignore[index]
    assert interface.validate_prediction(prediction, return_errors=True) != []


def test_an_object_without_a_pixel_is_left_out() -> None:
    masks = np.stack([disc(20, 20, 5), np.zeros((H, W), np.bool_)])
    assert [r["id"] for r in to_regions(Instances.from_dense(masks), ("a", "b"), CLASSES, CONTROLS)] == ["a"]


@given(
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50), st.floats(0.5, 20)), min_size=1, max_size=4),
)
def test_any_objects_come_back(size_hw: tuple[int, int], discs: list[tuple[float, float, float]]) -> None:
    masks = np.stack([disc(x, y, radius, size_hw) ^ disc(x + 9, y, 3, size_hw) for x, y, radius in discs])
    keys = [str(i) for i in range(len(masks))]
    result = to_regions(Instances.from_dense(masks), keys, CLASSES, CONTROLS)
    for returned, mask in zip(masks_of(result, size_hw), masks[masks.any(axis=(1, 2))], strict=True):
        assert iou(returned, mask) >= 0.98


@pytest.mark.parametrize("size_hw", [(60, 90), (90, 60), (1, 40), (200, 200)])
def test_brush_masks_come_back_bit_for_bit_where_they_touch_every_border(size_hw: tuple[int, int]) -> None:
    height, width = size_hw
    for seed in range(4):
        mask = np.random.default_rng(seed).random(size_hw) < 0.1 + 0.3 * seed
        rle = list(mask2rle(mask * np.uint8(255)))
        assert np.array_equal(one_mask("brushlabels", {"format": "rle", "rle": rle}, size_hw), mask)
    whole = list(mask2rle(np.full((height, width), 255, np.uint8)))
    assert one_mask("brushlabels", {"format": "rle", "rle": whole}, size_hw).all()


def test_a_rectangle_and_one_turned_about_its_top_left_corner() -> None:
    place = {"x": 100 * 20 / W, "y": 100 * 10 / H, "width": 100 * 30 / W, "height": 100 * 20 / H}
    rows, columns = np.mgrid[:H, :W]
    upright = one_mask("rectanglelabels", place)
    assert np.array_equal(upright, (rows >= 10) & (rows < 30) & (columns >= 20) & (columns < 50))
    turned = one_mask("rectanglelabels", {**place, "x": 100 * 50 / W, "rotation": 90})
    assert iou(turned, (rows >= 10) & (rows < 40) & (columns >= 30) & (columns < 50)) > 0.98
    straight = one_mask("rectanglelabels", {**place, "rotation": 45})
    x, y = (columns + 0.5 - 20) / np.sqrt(2), (rows + 0.5 - 10) / np.sqrt(2)
    along, across = x + y, y - x
    assert iou(straight, (along >= 0) & (along < 30) & (across >= 0) & (across < 20)) > 0.97


@pytest.mark.parametrize("degrees", [0, 30, 90, 200.5])
def test_an_ellipse_turned_about_its_centre(degrees: float) -> None:
    value = {"x": 100 * 45 / W, "y": 100 * 30 / H, "radiusX": 100 * 25 / W, "radiusY": 100 * 10 / H}
    found = one_mask("ellipselabels", {**value, "rotation": degrees})
    rows, columns = np.mgrid[:H, :W]
    x, y, angle = columns + 0.5 - 45, rows + 0.5 - 30, np.radians(degrees)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    assert iou(found, (along / 25) ** 2 + (across / 10) ** 2 <= 1) > 0.97


def test_shape_and_label_that_are_entries_of_their_own_are_one_region() -> None:
    points = {"points": [[10, 10], [60, 10], [60, 80]], "closed": True}
    apart = [
        region("choices", {"choices": ["good"]}),
        region("polygon", points, origin="manual"),
        region("labels", {**points, "labels": ["organoid"]}),
    ]
    (found,) = read_regions(apart, (H, W), CLASSES).regions
    (together,) = read_regions(
        [region("polygonlabels", {**points, "polygonlabels": ["organoid"]})], (H, W), CLASSES
    ).regions
    assert found.rle == together.rle
    assert (found.kind, found.origin, found.label) == ("polygon", "manual", 0)
    rle = {"format": "rle", "rle": list(mask2rle(shapes()[1] * np.uint8(255)))}
    both = [region("brush", rle), region("brushlabels", {**rle, "brushlabels": [CLASSES[1]]})]
    (brush,) = read_regions(both, (H, W), CLASSES).regions
    assert (brush.kind, brush.label) == ("brush", 1)


def test_of_several_labels_the_first_that_is_a_class_counts() -> None:
    value = {
        "x": 1,
        "y": 1,
        "width": 50,
        "height": 50,
        "rectanglelabels": ["blurred", CLASSES[1], "organoid"],
    }
    (found,) = read_regions([region("rectanglelabels", value)], (H, W), CLASSES).regions
    assert found.label == 1


def test_regions_without_an_id_are_named_by_their_place() -> None:
    value = {"x": 1, "y": 1, "width": 50, "height": 50, "rectanglelabels": ["organoid"]}
    bare = region("rectanglelabels", value)
    del bare["id"]
    read = read_regions([bare, {**bare, "id": 7}, copy.deepcopy(bare)], (H, W), CLASSES)
    assert [found.key for found in read.regions] == ["result[0]", "7", "result[2]"]


GOOD = {"points": [[10, 10], [60, 10], [60, 80]], "closed": True, "polygonlabels": ["organoid"]}
FLAT = {"x": 1, "y": 2, "width": 5, "height": 5, "rectanglelabels": ["organoid"]}


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"id": "a"}, "not a list"),
        (None, "not a list"),
        ([7], "not a region"),
        ([region("choices", {"choices": ["good"]})], "the type choices is not an outline"),
        ([{}], "the type None is not an outline"),
        ([{"type": ["polygonlabels"]}], "is not an outline"),
        ([region("polygonlabels", GOOD, original_width=W + 1)], "91 x 60 px, but the task's has 90 x 60"),
        ([region("polygonlabels", GOOD, original_height=None)], "90 x None px"),
        ([region("polygonlabels", GOOD, image_rotation=90)], "turned"),
        ([region("polygonlabels", GOOD, item_index=2)], "another image"),
        ([region("polygonlabels", {**GOOD, "polygonlabels": ["yeast"]})], "its label yeast is not a class"),
        ([region("polygonlabels", {**GOOD, "polygonlabels": []})], "no label"),
        ([region("polygonlabels", {**GOOD, "polygonlabels": [["organoid"]]})], "no label"),
        ([region("polygonlabels", {**GOOD, "points": 5})], "not a list of points"),
        ([region("polygonlabels", {**GOOD, "points": [[1, 2, 3]]})], "not a list of points"),
        ([region("polygonlabels", {**GOOD, "points": [[1, "2"]] * 3})], "not numbers"),
        ([region("polygonlabels", {**GOOD, "points": [[1, float("nan")]] * 3})], "not numbers"),
        ([region("polygonlabels", {**GOOD, "points": [[1, 10**400]] * 3})], "not numbers"),
        ([region("polygonlabels", {**GOOD, "points": [[1, 2], [3, 4]]})], "fewer than 3"),
        ([region("polygonlabels", {**GOOD, "points": [[101, 2], [103, 4], [105, 2]]})], "outside"),
        ([region("brushlabels", {"brushlabels": ["organoid"], "format": "rle"})], "not given as rle"),
        ([region("brushlabels", {"brushlabels": ["organoid"], "format": "rle", "rle": [1, 2]})], "too short"),
        ([region("brushlabels", {"brushlabels": ["organoid"], "format": "rle", "rle": 9})], "bytes"),
        ([region("rectanglelabels", {"rectanglelabels": ["organoid"], "x": 1, "y": 2})], "width, height"),
        ([region("rectanglelabels", {**FLAT, "width": 0})], "empty"),
        ([region("rectanglelabels", {**FLAT, "rotation": "a"})], "rotation"),
    ],
)  # fmt: skip
def test_what_is_no_object_says_why(result: Any, why: str) -> None:
    assert why in reason(result)


def test_an_empty_brush_mask_is_no_object() -> None:
    rle = list(mask2rle(np.zeros((H, W), np.uint8)))
    assert "empty" in reason(
        [region("brushlabels", {"brushlabels": ["organoid"], "format": "rle", "rle": rle})]
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
WORDS = st.sampled_from(
    "id type value original_width original_height points rle x y width height radiusX radiusY rotation "
    "format labels polygonlabels brushlabels rectanglelabels ellipselabels origin".split()
)


@given(JSON)
def test_no_json_raises(document: Any) -> None:
    read_regions(document, (H, W), CLASSES)
    read_regions([document], (H, W), CLASSES)
    list(shape_facts([document]))


@given(st.data())
def test_no_damaged_region_raises(data: st.DataObject) -> None:
    result = json.loads(json.dumps(to_regions(objects(), KEYS, CLASSES, CONTROLS)))
    value = {"x": 1, "y": 2, "radiusX": 3, "radiusY": 3, "ellipselabels": ["organoid"], "rotation": 3}
    result.append(region("ellipselabels", value))
    damaged = copy.deepcopy(data.draw(st.sampled_from(result)))
    within = damaged["value"] if data.draw(st.booleans()) else damaged
    name = data.draw(st.sampled_from(sorted(within)) | WORDS)
    held = within.get(name)
    if isinstance(held, list) and held and data.draw(st.booleans()):
        held[data.draw(st.integers(0, len(held) - 1))] = data.draw(JSON)
    else:
        within[name] = data.draw(JSON)
    read = read_regions([damaged], (H, W), CLASSES)
    assert len(read.regions) + len(read.unusable) == 1
    assert is_untouched(result[0], damaged) in (True, False)
    list(shape_facts([damaged]))


def test_a_region_that_came_back_as_it_was_sent_is_untouched() -> None:
    for sent in to_regions(objects(), KEYS, CLASSES, CONTROLS):
        back = json.loads(json.dumps(sent))
        back = dict(reversed(back.items())) | {"origin": "prediction", "score": 0.1}
        assert is_untouched(sent, back)
        if sent["type"] == "polygonlabels":
            back["value"]["points"][1][0] += 9e-7
            assert is_untouched(sent, back)


def test_a_point_a_label_a_stroke_or_another_image_is_a_touch() -> None:
    polygon, brush = to_regions(objects(), KEYS, CLASSES, CONTROLS)[:2]
    changes: list[tuple[dict[str, Any], list[Any], Any]] = [
        (polygon, ["value", "points", 1, 0], polygon["value"]["points"][1][0] + 2e-6),
        (polygon, ["value", "points"], polygon["value"]["points"][1:]),
        (polygon, ["value", "points"], None),
        (polygon, ["value", "points", 0], ["1", 2]),
        (polygon, ["value", "points", 0], [10**400, 2]),
        (polygon, ["value", "polygonlabels"], [CLASSES[1]]),
        (polygon, ["value", "closed"], False),
        (polygon, ["value"], None),
        (polygon, ["type"], "polygon"),
        (polygon, ["original_width"], 7),
        (polygon, ["image_rotation"], 90),
        (brush, ["value", "rle", 9], 255 - brush["value"]["rle"][9]),
        (brush, ["value", "brushlabels"], ["organoid"]),
    ]
    for sent, path, new in changes:
        back = copy.deepcopy(sent)
        place = back
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = new
        assert not is_untouched(sent, back), path


def test_a_region_whose_label_alone_is_another_has_the_same_shape() -> None:
    for sent in to_regions(objects(), KEYS, CLASSES, CONTROLS):
        back = json.loads(json.dumps(sent))
        (now,) = set(CLASSES) - set(back["value"][back["type"]])
        back["value"][back["type"]] = [now]
        (read,) = read_regions([back], (H, W), CLASSES).regions
        assert CLASSES[read.label] == now
        assert has_same_shape(sent, read)
        other = to_regions(objects(), KEYS, CLASSES, CONTROLS)[3 if sent["id"] != KEYS[3] else 0]
        (elsewhere,) = read_regions([{**other, "id": sent["id"]}], (H, W), CLASSES).regions
        assert not has_same_shape(sent, elsewhere)


def test_names_and_sizes_are_said_without_reading_a_mask() -> None:
    result = [*to_regions(objects(), KEYS, CLASSES, CONTROLS), region("choices", {"choices": ["good"]})]
    assert list(shape_facts(result[:2])) == [("organoid", (H, W)), (CLASSES[1], (H, W))]
    assert len(list(shape_facts(result))) == len(KEYS)
