"""Opens a round of review: what the pool holds, what each image would cost, and which are asked about.

The same code serves ``push`` and ``simulate``. What costs time (predictions, doubts, embeddings) is kept in
the ledger as it is made, so an interrupted opening goes on; the round itself is planned in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select

from labelloop.budget.audit import Audit, audit_rounds
from labelloop.budget.embeddings import Picture, embed
from labelloop.budget.proposer import Proposer, Unit
from labelloop.budget.sendable import choose_readable, named, reading_faults
from labelloop.budget.strategies import NEED_A_MODEL, NEED_DOUBT, Budget, Pool, Strategy
from labelloop.errors import NothingToReviewError, UsageError
from labelloop.plurals import plural
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord, Project
from labelloop.project.tables import RoundRow
from labelloop.review.asked import Box, asked_boxes
from labelloop.review.partly import PartlyReviewed, partly_reviewed
from labelloop.review.rounds import RoundRecord, plan_round
from labelloop.review.unsendable import ragged_tiles


@dataclass(frozen=True, kw_only=True)
class RoundRequest:
    """What a round is to be like.

    Attributes:
        budget: What it may cost.
        strategy: How to choose.
        run: Whose model proposes; None for the newest finished run's promoted one, or none where there is no
            finished run.
        seed: Of the draw.
        only: Image ids that may be asked about; None for all without labels.
        suspects: The round is about labels that are probably wrong; strategy, run and seed do not matter.
    """

    budget: Budget
    strategy: Strategy = "auto"
    run: str | None = None
    seed: int = 0
    only: frozenset[int] | None = None
    suspects: bool = False


def open_round(project: Project, server: str, request: RoundRequest, progress: Progress) -> RoundRecord:
    """Chooses and plans a round.

    Args:
        project: Whose pool.
        server: Where the tasks will be.
        request: What is asked for.
        progress: Where progress is reported.

    Raises:
        NothingToReviewError: No image is left.
        UsageError: The strategy needs a model and there is none.
    """
    if request.suspects:
        from labelloop.budget.suspects_round import open_suspects_round  # which trains, with torch

        return open_suspects_round(project, server, request.budget, progress)
    asked, partly = asked_boxes(project, server), partly_reviewed(project, server)
    images = _askable(project, set(asked), partly, request.only)
    strategy, audit = _audited(project, server, request.strategy, progress)
    twice = strategy in NEED_DOUBT
    proposer = Proposer(project, images, partly, run=request.run, twice=twice, progress=progress)
    units = proposer.units
    if proposer.run is None:
        _check_needs_no_model(request.strategy)
    ragged = ragged_tiles(project, run=proposer.run, which=proposer.which)
    sendable = [i for i, unit in enumerate(units) if (unit.image.id, _box(unit)) not in ragged]
    unreadable = reading_faults(proposer.unreadable)
    if not sendable:
        raise _nothing_left(project, [*unreadable.values()], n_ragged=len(units))
    number = 1 + _rounds_before(project, server)
    picked = choose_readable(
        _pool(project, proposer, asked, progress),
        [unit.image for unit in units],
        request.budget,
        strategy,
        allowed=np.array(sendable, np.int64),
        seed=(request.seed, number),
    )
    unreadable |= picked.faults
    if not picked.picks:
        raise _nothing_left(project, [*unreadable.values()], n_ragged=len(units) - len(sendable))
    _note_alike(picked.alike, progress)
    settings = {
        "asked_strategy": request.strategy,
        "budget": asdict(request.budget),
        "seed": request.seed,
        "number": number,
        "pool": len(units),
        "left_out": named([*unreadable.values()]),
        "audit": None if audit is None else audit.as_dict(),
    }
    return plan_round(
        project,
        proposer.choices(picked.picks),
        run=proposer.run,
        which=proposer.which,
        server=server,
        min_score=proposer.min_score,
        strategy=strategy,
        settings=settings,
    )


def _note_alike(alike: int, progress: Progress) -> None:
    if alike:
        tasks = plural(alike, "task that would fit looks", "tasks that would fit look")
        progress.note(
            f"Part of the budget is not used: {tasks} almost like what is labelled or"
            " asked about. --strategy random takes such tasks too."
        )


def _check_needs_no_model(strategy: Strategy) -> None:
    if strategy in NEED_A_MODEL:
        raise UsageError(
            "this strategy needs a model, and no run has finished",
            value=strategy,
            way_out="Run labelloop train, or choose with --strategy auto, diversity or random.",
        )


def _nothing_left(project: Project, unreadable: Sequence[str], *, n_ragged: int) -> NothingToReviewError:
    """Why there is no task to ask about."""
    lacks = []
    if unreadable:
        lacks.append(f"{plural(len(unreadable), 'image')} cannot be read, such as: {unreadable[0]}")
    if n_ragged:
        lacks.append(f"{plural(n_ragged, 'task has', 'tasks have')} masks too ragged for the editor")
    way_out = "Every image of the pool has labels or was sent for review. Run labelloop add images."
    if n_ragged:
        way_out = "Train another model, or label these images elsewhere and add the labels."
    if unreadable:
        way_out = "Put the images back, or add them from their new place with labelloop add images."
    why = f" ({'; '.join(lacks)})" if lacks else ""
    return NothingToReviewError(f"no image is left to review{why}", value=project.root, way_out=way_out)


def _pool(
    project: Project, proposer: Proposer, asked: Mapping[int, Sequence[Box]], progress: Progress
) -> Pool:
    """The proposer's units as strategies see them, beside what is known."""
    units = proposer.units
    pictures = [Picture(image=unit.image, box=unit.view.tile.box if unit.view else None) for unit in units]
    ours = {picture.key for picture in pictures}
    known = [picture for picture in _known(project, asked) if picture.key not in ours]
    vectors = embed(project, [*pictures, *known], progress=progress)
    ids = np.array([unit.image.id for unit in units], np.int64)
    groups = _groups([picture.image for picture in [*pictures, *known]])
    return Pool(
        minutes=np.array([unit.minutes.value for unit in units]),
        shown=np.array([unit.shown for unit in units], np.int64),
        doubt=np.array([unit.doubt for unit in units]) if proposer.run is not None else None,
        vectors=vectors[: len(units)],
        known=vectors[len(units) :],
        groups=groups[: len(units)],
        known_groups=groups[len(units) :],
        images=np.unique(ids, return_inverse=True)[1],
        asked=np.array([len(asked.get(i, ())) for i in ids.tolist()], np.int64),
    )


def _box(unit: Unit) -> Box:
    """What a unit shows of its image: top, left, bottom, right, px."""
    return unit.view.tile.box if unit.view else (0, 0, *unit.image.size_hw)


def _audited(
    project: Project, server: str, strategy: Strategy, progress: Progress
) -> tuple[Strategy, Audit | None]:
    """The strategy; random in place of auto, for this round, where the audit of those before says so."""
    if strategy != "auto":
        return strategy, None
    audit = audit_rounds(project, server)
    if audit is not None and audit.falls_back:
        progress.note(audit.verdict)
        return "random", audit
    return "auto", audit


def _rounds_before(project: Project, server: str) -> int:
    with project.ledger.read() as session:
        statement = select(func.count()).select_from(RoundRow).where(RoundRow.server == server)
        return int(session.execute(statement).scalar_one())


def _askable(
    project: Project, asked: set[int], partly: Mapping[int, PartlyReviewed], only: frozenset[int] | None
) -> list[ImageRecord]:
    """Images without labels that were not asked about, and fields that were reviewed in part."""
    unlabelled = {image.id for image in project.images(split="train", labelled=False)}
    wanted = (unlabelled - asked) | partly.keys()
    if only is not None:
        wanted &= only
    return [image for image in project.images(split="train") if image.id in wanted]


def _known(project: Project, asked: Mapping[int, Sequence[Box]]) -> list[Picture]:
    """Images to train on that have labels or were asked about, and the tiles that were asked about."""
    labelled = {image.id for image in project.images(split="train", labelled=True)}
    images = [image for image in project.images(split="train") if image.id in labelled | asked.keys()]
    tiles = [
        Picture(image=image, box=box)
        for image in images
        for box in asked.get(image.id, ())
        if box != (0, 0, *image.size_hw)
    ]
    return [*(Picture(image=image) for image in images), *tiles]


def _groups(images: Sequence[ImageRecord]) -> npt.NDArray[np.int64]:
    """int64 (n,): a number for each group; images without one share a number."""
    numbers: dict[str | None, int] = {}
    return np.array([numbers.setdefault(image.group, len(numbers)) for image in images], np.int64)
