from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.review.edits import EDIT_KINDS, Edit, KeyedInstances, find_edits

Mask = npt.NDArray[np.bool_]


def disc(y: float, x: float, radius: float, size_hw: tuple[int, int] = (120, 160)) -> Mask:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def keyed(
    masks: Mapping[str, Mask], labels: Sequence[int] | None = None, size_hw: tuple[int, int] = (120, 160)
) -> KeyedInstances:
    dense = np.asarray(list(masks.values())) if masks else np.zeros((0, *size_hw), np.bool_)
    return KeyedInstances(keys=tuple(masks), instances=Instances.from_dense(dense, labels, size_hw=size_hw))


A, B = disc(40, 40, 20), disc(40, 120, 20)
LEFT = np.zeros((120, 160), np.bool_)
LEFT[:, :40] = True


def kinds(edits: list[Edit]) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return sorted((edit.kind, edit.before, edit.after) for edit in edits)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param({"a": A}, {"a": A}, [("accepted", ("a",), ("a",))], id="accepted"),
        pytest.param({"a": A}, {"a": disc(42, 41, 20)}, [("moved", ("a",), ("a",))], id="moved"),
        pytest.param({"a": A}, {"a": B}, [("moved", ("a",), ("a",))], id="moved far away"),
        pytest.param({"a": A}, {}, [("deleted", ("a",), ())], id="deleted"),
        pytest.param({}, {"n": A}, [("added", (), ("n",))], id="added"),
        pytest.param(
            {"a": A}, {"n": disc(42, 40, 19)}, [("moved", ("a",), ("n",))], id="deleted and drawn anew"
        ),
        pytest.param(
            {"a": A}, {"n": B}, [("added", (), ("n",)), ("deleted", ("a",), ())], id="another elsewhere"
        ),
        pytest.param(
            {"a": A},
            {"a": A & LEFT, "n": A & ~LEFT},
            [("split", ("a",), ("a", "n"))],
            id="split, one part keeps the key",
        ),
        pytest.param(
            {"a": A},
            {"m": A & LEFT, "n": A & ~LEFT},
            [("split", ("a",), ("m", "n"))],
            id="split, both parts drawn",
        ),
        pytest.param(
            {"a": A & LEFT, "b": A & ~LEFT}, {"a": A}, [("merged", ("a", "b"), ("a",))], id="merged into one"
        ),
        pytest.param(
            {"a": A & LEFT, "b": A & ~LEFT}, {"n": A}, [("merged", ("a", "b"), ("n",))], id="merged, drawn"
        ),
        pytest.param(
            {"a": A, "b": disc(40, 45, 8)},
            {"a": A},
            [("accepted", ("a",), ("a",)), ("deleted", ("b",), ())],
            id="a nested object deleted is no merge",
        ),
        pytest.param(
            {"a": A},
            {"a": A, "n": disc(40, 45, 8)},
            [("accepted", ("a",), ("a",)), ("added", (), ("n",))],
            id="a nested object added is no split",
        ),
    ],
)
def test_what_a_person_did_is_told_from_the_masks(
    before: dict[str, Mask], after: dict[str, Mask], expected: list[object]
) -> None:
    assert kinds(find_edits(keyed(before), keyed(after))) == sorted(expected)  # type: ignore[type-var]


def test_another_class_is_relabelled_and_the_iou_says_whether_the_boundary_moved_too() -> None:
    [same] = find_edits(keyed({"a": A}, [0]), keyed({"a": A}, [1]))
    [moved] = find_edits(keyed({"a": A}, [0]), keyed({"a": disc(42, 41, 20)}, [1]))
    assert (same.kind, same.label_before, same.label_after, same.iou) == ("relabelled", 0, 1, 1.0)
    assert moved.kind == "relabelled"
    assert moved.iou == pytest.approx((A & disc(42, 41, 20)).sum() / (A | disc(42, 41, 20)).sum())


def test_untouched_objects_are_accepted_whatever_was_read() -> None:
    [edit] = find_edits(keyed({"a": A}), keyed({"a": disc(41, 40, 20)}), untouched=["a"])
    assert (edit.kind, edit.iou) == ("accepted", 1.0)


def test_keys_must_differ() -> None:
    with pytest.raises(ValueError, match="different keys"):
        KeyedInstances(keys=("a", "a"), instances=keyed({"a": A, "b": B}).instances)


def _random_edits(seed: int) -> tuple[KeyedInstances, KeyedInstances, list[object]]:
    """A field of objects on a grid with some overlap, and one random edit of each; the truth of it."""
    rng = np.random.default_rng(seed)
    size_hw = (200, 260)
    before: dict[str, Mask] = {}
    after: dict[str, Mask] = {}
    labels_after: list[int] = []
    truth: list[object] = []
    for n, (row, column) in enumerate((r, c) for r in range(3) for c in range(4)):
        y, x = 35 + 62 * row + rng.uniform(-6, 6), 35 + 62 * column + rng.uniform(-6, 6)
        radius = rng.uniform(12, 33)  # neighbours overlap now and then
        mask = disc(y, x, radius, size_hw)
        key, kind = f"k{n}", str(rng.choice(EDIT_KINDS))
        half = np.zeros(size_hw, np.bool_)
        half[:, : int(x + rng.uniform(-0.4, 0.4) * radius)] = True
        one, two = mask & half, mask & ~half
        keeps_key = bool(rng.integers(2))
        label = 0
        if kind != "added" and kind != "merged":
            before[key] = mask
        if kind == "accepted":
            after[key] = mask
        elif kind == "moved":
            after[key] = disc(
                y + rng.uniform(1, 4), x + rng.uniform(1, 4), radius * rng.uniform(0.9, 1.1), size_hw
            )
        elif kind == "relabelled":
            after[key], label = mask, 1
        elif kind == "added":
            after[f"n{n}"] = mask
        elif kind == "split":
            after[key if keeps_key else f"m{n}"], after[f"n{n}"] = one, two
        elif kind == "merged":
            before[key], before[f"{key}b"] = one, two
            after[key if keeps_key else f"n{n}"] = mask
        labels_after += [label] * (len(after) - len(labels_after))
        named = (
            [k for k in before if k in (key, f"{key}b")],
            [k for k in after if k in (key, f"n{n}", f"m{n}")],
        )
        truth.append((kind, tuple(named[0]), tuple(named[1])))
    return keyed(before, size_hw=size_hw), keyed(after, labels_after, size_hw), truth


def test_at_least_95_percent_of_thousands_of_random_edits_of_each_kind_are_recognised() -> None:
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for seed in range(400):
        before, after, truth = _random_edits(seed)
        found = {(e.kind, e.before, tuple(sorted(e.after))) for e in find_edits(before, after)}
        for kind, keys, returned in truth:  # type: ignore[misc]
            total[kind] += 1
            right[kind] += (kind, keys, tuple(sorted(returned))) in found
    assert total.total() > 4000
    assert {kind: right[kind] / total[kind] for kind in EDIT_KINDS if right[kind] < 0.95 * total[kind]} == {}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_every_object_is_in_exactly_one_record(seed: int) -> None:
    before, after, _ = _random_edits(seed)
    edits = find_edits(before, after)
    assert sorted(k for e in edits for k in e.before) == sorted(before.keys)
    assert sorted(k for e in edits for k in e.after) == sorted(after.keys)


def test_edits_know_how_long_the_outlines_are_that_came_back() -> None:
    proposed, returned = keyed({"a": A, "gone": B}), keyed({"a": disc(42, 41, 20), "n": disc(90, 120, 12)})
    outlines = {edit.kind: edit.outline_px for edit in find_edits(proposed, returned)}
    assert outlines["moved"] == pytest.approx(2 * np.pi * 20, rel=0.02)
    assert outlines["added"] == pytest.approx(2 * np.pi * 12, rel=0.02)
    assert outlines["deleted"] == 0
