"""Stop advice: what the next hour of annotation is expected to buy, from what is known already."""

from __future__ import annotations

from typing import Any

from labelloop.budget.forecast_project import cost_notes, in_words, known_forecast
from labelloop.project.project import Project

HOUR = 60.0


def next_hour(project: Project) -> dict[str, Any] | None:
    """What sixty minutes of annotation are expected to bring; nothing is trained.

    Args:
        project: Whose labels.

    Returns:
        ``metric``, ``expected`` (``value``, ``low``, ``high`` of 80 %, or null with ``reason``) and
        ``advice`` in words. None where ``forecast`` has not been asked since the labels changed.
    """
    found = known_forecast(project, minutes=HOUR)
    if found is None:
        return None
    answer = found.answer
    return {
        "metric": answer.question.metric,
        "expected": answer.as_dict()["expected"],
        "advice": " ".join([*in_words(answer), *cost_notes(answer.question)]),
    }
