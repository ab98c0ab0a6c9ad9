from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.durations import parse_duration, parse_iterations
from labelloop.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("20m", 1200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2h0m1s", 7201),
        (" 5M ", 300),
        ("0h1s", 1),
    ],
)
def test_hours_minutes_and_seconds_add_up(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "20", "m", "20 m", "30m1h", "-5m", "0s", "5m5m", "1d", "nan", "1e3s", "٣m"]
)
def test_anything_else_is_named_with_the_way_out(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_duration(text)
    assert raised.value.value == text
    assert "20m" in raised.value.way_out


@given(st.integers(0, 99), st.integers(0, 999), st.integers(0, 9999))
def test_parts_may_be_of_any_size(hours: int, minutes: int, seconds: int) -> None:
    total = hours * 3600 + minutes * 60 + seconds
    if total:
        assert parse_duration(f"{hours}h{minutes}m{seconds}s") == total


@pytest.mark.parametrize(
    ("text", "steps"),
    [("1200", (1200, None)), ("1000+200", (1200, 1000)), (" 5 + 7 ", (12, 5)), ("1", (1, None))],
)
def test_a_run_is_so_long_or_teacher_and_student_are(text: str, steps: tuple[int, int | None]) -> None:
    assert parse_iterations(text) == steps


@pytest.mark.parametrize("text", ["", "0", "-5", "5+", "+5", "5+0", "0+5", "1.5", "20m", "1+2+3", "٣"])
def test_a_length_that_is_none_is_named_with_the_way_out(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_iterations(text)
    assert raised.value.value == text
    assert "1000+200" in raised.value.way_out
