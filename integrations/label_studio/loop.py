"""The loop: pull, train again when enough is new, push the next round, for as long as somebody watches.

All of its state is in the ledger, so it can be stopped anywhere and started again. A server that does not
answer is waited for, and so is another command that writes to the ledger. A connection is made anew each
time, so a renewed token is found. Where the token or the project is wrong from the start, the loop ends.

labelloop.toml is read anew in every turn, so a class that is added there is taken.

1. Pull.
2. Train when ``retrain_after`` images have labels from review that no finished run has seen, or when the
   round is finished and one has. The new run trains as the newest one did, or with the defaults where there
   is none, on all labels; one of the loop's own that was interrupted goes on. Runs that a person began are
   left alone.
3. The new model proposes from now on, unless the gate shows it worse than the one before it on validation
   images (labelloop/promotion.py). One that finished in a turn that was stopped is compared in the next.
4. Push: completes the open round, or opens the next when every task of it is settled. Before any run has
   finished its images stand for the pool, and nothing is proposed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from labelloop.budget.opening import RoundRequest
from labelloop.budget.strategies import Budget
from labelloop.errors import NothingToReviewError, ProjectError, ServerError
from labelloop.integrations.label_studio.answers import needs_a_person
from labelloop.integrations.label_studio.connecting import connected
from labelloop.integrations.label_studio.pull import pull
from labelloop.integrations.label_studio.push import push
from labelloop.plurals import plural
from labelloop.progress import Progress, Silent
from labelloop.project.ledger import LockedLedgerError
from labelloop.project.project import Project
from labelloop.proposing import last_gate, proposer
from labelloop.retraining import gate_trained, retrain
from labelloop.review.known import new_labels
from labelloop.review.rounds import current_round

ROUND = Budget(tasks=40)


@dataclass(frozen=True, kw_only=True)
class LoopStep:
    """What one turn of the loop did.

    Attributes:
        images: Images whose labels came back.
        new_labels: Images with labels from review that no finished run has seen.
        trained: Name of the run that was trained, or None.
        proposer: Name of the run whose model proposes; None before the first has finished.
        gate: Why that one: the newest decision between two runs, now or in an earlier turn. ``new`` and
            ``old`` are their names (``old`` is None for a first run); ``promote``, ``verdict``,
            ``difference`` (value, interval, n), ``rule`` and ``reason`` are those of ``GateDecision``;
            verdict and difference are None without validation images. None where the loop never trained.
        round: The round that is open now, or None where nothing is left to review.
        waiting: Its tasks that nobody has reviewed.
    """

    images: int
    new_labels: int
    trained: str | None
    proposer: str | None
    gate: dict[str, Any] | None
    round: int | None
    waiting: int


def run_loop(
    project: Project, *, every_s: float, retrain_after: int, progress: Progress | None = None
) -> LoopStep:
    """Turns until it is interrupted, or until no image is left to review.

    Args:
        project: Tied to a server by ``connect``.
        every_s: Seconds between two looks at the server.
        retrain_after: Images with new labels that are worth a training.
        progress: Where progress is reported.

    Returns:
        The last turn.

    Raises:
        ServerError: When the loop is started there is no token, or none that is good, or no such project.
    """
    watching = progress or Silent()
    _require_access(project)
    fault, answers = "", True
    while True:
        try:
            step = turn(project, retrain_after=retrain_after, progress=watching)
        except (ServerError, LockedLedgerError) as error:
            if str(error) != fault:
                fault = str(error)
                watching.note(f"{fault} Waiting for it.")
            answers = isinstance(error, ServerError)
        else:
            if fault:
                watching.note("Label Studio answers again." if answers else "The ledger can be used again.")
                fault = ""
            if step.round is None:
                watching.note("No image is left to review.")
                return step
        time.sleep(every_s)


def _require_access(project: Project) -> None:
    """Raises a ServerError where waiting would not help; a server that does not answer raises none."""
    try:
        server, settings = connected(project)
        with server:
            server.project(settings.project)
    except ServerError as error:
        if needs_a_person(error):
            raise


def turn(project: Project, *, retrain_after: int, progress: Progress | None = None) -> LoopStep:
    """One turn.

    Raises:
        ServerError: The server cannot be reached or refuses; what was done before stays done.
        ProjectError: There is no connection.
    """
    watching = progress or Silent()
    try:
        project.read_settings()
    except ProjectError as error:  # somebody may be writing it
        watching.note(f"{error} The previous settings are used until the file can be read.")
    report = pull(project, progress=watching)
    settings = project.config.label_studio
    assert settings is not None  # pull has seen it
    if report.images:
        watching.note(f"{plural(report.images, 'image')} came back from review")
    for reason in report.unusable:
        watching.note(f"left out: {reason}")
    gate_trained(project, watching)
    before = current_round(project, settings.server_name)
    new = new_labels(project)
    trained = None
    if (new >= retrain_after or (before is None and new > 0)) and _can_train(project):
        trained = retrain(project, watching)
    proposing, gate = proposer(project), last_gate(project)
    number, waiting = _push(project, proposing, watching)
    return LoopStep(
        images=report.images,
        new_labels=new,
        trained=trained,
        proposer=proposing,
        gate=gate,
        round=number,
        waiting=waiting,
    )


def _can_train(project: Project) -> bool:
    """Whether a training can begin: a first one needs an object."""
    if project.finished_runs():
        return True
    labelled = [image.id for image in project.images(split="train", labelled=True)]
    return any(bool((~labels.crowd).any()) for _, _, labels in project.iter_labels(labelled))


def _push(project: Project, run: str | None, watching: Progress) -> tuple[int | None, int]:
    """The round that is open now, or None where nothing is left to review, and its tasks that wait."""
    try:
        pushed = push(project, RoundRequest(budget=ROUND, run=run), progress=watching)
    except NothingToReviewError as error:
        watching.note(str(error))
        return None, 0
    for reason in pushed.skipped:
        watching.note(f"skipped {reason}")
    if pushed.opened:
        watching.note(f"round {pushed.round}: {plural(pushed.tasks, 'task waits', 'tasks wait')} for review")
    return pushed.round, pushed.tasks
