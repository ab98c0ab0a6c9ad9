"""What one image costs a person: from the lead times of past reviews, before those from the literature.

An image is one of the labelled set as it stands there, as on the learning curve that these minutes are
multiplied with: a field of which a few tiles were reviewed is one image, and costs what these tiles took.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pycocotools.mask as mask_utils
from sqlalchemy import select

from labelloop.budget.doubt import image_doubt, known_doubts
from labelloop.budget.effort import Z_80, Z_95, EffortModel, TimedTask
from labelloop.budget.pool_rates import pool_rates
from labelloop.budget.timed_tasks import reviewed_tasks, timed_tasks
from labelloop.budget.work import Work, mean_outline_px
from labelloop.instances import Instances
from labelloop.metrics.estimate import Estimate
from labelloop.project.ledger import decode_instances
from labelloop.project.project import Project
from labelloop.project.tables import AnnotationRow, PredictionRow, ReviewTaskRow, RoundRow
from labelloop.review.rounds import SUSPECTS

FEWEST = 5  # timed images
LOOKED_AT = 100  # images, for what is expected before
MIN_SCORE = 0.5  # what scores higher would be shown, where the run has no score threshold of its own


def minutes_per_image(project: Project) -> Estimate:
    """The mean of the reviewed images and its 95 % interval.

    Where fewer than five were timed it is what the effort model expects, with its wide interval, and not
    ``reliable``: of correcting what the newest run saw in the pool, as much of each image as is known of
    labelled ones, or of drawing as many objects as those have. A field that was reviewed in part counts as
    it stands: one image, with the minutes that were spent on it. Minutes are of worked time, as the effort
    model takes reported times apart: idle spells and times that were counted twice are left out.
    Skipped tasks, annotations that were deleted, those accepted in bulk and rounds of suspicious labels do
    not count. The interval is that of the mean of logarithms (Cox's method; Zhou and Gao, Statistics in
    Medicine 16:783, 1997, section 2), as working times are skewed.
    """
    effort = EffortModel.fit(timed_tasks(project))
    spent = np.array(_worked_by_image(project, effort)) / 60
    n = len(spent)
    if n < FEWEST:
        return _expected(project, effort, n)
    logs = np.log(np.maximum(spent, 1 / 60))
    variance = float(logs.var(ddof=1))
    off = Z_95 * math.sqrt(variance / n + variance**2 / (2 * (n - 1)))
    mean = float(spent.mean())
    return Estimate(value=mean, low=mean * math.exp(-off), high=mean * math.exp(off), n=n)


def _expected(project: Project, effort: EffortModel, n: int) -> Estimate:
    """What the effort model expects, of which the literature is most where few tasks were timed."""
    works = _corrections(project) or _drawings(project)
    if not works:
        reason = f"the times of {FEWEST} reviewed images are needed, {n} are known, and there are no labels"
        return Estimate(value=None, low=None, high=None, n=n, reason=reason)
    minutes = effort.total(works)
    wider, value = Z_95 / Z_80, minutes.value / len(works)
    return Estimate(
        value=value,
        low=value * (minutes.low / minutes.value) ** wider,
        high=value * (minutes.high / minutes.value) ** wider,
        n=n,
        reliable=False,
    )


def _corrections(project: Project) -> list[Work]:
    """Of pool images whose predictions by the newest finished run are kept, some; as a push expects it."""
    finished = [run for run in project.finished_runs(deleted=True) if run.promoted is not None]
    if not finished:
        return []
    newest = finished[-1]
    which = str(newest.promoted)
    pool = {image.id for image in project.images(split="train")}
    pool -= set(project.newest_label_revisions(sorted(pool)))
    mine = (PredictionRow.run == newest.name, PredictionRow.which == which)
    doubted = known_doubts(project, newest.name, which, twice=False)
    with project.ledger.read() as session:
        kept = session.scalars(select(PredictionRow.image_id).where(*mine))
        some = _some(sorted(pool.intersection(kept)))
        statement = select(PredictionRow).where(*mine, PredictionRow.image_id.in_(some))
        doubts = [
            doubted.get(row.image_id) or image_doubt(decode_instances(row.instances), [])
            for row in session.scalars(statement)
        ]
    min_score = float((newest.result or {}).get("min_score", {}).get(which, MIN_SCORE))
    rates, known = pool_rates(project, newest.name, doubts, min_score), _known_share(project)
    return [
        rates.expect(
            doubt.scores, min_score, unmatched=float(doubt.unmatched.sum()), outline_px=doubt.outline_px
        ).part(known)
        for doubt in doubts
    ]


def _drawings(project: Project) -> list[Work]:
    """Of the objects of labelled images, some, each drawn by hand."""
    works = []
    for each in _some_labels(project):
        objects = each.select(~each.crowd)
        works.append(Work(objects=0.0, edits={"added": len(objects)}, outline_px=mean_outline_px(objects)))
    return works


def _known_share(project: Project) -> float:
    """How much of a labelled image is known on average, 0..1 of its area; 1 without labelled images."""
    return float(np.mean([1 - _unknown_share(each) for each in _some_labels(project)] or [1.0]))


def _unknown_share(labels: Instances) -> float:
    """0..1, of the image's area."""
    unknown = labels.select(labels.crowd).coco_rles()
    height, width = labels.size_hw
    return float(mask_utils.area(mask_utils.merge(unknown))) / (height * width) if unknown else 0.0


def _some_labels(project: Project) -> list[Instances]:
    labelled = _some([image.id for image in project.images(split="train", labelled=True)])
    return [*project.labels(labelled).values()]


def _some(image_ids: Sequence[int]) -> list[int]:
    """At most ``LOOKED_AT`` of them, from first to last: neighbours are often of one plate."""
    places = np.linspace(0, len(image_ids) - 1, min(len(image_ids), LOOKED_AT))
    return [image_ids[int(place)] for place in places]


def _worked_by_image(project: Project, effort: EffortModel) -> list[float]:
    """Worked seconds of each image over its tasks, by the last state of each annotation.

    Several annotations of a task are taken to be as much work each as the one that counts. Rounds that looked
    labels through do not count: an image costs more than that.
    """
    statement = (
        select(
            AnnotationRow.task_key, AnnotationRow.server_id, ReviewTaskRow.image_id, AnnotationRow.who,
            AnnotationRow.lead_time_s, AnnotationRow.maybe_twice,
            AnnotationRow.skipped, AnnotationRow.bulk, AnnotationRow.gone_at,
        )
        .join(ReviewTaskRow, ReviewTaskRow.key == AnnotationRow.task_key)
        .join(RoundRow, RoundRow.id == ReviewTaskRow.round_id)
        .where(RoundRow.strategy != SUSPECTS)
        .order_by(AnnotationRow.id)
    )  # fmt: skip
    with project.ledger.read() as session:
        rows = session.execute(statement)
        last = {(row.task_key, row.server_id): row for row in rows}
    works = {reviewed.task.key: reviewed.work for reviewed in reviewed_tasks(project)}
    timed = [
        row
        for row in last.values()
        if row.lead_time_s is not None and 0 < row.lead_time_s < math.inf
        if not row.skipped and not row.bulk and row.gone_at is None
        if row.task_key in works
    ]
    tasks = [
        TimedTask(who=row.who, seconds=row.lead_time_s, work=works[row.task_key], maybe_twice=row.maybe_twice)
        for row in timed
    ]
    spent: defaultdict[int, float] = defaultdict(float)
    for row, seconds in zip(timed, effort.worked_seconds(tasks).tolist(), strict=True):
        spent[row.image_id] += seconds
    return [*spent.values()]
