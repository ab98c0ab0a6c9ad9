"""Every kind of annotation error, made on purpose in a set that is otherwise right."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.label_errors.find import find_label_errors
from labelloop.label_errors.suspects import KINDS, Suspect

Squares = Callable[..., Instances]
SPOILT = 3  # the image that gets the error
GRID = tuple((5 + 25 * row, 5 + 25 * column, 16, 16) for row in range(4) for column in range(4))
FIRST, SECOND = GRID[:2]


def good_set(squares: Squares, n: int = 8) -> tuple[list[Instances], list[Instances]]:
    """Labels that are right, and predictions that are nearly so, with some false ones of low score."""
    rng = np.random.default_rng(0)
    truth = [squares(GRID) for _ in range(n)]
    predicted = []
    for _ in range(n):
        boxes = [tuple(np.add(box, (*rng.integers(-1, 2, 2), 0, 0))) for box in GRID] + [(0, 0, 3, 3)]
        predicted.append(squares(boxes, [*rng.uniform(0.8, 0.95, len(GRID)), 0.1]))
    return truth, predicted


def worst(truth: list[Instances], predicted: list[Instances], n_classes: int = 1) -> Suspect:
    return find_label_errors(truth, predicted, n_classes=n_classes)[0]


def test_a_label_that_was_taken_away_is_missed(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    truth[SPOILT] = squares(GRID[1:])
    suspect = worst(truth, predicted)
    assert (suspect.kind, suspect.image, suspect.labels) == ("missed", SPOILT, ())
    assert suspect.predictions == (0,)
    assert suspect.area_px == 256


def test_a_label_where_nothing_is_seen_is_spurious(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    truth[SPOILT] = squares([*GRID, (22, 22, 7, 7)])
    suspect = worst(truth, predicted)
    assert (suspect.kind, suspect.image, suspect.labels) == ("spurious", SPOILT, (16,))
    assert (suspect.predictions, suspect.area_px) == ((), 49)


def test_one_label_over_two_objects_is_merged(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    truth[SPOILT] = squares([(5, 5, 16, 41), *GRID[2:]])
    suspect = worst(truth, predicted)
    assert (suspect.kind, suspect.image, suspect.labels) == ("merged", SPOILT, (0,))
    assert suspect.predictions == (0, 1)


def test_two_labels_in_one_object_are_split_and_share_a_suspect(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    truth[SPOILT] = squares([(5, 5, 16, 8), (5, 13, 16, 8), *GRID[1:]])
    found = find_label_errors(truth, predicted, n_classes=1)
    assert (found[0].kind, found[0].image, found[0].labels) == ("split", SPOILT, (0, 1))
    assert found[0].predictions == (0,)
    assert [s for s in found[1:] if s.image == SPOILT and set(s.labels) & {0, 1}] == []


def test_a_boundary_that_is_off_is_sloppy(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    truth[SPOILT] = squares([(5, 5, 11, 16), *GRID[1:]])
    suspect = worst(truth, predicted)
    assert (suspect.kind, suspect.image, suspect.labels) == ("sloppy", SPOILT, (0,))
    assert suspect.predictions == (0,)


def test_a_label_of_the_other_class_is_a_wrong_class(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    classes = [0, 1] * 8
    truth = [squares(GRID, classes=classes) for _ in truth]
    predicted = [squares(GRID, p.scores[:16], classes=classes) for p in predicted]
    truth[SPOILT] = squares(GRID, classes=[0, 0, *classes[2:]])
    suspect = worst(truth, predicted, n_classes=2)
    assert (suspect.kind, suspect.image, suspect.labels) == ("wrong-class", SPOILT, (1,))
    assert suspect.predictions == (1,)


def test_every_label_and_every_prediction_without_one_has_its_place_in_the_ranking(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    found = find_label_errors(truth, predicted, n_classes=1)
    assert sorted((s.image, s.labels) for s in found if s.labels) == [
        (image, (label,)) for image in range(8) for label in range(16)
    ]
    assert [s.predictions for s in found if not s.labels] == [(16,)] * 8  # the false ones in the corner
    assert [s.score for s in found] == sorted((s.score for s in found), reverse=True)
    assert "wrong-class" not in {s.kind for s in found}  # there is one class


def test_errors_rank_above_all_that_is_right(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    truth[SPOILT] = squares([(5, 5, 16, 41), (55, 55, 16, 8), (55, 63, 16, 8), *GRID[3:10], *GRID[11:]])
    found = find_label_errors(truth, predicted, n_classes=1)
    assert {s.image for s in found[:3]} == {SPOILT}
    assert {s.kind for s in found[:3]} == {"merged", "split", "missed"}


def test_crowds_are_no_suspects_and_hide_what_lies_in_them(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    truth[SPOILT] = squares([(0, 0, 100, 24), *GRID[1:4], *GRID[5:8], *GRID[9:12], *GRID[13:]],
                            crowd=[True, *[False] * 12])  # fmt: skip
    found = [s for s in find_label_errors(truth, predicted, n_classes=1) if s.image == SPOILT]
    assert 0 not in {label for s in found for label in s.labels}
    assert max(s.score for s in found) < 0.9
    assert {s.kind for s in found if not s.labels} <= {"missed"}
    assert len([s for s in found if not s.labels]) == 0


def test_two_predictions_of_one_object_make_one_suspect(squares: Squares) -> None:
    truth, predicted = good_set(squares)
    truth[SPOILT] = squares(GRID[1:])
    double = squares([*GRID, (6, 6, 16, 16)], [0.9] * 16 + [0.85])
    predicted[SPOILT] = double
    found = find_label_errors(truth, predicted, n_classes=1)
    assert [s.predictions for s in found if s.image == SPOILT and not s.labels] == [(0,)]


def test_a_set_without_images_labels_or_predictions_has_an_answer(squares: Squares) -> None:
    nothing, full = squares([]), squares(GRID)
    unseen = squares([], [])
    assert find_label_errors([], [], n_classes=1) == []
    assert find_label_errors([nothing], [unseen], n_classes=1) == []
    assert len(find_label_errors([full], [unseen], n_classes=1)) == 16
    alone = find_label_errors([nothing], [squares(GRID, [0.9] * 16)], n_classes=1)
    assert [s.kind for s in alone] == ["missed"] * 16


def test_many_images_take_little_more_memory_than_one(squares: Squares) -> None:
    crowded = [(5 * row, 5 * column, 4, 4) for row in range(20) for column in range(20)]
    labels, seen = squares(crowded), squares(crowded, [0.9] * len(crowded))

    def peak(images: int) -> int:
        tracemalloc.start()
        find_label_errors([labels] * images, [seen] * images, n_classes=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(8) < 1.5 * peak(1)


@given(seed=st.integers(0, 2**31))
def test_any_labels_and_predictions_give_scores_from_0_to_1_and_indices_that_exist(
    squares, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sides = []
    for scored in (False, True):
        scenes = []
        for _ in range(3):
            n = int(rng.integers(0, 6))
            boxes = np.column_stack([rng.integers(0, 80, (n, 2)), rng.integers(1, 40, (n, 2))]).tolist()
            scenes.append(squares(boxes, rng.random(n) if scored else None, classes=rng.integers(0, 2, n)))
        sides.append(scenes)
    truth, predicted = sides
    found = find_label_errors(truth, predicted, n_classes=2)
    assert {(s.image, label) for s in found for label in s.labels} == {
        (i, label) for i, labels in enumerate(truth) for label in range(len(labels))
    }
    for suspect in found:
        assert 0 <= suspect.score <= 1
        assert suspect.kind in KINDS
        assert all(p < len(predicted[suspect.image]) for p in suspect.predictions)
        assert bool(suspect.labels) != (suspect.kind == "missed")
        assert suspect.area_px > 0


def test_a_suspect_is_json() -> None:
    suspect = Suspect(kind="missed", score=0.5, image=1, labels=(), predictions=(3,), area_px=9)
    assert suspect.as_dict() == {
        "kind": "missed", "score": 0.5, "image": 1, "labels": [], "predictions": [3], "area_px": 9,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_images_does_not_matter(squares: Squares, seed: int) -> None:
    truth, predicted = good_set(squares)
    truth[SPOILT] = squares(GRID[1:])
    order = np.random.default_rng(seed).permutation(len(truth))
    turned = find_label_errors([truth[i] for i in order], [predicted[i] for i in order], n_classes=1)
    assert (turned[0].kind, order[turned[0].image]) == ("missed", SPOILT)
