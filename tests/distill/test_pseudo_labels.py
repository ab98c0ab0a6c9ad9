from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelloop.distill.pseudo_labels import merge_views, predict_views, pseudo_objects, turn_back
from labelloop.distill.pseudo_settings import ORIENTATIONS, PseudoLabelConfig
from labelloop.distill.recipe import REFERENCE
from labelloop.models.protocol import Prediction, to_instances
from labelloop.models.query_masks import query_prediction
from labelloop.runs.checkpoint import load_predictions, save_predictions


def prediction(
    objects: list[tuple[int, int, int, int, float]], size_hw=(40, 50), value: int = 255
) -> Prediction:
    """Rectangles as (top, left, height, width, score)."""
    crops = tuple(np.full((h, w), value, np.uint8) for _, _, h, w, _ in objects)
    n = len(objects)
    return Prediction(
        size_hw=size_hw,
        labels=np.zeros(n, np.int64),
        scores=np.array([o[4] for o in objects], np.float32),
        quality=np.ones(n, np.float32),
        crops=crops,
        offsets_yx=np.array([o[:2] for o in objects], np.int64).reshape(-1, 2),
    )


class Bright:
    """An InstanceModel that sees one object: the box around all bright pixels."""

    def loss(self, images, targets):
        raise NotImplementedError

    def module(self):
        return torch.nn.Module()

    def predict(self, images, *, min_score=0.05):
        found = []
        for image in images:
            yy, xx = np.nonzero(image[0].numpy() > 0.5)
            size = (image.shape[1], image.shape[2])
            box = (yy.min(), xx.min(), yy.max() + 1 - yy.min(), xx.max() + 1 - xx.min(), 0.9)
            seen = prediction([box], size)
            crop = np.where(
                image[0].numpy()[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] > 0.5, 255, 0
            )
            found.append(
                Prediction(
                    size_hw=size,
                    labels=seen.labels,
                    scores=seen.scores,
                    quality=seen.quality,
                    crops=(crop.astype(np.uint8),),
                    offsets_yx=seen.offsets_yx,
                )
            )
        return found


@given(seed=st.integers(0, 1000), turns=st.integers(0, 3), flip=st.booleans())
def test_turning_back_undoes_the_view(seed, turns, flip):
    rng = np.random.default_rng(seed)
    image = np.zeros((20, 31), np.float32)
    y, x = rng.integers(0, 12), rng.integers(0, 20)
    image[y : y + 5, x : x + 8] = rng.random((5, 8)) > 0.4
    image[y, x] = 1
    tensor = torch.from_numpy(image)[None].expand(3, -1, -1)
    turned = torch.rot90(tensor.flip(-1) if flip else tensor, turns, (-2, -1)).contiguous()
    back = turn_back(Bright().predict([turned])[0], turns=turns, flip=flip)
    assert back.size_hw == (20, 31)
    assert np.array_equal(to_instances(back).to_dense()[0], image > 0.5)


def test_a_model_that_turns_with_the_image_answers_the_same_over_all_eight_views():
    image = torch.zeros(3, 24, 30)
    image[:, 4:9, 5:17] = 1
    image[:, 4:7, 5:8] = 0
    one = predict_views(Bright(), [image], views=1)[0]
    eight = predict_views(Bright(), [image], views=len(ORIENTATIONS))[0]
    assert np.array_equal(to_instances(one).to_dense(), to_instances(eight).to_dense())
    assert eight.scores == pytest.approx(one.scores)


@pytest.mark.parametrize("zoom", [0.8, 1.3, 2.0])
def test_a_view_of_another_size_answers_in_the_size_of_the_image(zoom):
    yy, xx = np.mgrid[:60, :83]
    disc = (yy - 28) ** 2 + (xx - 50) ** 2 <= 17**2
    image = torch.from_numpy(disc.astype(np.float32))[None].expand(3, -1, -1).contiguous()
    (seen,) = predict_views(Bright(), [image], views=2, zooms=(zoom,))
    assert seen.size_hw == (60, 83)
    mask = to_instances(seen).to_dense()[0]
    assert (mask & disc).sum() / (mask | disc).sum() > 0.93
    assert seen.scores == pytest.approx([0.9])  # both views saw one object, not two


class Coarse(Bright):
    """Sees images a quarter as large as they are."""

    grid_scale = 0.25

    def predict(self, images, *, min_score=0.05, resized_by=1.0):
        assert resized_by == 0.25
        assert max(i.shape[-1] for i in images) <= 28  # 1.3 times a quarter of 84
        return super().predict(images, min_score=min_score)


def test_a_teacher_is_shown_no_more_than_it_sees_and_answers_as_finely():
    disc = np.hypot(*(np.mgrid[:60, :84] - np.array([28, 50])[:, None, None])) <= 17
    image = torch.from_numpy(disc.astype(np.float32))[None].expand(3, -1, -1).contiguous()
    (seen,) = predict_views(Coarse(), [image], views=6, zooms=(1.3, 1.0), scale=0.25)
    assert seen.size_hw == (15, 21)
    kept = pseudo_objects(seen, PseudoLabelConfig(soft_masks=True), small_area_px=0, grid_yx=(0.25, 0.25))
    assert kept.grid_yx == (0.25, 0.25)
    assert kept.crops[0].sum() / 255 * 16 == pytest.approx(disc.sum(), rel=0.15)
    for least in (0.8 * disc.sum(), 1.2 * disc.sum()):  # px of the image
        config = PseudoLabelConfig(min_area_px=least)
        found = pseudo_objects(seen, config, small_area_px=0, grid_yx=(0.25, 0.25))
        assert len(found) == (least < disc.sum())


def test_what_a_teacher_looks_at_counts_every_view_by_its_size():
    assert PseudoLabelConfig(views=4, zooms=(1.0, 1.5)).pixels_per_image == pytest.approx(2 + 2 * 2.25)
    assert PseudoLabelConfig(views=3).pixels_per_image == 3


def test_an_object_that_half_of_the_views_miss_has_half_the_score():
    seen = prediction([(5, 5, 10, 10, 0.8), (25, 30, 8, 8, 0.9)])
    half = prediction([(5, 5, 10, 10, 0.8)])
    merged = merge_views([seen, half])
    assert merged.scores.tolist() == pytest.approx([0.8, 0.45])


def test_overlapping_objects_of_one_view_are_never_merged():
    overlapping = [(5, 5, 12, 12, 0.9), (5, 8, 12, 12, 0.8)]  # IoU 0.6
    merged = merge_views([prediction(overlapping), prediction(overlapping)])
    assert len(merged) == 2
    assert merged.scores.tolist() == pytest.approx([0.9, 0.8])


def test_disagreeing_views_make_a_soft_mask_and_a_lower_quality():
    merged = merge_views([prediction([(5, 5, 10, 10, 0.8)]), prediction([(5, 5, 10, 14, 0.8)])])
    crop = merged.crops[0]
    assert crop.shape == (10, 14)
    assert set(np.unique(crop[:, :10])) == {255}
    assert set(np.unique(crop[:, 10:])) == {128}
    assert merged.quality[0] < 1


def test_middle_scores_are_ignored_and_low_ones_are_background():
    seen = prediction([(0, 0, 10, 10, 0.9), (12, 0, 10, 10, 0.5), (24, 0, 10, 10, 0.1)])
    config = PseudoLabelConfig(min_score=0.7, ignore_score=0.3, min_area_px=0)
    labels = pseudo_objects(seen, config, small_area_px=0)
    assert labels.ignore.tolist() == [False, True]
    reference = pseudo_objects(seen, PseudoLabelConfig(), small_area_px=0)
    assert reference.ignore.tolist() == [False]


def test_soft_scores_make_every_label_as_sure_as_the_teacher_was_and_ignore_nothing():
    seen = prediction([(0, 0, 10, 10, 0.9), (12, 0, 10, 10, 0.5), (24, 0, 10, 10, 0.05)])
    config = PseudoLabelConfig(min_score=0.1, soft_scores=True, min_area_px=0)
    labels = pseudo_objects(seen, config, small_area_px=0)
    assert labels.weights.tolist() == pytest.approx([0.9, 0.5])
    assert not labels.ignore.any()
    hard = pseudo_objects(seen, PseudoLabelConfig(min_score=0.1, min_area_px=0), small_area_px=0)
    assert hard.weights.tolist() == [1.0, 1.0]


def test_the_reference_drops_masks_below_eighty_soft_pixels():
    seen = prediction([(0, 0, 8, 9, 0.9), (12, 0, 9, 10, 0.9)])
    assert len(pseudo_objects(seen, PseudoLabelConfig(), small_area_px=0)) == 1


class Query:
    """An InstanceModel of one query, a soft square, sure of its class with ``probability``."""

    def __init__(self, probability: float, inside: float) -> None:
        self.classes = torch.tensor([[float(np.log(probability / (1 - probability))), 0.0]])
        self.inside = float(np.log(inside / (1 - inside)))

    def loss(self, images, targets):
        raise NotImplementedError

    def module(self):
        return torch.nn.Module()

    def predict(self, images, *, min_score=0.05):
        found = []
        for image in images:
            size_hw = (int(image.shape[1]), int(image.shape[2]))
            square = torch.full((1, *size_hw), -8.0)
            square[0, size_hw[0] // 4 : -(size_hw[0] // 4), size_hw[1] // 4 : -(size_hw[1] // 4)] = (
                self.inside
            )
            found.append(
                query_prediction(
                    self.classes, square, cells_per_px_xy=(1.0, 1.0), size_hw=size_hw, min_score=min_score
                )
            )
        return found


@pytest.mark.parametrize(("views", "zooms"), [(1, (1.0,)), (8, (1.0,)), (2, (1.3, 1.0))])
def test_the_reference_keeps_a_soft_mask_whose_class_is_sure_and_drops_one_whose_class_is_not(views, zooms):
    image = torch.zeros(3, 64, 64)
    kept = {}
    for probability in (0.6, 0.8):
        (seen,) = predict_views(Query(probability, inside=0.8), [image], views=views, zooms=zooms)
        assert seen.class_scores == pytest.approx([probability], abs=1e-5)
        assert seen.scores == pytest.approx([probability * 0.8], abs=0.03)
        kept[probability] = len(pseudo_objects(seen, REFERENCE.pseudo, small_area_px=0))
        assert len(pseudo_objects(seen, PseudoLabelConfig(min_score=0.7), small_area_px=0)) == 0
    assert kept == {0.6: 0, 0.8: 1}


def test_where_a_models_score_is_the_probability_of_the_class_either_rule_is_the_same():
    seen = prediction([(0, 0, 10, 10, 0.8), (12, 0, 10, 10, 0.6)])
    for score in ("model", "class"):
        labels = pseudo_objects(seen, PseudoLabelConfig(score=score, soft_scores=True), small_area_px=0)
        assert labels.weights.tolist() == pytest.approx([0.8])
    merged = merge_views([seen, prediction([])])
    assert merged.class_scores is None


def test_labels_are_as_sure_as_the_score_that_the_recipe_names():
    (seen,) = Query(0.9, inside=0.8).predict([torch.zeros(3, 64, 64)])
    for score, weight in (("model", 0.72), ("class", 0.9)):
        config = PseudoLabelConfig(min_score=0.5, score=score, soft_scores=True)
        weights = pseudo_objects(seen, config, small_area_px=0).weights
        assert weights == pytest.approx([weight], abs=1e-5)


def test_the_classes_probability_is_stored_with_the_predictions_that_have_one(tmp_path):
    image = torch.zeros(3, 32, 32)
    rows = dict(enumerate(Query(0.9, inside=0.8).predict([image]) + Query(0.8, inside=0.7).predict([image])))
    save_predictions(tmp_path / "queries.npz", rows)
    back = load_predictions(tmp_path / "queries.npz")
    assert [back[i].class_scores.tolist() for i in rows] == [rows[i].class_scores.tolist() for i in rows]
    save_predictions(tmp_path / "regions.npz", {0: prediction([(0, 0, 4, 4, 0.9)])})
    assert load_predictions(tmp_path / "regions.npz")[0].class_scores is None


def test_hard_labels_are_cut_at_one_half_and_soft_ones_kept():
    seen = prediction([(0, 0, 10, 10, 0.9)], value=200)
    hard = pseudo_objects(seen, PseudoLabelConfig(min_area_px=0), small_area_px=0)
    soft = pseudo_objects(seen, PseudoLabelConfig(min_area_px=0, soft_masks=True), small_area_px=0)
    assert hard.crops[0].max() == 255
    assert soft.crops[0].max() == 200


def test_moving_the_cut_of_views_whose_boxes_cut_an_object_off_gives_it_its_size_back():
    rng = np.random.default_rng(0)
    side, views = 20, []
    for _ in range(7):  # boxes are off by up to 2 px at each side; outside the object no view sees anything
        top, left, bottom, right = np.maximum(rng.integers(-2, 3, 4), 0)
        views.append(prediction([(5 + top, 5 + left, side - top - bottom, side - left - right, 0.9)]))
    merged = merge_views(views)
    areas = {}
    for cut in (0.5, 0.4):
        config = PseudoLabelConfig(min_area_px=0, soft_masks=True, mask_cut=cut)
        crop = pseudo_objects(merged, config, small_area_px=0).crops[0]
        areas[cut] = int((crop > 127).sum())
        assert crop.max() == 255  # what is certain stays so
    assert areas[0.5] < areas[0.4] <= side * side


def test_a_cut_at_one_half_moves_no_level():
    seen = prediction([(0, 0, 16, 16, 0.9)])
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    config = PseudoLabelConfig(min_area_px=0, soft_masks=True)
    labels = pseudo_objects(replace(seen, crops=(levels,)), config, small_area_px=0)
    assert np.array_equal(labels.crops[0], levels)


@given(
    objects=st.lists(
        st.tuples(
            st.integers(0, 20), st.integers(0, 20), st.integers(1, 15), st.integers(1, 15), st.just(0.5)
        ),
        max_size=4,
    )
)
def test_stored_predictions_come_back_exactly(objects, tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "predictions.npz"
    rows = {7: prediction(objects), 3: prediction([])}
    save_predictions(path, rows)
    back = load_predictions(path)
    assert list(back) == [7, 3]
    for image_id, row in rows.items():
        assert back[image_id].size_hw == row.size_hw
        assert np.array_equal(back[image_id].scores, row.scores)
        assert np.array_equal(back[image_id].offsets_yx, row.offsets_yx)
        assert all(np.array_equal(a, b) for a, b in zip(back[image_id].crops, row.crops, strict=True))
