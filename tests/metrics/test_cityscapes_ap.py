"""Cityscapes' AP: each of its rules, resamples, and equality with cityscapesScripts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from labelloop.formats.cityscapes import CLASSES, VOID_IDS, read_cityscapes
from labelloop.instances import Instances
from labelloop.metrics.cityscapes_ap import cityscapes_average_precision, step_classes
from labelloop.metrics.pairs import PairTable

CASES = int(os.environ.get("LABELLOOP_REFERENCE_CASES", "200"))
SIZE_HW = (40, 56)
OF_INTEREST = (24, 26, 33)  # classes that the random frames hold; the others are empty

Scene = Callable[..., Instances]


def own_ap(truth: list[Instances], predicted: list[Instances], n_classes: int = 1) -> np.ndarray:
    """AP at each of the ten limits."""
    table = PairTable.build(truth, predicted, n_classes=n_classes, outlines=False)
    return cityscapes_average_precision(step_classes(truth, table), np.ones((1, len(truth)), np.int32))[0]


def test_the_area_is_that_of_trapezoids_without_an_envelope(scene: Scene) -> None:
    truth = [scene([(0, 0, 10, 10), (20, 0, 10, 10)])]
    predicted = [scene([(0, 20, 10, 10), (0, 0, 10, 10), (20, 0, 10, 10)], [0.9, 0.8, 0.7])]
    # Recall 0, 1/2, 1 with precision 1/2 and 2/3 after the hits; 0 before the first one (a false alarm).
    expected = 0.5 * (0 + 1 / 2) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2
    assert own_ap(truth, predicted) == pytest.approx(np.full(10, expected), abs=1e-12)


def test_equal_scores_are_one_step(scene: Scene) -> None:
    truth = [scene([(0, 0, 10, 10), (20, 0, 10, 10)])]
    rectangles = [(0, 20, 10, 10), (0, 0, 10, 10), (20, 0, 10, 10)]
    for order in ([0, 1, 2], [2, 1, 0]):
        predicted = [scene([rectangles[i] for i in order], [0.5, 0.5, 0.5])]
        assert own_ap(truth, predicted) == pytest.approx(np.full(10, (1 + 2 / 3) / 2), abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "limits_passed"),
    [
        pytest.param(20, 0, id="0.50 exactly is too little"),
        pytest.param(21, 1, id="0.525"),
        pytest.param(32, 6, id="0.80 exactly is too little"),
        pytest.param(40, 10, id="the same mask"),
    ],
)
def test_the_iou_has_to_be_larger_than_the_limit(scene: Scene, rows: int, limits_passed: int) -> None:
    ap = own_ap([scene([(0, 0, 40, 10)])], [scene([(0, 0, rows, 10)], [0.9])])
    assert ap == pytest.approx([1.0] * limits_passed + [0.0] * (10 - limits_passed))


def test_of_two_detections_of_an_object_the_better_scored_is_the_hit(scene: Scene) -> None:
    truth = [scene([(0, 0, 20, 10), (0, 20, 20, 10)])]
    twice = [scene([(0, 0, 20, 10), (0, 0, 18, 10), (0, 20, 20, 10)], [0.7, 0.8, 0.6])]
    # At 0.5 the worse mask is the hit as its score is higher; the better one is a false alarm.
    assert own_ap(truth, twice)[0] == pytest.approx(0.5 * 1 + 0.5 * (1 / 2 + 2 / 3) / 2)
    assert own_ap(truth, twice)[9] == pytest.approx(0.5 * (0 + 1 / 2) / 2 + 0.5 * (1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("in_crowd_rows", "limits_judged"),
    [
        pytest.param(20, 0, id="all of it lies in the group"),
        pytest.param(15, 5, id="three quarters"),
        pytest.param(10, 10, id="half"),
    ],
)
def test_what_lies_in_a_group_by_more_than_the_limit_is_ignored(
    scene: Scene, in_crowd_rows: int, limits_judged: int
) -> None:
    truth = [scene([(0, 30, 10, 10), (0, 0, 20, 20)], crowd=[False, True])]
    predicted = [scene([(20 - in_crowd_rows, 0, 20, 10), (0, 30, 10, 10)], [0.9, 0.8])]
    punished = own_ap(truth, predicted) < 1
    assert punished.sum() == limits_judged
    assert punished[10 - limits_judged :].all()  # at the strict limits, less of it is ignored


def test_an_object_below_100_px_is_neither_hit_nor_miss(scene: Scene) -> None:
    truth = [scene([(0, 0, 10, 10), (20, 0, 9, 11)])]  # 99 px
    found, missed = [(0, 0, 10, 10), (20, 0, 9, 11)], [(0, 0, 10, 10)]
    assert own_ap(truth, [scene(found, [0.8, 0.9])]) == pytest.approx(np.ones(10))
    assert own_ap(truth, [scene(missed, [0.8])]) == pytest.approx(np.ones(10))


def test_a_small_group_is_added_twice_and_a_small_void_once(scene: Scene) -> None:
    big, small, over_both = (0, 30, 10, 10), (20, 0, 5, 10), (20, 0, 15, 10)  # a third of it is ignored
    predicted = [scene([over_both, big], [0.9, 0.8], labels=[0, 0])]
    group = [scene([big, small], labels=[0, 0], crowd=[False, True])]
    void = [scene([big, small, small], labels=[0, 0, 1], crowd=[False, True, True])]
    assert (own_ap(group, predicted, 2) < 1).tolist() == [False] * 4 + [True] * 6  # 2/3 is above 0.65
    assert (own_ap(void, predicted, 2) < 1).all()


def test_a_class_without_objects_does_not_lower_the_mean(scene: Scene) -> None:
    truth = [scene([(0, 0, 10, 10)], labels=[0])]
    predicted = [scene([(0, 0, 10, 10), (20, 20, 10, 10)], [0.9, 0.8], labels=[0, 1])]
    assert own_ap(truth, predicted, 2) == pytest.approx(np.ones(10))
    assert np.isnan(own_ap([scene([])], predicted, 2)).all()


def test_no_detections_are_zero(scene: Scene) -> None:
    assert own_ap([scene([(0, 0, 10, 10)])], [scene([], [])]) == pytest.approx(np.zeros(10))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_resample_has_the_ap_of_the_images_drawn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = [random_frame(rng) for _ in range(5)]
    truth = [as_instances(ids) for ids, _ in frames]
    predicted = [found_instances(found) for _, found in frames]
    times = rng.multinomial(5, [1 / 5] * 5, size=4).astype(np.int32)
    table = PairTable.build(truth, predicted, n_classes=len(CLASSES), outlines=False)
    drawn = cityscapes_average_precision(step_classes(truth, table), times)
    for row, copies in zip(drawn, times, strict=True):
        images = np.repeat(np.arange(5), copies)
        expected = own_ap([truth[i] for i in images], [predicted[i] for i in images], len(CLASSES))
        np.testing.assert_allclose(row, expected, atol=1e-12)


Found = list[tuple[np.ndarray, int, float]]  # mask, class id, score


def random_frame(rng: np.random.Generator) -> tuple[np.ndarray, Found]:
    """Ids of a frame with objects, groups and void painted over one another, and what a model may see."""
    ids = np.full(SIZE_HW, 7, np.int32)
    for count, class_id in enumerate(rng.choice(OF_INTEREST, rng.integers(0, 9)).tolist()):
        is_group = rng.random() < 0.2
        paint(rng, ids, class_id if is_group else class_id * 1000 + count)
    for void in rng.choice(VOID_IDS, rng.integers(0, 3)).tolist():
        paint(rng, ids, void)
    found: Found = []
    for number in np.unique(ids).tolist():
        class_id = number // 1000 if number >= 1000 else number
        known = class_id in CLASSES
        for _ in range(int(rng.integers(0, 3)) if known else int(rng.random() < 0.4)):
            mask = np.roll(ids == number, rng.integers(-2, 3, 2), axis=(0, 1))
            mask[: rng.integers(0, SIZE_HW[0] // 3)] = False
            seen_as = class_id if known and rng.random() < 0.9 else int(rng.choice(OF_INTEREST))
            found.append((mask, seen_as, random_score(rng)))
    for class_id in rng.choice(OF_INTEREST, rng.integers(0, 3)).tolist():
        mask = np.zeros(SIZE_HW, np.int32)
        paint(rng, mask, 1)
        found.append((mask == 1, class_id, random_score(rng)))
    return ids, found


def paint(rng: np.random.Generator, ids: np.ndarray, number: int) -> None:
    top, left = rng.integers(0, [SIZE_HW[0] - 6, SIZE_HW[1] - 10])
    height, width = rng.integers(4, 26, 2)
    ids[top : top + height, left : min(left + width, SIZE_HW[1] - 4)] = number  # a margin of road stays


def random_score(rng: np.random.Generator) -> float:
    """Of 32 bits, as predictions have it, and often the same."""
    return float(np.float32(round(rng.random(), 1)))


def road_alarms(rng: np.random.Generator) -> Found:
    """A sure false alarm of some classes: cityscapesScripts fails where no detection of a class counts."""
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[:, -3:] = True
    return [(mask, class_id, random_score(rng)) for class_id in OF_INTEREST]


def as_instances(ids: np.ndarray) -> Instances:
    """The objects and groups of a frame, with its void as a crowd of every class."""
    classes = list(CLASSES)
    numbers = [n for n in np.unique(ids).tolist() if (n // 1000 if n >= 1000 else n) in CLASSES]
    masks = [ids == n for n in numbers]
    labels = [classes.index(n // 1000 if n >= 1000 else n) for n in numbers]
    crowd = [n < 1000 for n in numbers]
    void = np.isin(ids, VOID_IDS)
    if void.any():
        masks, labels = masks + [void] * len(classes), labels + list(range(len(classes)))
        crowd += [True] * len(classes)
    made = Instances.from_dense(np.asarray(masks), labels, size_hw=SIZE_HW)
    return Instances(size_hw=SIZE_HW, rles=made.rles, labels=made.labels, crowd=np.asarray(crowd, np.bool_))


def found_instances(found: Found) -> Instances:
    masks, ids, scores = (list(column) for column in zip(*found, strict=True)) if found else ([], [], [])
    labels = [list(CLASSES).index(class_id) for class_id in ids]
    return Instances.from_dense(np.asarray(masks), labels, scores, size_hw=SIZE_HW)


def write_case(folder: Path, frames: list[tuple[np.ndarray, Found]]) -> None:
    folder.mkdir(parents=True)
    rows = [(i, *of) for i, (_, found) in enumerate(frames) for of in found]
    frame, masks, labels, scores = zip(*rows, strict=True)
    np.savez_compressed(
        folder / "predictions.npz", masks=np.stack(masks), frame=frame, label=labels, score=scores
    )
    for i, (ids, _) in enumerate(frames):
        Image.fromarray(ids.astype(np.uint16)).save(folder / f"town_000000_{i:06}_gtFine_instanceIds.png")


def test_it_equals_cityscapesscripts(reference_pythons: Callable[[str], list[str]], tmp_path: Path) -> None:
    pythons = reference_pythons("cityscapesscripts")
    if not pythons:
        pytest.skip("cityscapesscripts is not installed here; see LABELLOOP_REFERENCE_PYTHONS")
    rng = np.random.default_rng(0)
    cases = []
    for i in range(CASES):
        frames = [random_frame(rng) for _ in range(rng.integers(1, 6))]
        frames[0][1].extend(road_alarms(rng))
        if rng.random() < 0.2:  # a class without any detection
            lost = int(rng.choice(OF_INTEREST))
            frames = [(ids, [of for of in found if of[1] != lost]) for ids, found in frames]
        write_case(tmp_path / "cases" / f"{i:05}", frames)
        cases.append(frames)
    script = Path(__file__).with_name("cityscapes_values.py")
    files = [str(tmp_path / "cases"), str(tmp_path / "values.json")]
    subprocess.run([pythons[0], "-W", "ignore", str(script), *files], check=True)
    expected = json.loads((tmp_path / "values.json").read_text(encoding="utf-8"))
    assert len(expected) == len(cases)
    differences = [
        difference_of(values, frames, tmp_path / "cases" / f"{i:05}")
        for i, (values, frames) in enumerate(zip(expected, cases, strict=True))
    ]
    print(f"\ncityscapesscripts, {CASES} cases, largest difference:", max(differences))
    assert max(differences) < 1e-6
    assert np.mean([0 < values["allAp"] < 1 for values in expected]) > 0.5


def difference_of(values: dict[str, Any], frames: list[tuple[np.ndarray, Found]], folder: Path) -> float:
    """The largest difference of one case; the frames' labels as the format reads them are the same."""
    truth = [as_instances(ids) for ids, _ in frames]
    for record, whole in zip(read_cityscapes(folder).records, truth, strict=True):
        assert set(zip(record.instances.rles, record.instances.labels.tolist(), strict=True)) <= set(
            zip(whole.rles, whole.labels.tolist(), strict=True)
        )
        assert (record.void in whole.rles) == (record.void is not None)
    predicted = [found_instances(found) for _, found in frames]
    table = PairTable.build(truth, predicted, n_classes=len(CLASSES), outlines=False)
    classes = step_classes(truth, table)
    once = np.ones((1, len(truth)), np.int32)
    own = cityscapes_average_precision(classes, once)[0]
    pairs = [(own.mean(), values["allAp"]), (own[0], values["allAp50%"])]
    of_class = {str(list(CLASSES)[of.label]): cityscapes_average_precision([of], once)[0] for of in classes}
    for class_id, ap in values["of_class"].items():
        pairs += zip(of_class.get(class_id, np.full(10, np.nan)), ap, strict=True)
    own_values, expected = np.asarray(pairs, np.float64).T
    assert (np.isnan(own_values) == np.isnan(expected)).all()
    return float(np.nanmax(np.abs(own_values - expected), initial=0))
