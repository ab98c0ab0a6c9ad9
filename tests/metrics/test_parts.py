"""The same metrics of classes, sizes and groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.metrics.estimate import Estimate
from labelloop.metrics.matched import METRICS
from labelloop.metrics.panel import evaluate
from labelloop.metrics.subsets import worst

Scene = Callable[..., Instances]
SMALL, MEDIUM, LARGE = (0, 0, 3, 3), (0, 10, 8, 8), (15, 0, 20, 20)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal but for the order in which numbers were added."""
    assert list(found) == list(expected)
    for name, estimate in expected.items():
        assert list(found[name]) == list(estimate)
        for field, value in estimate.items():
            same = pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
            assert found[name][field] == same, (name, field)


def test_a_class_has_the_metrics_of_its_objects_alone(random_scenes: Callable[..., Any]) -> None:
    truth, predicted = random_scenes(3, n_images=12, n_classes=3)
    by = evaluate(truth, predicted, n_classes=3, class_names=["a", "b", "c"], replicates=50).as_dict()["by"]
    assert list(by["class"]) == ["a", "b", "c"]
    for label, name in enumerate("abc"):
        sides = [[i.select(i.labels == label) for i in side] for side in (truth, predicted)]
        alone = evaluate(*sides, n_classes=3, replicates=50)
        assert_same(by["class"][name], alone.as_dict()["metrics"])


def test_sizes_are_thirds_of_the_true_areas(scene: Scene) -> None:
    truth = [scene([SMALL, MEDIUM, LARGE])] * 2
    predicted = [scene([MEDIUM, LARGE], [0.9] * 2), scene([LARGE], [0.9])]
    panel = evaluate(truth, predicted, n_classes=1)
    sizes = panel.as_dict()["by"]["size"]
    assert [sizes[size]["recall_50"]["value"] for size in ("small", "medium", "large")] == [0.0, 0.5, 1.0]
    assert list(sizes["small"]) == list(METRICS)
    assert 9 <= panel.as_dict()["size_thirds_px"][0] < 64 <= panel.as_dict()["size_thirds_px"][1] < 400


def test_a_hit_has_the_size_of_its_object_and_a_false_alarm_its_own(scene: Scene) -> None:
    too_large, spurious = (0, 10, 8, 14), (30, 30, 3, 3)  # IoU 0.57 with MEDIUM
    panel = evaluate([scene([SMALL, MEDIUM, LARGE])], [scene([too_large, spurious], [0.9] * 2)], n_classes=1)
    sizes = panel.as_dict()["by"]["size"]
    assert sizes["medium"]["f1_50"]["value"] == 1.0
    assert sizes["small"]["spurious_per_100"]["value"] == 100.0
    assert sizes["large"]["precision_50"]["value"] is None


def test_what_merges_or_splits_objects_counts_for_their_size_though_it_is_of_another(scene: Scene) -> None:
    merging = scene([(0, 0, 10, 10), (0, 11, 10, 10), (20, 0, 12, 12), (20, 20, 14, 14)])
    over_both = scene([(0, 0, 10, 21), (20, 20, 6, 14), (27, 20, 6, 14)], [0.9] * 3)  # and two halves
    sizes = evaluate([merging], [over_both], n_classes=1).as_dict()["by"]["size"]
    assert [sizes[size]["merges_per_100"]["value"] for size in ("small", "medium", "large")] == [50, 0, 0]
    assert [sizes[size]["splits_per_100"]["value"] for size in ("small", "medium", "large")] == [0, 0, 100]


def test_objects_of_two_sizes_that_are_merged_count_for_both(scene: Scene) -> None:
    truth = scene([(0, 0, 5, 5), (0, 6, 12, 12), (25, 0, 14, 14)])
    both = scene([(0, 0, 12, 18), (25, 0, 14, 14)], [0.9] * 2)
    panel = evaluate([truth], [both], n_classes=1)
    sizes = panel.as_dict()["by"]["size"]
    assert panel.metrics["merges_per_100"].value == pytest.approx(100 / 3)
    assert [sizes[size]["merges_per_100"]["value"] for size in ("small", "medium", "large")] == [100, 100, 0]


def test_the_counts_of_all_sizes_add_up(random_scenes: Callable[..., Any]) -> None:
    truth, predicted = random_scenes(8, n_images=10, n_classes=1)
    panel = evaluate(truth, predicted, n_classes=1, replicates=0)
    parts = panel.as_dict()["by"]["size"].values()
    total = sum(part["count_bias"]["value"] for part in parts)
    assert total == pytest.approx(panel.metrics["count_bias"].value, abs=0.2)  # but where matches compete


def test_a_group_has_the_metrics_of_its_images_alone(random_scenes: Callable[..., Any]) -> None:
    truth, predicted = random_scenes(4, n_images=12, n_classes=2)
    groups = [None, *"ababab", None, *"baba"]
    by = evaluate(truth, predicted, n_classes=2, groups=groups, replicates=50).as_dict()["by"]
    assert list(by["group"]) == ["a", "b"]
    for name in "ab":
        chosen = [i for i, group in enumerate(groups) if group == name]
        alone = evaluate(
            [truth[i] for i in chosen], [predicted[i] for i in chosen], n_classes=2, replicates=50
        )
        assert_same(by["group"][name], alone.as_dict()["metrics"])
        assert by["group"][name]["f1_50"]["n"] == 5
        assert by["group"][name]["f1_50"]["reliable"] is False


def test_one_known_group_beside_images_without_one_is_not_compared_with_itself(
    random_scenes: Callable[..., Any],
) -> None:
    truth, predicted = random_scenes(4, n_images=6, n_classes=1)
    panel = evaluate(truth, predicted, n_classes=1, groups=["a", None, "a", None, "a", None])
    assert panel.n_groups == 4
    assert panel.as_dict()["by"]["group"] == panel.as_dict()["by"]["worst_group"] == {}


def test_pixel_sizes_follow_their_images_into_groups(scene: Scene) -> None:
    truth, predicted = [scene([LARGE])] * 4, [scene([(15, 1, 20, 20)], [0.9])] * 4
    panel = evaluate(truth, predicted, n_classes=1, groups=list("abab"), pixel_sizes_um=[1.0, 3.0, 1.0, 3.0])
    of_group = panel.as_dict()["by"]["group"]
    in_a, in_b = (of_group[group]["boundary_error"] for group in "ab")
    assert in_b["value"] == pytest.approx(3 * in_a["value"])
    assert in_a["unit"] == in_b["unit"] == "µm"


def test_groups_are_compared_in_one_unit_though_one_has_no_pixel_size(scene: Scene) -> None:
    truth, shifts = [scene([LARGE])] * 4, [(15, 2, 20, 20), (15, 1, 20, 20)] * 2
    predicted = [scene([shifted], [0.9]) for shifted in shifts]
    sizes = [0.1, None, 0.1, None]  # in µm, the first group would look the better one
    by = evaluate(truth, predicted, n_classes=1, groups=list("abab"), pixel_sizes_um=sizes).as_dict()["by"]
    assert [by["group"][group]["boundary_error"]["unit"] for group in "ab"] == ["px", "px"]
    assert by["worst_group"]["boundary_error"]["group"] == "a"


def test_the_worst_group_is_named_for_each_metric(scene: Scene) -> None:
    truth = [scene([SMALL, MEDIUM])] * 4
    predicted = [scene([MEDIUM], [0.9])] * 2 + [scene([SMALL, MEDIUM, LARGE], [0.9] * 3)] * 2
    by = evaluate(truth, predicted, n_classes=1, groups=list("aabb")).as_dict()["by"]
    assert by["worst_group"]["recall_50"]["group"] == "a"
    assert by["worst_group"]["recall_50"]["value"] == 0.5
    assert by["worst_group"]["precision_50"]["group"] == "b"
    assert by["worst_group"]["spurious_per_100"]["group"] == "b"


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        pytest.param("f1_50", (0.3, 0.5), "a", id="higher is better"),
        pytest.param("count_mae", (0.3, 0.5), "b", id="lower is better"),
        pytest.param("count_bias", (-3.0, 2.0), "a", id="near zero is better"),
        pytest.param("pq", (None, 0.5), "b", id="undefined"),
        pytest.param("pq", (None, None), None, id="undefined everywhere"),
    ],
)
def test_worse_means_what_the_metric_means(
    name: str, values: tuple[float | None, float | None], expected: str | None
) -> None:
    of_group = {
        group: Estimate(value=value, low=None, high=None, n=5)
        for group, value in zip("ab", values, strict=True)
    }
    assert worst(name, of_group) == expected


def test_one_class_or_one_group_is_not_measured_twice(random_scenes: Callable[..., Any]) -> None:
    truth, predicted = random_scenes(5, n_images=6, n_classes=1)
    panel = evaluate(truth, predicted, n_classes=1, groups=["a"] * 6)
    assert panel.by is not None
    assert panel.by.of_class["0"] is panel.metrics
    assert panel.by.of_group == {}


def test_parts_can_be_left_out(random_scenes: Callable[..., Any]) -> None:
    truth, predicted = random_scenes(5, n_images=6, n_classes=1)
    with_parts = evaluate(truth, predicted, n_classes=1)
    without = evaluate(truth, predicted, n_classes=1, parts=False)
    assert without.by is None
    assert without.metrics == with_parts.metrics
    assert np.isfinite(with_parts.metrics["f1_50"].value)
