"""Resamples have the metrics of the images that they hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labelloop.instances import Instances
from labelloop.metrics.matched import METRICS, MatchedModel
from labelloop.metrics.pairs import PairTable

BINS_OF_ALL = {"detection_ece"}  # keeps the bins of all images


def point(truth: list[Instances], predicted: list[Instances], sizes: list[float] | None) -> dict[str, float]:
    return MatchedModel.of(PairTable.build(truth, predicted, n_classes=2), 0.3, sizes).point()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), crowds=st.booleans(), sized=st.booleans())
def test_a_resample_has_the_metrics_of_the_images_drawn(
    random_scenes: Callable[..., Any], seed: int, crowds: bool, sized: bool
) -> None:
    truth, predicted = random_scenes(seed, n_images=6, n_classes=2, crowds=crowds, ties=False)
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.1, 2, 6).tolist() if sized else None
    times = rng.multinomial(6, [1 / 6] * 6, size=4).astype(np.int32)
    drawn = MatchedModel.of(PairTable.build(truth, predicted, n_classes=2), 0.3, sizes).values(times)
    assert set(drawn) == set(METRICS)
    for row, copies in enumerate(times):
        images = np.repeat(np.arange(6), copies)
        of_images = [sizes[i] for i in images] if sizes else None
        expected = point([truth[i] for i in images], [predicted[i] for i in images], of_images)
        for name in sorted(set(METRICS) - BINS_OF_ALL - {"aji"}):  # aji is null if any image overlaps
            assert drawn[name][row] == pytest.approx(expected[name], abs=1e-9, nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=56)
def test_a_table_of_some_images_is_the_one_built_of_them(
    random_scenes: Callable[..., Any], seed: int
) -> None:
    truth, predicted = random_scenes(seed, n_images=5, n_classes=2)
    images = np.random.default_rng(seed).random(5) < 0.6
    table = PairTable.build(truth, predicted, n_classes=2)
    selected = table.select(images[table.det_image], images[table.truth_image], images)
    kept = np.flatnonzero(images)
    built = PairTable.build([truth[i] for i in kept], [predicted[i] for i in kept], n_classes=2)
    for name in PairTable.__dataclass_fields__:
        # Distances are sums over many pixels, whose order depends on what else is in the table.
        np.testing.assert_allclose(getattr(selected, name), getattr(built, name), rtol=1e-12, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_intersections_are_the_pixels_that_two_masks_share(
    random_scenes: Callable[..., Any], seed: int
) -> None:
    truth, predicted = random_scenes(seed, n_images=1, n_classes=1)
    table = PairTable.build(truth, predicted, n_classes=1)
    seen, true = predicted[0].to_dense(), truth[0].to_dense()
    expected = [int((seen[d] & true[t]).sum()) for d, t in zip(table.pair_det, table.pair_truth, strict=True)]
    assert table.pair_intersection().tolist() == expected
    shared = {
        (a, b): int((true[a] & true[b]).sum()) for a in range(len(true)) for b in range(a + 1, len(true))
    }
    overlapping = {pair: px for pair, px in shared.items() if px}
    found = [tuple(pair) for pair in table.truth_overlap.tolist()]
    assert dict(zip(found, table.truth_shared.tolist(), strict=True)) == overlapping
    if shared:
        one, other = np.asarray(list(shared)).T
        assert table.shared_by(other, one).tolist() == list(shared.values())
