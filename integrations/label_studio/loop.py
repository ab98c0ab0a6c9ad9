"""The loop: pull, train again when enough is new, push the next round, for as long as somebody watches.

All of its state is in the ledger, so it can be stopped anywhere and started again. A server that does not
answer is waited for; a connection is made anew each time, so a renewed token is found.

1. Pull.
2. Train when ``retrain_after`` images have labels from review that no finished run has seen, or when the
   round is finished and one has. The new run trains as the newest one did, on all labels; an unfinished run
   goes on.
3. The new model proposes from now on, unless the gate shows it worse than the one before it on validation
   images (labelloop/promotion.py).
4. Push: completes the open round, or opens the next when every task of it is settled.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import func, select

from labelloop.budget.opening import RoundRequest
from labelloop.budget.strategies import Budget
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import NothingToReviewError, ProjectError, ServerError
from labelloop.integrations.label_studio.connecting import server_name
from labelloop.integrations.label_studio.pull import pull
from labelloop.integrations.label_studio.push import push
from labelloop.progress import Progress, Silent
from labelloop.project.project import Project, RunRecord
from labelloop.project.tables import LabelRow, Meta, RunRow
from labelloop.promotion import gate_of_runs
from labelloop.review.rounds import current_round

PROPOSER = "loop:run"  # in the ledger: the run whose model proposes
GATE = "loop:gate"  # in the ledger: why that one, as JSON
ROUND = Budget(tasks=40)


@dataclass(frozen=True, kw_only=True)
class LoopStep:
    """What one turn of the loop did.

    Attributes:
        images: Images whose labels came back.
        new_labels: Images with labels from review that no finished run has seen.
        trained: Name of the run that was trained, or None.
        proposer: Name of the run whose model proposes.
        gate: Why that one: the newest decision between two runs, now or in an earlier turn. ``new`` and
            ``old`` are their names; ``promote``, ``verdict``, ``difference`` (value, interval, n), ``rule``
            and ``reason`` are those of ``GateDecision``; verdict and difference are None without validation
            images. None where the loop never trained.
        round: The round that is open now, or None where nothing is left to review.
        waiting: Its tasks that nobody has reviewed.
    """

    images: int
    new_labels: int
    trained: str | None
    proposer: str
    gate: dict[str, Any] | None
    round: int | None
    waiting: int


def run_loop(
    project: Project, *, every_s: float, retrain_after: int, progress: Progress | None = None
) -> LoopStep:
    """Turns until it is interrupted, or until no image is left to review.

    Args:
        project: Tied to a server by ``connect``, with a finished run.
        every_s: Seconds between two looks at the server.
        retrain_after: Images with new labels that are worth a training.
        progress: Who watches.

    Returns:
        The last turn.
    """
    watching = progress or Silent()
    fault = ""
    while True:
        try:
            step = turn(project, retrain_after=retrain_after, progress=watching)
        except ServerError as error:
            if str(error) != fault:
                fault = str(error)
                watching.note(f"{fault} Waiting for it.")
        else:
            if fault:
                watching.note("Label Studio answers again.")
                fault = ""
            if step.round is None:
                watching.note("No image is left to review.")
                return step
        time.sleep(every_s)


def turn(project: Project, *, retrain_after: int, progress: Progress | None = None) -> LoopStep:
    """One turn.

    Raises:
        ServerError: The server cannot be reached or refuses; what was done before stays done.
        ProjectError: There is no connection or no finished run.
    """
    watching = progress or Silent()
    report = pull(project, progress=watching)
    settings = project.config.label_studio
    assert settings is not None  # pull has seen it
    if report.images:
        watching.note(f"{report.images} images came back from review")
    before = current_round(project, server_name(settings))
    new = new_labels(project)
    trained = None
    if new >= retrain_after or (before is None and new > 0):
        trained = _train(project, watching)
    proposer, gate = _proposer(project), _gate(project)
    try:
        pushed = push(project, RoundRequest(budget=ROUND, run=proposer), progress=watching)
    except NothingToReviewError as error:
        watching.note(str(error))
        return LoopStep(
            images=report.images,
            new_labels=new,
            trained=trained,
            proposer=proposer,
            gate=gate,
            round=None,
            waiting=0,
        )
    for reason in pushed.skipped:
        watching.note(f"skipped {reason}")
    if pushed.opened:
        watching.note(f"round {pushed.round}: {pushed.tasks} tasks wait for review")
    return LoopStep(
        images=report.images,
        new_labels=new,
        trained=trained,
        proposer=proposer,
        gate=gate,
        round=pushed.round,
        waiting=pushed.tasks,
    )


def new_labels(project: Project) -> int:
    """Images whose newest labels came from review after the newest finished run began."""
    newest = select(func.max(RunRow.started_at)).where(RunRow.state == "finished").scalar_subquery()
    statement = select(func.count(func.distinct(LabelRow.image_id))).where(
        LabelRow.source.startswith("review:"), LabelRow.added_at > func.coalesce(newest, "")
    )
    with project.ledger.read() as session:
        return int(session.execute(statement).scalar_one())


def _train(project: Project, progress: Progress) -> str:
    """Trains as the newest run was trained, on all labels; goes on with a run that was interrupted."""
    runs = project.runs()
    unfinished = [run for run in runs if run.state != "finished"]
    if unfinished:
        request = TrainRequest(name=unfinished[-1].name, resume=True)
    else:
        request = replace(_request(project.run()), labels="all", name=None, resume=False)
    before = _proposer(project)
    result = train(project, request, progress)
    _choose_proposer(project, str(result["run"]), before, progress)
    return str(result["run"])


def _request(run: RunRecord) -> TrainRequest:
    asked: dict[str, Any] = dict(run.config["request"])
    known = TrainRequest.__dataclass_fields__
    return TrainRequest(**{name: value for name, value in asked.items() if name in known})


def _choose_proposer(project: Project, new: str, before: str, progress: Progress) -> None:
    """The gate decides which run proposes, and is kept in the ledger with its reason."""
    decision = gate_of_runs(project, new=new, old=before, progress=progress)
    if decision is None:
        decided: dict[str, Any] = {
            "promote": True,
            "verdict": None,
            "difference": None,
            "rule": "without validation images the new model is promoted, as it has learnt more labels",
            "reason": "there are no validation images that neither run has learnt",
        }
    else:
        decided = decision.as_dict()
    chosen = new if decided["promote"] else before
    progress.note(f"{chosen} proposes from now on; {new} beside {before}: {decided['reason']}")
    with project.ledger.write() as session:
        session.merge(Meta(key=PROPOSER, value=chosen))
        session.merge(Meta(key=GATE, value=json.dumps({"new": new, "old": before, **decided})))


def _gate(project: Project) -> dict[str, Any] | None:
    with project.ledger.read() as session:
        row = session.get(Meta, GATE)
    return None if row is None else dict(json.loads(row.value))


def _proposer(project: Project) -> str:
    """The run whose model proposes: the newest finished one if the loop never trained."""
    with project.ledger.read() as session:
        row = session.get(Meta, PROPOSER)
    finished = [run.name for run in project.runs() if run.state == "finished"]
    if row is not None and row.value in finished:
        return row.value
    if not finished:
        raise ProjectError(
            "no run has finished yet, so nothing can be proposed",
            value=project.root,
            way_out="Run labelloop train.",
        )
    return finished[-1]
