"""``forecast``: from a project and a question to an answer with its pictures."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from labelloop.budget.image_minutes import minutes_per_image
from labelloop.budget.span import Span
from labelloop.errors import UsageError
from labelloop.forecast.answers import CANNOT_TELL, EXPECTED, OUT_OF_REACH, REACHED, Forecast, Question
from labelloop.forecast.curve_plot import curve_text, write_curve
from labelloop.forecast.curve_points import MeasuredPoint, curve_points, known_points
from labelloop.forecast.forecast import forecast
from labelloop.forecast.learnt import learnt_of
from labelloop.forecast.levels import levels_of
from labelloop.forecast.subsets import CurveSettings, plan_points, why_no_plan
from labelloop.plurals import plural
from labelloop.progress import Progress, Silent
from labelloop.project.project import Project

METRICS = (
    "coco_ap", "coco_ap50", "coco_ap75", "cellpose_ap50", "cellpose_ap75", "cellpose_ap90", "f1_50", "f1_70",
    "precision_50", "recall_50", "pq", "sq", "rq", "aji",
)  # fmt: skip
DEFAULT_METRIC = "coco_ap50"


@dataclass(frozen=True, kw_only=True)
class ForecastRequest:
    """What is asked for.

    Attributes:
        metric: One of ``METRICS``.
        target: Its value to reach, above 0 and below 1; None if that is not asked.
        minutes: Minutes of annotation to spend, above 0; None likewise.
        settings: How the points of the curve are made.
    """

    metric: str = DEFAULT_METRIC
    target: float | None = None
    minutes: float | None = None
    settings: CurveSettings = CurveSettings()  # noqa: RUF009 (frozen)


@dataclass(frozen=True, kw_only=True, eq=False)
class ProjectForecast:
    """An answer for a project.

    Attributes:
        answer: The forecast.
        lines: It in words.
        picture: It in plain text.
        document: It as ``--json`` prints it.
    """

    answer: Forecast
    lines: list[str]
    picture: list[str]
    document: dict[str, Any]


def parse_target(text: str) -> tuple[str, float]:
    """Metric and value of ``--target``.

    Raises:
        UsageError: The text is not ``METRIC=VALUE``, or the metric cannot be forecast.

    Example:
        >>> parse_target("coco_ap50=0.8")
        ('coco_ap50', 0.8)
    """
    match = re.fullmatch(r"\s*(\w+)\s*=\s*(\d*\.?\d+)\s*", text)
    value = float(match[2]) if match else 0.0
    if match is None or not 0 < value < 1:
        raise UsageError(
            "--target cannot be understood", value=text, way_out="Write it like coco_ap50=0.8, below 1."
        )
    if match[1] not in METRICS:
        raise UsageError(
            "this metric cannot be forecast", value=match[1], way_out=f"Choose one of {', '.join(METRICS)}."
        )
    return match[1], value


def forecast_project(
    project: Project, request: ForecastRequest, progress: Progress | None = None
) -> ProjectForecast:
    """Trains what the curve still lacks, answers, and draws.

    Args:
        project: Whose labels.
        request: What is asked for.
        progress: Where progress is reported.

    Raises:
        TrainingError: Training cannot go on.
        OutputError: The pictures cannot be written.
    """
    progress = progress or Silent()
    found = _in_full(project, request, curve_points(project, request.settings, progress))
    plots = write_curve(project.curves_dir, found.answer, found.lines)
    return replace(found, document=found.document | {"plots": {k: str(path) for k, path in plots.items()}})


def _in_full(project: Project, request: ForecastRequest, measured: list[MeasuredPoint]) -> ProjectForecast:
    """The answer from the points of the curve, in every form but the files."""
    points = [point for m in measured if (point := m.of_metric(request.metric)) is not None]
    labelled = len(project.images(split="train", labelled=True))
    question = Question(
        metric=request.metric,
        labelled=labelled,
        unlabelled=len(project.images(split="train")) - labelled,
        target=request.target,
        minutes=request.minutes,
        minutes_per_image=minutes_per_image(project),
        learnt=learnt_of(project),
    )
    no_points = next((why for m in measured if (why := m.undefined(request.metric)) is not None), None)
    if not measured:
        no_points = why_no_plan(project, request.settings)
    answer = forecast(points, question, levels=levels_of(project, request.metric), no_points=no_points)
    notes = _notes(answer, measured)
    document = {
        **answer.as_dict(),
        "split": measured[0].split if measured else None,
        "notes": notes,
    }
    return ProjectForecast(
        answer=answer, lines=[*in_words(answer), *notes], picture=curve_text(answer), document=document
    )


def known_forecast(project: Project, *, minutes: float | None = None) -> ProjectForecast | None:
    """What so many minutes, or twice the labels, would bring, from what is measured; nothing is trained.

    Its document has no plots, as none are written. None while points of the curve are missing.
    """
    request = ForecastRequest(minutes=minutes)
    plans = plan_points(project, request.settings)
    measured = known_points(project, plans, request.settings)
    if not plans or len(measured) < len(plans):
        return None
    return _in_full(project, request, measured)


def in_words(answer: Forecast) -> list[str]:
    """The answer in one or two sentences."""
    question, images = answer.question, answer.images
    lines: list[str] = []
    if question.target is not None:
        aim = f"{question.metric} {question.target:g}"
        if answer.verdict == REACHED:
            lines.append(
                f"{aim}: reached with the {plural(question.labelled, 'label there is', 'labels there are')}."
            )
        elif answer.verdict == OUT_OF_REACH:
            lines.append(f"{aim}: out of reach of more labels alone: {images.reason}.")
        elif answer.verdict == CANNOT_TELL:
            lines.append(f"{aim}: cannot tell yet, because {answer.reason}.")
        else:
            lines.append(f"{aim}: {_number(images, 'more labelled image')} {_interval(images)}.")
            lines.append(f"Annotation: {_minutes(answer.minutes)}.")
    if answer.expected is not None:
        bought = images if question.target is None else None
        what = f"{question.minutes:g} minutes" if question.minutes is not None else "twice the labels"
        buys = f" ({_number(bought, 'image')} {_interval(bought)})" if bought and bought.value else ""
        if answer.expected.value is not None:
            lines += _gained(answer, f"after {what}{buys}")
        elif answer.verdict in (CANNOT_TELL, EXPECTED) and question.target is None:
            lines.append(
                f"{question.metric} after {what}: cannot tell yet, because {answer.expected.reason}."
            )
        else:
            lines.append(f"{question.metric} after {what}: cannot tell, because {answer.expected.reason}.")
    return lines


def _gained(answer: Forecast, when: str) -> list[str]:
    """From now to then, and what that gains."""
    now, then, gain = answer.now, answer.expected, answer.gain
    assert now is not None
    assert then is not None
    assert gain is not None
    what = (
        f"{answer.question.metric} {when}: {now.value:.3f} now -> {then.value:.3f} {_interval(then, '.3f')}"
    )
    lines = [f"{what}, a gain of {gain.value:+.3f} {_interval(gain, '+.3f')}."]
    if answer.told_from_zero is False:
        lines.append("That is no gain that can be told from zero.")
    return lines


def _notes(answer: Forecast, measured: list[MeasuredPoint]) -> list[str]:
    notes = []
    if measured and measured[0].split != "val":
        notes.append(
            "Measured on labelled images that each small model had not seen: there are no validation images."
        )
    if answer.levels:
        notes.append(_height(answer))
    elif answer.points:
        notes.append(
            "This is the curve of short trainings; a full run is better with the same labels. Once validation"
            " images have measured a run, it sets the height of the curve."
        )
    notes += [*cost_notes(answer.question), *pool_notes(answer), *learnt_notes(answer)]
    if answer.widened > 1.05:
        notes.append(
            f"Intervals are {answer.widened:.1f} times wider than the curves alone would have them: curves"
            " through the smaller subsets missed the larger ones."
        )
    return notes


def _height(answer: Forecast) -> str:
    """Which runs set the height of the curve, and with past rounds also its rise."""
    runs = [
        f"{level.run} {level.value:.3f} with {plural(level.n_images, 'label')}" for level in answer.levels
    ]
    if len(runs) == 1:
        sets = "this run its height"
    else:
        sets = "the runs of the rounds so far its height and their part of its rise"
    return f"Short trainings give the curve its shape, {sets} ({answer.question.metric}: {', '.join(runs)})."


def cost_notes(question: Question) -> list[str]:
    """Where an image's minutes come from, if not from reviews."""
    cost = question.minutes_per_image
    if cost is None or cost.value is None or cost.reliable:
        return []
    return [
        f"Few reviews have been timed yet ({cost.n}): about {cost.value:.1f} minutes per image is what the"
        " literature reports for such objects."
    ]


def pool_notes(answer: Forecast) -> list[str]:
    """Says so where more images are counted on than are left in the pool."""
    left, images = answer.question.unlabelled, answer.images
    wanted = images.low if images.value is None else images.value
    if left is None or wanted is None or wanted <= left:
        return []
    only = f"Only {plural(left, 'unlabelled image is', 'unlabelled images are')}" if left else None
    return [f"{only or 'No unlabelled image is'} left: labelloop add images adds more."]


def learnt_notes(answer: Forecast) -> list[str]:
    """Says so where a full run learns fewer images than have labels, now or with those that are asked for."""
    question, more = answer.question, answer.images.value or 0.0
    now, then = ((question.labelled + n, question.learns(n)) for n in (0.0, more))
    labels, learnt = now if now[1] < now[0] else then
    if learnt >= labels or not answer.points:
        return []
    return [
        f"Without validation images train sets some of many labels aside: of {labels:.0f} it learns"
        f" {learnt:.0f}, which is counted in; labelloop add labels --split val adds images for that."
    ]


def _number(span: Span, singular: str) -> str:
    if span.value is None:
        return f"an unknown number of {singular}s"
    return f"about {plural(round(span.value), singular)}"


def _interval(span: Span, pattern: str = ".0f") -> str:
    if span.low is None:
        return ""
    if span.high is None:
        return f"(80 %: {span.low:{pattern}} or more; {span.reason})"
    low, high = (round(end, 3) + 0.0 for end in (span.low, span.high))  # no -0.000
    return f"(80 %: {low:{pattern}} to {high:{pattern}})"


def _minutes(span: Span) -> str:
    if span.value is None:
        return f"minutes unknown, {span.reason}"
    ends = f"{span.low:.0f} or more" if span.high is None else f"{span.low:.0f} to {span.high:.0f}"
    return f"about {plural(round(span.value), 'minute')} (80 %: {ends})"
