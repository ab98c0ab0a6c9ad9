"""A number with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Span:
    """A number with its 80 % interval; what is None is not known, and ``reason`` says why."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it; ``reason`` only where something is null."""
        fields: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        return fields if self.reason is None else {**fields, "reason": self.reason}
