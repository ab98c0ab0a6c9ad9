"""Cutting an image into tiles for review and joining what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.metrics.pairs import PairTable
from labelloop.metrics.working_point import in_crowd
from labelloop.review.edits import KeyedInstances
from labelloop.review.join import ReturnedTile, join_tiles
from labelloop.review.joined import Joined
from labelloop.review.tiles import MAX_OBJECTS, TileView, areas_inside, cut_to_box, review_tiles, whole_view

Mask = npt.NDArray[np.bool_]
SIZE_HW = (100, 200)
N_CLASSES = 2


def disc(y: float, x: float, radius: float, size_hw: tuple[int, int] = SIZE_HW) -> Mask:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def random_discs(seed: int, n: int, size_hw: tuple[int, int], largest: float = 20) -> Instances:
    rng = np.random.default_rng(seed)
    masks = [
        disc(rng.uniform(0, size_hw[0]), rng.uniform(0, size_hw[1]), rng.uniform(1, largest), size_hw)
        for _ in range(n)
    ]
    masks = [mask for mask in masks if mask.any()]
    return Instances.from_dense(np.asarray(masks), rng.integers(0, 2, len(masks)), size_hw=size_hw)


@dataclass
class Sent:
    """One tile on its way to a person and back."""

    view: TileView
    keys: tuple[str, ...]
    objects: dict[str, Mask]
    labels: dict[str, int]
    original: Mapping[str, Mask]

    def back(self) -> ReturnedTile:
        size_hw = self.view.tile.size_hw
        untouched = {
            key
            for key in self.keys
            if key in self.objects and np.array_equal(self.objects[key], self.original[key])
        }
        dense = np.asarray(list(self.objects.values())) if self.objects else np.zeros((0, *size_hw), np.bool_)
        returned = Instances.from_dense(dense, [self.labels[key] for key in self.objects], size_hw=size_hw)
        return ReturnedTile(
            tile=self.view.tile,
            shown=frozenset(self.keys),
            owned=frozenset(key for key, own in zip(self.keys, self.view.owned, strict=True) if own),
            returned=KeyedInstances(keys=tuple(self.objects), instances=returned),
            untouched=frozenset(untouched),
        )


def send(instances: Instances, views: tuple[TileView, ...]) -> tuple[KeyedInstances, list[Sent]]:
    keys = tuple(f"k{i}" for i in range(len(instances)))
    sent = []
    for view in views:
        shown = tuple(keys[i] for i in view.shown)
        cut = cut_to_box(instances.select(view.shown), view.tile.box)
        masks = dict(zip(shown, cut.to_dense(), strict=True))
        labels = dict(zip(shown, cut.labels.tolist(), strict=True))
        sent.append(Sent(view=view, keys=shown, objects=dict(masks), labels=labels, original=masks))
    return KeyedInstances(keys=keys, instances=instances), sent


def joined(instances: Instances, change: Callable[[list[Sent]], None], **limits: int) -> Instances:
    views = review_tiles(instances, **limits)
    proposed, sent = send(instances, views)
    change(sent)
    return join_tiles(proposed, [s.back() for s in sent]).labels(N_CLASSES)


def same_objects(a: Instances, b: Instances) -> bool:
    def objects(i: Instances) -> list[tuple[bytes, int]]:
        return sorted(zip(i.rles, i.labels.tolist(), strict=True))

    return objects(a) == objects(b)


def test_a_small_image_with_few_objects_is_one_task_that_shows_all() -> None:
    instances = random_discs(0, 30, SIZE_HW)
    [view] = review_tiles(instances)
    assert view.tile.box == (0, 0, *SIZE_HW)
    assert view.shown.tolist() == list(range(len(instances)))
    assert view.owned.all()


@pytest.mark.parametrize("n", [41, 150, 300])
def test_no_task_shows_more_than_the_limit_and_every_object_has_one_owner(n: int) -> None:
    instances = random_discs(n, n, (900, 1200), largest=12)
    views = review_tiles(instances)
    assert max(len(view.shown) for view in views) <= MAX_OBJECTS
    owned = sorted(i for view in views for i in view.shown[view.owned].tolist())
    assert owned == list(range(len(instances)))


def test_a_large_image_is_cut_though_it_is_empty_and_the_tiles_cover_it() -> None:
    views = review_tiles(Instances(size_hw=(3000, 4000)))
    covered = np.zeros((3000, 4000), np.bool_)
    for view in views:
        top, left, bottom, right = view.tile.box
        assert max(bottom - top, right - left) <= 1536
        covered[top:bottom, left:right] = True
    assert covered.all()
    assert len(views) <= 9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 40))
def test_areas_and_cuts_are_those_of_the_dense_masks(seed: int, n: int) -> None:
    instances = random_discs(seed, n, SIZE_HW)
    box = (20, 30, 90, 140)
    dense = instances.to_dense()[:, 20:90, 30:140]
    assert areas_inside(instances, box).tolist() == dense.sum(axis=(1, 2)).tolist()
    assert np.array_equal(cut_to_box(instances, box).to_dense(), dense)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 60), st.integers(5, 60), st.integers(60, 250))
def test_untouched_objects_come_back_bit_for_bit(seed: int, n: int, limit: int, side: int) -> None:
    instances = random_discs(seed, n, SIZE_HW, largest=35)
    back = joined(instances, lambda sent: None, max_objects=limit, max_side_px=side)
    assert same_objects(back, instances)
    assert not back.crowd.any()


def two_tiles(instances: Instances) -> dict[str, int]:
    limits = {"max_objects": 60, "max_side_px": 130}
    assert len(review_tiles(instances, **limits)) == 2
    return limits


def test_an_object_deleted_by_its_owner_is_gone_though_a_part_of_it_stays_elsewhere() -> None:
    across = disc(60, 96, 18)
    instances = Instances.from_dense(np.asarray([across, disc(60, 20, 10), disc(60, 180, 10)]))

    def delete(sent: list[Sent]) -> None:
        assert all("k0" in s.objects for s in sent)
        [owner] = [s for s in sent if "k0" in {k for k, o in zip(s.keys, s.view.owned, strict=True) if o}]
        del owner.objects["k0"]

    back = joined(instances, delete, **two_tiles(instances))
    assert same_objects(back, instances.select([1, 2]))


def test_a_part_deleted_elsewhere_loses_only_what_the_owner_does_not_show() -> None:
    long = np.zeros(SIZE_HW, np.bool_)
    long[50:60, 20:190] = True
    instances = Instances.from_dense(long[None])
    boxes: list[tuple[int, int, int, int]] = []

    def delete(sent: list[Sent]) -> None:
        for s in sent:
            if s.view.owned[0]:
                boxes.append(s.view.tile.box)
            else:
                del s.objects["k0"]

    back = joined(instances, delete, **two_tiles(instances))
    [(_, left, _, right)] = boxes
    expected = long.copy()
    expected[:, :left] = expected[:, right:] = False
    assert np.array_equal(back.mask(0), expected)


def test_an_object_changed_in_both_tiles_is_what_each_of_them_says_where_it_looks() -> None:
    instances = Instances.from_dense(disc(60, 98, 30)[None])
    grown = disc(60, 98, 33)

    def grow(sent: list[Sent]) -> None:
        for s in sent:
            top, left, bottom, right = s.view.tile.box
            s.objects["k0"] = grown[top:bottom, left:right]

    back = joined(instances, grow, **two_tiles(instances))
    assert len(back) == 1
    assert np.array_equal(back.mask(0), grown)


def test_a_boundary_moved_in_the_tile_that_does_not_own_it_counts_where_the_owner_left_it_alone() -> None:
    instances = Instances.from_dense(disc(60, 90, 30)[None])
    grown = disc(60, 90, 33)

    def grow(sent: list[Sent]) -> None:
        for s in sent:
            if not s.view.owned[0]:
                top, left, bottom, right = s.view.tile.box
                s.objects["k0"] = grown[top:bottom, left:right]
                s.original = {"k0": disc(60, 90, 30)[top:bottom, left:right]}

    back = joined(instances, grow, **two_tiles(instances))
    assert (back.mask(0) & ~disc(60, 90, 30)).any()
    assert not (back.mask(0) & ~grown).any()


def test_an_object_drawn_in_two_tiles_becomes_one_and_two_in_one_tile_stay_two() -> None:
    instances = Instances.from_dense(np.asarray([disc(60, 10, 8), disc(60, 190, 8)]))
    new = [disc(60, 96, 25), disc(60, 104, 25)]

    def draw(sent: list[Sent]) -> None:
        for s in sent:
            top, left, bottom, right = s.view.tile.box
            for i, mask in enumerate(new):
                s.objects[f"{left} new {i}"] = mask[top:bottom, left:right]
                s.labels[f"{left} new {i}"] = 1

    back = joined(instances, draw, max_objects=60, max_side_px=150)
    assert same_objects(back, Instances.from_dense(np.asarray([*instances.to_dense(), *new]), [0, 0, 1, 1]))


def test_what_no_tile_has_looked_at_is_marked_as_crowd() -> None:
    instances = Instances.from_dense(np.asarray([disc(60, 20, 10), disc(60, 180, 10)]))
    views = review_tiles(instances, **two_tiles(instances))
    proposed, sent = send(instances, views)
    back = join_tiles(proposed, [sent[0].back()]).labels(N_CLASSES)
    assert same_objects(back.select(~back.crowd), instances.select([0]))
    unknown = back.select(back.crowd).to_dense().any(axis=0)
    top, left, bottom, right = views[0].tile.box
    assert not unknown[top:bottom, left:right].any()
    outside = np.ones(SIZE_HW, np.bool_)
    outside[top:bottom, left:right] = False
    assert np.array_equal(unknown, outside)


def test_what_is_unknown_is_a_crowd_of_every_class_so_that_no_prediction_in_it_is_a_false_alarm() -> None:
    across = disc(60, 96, 18)
    instances = Instances.from_dense(np.asarray([across, disc(60, 20, 10), disc(60, 180, 10)]))
    views = review_tiles(instances, **two_tiles(instances))
    proposed, sent = send(instances, views)
    [first] = [s for s in sent if "k0" not in s.back().owned]
    truth = join_tiles(proposed, [first.back()]).labels(N_CLASSES)
    assert np.bincount(truth.labels[truth.crowd]).tolist() == [2, 2]  # what is unseen, and what is undecided
    elsewhere = disc(20, 180 if first.view.tile.box[1] == 0 else 20, 9)
    predicted = Instances.from_dense(np.asarray([across, elsewhere] * 2), [0, 0, 1, 1], [0.9] * 4)
    table = PairTable.build([truth], [predicted], n_classes=N_CLASSES)
    assert in_crowd(table).all()


def test_a_region_that_cannot_be_used_is_a_crowd_of_every_class_until_a_later_round_brings_an_object() -> (
    None
):
    nothing = KeyedInstances(keys=(), instances=Instances(size_hw=SIZE_HW))
    proposed = Instances.from_dense(disc(50, 50, 20)[None], scores=[0.9])
    [view] = review_tiles(proposed)
    looked = ReturnedTile(
        tile=view.tile, shown=frozenset(), owned=frozenset(), returned=nothing, untouched=frozenset()
    )
    first = join_tiles(nothing, [replace(looked, unreadable=proposed.rles)])
    again = join_tiles(nothing, [looked], before=first)
    for known in (first, again):
        labels = known.labels(N_CLASSES)
        assert (labels.rles, labels.labels.tolist()) == (proposed.rles * N_CLASSES, [*range(N_CLASSES)])
        assert labels.crowd.all()
    drawn = KeyedInstances(keys=("drawn",), instances=replace(proposed, scores=None))
    last = join_tiles(nothing, [replace(looked, returned=drawn)], before=again)
    assert last.labels(N_CLASSES) == drawn.instances


def test_the_owners_class_counts() -> None:
    instances = Instances.from_dense(disc(60, 90, 30)[None], [0])
    views = review_tiles(instances, **two_tiles(instances))
    proposed, sent = send(instances, views)
    back = []
    for s in sent:
        s.labels["k0"] = 1 if s.view.owned[0] else 0
        back.append(replace(s.back(), untouched=frozenset()))
    assert join_tiles(proposed, back).objects.labels.tolist() == [1]


def test_objects_that_are_expected_beside_those_shown_take_their_room() -> None:
    nothing = Instances(size_hw=(512, 512))
    assert [len(review_tiles(nothing, max_objects=40, unseen=n)) for n in (0, 40, 41, 160, 161)] == [
        1, 1, 4, 4, 9,
    ]  # fmt: skip
    some = random_discs(0, 10, (512, 512))
    assert len(review_tiles(some, max_objects=40, unseen=35)) > len(review_tiles(some, max_objects=40))


@pytest.mark.parametrize("one_was_known", [True, False])
def test_labels_of_which_a_tile_did_not_know_give_way_to_what_it_brings_in_their_place(
    one_was_known: bool,
) -> None:
    """A person found one object right where there were two, or two where there was one."""
    whole = np.zeros((64, 64), np.bool_)
    whole[20:40, 10:50] = True
    halves = np.stack([whole, whole])
    halves[0, :, 30:] = halves[1, :, :30] = False
    far = np.zeros((1, 64, 64), np.bool_)
    far[0, 50:60, 50:60] = True
    known, shown = (whole[None], halves) if one_was_known else (halves, whole[None])
    proposed = Instances.from_dense(shown)
    before = Joined.of_labels(Instances.from_dense(np.concatenate([known, far])))
    keyed, sent = send(proposed, (whole_view(proposed),))
    labels = join_tiles(keyed, [each.back() for each in sent], before=before).labels(1)
    assert sorted(labels.rles) == sorted([*proposed.rles, *Instances.from_dense(far).rles])


def test_a_label_that_holds_many_objects_of_another_class_stays_when_these_are_brought() -> None:
    gland, cells = np.zeros((1, 64, 64), np.bool_), np.zeros((25, 64, 64), np.bool_)
    gland[0, 2:62, 2:62] = True
    for i in range(25):
        y, x = 3 + 12 * (i // 5), 3 + 12 * (i % 5)
        cells[i, y : y + 10, x : x + 10] = True
    proposed = Instances.from_dense(cells, [1] * 25)
    before = Joined.of_labels(Instances.from_dense(gland, [0]))
    keyed, sent = send(proposed, (whole_view(proposed),))
    labels = join_tiles(keyed, [each.back() for each in sent], before=before).labels(2)
    assert sorted(labels.labels.tolist()) == [0] + [1] * 25
