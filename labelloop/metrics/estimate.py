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
        unit: Of the value, where it is not the one that the metric always has.
        reliable: False where the interval may hold in less than 95 % of cases: it comes from too few images
            (or groups, or all are of one group), or it has no width, as all of them are alike.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str | None = None
    unit: str | None = None
    reliable: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The estimate as ``--json`` prints it.

        ``reason`` only where something is null, ``unit`` only where there is one, ``reliable`` only where it
        is false.
        """
        fields: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high, "n": self.n}
        if self.unit is not None:
            fields["unit"] = self.unit
        if self.reason is not None:
            fields["reason"] = self.reason
        return fields if self.reliable else {**fields, "reliable": False}
