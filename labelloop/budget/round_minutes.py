"""What tasks of review should cost together, from what the ledger keeps of each."""

from __future__ import annotations

from collections.abc import Iterable

from labelloop.budget.effort import Minutes, together
from labelloop.budget.span import Span
from labelloop.review.tasks import TaskRecord


def predicted_minutes(tasks: Iterable[TaskRecord]) -> Span:
    """Minutes of a person's time, with an 80 % interval.

    Returns:
        All None where the time of a task was not predicted, and the ends alone None where a task is of an
        older version, which did not keep what its interval has in common with others.
    """
    kept = [(task.chosen or {}).get("minutes") for task in tasks]
    if any(each is None for each in kept):
        return Span()
    known = [each for each in kept if each is not None]
    value = round(sum((float(each["value"]) for each in known), 0.0), 2)
    if not all("shared" in each for each in known):
        return Span(value=value)
    span = together([Minutes(**each) for each in known])
    return Span(value=value, low=round(span.low, 2), high=round(span.high, 2))
