"""What one image costs a person, from the lead times of past reviews."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
from sqlalchemy import select

from labelloop.metrics.estimate import Estimate
from labelloop.project.project import Project
from labelloop.project.tables import AnnotationRow, ReviewTaskRow

FEWEST = 5  # timed images
LONGEST = 5.0  # times the median: what took longer was left open, and counts so much


def minutes_per_image(project: Project) -> Estimate:
    """The mean of the reviewed images and its 95 % interval; without value where too few were timed.

    Skipped tasks, annotations that were deleted and those accepted in bulk do not count. The interval is that
    of the mean of logarithms (Cox's method; Zhou and Gao, Statistics in Medicine 16:783, 1997, section 2), as
    working times are skewed.
    """
    seconds = _seconds_by_image(project)
    n = len(seconds)
    if n < FEWEST:
        reason = f"the time of {FEWEST} reviewed images must be known, it is of {n}"
        return Estimate(value=None, low=None, high=None, n=n, reason=reason)
    spent = np.minimum(seconds, LONGEST * np.median(seconds)) / 60
    logs = np.log(np.maximum(spent, 1 / 60))
    variance = float(logs.var(ddof=1))
    off = 1.96 * math.sqrt(variance / n + variance**2 / (2 * (n - 1)))
    mean = float(spent.mean())
    return Estimate(value=mean, low=mean * math.exp(-off), high=mean * math.exp(off), n=n)


def _seconds_by_image(project: Project) -> list[float]:
    """Lead time of each image over its tasks, by the last state of each annotation."""
    statement = (
        select(
            AnnotationRow.task_key, AnnotationRow.server_id, ReviewTaskRow.image_id,
            AnnotationRow.lead_time_s, AnnotationRow.skipped, AnnotationRow.bulk, AnnotationRow.gone_at,
        )
        .join(ReviewTaskRow, ReviewTaskRow.key == AnnotationRow.task_key)
        .order_by(AnnotationRow.id)
    )  # fmt: skip
    with project.ledger.read() as session:
        rows = session.execute(statement)
        last = {(row.task_key, row.server_id): row for row in rows}
    spent: defaultdict[int, float] = defaultdict(float)
    for row in last.values():
        if row.lead_time_s and not row.skipped and not row.bulk and row.gone_at is None:
            spent[row.image_id] += row.lead_time_s
    return list(spent.values())
