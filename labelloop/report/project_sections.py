"""Sections about a project: where it stands, what labels cost and would bring, what is asked, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labelloop.plurals import plural
from labelloop.report.figures import curve_figure, minutes_figure
from labelloop.report.markup import Child, Markup, facts, items, note, paragraph, table, tag
from labelloop.report.metric_tables import STAR, starred
from labelloop.report.metric_words import (
    NO_NUMBER,
    OTHER,
    Estimate,
    MetricWords,
    is_unreliable,
    minutes_text,
    words_for,
)
from labelloop.report.model_sections import MODELS, SPLITS, sentence
from labelloop.report.project_facts import ProjectFacts, RoundFacts, WaitingTask

MOST_TASKS = 60  # rows of what waits
_EDITS = ("accepted", "moved", "relabelled", "added", "deleted", "split", "merged")
_OF_RUNS = ("f1_50", "coco_ap50")
_BY_PROTOCOL = MetricWords(
    name="protocol_ap", title="AP by a protocol", meaning="Where one was asked for.", section=OTHER
)


def standing_section(found: ProjectFacts) -> list[Child]:
    """Images, labels, runs, and what makes sense next."""
    images, status = found.status["images"], found.status
    unfinished = f"; not finished: {', '.join(status['unfinished'])}" if status["unfinished"] else ""
    rows: list[tuple[Child, Child]] = [
        ("Classes", ", ".join(status["classes"]) or "none yet"),
        ("Images", f"{images['total']:,}"),
        ("Training images, labelled", f"{images['labelled']:,}"),
        ("Training images, without labels", f"{images['unlabelled']:,}"),
        ("Validation images", f"{images['val']:,}"),
        ("Test images", f"{images['test']:,}"),
        ("Annotated objects", f"{status['objects']:,}"),
        ("Runs", f"{len(found.runs)}{unfinished}"),
    ]
    steps = [tag("h3", "What makes sense next"), items(map(_command, status["next"]))]
    return [facts(rows), _runs_table(found), steps if status["next"] else None]


def curve_section(found: ProjectFacts) -> list[Child]:
    """The learning curve and what more labels would bring."""
    if found.forecast is None:
        return [_not_yet("No learning curve of these labels yet.", "labelloop forecast", "makes one.")]
    return [
        *(paragraph(line) for line in found.forecast.lines),
        tag("div", curve_figure(found.forecast.answer), class_="plots")
        if found.forecast.answer.points
        else None,
    ]


def budget_section(found: ProjectFacts) -> list[Child]:
    """Minutes by round, edits by kind, and whether the choice pays."""
    if not found.rounds:
        return [_not_yet("No round of review yet.", "labelloop push", "opens one.")]
    spent = minutes_text(float(found.status["minutes_spent"]))
    timed = [(r.record.id, r.predicted, r.reported) for r in found.rounds if r.reported > 0]
    audit = found.status["audit"]
    return [
        paragraph(f"{spent} of annotation in {plural(len(found.rounds), 'round')}."),
        _rounds_table(found.rounds),
        tag("div", minutes_figure(timed), class_="plots") if len(timed) > 1 else None,
        _edits_table(found.edits) if found.edits else note("No correction has come back yet."),
        paragraph("Is the choice better than chance? ", sentence(audit["verdict"])) if audit else None,
    ]


def next_section(found: ProjectFacts) -> list[Child]:
    """What waits for review, and why it was chosen."""
    waiting = found.waiting
    elsewhere = [
        note(f"{_wait(tasks)} at {server}, which the project is not tied to now.")
        for server, tasks in found.status["waiting"]["elsewhere"].items()
    ]
    if not waiting:
        nothing = _not_yet("Nothing waits for review.", "labelloop push", "chooses what to ask next.")
        return [nothing, *elsewhere]
    minutes = found.status["waiting"]["minutes"]
    cost = f", about {minutes_text(float(minutes))} of work" if minutes is not None else ""
    shown = waiting[:MOST_TASKS]
    more = f"; {len(shown)} of {len(waiting)}" if len(shown) < len(waiting) else ""
    return [
        paragraph(f"{_wait(len(waiting))} for review{cost}."),
        _tasks_table(f"The least sure first{more}", shown),
        *elsewhere,
    ]


def _wait(tasks: int) -> str:
    return plural(tasks, "task waits", "tasks wait")


def looks_section(found: ProjectFacts) -> list[Child] | None:
    """How often the test images were looked at; None where no look is on record."""
    if not found.looks:
        return None
    shown = [words_for(name) for name in _OF_RUNS]
    if any(_BY_PROTOCOL.name in look.metrics for look in found.looks):
        shown.append(_BY_PROTOCOL)
    rows: list[list[Child]] = [
        [
            f"{look.looked_at:%Y-%m-%d}",
            look.run,
            MODELS.get(look.which, look.which),
            f"{look.n_images:,}",
            *(starred(words, look.metrics.get(words.name)) for words in shown),
        ]
        for look in found.looks
    ]
    caption = _starring("Looks, oldest first", [look.metrics for look in found.looks], shown)
    return [
        paragraph(
            f"{plural(len(rows), 'result')} on the test images so far. Choosing by what they show makes "
            "the next number a little too good."
        ),
        table(caption, ["", "run", "model", "images", *(words.title for words in shown)], rows, class_="num"),
    ]


def _runs_table(found: ProjectFacts) -> Markup | None:
    rows, measured, shown = [], [], [words_for(name) for name in _OF_RUNS]
    for run in found.runs:
        result = run.result or {}
        metrics = result.get(run.promoted or "") or {}
        measured.append(metrics)
        used = (result.get("labels") or run.config.get("labels") or {}).get("used")
        rows.append(
            [
                run.name,
                run.state if run.state == "finished" else "not finished",
                f"{run.method}, {run.model}",
                NO_NUMBER if used is None else f"{used:,}",
                MODELS.get(run.promoted or "", NO_NUMBER),
                SPLITS.get(str(result.get("split")), NO_NUMBER),
                *(starred(words, metrics.get(words.name)) for words in shown),
            ]
        )
    heads = ["", "state", "method", "labels", "promoted", "measured on", *(words.title for words in shown)]
    caption = _starring("Runs, oldest first", measured, shown)
    return table(caption, heads, rows, class_="num") if rows else None


def _starring(caption: str, measured: Sequence[Mapping[str, Estimate]], shown: Sequence[MetricWords]) -> str:
    """The caption with what a star means, where one stands in the table."""
    estimates = [metrics.get(words.name) or {} for metrics in measured for words in shown]
    return f"{caption}; {STAR}" if any(map(is_unreliable, estimates)) else caption


def _not_yet(what: str, command: str, does: str) -> Markup:
    """The one line of a section that has no data."""
    return note(f"{what} ", tag("code", command), f" {does}")


def _command(line: str) -> Child:
    """``labelloop pull   (8 tasks wait)``: the command, then its reason."""
    command, _, reason = line.partition("   (")
    return [tag("code", command), " ", reason.removesuffix(")")]


def _rounds_table(rounds: Sequence[RoundFacts]) -> Markup:
    rows = [
        [
            f"Round {each.record.id}",
            f"{each.record.opened_at:%Y-%m-%d}",
            each.record.run or "no model",
            each.record.strategy,
            f"{sum(each.record.tasks.values()):,}",
            f"{each.reviewed:,}",
            f"{each.record.unsettled:,}",
            minutes_text(each.predicted),
            minutes_text(each.reported) if each.reviewed else NO_NUMBER,
        ]
        for each in rounds
    ]
    heads = ["", "opened", "run", "strategy", "tasks", "done", "waiting", "predicted", "reported"]
    return table("Rounds; minutes are those of reviewed tasks", heads, rows)


def _edits_table(edits: Mapping[str, int]) -> Markup:
    kinds = [kind for kind in _EDITS if kind in edits] + sorted(edits.keys() - set(_EDITS))
    total = sum(edits.values())
    rows = [[kind, f"{edits[kind]:,}", f"{100 * edits[kind] / total:.1f} %"] for kind in kinds]
    return table("What people did to objects", ["", "objects", "share"], rows)


def _tasks_table(caption: str, tasks: Sequence[WaitingTask]) -> Markup:
    """Rounds of older versions do not say why, and have no columns for it."""
    heads, known = ["", "confidence", "chosen by", "why", "minutes"], any(task.chosen for task in tasks)
    rows = [_task_row(task) for task in tasks]
    return table(caption, heads if known else heads[:2], rows if known else [row[:2] for row in rows])


def _task_row(task: WaitingTask) -> list[Child]:
    minutes = task.chosen.get("minutes") or {}
    value, low, high = (minutes.get(key) for key in ("value", "low", "high"))
    interval = f"[{float(low):.1f}, {float(high):.1f}]" if low is not None and high is not None else ""
    cost: Child = (
        NO_NUMBER
        if value is None
        else tag("span", minutes_text(float(value)), tag("span", interval, class_="iv") if interval else None)
    )
    arm, why = (str(task.chosen.get(key, NO_NUMBER)) for key in ("arm", "why"))
    return [task.image, f"{task.confidence:.3f}", arm, why, cost]
