"""Stop advice: what the next hour of annotation is expected to buy, from what is known already."""

from __future__ import annotations

from typing import Any

from labelloop.budget.answers import Question
from labelloop.budget.curve_points import known_points, level_of
from labelloop.budget.forecast import forecast
from labelloop.budget.forecast_project import DEFAULT_METRIC, cost_notes, in_words
from labelloop.budget.image_minutes import minutes_per_image
from labelloop.budget.subsets import CurveSettings, plan_points
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
    settings = CurveSettings()
    plans = plan_points(project, settings)
    measured = known_points(project, plans, settings)
    if not plans or len(measured) < len(plans):
        return None
    points = [point for each in measured if (point := each.of_metric(DEFAULT_METRIC)) is not None]
    question = Question(
        metric=DEFAULT_METRIC,
        labelled=len(project.images(split="train", labelled=True)),
        target=None,
        minutes=HOUR,
        minutes_per_image=minutes_per_image(project),
    )
    answer = forecast(points, question, level=level_of(project, DEFAULT_METRIC))
    expected = answer.as_dict().get("expected")
    return {
        "metric": DEFAULT_METRIC,
        "expected": expected,
        "advice": " ".join([*in_words(answer), *cost_notes(question)]),
    }
