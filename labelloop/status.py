"""Where a project stands, and what to do next."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select

from labelloop.budget.audit import audit_rounds
from labelloop.budget.round_minutes import predicted_minutes
from labelloop.data.label_draw import FEWEST_FOR_VALIDATION
from labelloop.plurals import plural
from labelloop.project.project import Project, RunRecord
from labelloop.project.tables import CurvePointRow, ImageRow, LabelRow, is_newest_label
from labelloop.proposing import last_gate, proposer, refusal
from labelloop.review.known import minutes_spent, new_labels
from labelloop.review.rounds import RoundRecord, rounds
from labelloop.review.tasks import PLANNED, SENT, waiting_tasks

HEADLINE = ("coco_ap", "coco_ap50", "f1_50", "count_bias")  # what a status has room for


def project_status(project: Project) -> dict[str, Any]:
    """What ``labelloop status --json`` prints.

    Returns:
        ``project``, ``root``, ``classes``; ``images``: ``total``, of which ``labelled`` and ``unlabelled``
        are in the train split, and ``val`` and ``test`` in theirs; ``objects``: annotated now; ``runs``,
        oldest first, ``there`` until their folder is deleted; ``unfinished``: names of those that can go on;
        ``promoted``: guided or supervised, of ``promoted_run``; ``newest_result``: some metrics of the newest
        finished run that is there, or None; ``loop``: its ``proposer``, its last ``gate``, and ``refused``,
        the newest finished run where that is the one refused; all None where the loop has not trained;
        ``rounds`` and ``minutes_spent`` of review; ``waiting``:
        ``tasks`` that were sent and nobody has reviewed where the project is tied to now, the ``minutes``
        that they should cost with ``minutes_low`` and ``minutes_high`` (None where that was not predicted),
        and ``elsewhere``: how many wait where it was tied to before, by server and project there;
        ``audit``: of the newest round's server, or None;
        ``next_hour``: what an hour of annotation is expected to bring, and whether to stop, None where
        ``forecast`` was not asked since the labels changed; ``next``: commands that make sense now, each with
        its reason.
    """
    images = _count_images(project)
    runs = project.runs()
    finished = project.finished_runs()
    unfinished = [run.name for run in project.unfinished_runs()]
    newest = finished[-1] if finished else None
    reviewed = rounds(project)
    steps = _next_steps(images, unfinished, newest, new_labels(project))
    steps += _next_reviews(project, reviewed, newest, images)
    next_hour = _next_hour(project)
    if next_hour is None and _was_forecast(project):
        steps.append("labelloop forecast   (the labels have changed since the last forecast)")
    return {
        "project": project.config.name,
        "root": str(project.root),
        "classes": list(project.config.classes),
        "images": images,
        "objects": _count_objects(project),
        "runs": [_run_summary(run, there=project.run_there(run.name)) for run in runs],
        "unfinished": unfinished,
        "promoted": newest.promoted if newest else None,
        "promoted_run": newest.name if newest and newest.promoted else None,
        "newest_result": _result_summary(newest),
        "loop": _loop(project),
        "rounds": len(reviewed),
        "minutes_spent": round(minutes_spent(project), 2),
        "waiting": _waiting(project, reviewed),
        "audit": _audit(project, reviewed),
        "next_hour": next_hour,
        "next": steps,
    }


def _count_images(project: Project) -> dict[str, int]:
    by_split = Counter(image.split for image in project.images())
    labelled = len(project.images(split="train", labelled=True))
    return {
        "total": by_split.total(),
        "labelled": labelled,
        "unlabelled": by_split["train"] - labelled,
        "val": by_split["val"],
        "test": by_split["test"],
    }


def _count_objects(project: Project) -> int:
    total = (
        select(func.coalesce(func.sum(LabelRow.n_objects), 0))
        .join(ImageRow, ImageRow.id == LabelRow.image_id)
        .where(is_newest_label(), ImageRow.replaced_at.is_(None))
    )
    with project.ledger.read() as session:
        return int(session.execute(total).scalar_one())


def _run_summary(run: RunRecord, *, there: bool) -> dict[str, Any]:
    return {
        "name": run.name,
        "state": run.state,
        "method": run.method,
        "model": run.model,
        "seed": run.seed,
        "promoted": run.promoted,
        "there": there,
    }


def _result_summary(run: RunRecord | None) -> dict[str, Any] | None:
    if run is None or run.result is None:
        return None
    return {
        "run": run.name,
        "split": run.result.get("split"),
        "verified": run.result.get("verified"),
        **{part: _headline(run.result.get(part)) for part in ("supervised", "guided", "difference")},
    }


def _loop(project: Project) -> dict[str, Any]:
    gate, refused = last_gate(project), refusal(project)
    return {
        "proposer": None if gate is None else proposer(project),
        "refused": None if refused is None else refused["new"],
        "gate": gate,
    }


def _headline(metrics: dict[str, Any] | None) -> dict[str, Any] | None:
    return {name: metrics[name] for name in HEADLINE if name in metrics} if metrics else None


def tied_rounds(project: Project, reviewed: Sequence[RoundRecord]) -> list[RoundRecord]:
    """The rounds where the project is tied to now; nothing comes back from any other."""
    tied = project.config.label_studio
    return [record for record in reviewed if tied and record.server == tied.server_name]


def _waiting(project: Project, reviewed: Sequence[RoundRecord]) -> dict[str, Any]:
    tied = tied_rounds(project, reviewed)
    tasks = [
        task
        for record in tied
        if record.tasks.get(SENT)
        for task in waiting_tasks(project, record.id)
        if task.state == SENT
    ]
    elsewhere: Counter[str] = Counter()
    for record in reviewed:
        if record.tasks.get(SENT) and record not in tied:
            elsewhere[record.server] += record.tasks[SENT]
    minutes = predicted_minutes(tasks)
    return {
        "tasks": len(tasks),
        "minutes": minutes.value,
        "minutes_low": minutes.low,
        "minutes_high": minutes.high,
        "elsewhere": dict(elsewhere),
    }


def _audit(project: Project, reviewed: list[RoundRecord]) -> dict[str, Any] | None:
    audit = audit_rounds(project, reviewed[-1].server) if reviewed else None
    return None if audit is None else audit.as_dict()


def _was_forecast(project: Project) -> bool:
    with project.ledger.read() as session:
        return session.scalars(select(CurvePointRow.key).limit(1)).first() is not None


def _next_hour(project: Project) -> dict[str, Any] | None:
    if not _was_forecast(project):
        return None
    from labelloop.forecast.next_hour import next_hour  # loads torch, which a new project need not wait for

    return next_hour(project)


def _next_steps(
    images: dict[str, int], unfinished: list[str], newest: RunRecord | None, new: int
) -> list[str]:
    steps = [
        f"labelloop train --resume --name {shlex.quote(name)}   (continues where it was interrupted)"
        for name in unfinished
    ]
    if not images["labelled"]:
        steps.append("labelloop add labels PATH   (training needs a few labelled images)")
    if not images["unlabelled"]:
        steps.append("labelloop add images PATH   (guided distillation learns from images without labels)")
    if images["labelled"] and newest is None and not unfinished:
        steps += [
            "labelloop check   (finds bad files, duplicates and leaks first)",
            "labelloop train --time 20m",
        ]
    if newest is not None:
        if new:
            have = plural(new, "image has", "images have")
            steps.append(f"labelloop train --labels all   ({have} labels from review that no run has seen)")
        steps.append("labelloop predict --out masks")
        if not images["test"]:
            steps.append("labelloop add labels PATH --split test   (for numbers that nothing was chosen by)")
    return steps


def _next_reviews(
    project: Project, reviewed: list[RoundRecord], newest: RunRecord | None, images: dict[str, int]
) -> list[str]:
    there = tied_rounds(project, reviewed)
    unsent, waiting = (sum(record.tasks.get(state, 0) for record in there) for state in (PLANNED, SENT))
    steps = []
    if unsent:
        left = plural(unsent, "task is", "tasks are")
        steps.append(f"labelloop push   (continues: {left} not sent yet)")
    if waiting:
        steps.append(f"labelloop pull   ({plural(waiting, 'task waits', 'tasks wait')} for review)")
    if steps:
        return steps
    tied = project.config.label_studio is not None
    if newest is None:
        if not images["unlabelled"] or images["labelled"] >= FEWEST_FOR_VALIDATION:
            return []
        if tied:
            return ["labelloop push   (opens a round with the images that stand best for the pool)"]
        classes = "" if project.config.classes else "; first write classes into labelloop.toml"
        return [f"labelloop connect URL   (people draw the first labels, in Label Studio{classes})"]
    if tied:
        return ["labelloop push   (opens a round of review)"]
    return ["labelloop connect URL   (people correct what the model is least sure of, in Label Studio)"]
