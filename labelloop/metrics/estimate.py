"""Estimate: a number with its interval, or null with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric's value and its 95 % bootstrap interval over images.

    Attributes:
        value: The value on all images; None where it cannot be computed (never 0 or -1 instead).
        low: Lower end of the interval; None where there is none.
        high: Upper end of the interval; None where there is none.
        n: Number of images.
        reason: Why ``value`` (or, where there is a value, the interval) is None.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The estimate as ``--json`` prints it; ``reason`` only where something is null."""
        fields: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        return fields if self.reason is None else {**fields, "reason": self.reason}
