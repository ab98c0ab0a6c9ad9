"""Looks at the test images: each is counted, for who looks often ends up choosing by what is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from labelloop.project.project import Project
from labelloop.project.tables import LookRow

KEPT = ("coco_ap", "coco_ap50", "f1_50", "pq", "count_bias", "protocol_ap")


@dataclass(frozen=True, kw_only=True)
class Look:
    """One measurement on the test images.

    Attributes:
        run: That was measured.
        which: guided or supervised.
        n_images: How many.
        metrics: Some of what was seen, ``{name: {value, low, high, n}}``.
        looked_at: UTC.
    """

    run: str
    which: str
    n_images: int
    metrics: Mapping[str, Any]
    looked_at: datetime


def count_look(project: Project, *, run: str, which: str, n_images: int, metrics: Mapping[str, Any]) -> int:
    """Notes a look, unless the very same was seen before; how many there were with this one."""
    kept = {name: metrics[name] for name in KEPT if name in metrics}
    with project.ledger.read() as session:  # a look that was seen before needs nothing to be written
        known, count = _known(session, run, which, kept)
    if known:
        return count
    with project.ledger.write() as session:
        known, count = _known(session, run, which, kept)  # another command may have looked meanwhile
        if not known:
            session.add(LookRow(run=run, which=which, n_images=n_images, metrics=kept))
    return count + (not known)


def _known(session: Session, run: str, which: str, metrics: Mapping[str, Any]) -> tuple[bool, int]:
    """Whether this very look was counted, and how many were."""
    rows = session.scalars(select(LookRow)).all()
    return any((row.run, row.which, row.metrics) == (run, which, metrics) for row in rows), len(rows)


def looks(project: Project) -> list[Look]:
    """All looks, oldest first."""
    with project.ledger.read() as session:
        rows = session.scalars(select(LookRow).order_by(LookRow.id)).all()
    return [
        Look(
            run=row.run,
            which=row.which,
            n_images=row.n_images,
            metrics=row.metrics,
            looked_at=row.looked_at,
        )
        for row in rows
    ]
