import functools
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.data.objects import SoftObjects, objects_of
from labelloop.data.parts import image_of, parts_of, whole
from labelloop.data.pool import ImageLoader
from labelloop.data.view_settings import GeometryConfig, PhotometryConfig
from labelloop.data.views import draw_geometry, view_image, view_objects
from labelloop.distill.batches import (
    PARTS_AT_ONCE,
    BatchPlan,
    draw_known,
    epoch_order,
    fitted,
    make_batch,
    prefetched,
    repeated_ids,
)
from labelloop.instances import Instances
from labelloop.project.project import ImageRecord


def with_classes(*labels: int) -> SoftObjects:
    return objects_of(Instances.from_dense(np.ones((len(labels), 8, 8)), labels, size_hw=(8, 8)))


def test_every_pass_sees_every_image_once_wherever_it_is_entered():
    ids = [3, 5, 8, 13]
    whole = epoch_order(ids, seed=1, stage="s", start=0, count=12)
    assert [sorted(whole[i : i + 4]) for i in (0, 4, 8)] == [ids] * 3
    assert epoch_order(ids, seed=1, stage="s", start=5, count=4) == whole[5:9]
    assert epoch_order(ids, seed=2, stage="s", start=0, count=12) != whole


def test_parts_of_a_field_come_one_after_the_other_where_fields_are_read_again_and_again():
    fields = [ImageRecord(i, Path(), "", (1000, 1000), "train", None, 0, -1, None, "0") for i in (1, 2, 3)]
    ids = [part.id for part in parts_of(fields, side_px=100)]
    order = functools.partial(epoch_order, ids, seed=1, stage="pool", block=32)
    two = order(start=0, count=600)
    assert sorted(two[:300]) == sorted(two[300:]) == sorted(ids)
    assert two[:300] != two[300:]
    assert [order(start=i, count=7) for i in (0, 293, 411)] == [two[i : i + 7] for i in (0, 293, 411)]
    readings = sum(image_of(a) != image_of(b) for a, b in pairwise(two[:300]))
    assert readings < 3 * 4  # a hundred parts of each field are four blocks; shuffled they are 200
    runs = [len(list(run)) for _, run in groupby(two[:300], image_of)]
    assert max(runs) > 4  # and blocks of a field do not all come at once
    assert len(runs) > 3
    whole_images = list(range(50))
    assert sorted(epoch_order(whole_images, seed=1, stage="s", start=0, count=50, block=32)) == whole_images


class Model:
    """An InstanceModel that says nothing of how finely it sees."""

    def module(self):
        raise NotImplementedError

    loss = predict = module


@pytest.mark.parametrize(("room", "block"), [(10**6, 1), (10**3, PARTS_AT_ONCE)])
def test_parts_are_drawn_in_blocks_where_they_do_not_all_fit_and_images_never(plan_and_loader, room, block):
    plan, _ = plan_and_loader
    labelled = [ImageRecord(i, Path(), "", (24, 24), "train", None, 0, -1, None, "0") for i in (1, 2, 3)]
    parts = parts_of([labelled[0]._replace(id=9, size_hw=(90, 90))], side_px=30)
    load = ImageLoader([*map(whole, labelled), *parts], intensity_percentile=(0.0, 100.0), cache_bytes=room)
    of_parts, whatever = replace(plan, unlabelled_ids=[part.id for part in parts]), Model()
    assert fitted(of_parts, whatever, load).block == block
    assert fitted(replace(plan, unlabelled_ids=(1, 2)), whatever, load).block == 1


def test_images_with_a_rare_class_are_seen_more_often_and_one_class_changes_nothing():
    common = {i: with_classes(0) for i in range(8)}
    assert repeated_ids(common, threshold=10.0, by_known=True) == list(range(8))
    rare = common | {8: with_classes(0, 1)}  # class 1 in a ninth of the images: three times as often
    assert repeated_ids(rare, threshold=10.0, by_known=True).count(8) == 3
    assert repeated_ids(rare, threshold=0.0, by_known=True) == list(range(9))


def test_repeat_factors_are_fractions_and_images_without_objects_are_left_out():
    images = {i: with_classes(0) for i in range(10)}
    images |= {i: with_classes(1) for i in range(10, 16)} | {99: with_classes()}
    ids = repeated_ids(images, threshold=10.0, by_known=False)
    assert 99 not in ids
    wanted = (10 / 6) ** 0.5  # of class 1 over class 0, by sqrt(threshold / share of images)
    assert ids.count(10) / ids.count(0) == pytest.approx(wanted, rel=0.05)


def test_images_without_objects_are_left_out_where_asked_unless_all_are():
    crowd = replace(with_classes(0), ignore=np.array([True]))
    images = {1: with_classes(0), 2: with_classes(), 3: with_classes(0), 4: crowd}
    for threshold in (0.0, 10.0):
        found = repeated_ids(images, threshold=threshold, by_known=False, empty_too=False)
        assert found == [1, 3]
    empty = {2: with_classes(), 5: with_classes()}
    assert repeated_ids(empty, threshold=0.0, by_known=False, empty_too=False) == [2, 5]


def unknown_right_of(column: int, *, side: int = 64) -> SoftObjects:
    """An object in the top left corner, and nothing known from a column on."""
    masks = np.zeros((2, side, side), np.uint8)
    masks[0, :8, :8] = masks[1, :, column:] = 1
    return objects_of(replace(Instances.from_dense(masks), crowd=np.array([False, True])))


def test_images_are_seen_in_proportion_to_what_is_known_of_them():
    half, quarter = unknown_right_of(32), unknown_right_of(16)
    three = {1: with_classes(0), 2: half, 3: quarter}
    ids = repeated_ids(three, threshold=0.0, by_known=True)
    assert [ids.count(i) for i in (1, 2, 3)] == [4, 2, 1]
    assert repeated_ids(three, threshold=0.0, by_known=False) == [1, 2, 3]
    hardly = {1: with_classes(0), 2: unknown_right_of(1)}
    assert repeated_ids(hardly, threshold=0.0, by_known=True).count(2) == 1
    rare = {i: with_classes(0) for i in range(8)} | {8: replace(half, labels=np.array([1, 1]))}
    ids = repeated_ids(rare, threshold=10.0, by_known=True)
    assert ids.count(8) / ids.count(0) == pytest.approx(8**0.5 / 2, rel=0.05)


def test_views_are_drawn_in_proportion_to_what_is_known_in_them():
    config, half = GeometryConfig(crop_px=16, zoom=(1.0, 1.0)), unknown_right_of(32)
    drawn = [draw_known(np.random.default_rng(i), half, config) for i in range(200)]
    anywhere = [draw_geometry(np.random.default_rng(i), (64, 64), config) for i in range(200)]
    shares = [[half.known_share(geometry.window) for geometry in each] for each in (drawn, anywhere)]
    assert min(shares[0]) > 0  # views of unknown area alone are not seen
    assert np.mean(shares[0]) > 0.85 > 0.6 > np.mean(shares[1])


def test_where_all_is_known_nothing_is_drawn_otherwise():
    config, rng, other = GeometryConfig(crop_px=16), np.random.default_rng(3), np.random.default_rng(3)
    assert draw_known(rng, with_classes(0, 1), config) == draw_geometry(other, (8, 8), config)
    assert rng.random() == other.random()


@pytest.mark.parametrize("known_views", [True, False])
def test_a_step_sees_what_is_known_where_its_plan_says_so(plan_and_loader, known_views):
    plan, load = plan_and_loader
    objects = unknown_right_of(12, side=24)
    geometry = GeometryConfig(crop_px=8, zoom=(1.0, 1.0))
    plan = replace(
        plan, labelled=dict.fromkeys((1, 2, 3), objects), geometry=geometry, known_views=known_views
    )
    targets = [make_batch(plan, load, step).labelled[0][1] for step in range(60)]
    only_unknown = sum(bool(t.ignore.all()) and bool(t.masks.all()) for t in targets if len(t.masks))
    assert (only_unknown == 0) == known_views


@pytest.fixture
def plan_and_loader(tmp_path):
    """Three labelled images, 1 to 3, and five without labels, 4 to 8; the plan takes one of each."""
    records = []
    for i in range(1, 9):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((24, 24), 20 * i, np.uint8)).save(path)
        records.append(ImageRecord(i, path, path.name, (24, 24), "train", None, 0, -1, None, str(i)))
    objects = objects_of(Instances.from_dense(np.ones((1, 24, 24)), (0,), size_hw=(24, 24)))
    plan = BatchPlan(
        seed=0,
        stage="s",
        labelled={i: objects for i in (1, 2, 3)},
        labelled_ids=(1, 2, 3),
        labelled_batch=1,
        unlabelled_ids=(4, 5, 6, 7, 8),
        unlabelled_batch=1,
        pseudo={i: objects for i in range(4, 9)},
        geometry=GeometryConfig(),
        weak=PhotometryConfig(),
        strong=PhotometryConfig(),
    )
    return plan, ImageLoader(map(whole, records), intensity_percentile=(0.0, 100.0))


def test_a_step_sees_both_kinds_of_images_and_every_pass_sees_each_once(plan_and_loader):
    plan, load = plan_and_loader
    batches = [make_batch(plan, load, step) for step in range(15)]
    assert all((len(b.labelled), len(b.strong), len(b.pseudo)) == (1, 1, 1) for b in batches)
    labelled, unlabelled = zip(*(b.image_ids for b in batches), strict=True)
    assert [sorted(labelled[i : i + 3]) for i in range(0, 15, 3)] == [[1, 2, 3]] * 5
    assert [sorted(unlabelled[i : i + 5]) for i in range(0, 15, 5)] == [[4, 5, 6, 7, 8]] * 3


def test_what_the_background_thread_raises_is_raised_where_batches_are_used():
    def make(step: int) -> int:
        if step == 2:
            raise OSError("gone")
        return step

    batches = prefetched(make, 0, 5)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(batches)


@pytest.mark.parametrize("zoom", [0.6, 1.0, 1.7])
def test_masks_move_with_the_image(zoom):
    """Objects are bright: where a view's image is bright, its mask is, whatever the geometry."""
    yy, xx = np.mgrid[:90, :120]
    masks = np.stack([(yy - 40) ** 2 + (xx - 50) ** 2 <= 20**2, (yy - 60) ** 2 + (xx - 95) ** 2 <= 12**2])
    image = np.repeat(masks.any(0)[None].astype(np.float32), 3, 0)
    objects = objects_of(Instances.from_dense(masks))
    config = GeometryConfig(zoom=(zoom, zoom), crop_px=64)
    for seed in range(12):
        geometry = draw_geometry(np.random.default_rng(seed), (90, 120), config)
        top, left, height, width = geometry.window
        view = view_image(image[:, top : top + height, left : left + width], geometry)
        target = view_objects(objects, geometry, least_visible=0.15)
        assert view.shape[1:] == target.masks.shape[1:]
        bright = view[0].numpy() > 0.5
        masked = (target.masks.numpy() > 127).any(0) if len(target.masks) else np.zeros_like(bright)
        union = (bright | masked).sum()
        assert union < 60 or (bright & masked).sum() / union > 0.93


def test_slivers_at_the_border_of_a_view_are_ignored_not_taught():
    from labelloop.data.views import Geometry

    mask = np.zeros((1, 60, 60), bool)
    mask[0, 10:30, 10:50] = True
    objects = objects_of(Instances.from_dense(mask))
    cut = Geometry(window=(0, 0, 60, 14), view_hw=(60, 14), turns=0, flip=False)
    assert view_objects(objects, cut, least_visible=0.15).ignore.tolist() == [True]
    assert view_objects(objects, cut, least_visible=0.05).ignore.tolist() == [False]
    outside = Geometry(window=(40, 0, 20, 60), view_hw=(20, 60), turns=0, flip=False)
    assert len(view_objects(objects, outside, least_visible=0.15).masks) == 0


def test_crowds_are_ignored_and_empty_masks_left_out():
    dense = np.zeros((3, 10, 10), bool)
    dense[0, 2:5, 2:5] = dense[1, 6:9, 6:9] = True
    instances = Instances.from_dense(dense)
    crowd = Instances(
        size_hw=(10, 10), rles=instances.rles, labels=instances.labels, crowd=np.array([False, True, False])
    )
    assert objects_of(crowd).ignore.tolist() == [False, True]


def test_a_crowd_of_every_class_is_seen_once():
    dense = np.zeros((4, 10, 10), bool)
    dense[:3, 2:5, 2:5] = dense[3, 6:9, 6:9] = True
    instances = replace(Instances.from_dense(dense, (0, 1, 0, 2)), crowd=np.array([True, True, False, True]))
    objects = objects_of(instances)
    assert objects.ignore.tolist() == [True, False, True]
    assert objects.labels.tolist() == [0, 0, 2]


def test_photometry_stays_in_range_and_off_changes_nothing():
    import torch

    from labelloop.data.view_settings import STRONG
    from labelloop.data.views import change_photometry

    image = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    off = PhotometryConfig(jitter=0.0, gamma=0.0, jitter_p=0.0)
    assert torch.equal(change_photometry(np.random.default_rng(0), image, off), image)
    for seed in range(20):
        changed = change_photometry(np.random.default_rng(seed), image, STRONG)
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
