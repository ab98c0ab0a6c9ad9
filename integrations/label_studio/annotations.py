"""The server's tasks and annotations, whatever they hold, as the ledger takes them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from labelloop.integrations.label_studio.task_data import key_of
from labelloop.review.pulled import PulledAnnotation, PulledTask

Tasks = Sequence[Mapping[str, Any]]
ONCE_FROM = (1, 14)  # the release of Label Studio that counts a draft's time once


def by_key(tasks: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Tasks of the server by their key; several have one where somebody copied a task there."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for task in tasks:
        key = key_of(task)
        if key is not None:
            found.setdefault(key, []).append(task)
    return found


def annotation_numbers(tasks: Tasks) -> set[Any]:
    """The numbers of all annotations of some tasks."""
    lists = [listed for task in tasks if isinstance(listed := task.get("annotations"), list)]
    return {
        annotation.get("id")
        for annotations in lists
        for annotation in annotations
        if isinstance(annotation, Mapping) and _is_id(annotation.get("id"))
    }


def counts_drafts_twice(version: str) -> bool | None:
    """Whether a server of this release adds a draft's time to that of its annotation, which holds it already.

    Those before 1.14 did (Label Studio's pull request 6406 of September 2024).

    Args:
        version: As the server says it, such as ``1.23.0``.

    Returns:
        None where the version says nothing.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return None if numbers is None else (int(numbers[1]), int(numbers[2])) < ONCE_FROM


def read_task(
    key: str, tasks: Tasks, number: int | None, people: Mapping[int, str], *, drafts_twice: bool | None = None
) -> PulledTask | None:
    """All tasks that have one key, as one task with the annotations of all.

    Args:
        key: The key.
        tasks: Its tasks on the server, one as a rule.
        number: The task's number as it was known, which is kept if it is still there.
        people: E-mail addresses by the number of the person.
        drafts_twice: As ``counts_drafts_twice``.

    Returns:
        The task, or None where something in it is not an annotation.
    """
    annotations: list[PulledAnnotation] = []
    for task in tasks:
        listed = task.get("annotations") or []
        if not isinstance(listed, list):
            return None
        for annotation in listed:
            if not isinstance(annotation, Mapping) or not _is_id(annotation.get("id")):
                return None
            annotations.append(_annotation(annotation, people, drafts_twice))
    numbers = [int(task["id"]) for task in tasks]
    return PulledTask(
        key=key,
        server_id=number if number in numbers else min(numbers),
        annotations=tuple(annotations),
    )


def _annotation(
    annotation: Mapping[str, Any], people: Mapping[int, str], drafts_twice: bool | None
) -> PulledAnnotation:
    result = annotation.get("result")
    who = annotation.get("completed_by")
    number = who.get("id") if isinstance(who, Mapping) else who
    lead_time = annotation.get("lead_time")
    looked_at = lead_time is not None or any(
        isinstance(region, Mapping) and "origin" in region
        for region in (result if isinstance(result, list) else ())
    )
    return PulledAnnotation(
        server_id=int(annotation["id"]),
        created_at=str(annotation.get("created_at", "")),
        updated_at=str(annotation.get("updated_at", "")),
        who=people.get(number, f"user {number}") if _is_id(number) else "",
        lead_time_s=float(lead_time) if _is_time(lead_time) else None,
        skipped=bool(annotation.get("was_cancelled")),
        ground_truth=bool(annotation.get("ground_truth")),
        bulk=not looked_at,
        maybe_twice=drafts_twice and annotation.get("draft_created_at", "") is not None,
        result=[] if result is None else result,
    )


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
