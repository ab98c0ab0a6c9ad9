"""Durations and lengths of runs as people type them."""

from __future__ import annotations

import math
import re

from labelloop.errors import UsageError

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0}
_PATTERN = re.compile(
    r"(?:(?P<h>[0-9]+(?:\.[0-9]+)?)h)?(?:(?P<m>[0-9]+(?:\.[0-9]+)?)m)?(?:(?P<s>[0-9]+(?:\.[0-9]+)?)s)?"
)


def parse_duration(text: str) -> float:
    """Seconds of a duration: hours, minutes and seconds, largest first, each with its unit.

    Args:
        text: ``90s``, ``20m``, ``1h30m``, ``1.5h``.

    Returns:
        Seconds, above 0.

    Raises:
        UsageError: The text is not a duration above 0.

    Example:
        >>> parse_duration("1h30m")
        5400.0
    """
    match = _PATTERN.fullmatch(text.strip().lower())
    parts = {unit: number for unit, number in match.groupdict().items() if number} if match else {}
    seconds = math.fsum(float(number) * _UNITS_S[unit] for unit, number in parts.items())
    if seconds <= 0 or not math.isfinite(seconds):
        raise UsageError("this is not a duration", value=text, way_out="Write it like 90s, 20m or 1h30m.")
    return seconds


def parse_iterations(text: str) -> tuple[int, int | None]:
    """The length of a run in steps.

    Args:
        text: ``1200``, or ``1000+200`` of teacher and student.

    Returns:
        Steps of teacher and student together, and of the teacher where the text says them; 1 or more.

    Raises:
        UsageError: The text is neither.

    Example:
        >>> parse_iterations("1000+200")
        (1200, 1000)
    """
    match = re.fullmatch(r"\s*([0-9]+)\s*(?:\+\s*([0-9]+)\s*)?", text)
    first = 0 if match is None else int(match[1])
    second = None if match is None or match[2] is None else int(match[2])
    if first < 1 or second == 0:
        raise UsageError(
            "this is not a number of iterations",
            value=text,
            way_out="Write it like 1200, or 1000+200 for teacher and student.",
        )
    return (first, None) if second is None else (first + second, first)
