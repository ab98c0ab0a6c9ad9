from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.review.edits import KeyedInstances, find_edits
from labelloop.simulation.annotator import PRESETS, Annotated, AnnotatorConfig, annotate
from labelloop.simulation.annotator_time import Clock, Reported, perimeter_px, reported_seconds
from labelloop.simulation.sloppy_outlines import jittered

Mask = npt.NDArray[np.bool_]
SIZE_HW = (120, 160)


def disc(y: float, x: float, radius: float) -> Mask:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def objects(masks: Sequence[Mask], labels: Sequence[int] | None = None) -> Instances:
    return Instances.from_dense(np.array(masks).reshape(-1, *SIZE_HW), labels, size_hw=SIZE_HW)


def keyed(masks: Mapping[str, Mask], labels: Sequence[int] | None = None) -> KeyedInstances:
    return KeyedInstances(keys=tuple(masks), instances=objects(list(masks.values()), labels))


def crowd(instances: Instances, *which: int) -> Instances:
    flags = np.isin(np.arange(len(instances)), which)
    return Instances(size_hw=instances.size_hw, rles=instances.rles, labels=instances.labels, crowd=flags)


def run(
    shown: KeyedInstances, truth: Instances, *, seed: int = 0, config: AnnotatorConfig | None = None
) -> Annotated:
    return annotate(shown, truth, rng=np.random.default_rng(seed), config=config)


def kinds(shown: KeyedInstances, done: Annotated) -> list[str]:
    return sorted(edit.kind for edit in find_edits(shown, done.returned, untouched=done.untouched))


A, B, C = disc(35, 35, 20), disc(35, 120, 20), disc(90, 80, 20)
NOTHING: dict[str, Mask] = {}
TOUCHING = disc(60, 50, 20), disc(60, 91, 20)


@pytest.mark.parametrize(
    ("shown", "truth", "expected"),
    [
        pytest.param({"a": A, "b": B}, [A, B], ["accepted", "accepted"], id="right"),
        pytest.param({"a": disc(36, 35, 20)}, [A], ["accepted"], id="right enough"),
        pytest.param({"a": disc(41, 35, 20)}, [A], ["moved"], id="a boundary that is off"),
        pytest.param({"a": A}, [], ["deleted"], id="spurious"),
        pytest.param(NOTHING, [A], ["added"], id="missing"),
        pytest.param({"a": A}, [B], ["added", "deleted"], id="spurious and missing"),
        pytest.param({"a": A, "b": disc(37, 35, 19)}, [A], ["accepted", "deleted"], id="seen twice"),
        pytest.param({"m": TOUCHING[0] | TOUCHING[1]}, TOUCHING, ["split"], id="two taken for one"),
        pytest.param(
            {"m": TOUCHING[0] | disc(60, 80, 9)},
            [TOUCHING[0], disc(60, 80, 9), B],
            ["accepted", "added", "added"],
            id="a little one in a large one that is right enough is missing",
        ),
        pytest.param(
            {"p": TOUCHING[0], "q": TOUCHING[1]}, [TOUCHING[0] | TOUCHING[1]], ["merged"], id="halves"
        ),
        pytest.param(NOTHING, [], [], id="nothing"),
    ],
)  # fmt: skip
def test_what_is_done_fits_what_is_wrong(
    shown: Mapping[str, Mask], truth: Sequence[Mask], expected: list[str]
) -> None:
    proposed = keyed(shown)
    assert kinds(proposed, run(proposed, objects(truth))) == expected


def test_a_class_is_set_right_and_the_mask_left_as_it_is() -> None:
    shown = keyed({"a": A, "b": B}, [0, 1])
    done = run(shown, objects([A, B], [1, 1]))
    assert kinds(shown, done) == ["accepted", "relabelled"]
    assert done.returned.instances == objects([A, B], [1, 1])
    assert done.untouched == {"b"}


def test_a_corrected_object_keeps_its_key_and_becomes_the_true_one() -> None:
    shown = keyed({"a": disc(41, 35, 20), "b": B})
    done = run(shown, objects([A, B]))
    assert done.returned.keys == ("a", "b")
    assert done.returned.instances == objects([A, B])
    assert done.untouched == {"b"}


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_a_perfect_person_gives_back_each_true_object_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_discs(rng, int(rng.integers(0, 9)))
    kept = truth.select(rng.random(len(truth)) < 0.7)
    seen = [*jittered(kept, 0.25, rng).to_dense(), *random_discs(rng, int(rng.integers(0, 3))).to_dense()]
    if len(seen) > 2:
        seen[0] = seen[0] | seen[1]
    shown = keyed({f"o{i}": mask for i, mask in enumerate(seen)})
    done = run(shown, truth, seed=seed)
    assert len(done.returned.keys) == len(truth)
    if len(truth):
        from scipy.optimize import linear_sum_assignment

        iou = done.returned.instances.iou(truth)
        assert iou[linear_sum_assignment(-iou)].min() >= PRESETS["perfect"].accept_iou
    same = {k: r for k, r in zip(shown.keys, shown.instances.rles, strict=True) if k in done.untouched}
    after = dict(zip(done.returned.keys, done.returned.instances.rles, strict=True))
    assert all(after[key] == rle for key, rle in same.items())


def random_discs(rng: np.random.Generator, n: int) -> Instances:
    masks = [disc(rng.uniform(0, 120), rng.uniform(0, 160), rng.uniform(4, 25)) for _ in range(n)]
    return objects([mask for mask in masks if mask.any()])


def test_true_crowds_are_not_drawn_and_what_lies_in_one_is_left_alone() -> None:
    shown = keyed({"in": disc(35, 30, 8), "out": B})
    done = run(shown, crowd(objects([A, C]), 0))
    assert "in" in done.untouched
    assert kinds(shown, done) == ["accepted", "added", "deleted"]
    assert done.returned.instances.rles[-1] == objects([C]).rles[0]


def test_who_overlooks_things_leaves_about_that_share_of_the_wrong() -> None:
    config = PRESETS["missing"]
    added = deleted = 0
    for seed in range(100):
        shown = keyed({"a": A})
        done = kinds(shown, run(shown, objects([B, C]), seed=seed, config=config))
        added += done.count("added")
        deleted += done.count("deleted")
    assert 0.6 < added / 200 < 0.8
    assert 0.55 < deleted / 100 < 0.85


def test_a_sloppy_person_draws_about_the_right_thing() -> None:
    ious = []
    for seed in range(20):
        done = run(keyed(NOTHING), objects([A]), seed=seed, config=PRESETS["sloppy"])
        ious.append(float(done.returned.instances.iou(objects([A]))[0, 0]))
    assert 0.7 < min(ious) <= max(ious) < 1


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 0.5))
def test_a_jittered_object_is_never_lost_and_keeps_what_it_is(seed: int, jitter: float) -> None:
    rng = np.random.default_rng(seed)
    discs = random_discs(rng, 4)
    moved = jittered(discs, jitter, rng)
    assert moved.size_hw == discs.size_hw
    assert np.array_equal(moved.labels, discs.labels)
    assert (moved.areas > 0).all()


def test_without_jitter_masks_are_the_same_bit_for_bit() -> None:
    assert jittered(objects([A, B]), 0.0, np.random.default_rng(0)) == objects([A, B])


def test_the_same_seed_gives_the_same_review() -> None:
    shown, truth = keyed({"a": disc(41, 35, 20)}), objects([A, B])
    one, two, other = run(shown, truth), run(shown, truth), run(shown, truth, seed=1)
    assert one.returned.keys == two.returned.keys != other.returned.keys
    assert (one.seconds, one.active_seconds) == (two.seconds, two.active_seconds)
    assert one.seconds != other.seconds


def mean_active(
    shown: KeyedInstances, truth: Instances, config: AnnotatorConfig | None = None, worked_s: float = 0.0
) -> float:
    times = [
        annotate(
            shown, truth, rng=np.random.default_rng(seed), config=config, worked_s=worked_s
        ).active_seconds
        for seed in range(40)
    ]
    return float(np.mean(times))


def test_work_takes_longer_the_more_there_is_and_the_slower_and_more_tired_a_person() -> None:
    right, empty = keyed({"a": A, "b": B}), keyed(NOTHING)
    accepted = mean_active(right, objects([A, B]))
    assert mean_active(empty, objects([])) < accepted < mean_active(empty, objects([A, B]))
    small, large = (
        mean_active(empty, objects([disc(60, 60, 6)])),
        mean_active(empty, objects([disc(60, 60, 50)])),
    )
    assert small + 5 < large
    assert mean_active(right, objects([A, B]), PRESETS["slow"]) == pytest.approx(1.8 * accepted, rel=0.01)
    assert mean_active(right, objects([A, B]), PRESETS["fast"]) == pytest.approx(0.6 * accepted, rel=0.01)
    assert 1.05 * accepted < mean_active(right, objects([A, B]), worked_s=7200) < 1.4 * accepted


def test_idle_spells_are_reported_but_not_worked() -> None:
    shown, truth = keyed({"a": A}), objects([A])
    idle = [run(shown, truth, seed=seed, config=PRESETS["idle"]) for seed in range(200)]
    away = [done.seconds - done.active_seconds for done in idle]
    assert 0.04 < np.mean([seconds > 0 for seconds in away]) < 0.18
    assert max(away) > 300
    never = [run(shown, truth, seed=seed) for seed in range(20)]
    assert all(done.seconds == done.active_seconds for done in never)


def test_a_server_that_counts_twice_reports_about_twice_for_the_share_asked_for() -> None:
    shown, truth = keyed({"a": A}), objects([A])
    config = replace(PRESETS["perfect"], doubled_share=0.3)
    times = [run(shown, truth, seed=seed, config=config) for seed in range(200)]
    ratios = np.array([done.seconds / done.active_seconds for done in times])
    assert 0.2 < np.mean(ratios > 1) < 0.4
    assert ratios[ratios > 1].min() >= 1.8
    assert ratios.max() <= 2.0
    once = reported_seconds(10.0, np.random.default_rng(0), idle_share=0, doubled_share=0)
    assert once == Reported(seconds=10.0, maybe_twice=False)
    assert all(done.maybe_twice for done in times if done.seconds > done.active_seconds)
    assert 0.4 < np.mean([done.maybe_twice for done in times]) < 0.6


def test_times_of_actions_are_skewed() -> None:
    times = []
    for seed in range(300):
        clock = Clock(np.random.default_rng(seed), pace=1, mood=0, worked_s=0)
        clock.draw(100.0)
        times.append(clock.seconds)
    assert np.mean(times) > 1.05 * np.median(times)


@pytest.mark.parametrize("radius", [10, 25, 50])
def test_the_perimeter_of_a_disc_is_that_of_its_circle(radius: int) -> None:
    assert perimeter_px(disc(60, 80, radius)) == pytest.approx(2 * np.pi * radius, rel=0.06)


def test_images_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="the truth"):
        run(keyed({"a": A}), Instances(size_hw=(10, 10)))


@pytest.mark.parametrize("wrong", [{"accept_iou": 0.3}, {"idle_share": 1.5}, {"jitter": -0.1}, {"pace": 0.0}])
def test_impossible_people_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="unlike"):
        AnnotatorConfig(**wrong)
