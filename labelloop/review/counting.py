"""Which annotation of a task counts.

Of several annotations of one task the one marked as ground truth counts, else the one changed last, of those
that somebody looked at if there are any. Where none is left, because all were deleted or declined later, the
last one that counted stays in the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, select

from labelloop.project.tables import AnnotationRow, ReviewTaskRow


def counting(alive: Sequence[AnnotationRow]) -> AnnotationRow | None:
    """The annotation that counts, of the live ones of a task; None where all are skipped."""
    return max((state for state in alive if not state.skipped), key=_rank, default=None)


def live(states: Sequence[AnnotationRow]) -> list[AnnotationRow]:
    """The last state of each annotation that was not deleted."""
    last = {state.server_id: state for state in states}
    return [state for state in last.values() if state.gone_at is None]


def counted_last(states: Sequence[AnnotationRow]) -> AnnotationRow | None:
    """The annotation that counts; where none does any more, the last one that did; None where none ever did.

    Args:
        states: All that the ledger holds of a task, oldest first.
    """
    if (counts := counting(live(states))) is not None:
        return counts
    last: dict[int, AnnotationRow] = {}
    ended: dict[int, datetime] = {}  # when the annotation was declined after all
    for state in states:
        if not state.skipped:
            last[state.server_id] = state
            ended.pop(state.server_id, None)
        elif state.server_id in last:
            ended.setdefault(state.server_id, state.pulled_at)

    def end(state: AnnotationRow) -> datetime:
        return ended.get(state.server_id) or state.gone_at or datetime.min

    return max(last.values(), key=lambda state: (end(state), *_rank(state)), default=None)


def came_back() -> ColumnElement[bool]:
    """Of a task's row: whether somebody has reviewed it, whatever became of the task and its annotations."""
    of_it = select(AnnotationRow.id).where(
        AnnotationRow.task_key == ReviewTaskRow.key, AnnotationRow.skipped.is_(False)
    )
    return of_it.exists()


def said_time(when: str) -> datetime:
    """A time as the server says it, with or without fractions of a second and in any zone."""
    try:
        time = datetime.fromisoformat(when)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _rank(state: AnnotationRow) -> tuple[bool, bool, datetime, int]:
    return state.ground_truth, not state.bulk, said_time(state.updated_at), state.server_id
