"""Counts, areas and outlines of scenes whose errors are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.metrics.agreement import MatchedPairs, area_agreement
from labelloop.metrics.panel import evaluate

Scene = Callable[..., Instances]
PLACES = ((0, 0), (0, 20), (20, 0), (20, 20))  # of objects 10 px wide


def rows_of(heights: list[int]) -> list[tuple[int, int, int, int]]:
    """Rectangles 10 px wide, of these heights, apart from one another."""
    return [(*place, height, 10) for place, height in zip(PLACES, heights, strict=False)]


def test_area_bias_is_the_median_and_its_limits_are_of_bland_and_altman(scene: Scene) -> None:
    truth = [scene(rows_of([10, 10])), scene(rows_of([10, 10]))]
    predicted = [scene(rows_of([8, 11]), [0.9] * 2), scene(rows_of([12, 16]), [0.9] * 2)]
    found = evaluate(truth, predicted, n_classes=1).metrics
    errors = np.array([-0.2, 0.1, 0.2, 0.6])
    assert found["area_bias"].value == pytest.approx(0.15)
    assert found["area_low_loa"].value == pytest.approx(errors.mean() - 1.96 * errors.std(ddof=1))
    assert found["area_high_loa"].value == pytest.approx(errors.mean() + 1.96 * errors.std(ddof=1))


def test_the_median_of_an_odd_number_is_the_middle_one(scene: Scene) -> None:
    predicted = [scene(rows_of([8, 11, 16]), [0.9] * 3)]
    assert evaluate([scene(rows_of([10] * 3))], predicted, n_classes=1).metrics[
        "area_bias"
    ].value == pytest.approx(0.1)


def test_the_median_of_a_resample_is_found_however_far_from_that_of_all_images() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(5), 8)
    difference = np.sort(rng.normal(image, 0.1))  # an image's errors lie together
    pairs = MatchedPairs(
        n_images=5, image=image, area_difference=difference, distance=np.zeros(40), unit="px"
    )
    times = rng.multinomial(5, np.full(5, 0.2), 200).astype(np.int32)
    expected = [np.median(np.repeat(difference, drawn[image])) for drawn in times]
    np.testing.assert_allclose(area_agreement(pairs, times)[0], expected, rtol=1e-12)


def test_only_matched_pairs_above_the_working_threshold_have_an_area_error(scene: Scene) -> None:
    predicted = [scene(rows_of([10, 20, 4]), [0.9, 0.2, 0.9])]
    found = evaluate([scene(rows_of([10, 10, 10]))], predicted, n_classes=1).metrics
    assert found["area_bias"].value == 0.0
    assert found["area_low_loa"].value is None
    assert found["area_low_loa"].reason == "there is only one matched pair"


def test_concordance_is_lins(scene: Scene) -> None:
    true, found = np.array([0, 1, 2, 4, 3]), np.array([1, 1, 2, 3, 4])
    truth = [scene(rows_of([10] * n)) for n in true]
    predicted = [scene(rows_of([10] * n), [0.9] * n) for n in found]
    expected = (
        2 * np.cov(true, found, ddof=0)[0, 1] / (true.var() + found.var() + (true.mean() - found.mean()) ** 2)
    )
    estimate = evaluate(truth, predicted, n_classes=1).metrics["count_ccc"]
    assert estimate.value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("true", "found", "expected"),
    [
        pytest.param([1, 2, 3], [1, 2, 3], 1.0, id="equal"),
        pytest.param([1, 2, 3], [3, 2, 1], -1.0, id="turned round"),
        pytest.param([1, 2, 3], [2, 2, 2], 0.0, id="one guess for all"),
        pytest.param([2, 2, 2], [2, 2, 2], None, id="nothing varies"),
        pytest.param([2], [3], None, id="one image"),
    ],
)
def test_concordance_of_simple_counts(
    scene: Scene, true: list[int], found: list[int], expected: float | None
) -> None:
    truth = [scene(rows_of([10] * n)) for n in true]
    predicted = [scene(rows_of([10] * n), [0.9] * n) for n in found]
    estimate = evaluate(truth, predicted, n_classes=1).metrics["count_ccc"]
    assert estimate.value == (None if expected is None else pytest.approx(expected))
    reasons = {"the counts do not vary from image to image", "there is only one image"}
    assert (estimate.reason in reasons) == (expected is None)


def test_the_boundary_error_is_in_micrometres_where_every_pixel_size_is_known(scene: Scene) -> None:
    truth, predicted = [scene([(5, 5, 20, 20)])] * 3, [scene([(5, 7, 20, 20)], [0.9])] * 3
    in_px = evaluate(truth, predicted, n_classes=1).metrics["boundary_error"]
    in_um = evaluate(truth, predicted, n_classes=1, pixel_sizes_um=[0.5, 0.5, 2.0]).metrics["boundary_error"]
    unknown = evaluate(truth, predicted, n_classes=1, pixel_sizes_um=[0.5, None, 2.0])
    assert in_px.as_dict()["unit"] == "px"
    assert in_um.as_dict()["unit"] == "µm"
    assert in_um.value == pytest.approx(in_px.value)  # 0.5 + 0.5 + 2 is 3 x 1
    assert unknown.metrics["boundary_error"] == in_px


def test_a_shifted_square_has_the_boundary_error_of_geometry(scene: Scene) -> None:
    truth, predicted = [scene([(5, 5, 20, 20)])], [scene([(5, 6, 20, 20)], [0.9])]
    # 38 of 76 pixels lie on the other's horizontal edges; 18 + 20 of each lie 1 px off, two less at corners
    found = evaluate(truth, predicted, n_classes=1).metrics["boundary_error"].value
    left_edge, right_edge = 20, 18  # px at distance 1: a whole side outwards, one without its corners inwards
    assert found == pytest.approx((left_edge + right_edge) / 76)


def test_a_perfect_model_has_no_errors(scene: Scene) -> None:
    truth = [scene(rows_of([10] * n)) for n in (1, 2, 3)]
    predicted = [scene(rows_of([10] * n), [1.0] * n) for n in (1, 2, 3)]
    found = {n: e.value for n, e in evaluate(truth, predicted, n_classes=1).metrics.items()}
    for name in ("area_bias", "area_low_loa", "area_high_loa", "boundary_error", "detection_ece"):
        assert found[name] == 0.0
    for name in ("cellpose_ap90", "f1_70", "aji", "count_ccc"):
        assert found[name] == 1.0
    for name in ("merges_per_100", "splits_per_100", "misses_per_100", "spurious_per_100"):
        assert found[name] == 0.0
