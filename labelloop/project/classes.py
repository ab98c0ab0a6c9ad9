"""What class indices mean.

Labels hold bare indices into the classes of labelloop.toml, which is there to be edited. So the ledger keeps
the names from the first labels on: classes may follow at the end, but one in use keeps its place and name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.orm import Session

from labelloop.errors import ProjectError
from labelloop.project.ledger import Ledger, decode_instances
from labelloop.project.tables import LabelRow, Meta, RoundRow, RunRow

_CLASSES = "review:classes"  # of ``Meta``; from when only rounds of review kept it
_READ_AT_ONCE = 100  # label revisions


def hold_classes(ledger: Ledger, classes: tuple[str, ...]) -> None:
    """Of a project that is opened: looks whether the classes in use are as they were, and notes new ones.

    A ledger with labels that does not say what they mean, as of earlier versions, takes the classes as they
    are.

    Raises:
        ProjectError: As ``check_classes``.
    """
    with ledger.read() as session:
        check_classes(session, classes)
        noted = _noted(session)
        if noted == classes or (noted is None and not _any(session, LabelRow)):
            return
    with suppress(ProjectError), ledger.write() as session:  # what cannot be written can still be read
        keep_classes(session, classes)


def keep_classes(session: Session, classes: tuple[str, ...]) -> None:
    """Notes what class indices mean: in the transaction that stores the first labels, or opens a round.

    Raises:
        ProjectError: As ``check_classes``.
    """
    check_classes(session, classes)
    session.merge(Meta(key=_CLASSES, value=json.dumps(classes)))


def check_classes(session: Session, classes: tuple[str, ...]) -> None:
    """Looks whether class indices mean what they meant when labels were stored.

    Raises:
        ProjectError: A class in use was removed, renamed or moved, or has no name.
    """
    noted = _noted(session)
    if noted is not None and classes[: len(noted)] == noted:
        return
    used = _in_use(session, noted or ())
    if noted is None:
        if max(used, default=-1) >= len(classes):
            raise ProjectError(
                "the labels in the ledger have more classes than labelloop.toml names",
                value=_listed(classes),
                way_out=f"Write the names of all {max(used) + 1} into labelloop.toml, in their order.",
            )
    elif any(classes[index : index + 1] != noted[index : index + 1] for index in used):
        raise ProjectError(
            "the classes in labelloop.toml do not match those of the labels and reviews in the ledger",
            value=f"{_listed(classes)}, not {_listed(noted)}",
            way_out=f"Restore the classes in labelloop.toml, in this order: {_listed(noted)}. "
            "New ones go to the end.",
        )


def _in_use(session: Session, noted: Sequence[str]) -> set[int]:
    """The indices of all label revisions; every one, where a model learnt them or people were asked."""
    used = set(range(len(noted))) if _any(session, RunRow) or _any(session, RoundRow) else set()
    stored = select(LabelRow.instances).execution_options(yield_per=_READ_AT_ONCE)
    for instances in session.scalars(stored):
        used.update(decode_instances(instances).labels.tolist())
    return used


def _noted(session: Session) -> tuple[str, ...] | None:
    row = session.get(Meta, _CLASSES)
    return None if row is None else tuple(json.loads(row.value))


def _any(session: Session, table: type[LabelRow | RoundRow | RunRow]) -> bool:
    return bool(session.scalar(select(select(table).exists())))


def _listed(classes: Sequence[str]) -> str:
    return ", ".join(classes) or "none"
