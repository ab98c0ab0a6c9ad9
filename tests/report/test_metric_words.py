"""Numbers of the report are written in one way, and say what is better."""

from __future__ import annotations

import pytest

from labelloop.metrics.matched import METRICS
from labelloop.report.metric_words import (
    HEADLINE,
    OTHER,
    in_order,
    interval_text,
    is_unreliable,
    minutes_text,
    number_text,
    which_is_better,
    words_for,
)

MINUS = "\N{MINUS SIGN}"


def test_every_metric_of_the_panel_has_words() -> None:
    assert [name for name in METRICS if words_for(name).section == OTHER] == []
    assert set(HEADLINE) <= set(METRICS)
    assert len({words_for(name).title for name in METRICS}) == len(METRICS)


def test_a_metric_that_is_not_known_stands_under_its_name_at_the_end() -> None:
    assert words_for("new_one").title == "new_one"
    assert in_order(["new_one", "pq", "another", "recall_50"]) == ["recall_50", "pq", "another", "new_one"]


@pytest.mark.parametrize(
    ("name", "value", "signed", "text"),
    [
        ("f1_50", 0.85312, False, "0.853"),
        ("f1_50", -0.0144, True, f"{MINUS}0.014"),
        ("f1_50", 0.0144, True, "+0.014"),
        ("f1_50", -0.0001, True, "0.000"),
        ("count_bias", 2.768, False, "+2.77"),
        ("area_bias", -0.0428, False, f"{MINUS}4.3 %"),
        ("misses_per_100", 6.94, False, "6.9"),
        ("boundary_error", 0.968, False, "0.97"),
    ],
)
def test_numbers_are_written_by_their_metric(name: str, value: float, signed: bool, text: str) -> None:
    assert number_text(words_for(name), value, signed=signed) == text


def test_an_interval_without_ends_is_nothing() -> None:
    words = words_for("f1_50")
    assert interval_text(words, {"value": 0.5, "low": 0.4, "high": 0.6}) == "[0.400, 0.600]"
    assert interval_text(words, {"value": 0.5, "low": None, "high": None}) == ""


@pytest.mark.parametrize(
    ("estimate", "unreliable"),
    [
        ({"value": 0.5, "low": 0.4, "high": 0.6, "n": 200}, False),
        ({"value": 0.5, "low": 0.4, "high": 0.6, "n": 200, "reliable": False}, True),
        ({"value": 0.5, "low": 0.4, "high": 0.6, "n": 12}, True),
        ({"value": 0.5, "low": None, "high": None, "n": 12}, False),
    ],
)
def test_intervals_of_few_images_are_unreliable_whether_they_say_so_or_not(
    estimate, unreliable: bool
) -> None:
    assert is_unreliable(estimate) is unreliable


@pytest.mark.parametrize(
    ("name", "low", "high", "nearer", "verdict"),
    [
        ("f1_50", 0.01, 0.03, None, "better"),
        ("f1_50", -0.03, -0.01, None, "worse"),
        ("f1_50", -0.01, 0.03, None, "not sure"),
        ("misses_per_100", -3, -1, None, "better"),
        ("count_bias", -3, -1, True, "better"),
        ("count_bias", -3, -1, False, "worse"),
        ("count_bias", -3, -1, None, ""),
        ("count_bias", -3, 1, None, "not sure"),
        ("new_one", 1, 2, None, ""),
        ("f1_50", None, None, None, ""),
    ],
)
def test_a_difference_is_better_only_beyond_its_interval(name, low, high, nearer, verdict) -> None:
    assert which_is_better(words_for(name), {"low": low, "high": high}, nearer=nearer) == verdict


def test_minutes_are_in_words() -> None:
    assert [minutes_text(m) for m in (None, 0, 0.44, 34.6, 125)] == [
        "\N{EN DASH}", "0 min", "0.4 min", "35 min", "2 h 05 min",
    ]  # fmt: skip
