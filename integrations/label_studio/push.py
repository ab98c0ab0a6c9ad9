"""Review tasks on Label Studio: planned in the ledger, then sent; the next push completes what is missing.

A push that was cut off asks the server which tasks of the round it has, by their keys, and sends the rest. A
server that was still at work when it was asked has such a task twice then (``copies.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from labelloop.budget.opening import RoundRequest, open_round
from labelloop.budget.round_minutes import predicted_minutes
from labelloop.integrations.label_studio.connecting import connected
from labelloop.integrations.label_studio.labelling_config import check_config
from labelloop.integrations.label_studio.predictions import complete_predictions
from labelloop.integrations.label_studio.pushed_round import PushedRound
from labelloop.integrations.label_studio.sending import send_tasks
from labelloop.integrations.label_studio.task_data import for_people
from labelloop.progress import Progress, Silent, stage
from labelloop.project.project import Project
from labelloop.proposing import note_refusal
from labelloop.review.guards import alone, check_classes
from labelloop.review.rounds import SUSPECTS, RoundRecord, current_round, images_by_id
from labelloop.review.tasks import PLANNED, SENT, waiting_tasks


@dataclass(kw_only=True)
class PushReport:
    """What a push did.

    Attributes:
        round: Its number.
        tasks: Of the round, on the server now and not yet reviewed.
        sent: Tasks that this push made.
        regions: Objects in the tasks that this push made.
        repaired: Tasks whose prediction it put right: sent again where it was lost, or made one of several.
        deleted: Tasks that it found deleted on the server, which nobody is asked about any more.
        model_version: As the server shows it.
        opened: Whether the round is new.
        came_first: Whether the round was open already, and the request asked for another run, strategy or
            kind.
        skipped: What could not be asked about or sent, with reasons.
        predicted_minutes: What the tasks that wait should cost; None in rounds of older versions.
        predicted_minutes_low: Lower end of its 80 % interval; likewise.
        predicted_minutes_high: Upper end.
        strategy: How the round was chosen.
        chosen: The tasks that wait, as ``for_people`` says them.
    """

    round: int
    tasks: int = 0
    sent: int = 0
    regions: int = 0
    repaired: int = 0
    deleted: int = 0
    model_version: str = ""
    opened: bool = False
    came_first: bool = False
    skipped: list[str] = field(default_factory=list)
    predicted_minutes: float | None = None
    predicted_minutes_low: float | None = None
    predicted_minutes_high: float | None = None
    strategy: str = ""
    chosen: list[dict[str, Any]] = field(default_factory=list)


def push(
    project: Project,
    request: RoundRequest,
    *,
    new_round: bool = False,
    progress: Progress | None = None,
) -> PushReport:
    """Opens a round of review and sends it, or completes the one that is open.

    Args:
        project: Tied to a server by ``connect``.
        request: What a new round is to be like.
        new_round: Opens a round though the last one has tasks that nobody reviewed; completes the last one
            if it was opened so and is not sent as a whole.
        progress: Where progress is reported.

    Raises:
        NothingToReviewError: No image is left.
        ProjectError: There is no connection, or the classes have changed.
        ServerError: The server cannot be reached or refuses. The same command goes on.
    """
    watching = progress or Silent()
    with alone(project, watching):
        check_classes(project)
        client, settings = connected(project)
        server = settings.server_name
        with client:
            open_now = current_round(project, server)
            controls = check_config(client.project(settings.project).config, project.config.classes)

            def pushed(record: RoundRecord) -> PushedRound:
                """A round with all that sending it takes."""
                return PushedRound(
                    project=project,
                    client=client,
                    settings=settings,
                    controls=controls,
                    record=record,
                    progress=watching,
                )

            # The same command again goes on with the new round that it had begun to send.
            begun = open_now is not None and open_now.beside and PLANNED in open_now.tasks
            if open_now is not None and (begun or not new_round):
                report = _push(pushed(open_now), opened=False)
                report.came_first = _asks_for_another(request, open_now)
                return report
            if open_now is not None:
                pushed(open_now).find_again()  # what it does not note is dropped now
            if request.run is None and not request.suspects:
                note_refusal(project, watching)
            return _push(pushed(open_round(project, server, request, watching)), opened=True)


def _push(pushed: PushedRound, *, opened: bool) -> PushReport:
    """What is planned goes out, then the server is asked whether all is there."""
    project, record = pushed.project, pushed.record
    report = PushReport(
        round=record.id,
        model_version=record.model_version,
        opened=opened,
        strategy=record.strategy,
        skipped=[*record.left_out] if opened else [],
    )
    if not opened:
        report.deleted = pushed.find_again()
    planned = [task for task in pushed.tasks() if task.state == PLANNED]
    if planned:
        uploaded = {} if opened else pushed.client.uploads(pushed.settings.project)
        with stage(pushed.progress, "push", len(planned)):
            for part in send_tasks(pushed, planned, uploaded=uploaded, skipped=report.skipped):
                report.sent += len(part)
                report.regions += sum(len(item.regions) for item in part)
                pushed.progress.advance(len(part))
    report.repaired = complete_predictions(pushed, opened=opened)
    waiting = [task for task in waiting_tasks(project, record.id) if task.state == SENT]
    report.tasks = len(waiting)
    images = images_by_id(project, {task.image_id for task in waiting})
    report.chosen = [for_people(task, images[task.image_id]) for task in waiting]
    cost = predicted_minutes(waiting)
    report.predicted_minutes = cost.value
    report.predicted_minutes_low, report.predicted_minutes_high = cost.low, cost.high
    return report


def _asks_for_another(request: RoundRequest, record: RoundRecord) -> bool:
    """Whether a request asks for another run, strategy or kind of round than this one; auto asks for none."""
    if request.suspects:
        return record.strategy != SUSPECTS
    return (request.run is not None and request.run != record.run) or (
        request.strategy not in ("auto", record.strategy)
    )
