from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.budget.expected_edits import (
    FATES,
    SPREAD_LEAST,
    SPREAD_PRIOR,
    EditRates,
    EditRecord,
    exposure,
    missed_prior,
)
from labelloop.review.edits import EDIT_KINDS, EditKind


def record(
    scores: list[float],
    fates: list[EditKind],
    *,
    unshown: float = 0.0,
    added: int = 0,
    unmatched: float = 0.0,
    weight: float = 1.0,
) -> EditRecord:
    return EditRecord(
        scores=np.array(scores),
        fates=tuple(fates),
        unshown=unshown,
        added=added,
        unmatched=unmatched,
        weight=weight,
    )


def share(rates: EditRates, score: float, fate: EditKind) -> float:
    return float(rates.by_fate(np.array([score]))[0, FATES.index(fate)])


def test_beforehand_an_object_is_the_less_likely_to_be_edited_the_higher_its_score() -> None:
    rates = EditRates.prior()
    accepted = [share(rates, score, "accepted") for score in np.linspace(0, 1, 21)]
    deleted = [share(rates, score, "deleted") for score in np.linspace(0, 1, 21)]
    assert accepted == sorted(accepted)
    assert deleted == sorted(deleted, reverse=True)
    assert accepted[-1] > 0.6
    assert deleted[0] > 0.8


def test_nothing_seen_is_the_prior() -> None:
    prior, fitted = EditRates.prior(), EditRates.fit([])
    assert np.array_equal(prior.shares, fitted.shares)
    assert np.array_equal(prior.missed, fitted.missed)
    assert prior.spread == SPREAD_PRIOR


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.floats(0, 1), st.sampled_from(FATES)), max_size=8), st.integers(0, 9)
        ),
        max_size=6,
    ),
    st.floats(0, 1),
)
def test_what_becomes_of_an_object_is_always_a_distribution(
    tasks: list[tuple[list[tuple[float, EditKind]], int]], score: float
) -> None:
    rates = EditRates.fit(
        [record([s for s, _ in shown], [f for _, f in shown], added=added) for shown, added in tasks]
    )
    shares = rates.by_fate(np.array([score]))
    assert shares.shape == (1, len(FATES))
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)
    assert (rates.missed > 0).all()


def test_edits_that_were_seen_count_at_their_scores_and_hardly_elsewhere() -> None:
    prior = EditRates.prior()
    rates = EditRates.fit([record([0.5] * 10, ["deleted"] * 10) for _ in range(20)])
    assert share(rates, 0.5, "deleted") > 0.95
    assert share(rates, 0.95, "deleted") == share(prior, 0.95, "deleted")


def test_between_the_middles_of_bins_shares_run_on_without_a_jump() -> None:
    rates = EditRates.fit([record([0.5] * 10, ["moved"] * 10)] * 5)
    moved = [share(rates, score, "moved") for score in np.linspace(0, 1, 401)]
    assert np.abs(np.diff(moved)).max() < 0.02


def test_missed_objects_are_put_down_to_what_they_go_with() -> None:
    rng = np.random.default_rng(0)
    records = []
    for _ in range(400):
        unshown, unmatched, n = float(rng.uniform(0, 6)), float(rng.uniform(0, 4)), int(rng.integers(0, 30))
        added = int(rng.poisson(0.8 * unshown + 3 * unmatched + 0.1 * n + 0.5))
        found = record([0.9] * n, ["accepted"] * n, unshown=unshown, unmatched=unmatched, added=added)
        records.append(found)
    rates = EditRates.fit(records)
    assert rates.missed[:3] == pytest.approx([0.8, 3, 0.1], rel=0.25)
    work = rates.expect([0.3] * 10 + [0.9] * 15, 0.5, unmatched=2.0)
    assert work.edits["added"] == pytest.approx(2.4 + 6 + 1.5 + 0.5, rel=0.1)


def test_a_task_is_expected_to_need_what_its_objects_need_and_what_was_not_shown() -> None:
    rates = EditRates.prior()
    work = rates.expect([0.9, 0.6, 0.3, 0.1], min_score=0.5)
    assert work.objects == 2
    assert set(work.edits) == set(EDIT_KINDS) - {"accepted"}
    assert work.edits["deleted"] == pytest.approx(sum(share(rates, s, "deleted") for s in (0.9, 0.6)))
    assert work.edits["added"] == pytest.approx(float(rates.missed @ [0.4, 0, 2, 1]))
    assert work.spread == rates.spread


def test_labels_that_a_tile_shows_are_looked_at_and_left() -> None:
    rates = EditRates.prior()
    alone, beside = (rates.expect_task(np.array([0.9]), 0.2, labels=labels) for labels in (0, 3))
    assert alone == rates.expect([0.9, 0.2], 0.5)
    assert beside.objects == 4
    assert beside.edits == alone.edits


def test_an_image_without_detections_may_still_miss_some() -> None:
    work = EditRates.prior().expect(np.zeros(0), 0.5)
    assert work.objects == 0
    assert 0 < work.edits["added"] < 1


def test_the_more_edits_were_seen_the_surer_the_expectation_down_to_a_floor() -> None:
    few = EditRates.fit([record([0.7], ["moved"], added=2)])
    many = EditRates.fit([record([0.7], ["moved"], added=2)] * 100)
    assert SPREAD_PRIOR > few.spread > many.spread == SPREAD_LEAST


def test_fates_and_scores_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 objects need as many"):
        record([0.5, 0.6], ["accepted"])


def test_objects_that_only_other_looks_see_are_expected_to_be_drawn() -> None:
    rates = EditRates.prior()
    blind, agreeing = rates.expect([], 0.5, unmatched=27.0), rates.expect([], 0.5)
    assert blind.edits["added"] == pytest.approx(agreeing.edits["added"] + 27)


def test_where_labelled_images_hold_more_objects_than_a_model_sees_more_are_expected_to_be_missed() -> None:
    mean = exposure(2.0, 0.0, 20)  # misses 1.7 by the prior; 15 of 20 are thought to be true
    many, few = (missed_prior([40] * n, 15.0, mean) for n in (1000, 5))
    assert many @ mean == pytest.approx(40 - 15, rel=0.01)
    assert 1.7 < few @ mean < many @ mean
    assert few @ mean == pytest.approx((40 - 15 + 1.7) / 2)
    assert np.array_equal(missed_prior([], 15.0, mean), EditRates.prior().missed)
    assert np.array_equal(missed_prior([3] * 9, 15.0, mean), EditRates.prior().missed)


def test_what_was_expected_of_missed_objects_gives_way_to_what_was_drawn() -> None:
    raised = missed_prior([40] * 10, 5.0, exposure(2.0, 0.0, 5))
    none_drawn = [record([0.9] * 5, ["accepted"] * 5, unshown=2.0)] * 50
    assert EditRates.fit(none_drawn, raised).expect_missed(2.0, 0.0, 5) < 2


def test_tasks_that_were_chosen_for_their_edits_count_less_than_those_drawn_at_random() -> None:
    drawn = [record([0.5] * 10, ["accepted"] * 10)] * 10
    chosen = [record([0.5] * 10, ["deleted"] * 10, added=5, weight=0.25)] * 10
    rates = EditRates.fit(drawn + chosen)
    assert share(rates, 0.5, "deleted") == pytest.approx(0.2 + 0.5 * 8 / 133, abs=0.03)
    alike = EditRates.fit(drawn + [record([0.5] * 10, ["deleted"] * 10, added=5)] * 10)
    assert rates.expect_missed(0, 0, 10) < alike.expect_missed(0, 0, 10)
    assert rates.spread > alike.spread
