"""Looks at the test images: each is counted, for who looks often ends up choosing by what is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

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
    before = looks(project)
    if any((look.run, look.which, look.metrics) == (run, which, kept) for look in before):
        return len(before)
    with project.ledger.write() as session:
        session.add(LookRow(run=run, which=which, n_images=n_images, metrics=kept))
    return len(before) + 1


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
