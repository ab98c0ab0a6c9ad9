"""Stop advice: what the next hour of annotation is expected to buy, from what is known already."""

from __future__ import annotations

from typing import Any

from labelloop.forecast.forecast_project import cost_notes, in_words, known_forecast, learnt_notes, pool_notes
from labelloop.project.project import Project

HOUR = 60.0


def next_hour(project: Project) -> dict[str, Any] | None:
    """What sixty minutes of annotation are expected to bring; nothing is trained.

    Args:
        project: Whose labels.

    Returns:
        ``metric``; ``now``, ``expected`` and ``gain`` (each ``value``, ``low``, ``high`` of 80 %, or null
        with ``reason``); ``stop``: whether the hour is expected to buy nothing that can be told from zero,
        null where that cannot be told; ``unlabelled``, images that are left; ``advice`` in words. None
        where ``forecast`` has not been asked since the labels changed.
    """
    found = known_forecast(project, minutes=HOUR)
    if found is None:
        return None
    answer, document = found.answer, found.answer.as_dict()
    stop = None if answer.told_from_zero is None else not answer.told_from_zero
    lines = [*in_words(answer), *cost_notes(answer.question), *pool_notes(answer), *learnt_notes(answer)]
    if stop:
        lines.append("Stop here, or label images of another kind.")
    return {
        **{key: document[key] for key in ("metric", "now", "expected", "gain", "unlabelled")},
        "stop": stop,
        "advice": " ".join(lines),
    }
