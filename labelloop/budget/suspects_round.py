"""A round about labels that are probably wrong: ``push --suspects``.

A person is shown the labels of an image as they are, with the objects that seem to be missing, and corrects
them; what comes back is the image's next revision. Where a tile of it does not come back the labels stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from labelloop.budget.effort import EffortModel
from labelloop.budget.strategies import Budget
from labelloop.budget.timed_tasks import timed_tasks
from labelloop.budget.work import Work, mean_outline_px
from labelloop.errors import NothingToReviewError
from labelloop.instances import Instances
from labelloop.label_errors import OutOfFold, OutOfFoldSettings, Suspect, find_label_errors, out_of_fold
from labelloop.plurals import plural
from labelloop.progress import Progress
from labelloop.project.project import Project
from labelloop.project.tables import LabelRow, ReviewTaskRow, RoundRow
from labelloop.review.asked import counts_as_asked
from labelloop.review.choice import Choice
from labelloop.review.rejoin import REVIEW
from labelloop.review.rounds import SUSPECTS, RoundRecord, plan_round
from labelloop.review.tasks import UNSETTLED
from labelloop.review.tiles import review_tiles

STRATEGY = SUSPECTS
LOOKED_AT = 0.1  # of the ranked places: the rest is right far more often than not


def open_suspects_round(
    project: Project,
    server: str,
    budget: Budget,
    progress: Progress,
    *,
    settings: OutOfFoldSettings | None = None,
) -> RoundRecord:
    """Plans a round of the labelled images with the most suspicious labels, whole images at a time.

    An image is not asked about again, unless its labels have changed for another reason.

    Args:
        project: Whose labelled training images; those with unknown area, which crowds are, are left out.
        server: Where the tasks will be.
        budget: What it may cost; one image at least.
        progress: Where progress is reported.
        settings: How the models are trained that say what is suspicious.

    Raises:
        NothingToReviewError: Nothing is suspicious.
        ProjectError: Fewer than two images, or groups, have labels.
    """
    seen = out_of_fold(project, settings, progress)
    ranked = find_label_errors(seen.truth, seen.predicted, n_classes=len(project.config.classes))
    foremost = [s for s in ranked[: max(round(LOOKED_AT * len(ranked)), 1)] if s.score > 0]
    effort = EffortModel.fit(timed_tasks(project))
    choices: list[Choice] = []
    spent, asked = 0.0, _asked(project, server)
    suspicious = list(dict.fromkeys(suspect.image for suspect in foremost))
    known = [index for index in suspicious if not seen.truth[index].crowd.any()]
    for index in known:
        if seen.images[index].id in asked:
            continue
        choice = _choice(seen, index, [s for s in foremost if s.image == index], effort)
        minutes = sum(float(task["minutes"]["value"]) for task in choice.chosen)
        cost = minutes if budget.minutes is not None else float(len(choice.views))
        if choices and spent + cost > (budget.minutes or budget.tasks or 0):
            continue
        spent += cost
        choices.append(choice)
    if not choices:
        raise NothingToReviewError(
            _why_nothing(suspicious, known),
            value=plural(len(seen.images), "image"),
            way_out="labelloop check --labels lists the labels with their scores.",
        )
    return plan_round(
        project,
        choices,
        run=None,
        which=None,
        server=server,
        min_score=0.0,
        strategy=STRATEGY,
        settings={"budget": asdict(budget), "suspects": len(foremost)},
    )


def _why_nothing(suspicious: Sequence[int], known: Sequence[int]) -> str:
    """Why none of the suspicious images is asked about; ``known`` are those without unknown area."""
    if not suspicious:
        return "no label is suspicious"
    if not known:
        return "all suspicious labels are in images with unknown area or crowds, which cannot be asked about"
    rest = "all suspicious labels were reviewed or wait for it"
    return rest if len(known) == len(suspicious) else f"{rest}, or are in images with unknown area or crowds"


def _asked(project: Project, server: str) -> set[int]:
    """Images that wait for a person, or whose labels were looked through as they are now."""
    tasks = select(ReviewTaskRow.image_id, ReviewTaskRow.state, ReviewTaskRow.round_id, RoundRow.opened_at)
    tasks = tasks.join(RoundRow, RoundRow.id == ReviewTaskRow.round_id).where(counts_as_asked(server))
    waiting = tasks.where(ReviewTaskRow.state.in_(UNSETTLED))
    newest = select(LabelRow.image_id, LabelRow.source, LabelRow.added_at).order_by(LabelRow.revision)
    with project.ledger.read() as session:
        asked = {row.image_id for row in session.execute(waiting)}
        labels = {row.image_id: row for row in session.execute(newest)}
        for row in session.execute(tasks.where(RoundRow.strategy == SUSPECTS)):
            known = labels.get(row.image_id)
            if known is not None and (
                known.added_at <= row.opened_at or known.source == f"{REVIEW}round-{row.round_id}"
            ):
                asked.add(row.image_id)
    return asked


def _choice(seen: OutOfFold, index: int, suspects: Sequence[Suspect], effort: EffortModel) -> Choice:
    """One image: its labels, followed by what they may lack."""
    labels = seen.truth[index]
    missed = sorted({p for s in suspects if s.kind == "missed" for p in s.predictions})
    added = seen.predicted[index].select(missed)
    shown = Instances(
        size_hw=labels.size_hw,
        rles=(*labels.rles, *added.rles),
        labels=np.concatenate([labels.labels, added.labels]),
        scores=np.concatenate([np.ones(len(labels), np.float32), _scores(added)]),
    )
    views = review_tiles(shown)
    kinds = ", ".join(sorted({s.kind for s in suspects}))
    work = Work(
        objects=float(len(shown)), edits={"moved": float(len(suspects))}, outline_px=mean_outline_px(shown)
    )
    minutes = effort.predict(work.part(1 / len(views)))
    why = f"{plural(len(suspects), 'suspicious place')}: {kinds}"
    return Choice(
        image=seen.images[index],
        proposed=shown,
        known=len(labels),
        views=views,
        confidence=float(np.clip(1 - suspects[0].score, 0, 1)),
        chosen=tuple({"arm": STRATEGY, "why": why, "minutes": minutes.as_dict()} for _ in views),
    )


def _scores(instances: Instances) -> npt.NDArray[np.float32]:
    assert instances.scores is not None  # they are predictions
    return instances.scores
