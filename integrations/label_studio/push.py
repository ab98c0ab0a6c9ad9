"""Review tasks on Label Studio: planned in the ledger, then sent in chunks, each noted when it is there.

A task is made together with its prediction, in one request that the server carries out whole or not at all. A
push that was cut off asks the server which tasks of the round it has, by their keys, and sends the rest. A
server that was still at work when it was asked has such a task twice then (``copies.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from labelloop.budget.opening import RoundRequest, open_round
from labelloop.budget.round_minutes import predicted_minutes
from labelloop.errors import ImageError
from labelloop.integrations.label_studio.answers import TooLargeError
from labelloop.integrations.label_studio.client import LabelStudio
from labelloop.integrations.label_studio.connecting import connected, server_name
from labelloop.integrations.label_studio.copies import models_of, without_copies
from labelloop.integrations.label_studio.labelling_config import ControlNames, check_config
from labelloop.integrations.label_studio.regions import to_regions
from labelloop.integrations.label_studio.rendering import task_pictures
from labelloop.integrations.label_studio.task_data import task_data
from labelloop.progress import Progress, Silent, stage
from labelloop.project.config import LabelStudioConfig
from labelloop.project.project import ImageRecord, Project
from labelloop.proposing import note_refusal
from labelloop.review.edits import KeyedInstances
from labelloop.review.guards import alone, check_classes
from labelloop.review.packing import compact_json, pack_json, pack_text
from labelloop.review.rounds import SUSPECTS, RoundRecord, current_round, images_by_id, rounds, set_states
from labelloop.review.tasks import (
    DELETED,
    PLANNED,
    REVIEWED,
    SENT,
    SKIPPED,
    TaskRecord,
    mark_sent,
    proposals,
    round_tasks,
    set_numbers,
    shown_by,
    waiting_tasks,
)
from labelloop.review.unsendable import drop_unsendable

T = TypeVar("T")

CHUNK_TASKS = 50
CHUNK_BYTES = 20_000_000  # of images
TASK_BYTES = 1_000_000  # of regions: the editor stalls on more
_THERE = (SENT, REVIEWED, SKIPPED)  # states of tasks that have predictions, unless these were deleted


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
        server = server_name(settings)
        open_now = current_round(project, server)
        with client:
            controls = check_config(client.project(settings.project).config, project.config.classes)

            def sending(record: RoundRecord) -> _Sending:
                return _Sending(
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
                report = sending(open_now).run(opened=False)
                report.came_first = _asks_for_another(request, open_now)
                return report
            if open_now is not None:
                sending(open_now).find_again()  # what it does not note is dropped now
            if request.run is None and not request.suspects:
                note_refusal(project, watching)
            return sending(open_round(project, server, request, watching)).run(opened=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    """A task ready to be sent."""

    task: TaskRecord
    png: bytes
    regions: list[dict[str, Any]]
    packed: bytes  # the regions, for the ledger
    data: dict[str, Any]

    @property
    def file_name(self) -> str:
        return f"{self.task.key}.png"


@dataclass(kw_only=True, eq=False)
class _Sending:
    """One push: what is planned goes out, then the server is asked whether all is there."""

    project: Project
    client: LabelStudio
    settings: LabelStudioConfig
    controls: ControlNames
    record: RoundRecord
    progress: Progress

    def run(self, *, opened: bool) -> PushReport:
        report = PushReport(
            round=self.record.id,
            model_version=self.record.model_version,
            opened=opened,
            strategy=self.record.strategy,
            skipped=[*self.record.left_out] if opened else [],
        )
        uploaded: dict[str, str] = {}
        if not opened:
            report.deleted = self.find_again()
            uploaded = self.client.uploads(self.settings.project)
        planned = [task for task in round_tasks(self.project, self.record.id) if task.state == PLANNED]
        if planned:
            with stage(self.progress, "push", len(planned)):
                for chunk in self._prepared(planned, report):
                    for part in _in_parts(chunk, partial(self._send, uploaded=uploaded)):
                        report.sent += len(part)
                        report.regions += sum(len(item.regions) for item in part)
                        self.progress.advance(len(part))
        self._complete(report)
        waiting = [task for task in waiting_tasks(self.project, self.record.id) if task.state == SENT]
        report.tasks = len(waiting)
        cost = predicted_minutes(waiting)
        report.predicted_minutes = cost.value
        report.predicted_minutes_low, report.predicted_minutes_high = cost.low, cost.high
        return report

    def find_again(self) -> int:
        """Adopts tasks that are on the server but not noted, and notices those that are gone: how many."""
        there = self._of_round()
        tasks = round_tasks(self.project, self.record.id)
        found = [task for task in tasks if task.state == PLANNED and task.key in there]
        shown = self._shown(found)
        mark_sent(
            self.project,
            [
                (task.key, there[task.key]["id"], pack_json(self._regions(task, shown[task.key])))
                for task in found
            ],
        )
        numbers = {task.key: int(there[task.key]["id"]) for task in tasks if task.key in there}
        moved = [t.key for t in tasks if t.key in numbers and t.server_id not in (None, numbers[t.key])]
        if moved:
            set_numbers(self.project, {key: numbers[key] for key in moved})
        gone = [task.key for task in tasks if task.state == SENT and task.key not in there]
        set_states(self.project, dict.fromkeys(gone, DELETED))
        return len(gone)

    def _of_round(self) -> dict[str, Mapping[str, Any]]:
        """The round's tasks on the server, by key."""
        numbers = {task.key: task.server_id for task in round_tasks(self.project, self.record.id)}
        return without_copies(self.client, self.settings.project, self.record.id, numbers, self.progress)

    def _shown(self, tasks: Sequence[TaskRecord]) -> dict[str, KeyedInstances]:
        """What each task shows, in the coordinates of its tile, by the task's key."""
        with self.project.ledger.read() as session:
            of_image = proposals(session, self.record.id, list({task.image_id for task in tasks}))
        return {task.key: shown_by(task, of_image[task.image_id]) for task in tasks}

    def _regions(self, task: TaskRecord, shown: KeyedInstances) -> list[dict[str, Any]]:
        return to_regions(shown.instances, shown.keys, self.project.config.classes, self.controls)

    def _prepared(self, planned: Sequence[TaskRecord], report: PushReport) -> Iterator[list[_Prepared]]:
        """Chunks of tasks; the next one is made ready while the server is busy with the last."""
        images = images_by_id(self.project, {task.image_id for task in planned})
        pieces = [planned[start : start + CHUNK_TASKS] for start in range(0, len(planned), CHUNK_TASKS)]
        with ThreadPoolExecutor(1, "labelloop-push") as thread:
            waiting = thread.submit(self._prepare, pieces[0], images)
            for following in [*pieces[1:], None]:
                ready, unreadable, ragged = waiting.result()
                if following is not None:
                    waiting = thread.submit(self._prepare, following, images)
                report.skipped += [*unreadable.values(), *ragged.values()]
                drop_unsendable(self.project, [*unreadable, *ragged], ragged=ragged.keys())
                yield from _limited(ready)

    def _prepare(
        self, tasks: Sequence[TaskRecord], images: Mapping[int, ImageRecord]
    ) -> tuple[list[_Prepared], dict[str, str], dict[str, str]]:
        """Tasks ready to send; why others cannot be, by key, for their images and for their masks.

        Tiles of one image are read once.
        """
        ready: list[_Prepared] = []
        unreadable: dict[str, str] = {}
        ragged: dict[str, str] = {}
        shown = self._shown(tasks)
        for image_id in dict.fromkeys(task.image_id for task in tasks):
            image = images[image_id]
            of_image = [task for task in tasks if task.image_id == image_id]
            try:
                pictures = task_pictures(image, [task.tile for task in of_image])
            except ImageError as error:
                unreadable |= {task.key: str(error) for task in of_image}
                continue
            for task, png in zip(of_image, pictures, strict=True):
                regions = self._regions(task, shown[task.key])
                text = compact_json(regions)
                if len(text) > TASK_BYTES:
                    ragged[task.key] = f"{image.path}: its masks are too ragged for the editor (above 1 MB)"
                    continue
                data = task_data(task, image)
                ready.append(
                    _Prepared(task=task, png=png, regions=regions, packed=pack_text(text), data=data)
                )
        return ready, unreadable, ragged

    def _send(self, chunk: Sequence[_Prepared], *, uploaded: dict[str, str]) -> None:
        missing = {item.file_name: item.png for item in chunk if item.file_name not in uploaded}
        if missing:
            uploaded |= self.client.upload(self.settings.project, missing)
        tasks: list[dict[str, Any]] = [
            {
                "data": {"image": uploaded[item.file_name], **item.data},
                "predictions": [self._prediction(item.task, item.regions)],
            }
            for item in chunk
        ]
        ids = self.client.create_tasks(self.settings.project, tasks)
        mark_sent(
            self.project,
            [(item.task.key, number, item.packed) for item, number in zip(chunk, ids, strict=True)],
        )

    def _prediction(self, task: TaskRecord, regions: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "result": regions,
            "model_version": self.record.model_version,
            "score": round(task.confidence, 4),
        }

    def _complete(self, report: PushReport) -> None:
        """Every task has its prediction once, the newest model orders them, and old models are gone."""
        version, project = self.record.model_version, self.settings.project
        n_waiting = len(self._waiting())
        versions = self.client.model_versions(project)
        # All tasks of a new round were made just now, each together with its prediction.
        if not report.opened or versions.get(version, 0) != n_waiting:
            n_waiting = self._repair(report)
            versions = self.client.model_versions(project)
        if n_waiting:
            self.client.set_model_version(project, version)
        server = server_name(self.settings)
        old = [r for r in rounds(self.project) if r.server == server and r.id != self.record.id]
        for record in old:
            there = versions.get(record.model_version, 0)
            if there and not record.unsettled:
                self.client.delete_model_version(project, record.model_version)
            elif record.tasks.get(SENT) and there < sum(record.tasks.get(state, 0) for state in _THERE):
                # Its predictions were deleted when all was settled, and something is to be done again.
                replace(self, record=record)._repair(report)

    def _waiting(self) -> set[str]:
        """Keys of the tasks that were sent and not reviewed."""
        return {task.key for task in round_tasks(self.project, self.record.id) if task.state == SENT}

    def _repair(self, report: PushReport) -> int:
        """Gives each task that waits its prediction once; how many of them are on the server."""
        version, waiting = self.record.model_version, self._waiting()
        there = {key: task for key, task in self._of_round().items() if key in waiting}
        bare = {key for key, task in there.items() if version not in models_of(task)}
        self._predict_again(bare, there)
        report.repaired += len(bare)
        for task in there.values():
            if int(task.get("total_predictions") or 0) > len(models_of(task)):
                ours = [number for number, model in self.client.predictions(task["id"]) if model == version]
                for number in sorted(ours)[1:]:
                    self.client.delete_prediction(number)
                report.repaired += len(ours) > 1
        return len(there)

    def _predict_again(self, keys: set[str], there: Mapping[str, Mapping[str, Any]]) -> None:
        """Sends the predictions of tasks that have lost theirs."""
        if not keys:
            return
        tasks = round_tasks(self.project, self.record.id, with_sent=True)
        bare = [task for task in tasks if task.key in keys]
        shown = self._shown([task for task in bare if task.sent is None])
        predictions = [
            {
                "task": there[task.key]["id"],
                **self._prediction(
                    task, self._regions(task, shown[task.key]) if task.sent is None else task.sent
                ),
            }
            for task in bare
        ]
        for start in range(0, len(predictions), CHUNK_TASKS):
            some = predictions[start : start + CHUNK_TASKS]
            list(_in_parts(some, partial(self.client.create_predictions, self.settings.project)))


def _asks_for_another(request: RoundRequest, record: RoundRecord) -> bool:
    """Whether a request asks for another run, strategy or kind of round than this one; auto asks for none."""
    if request.suspects:
        return record.strategy != SUSPECTS
    return (request.run is not None and request.run != record.run) or (
        request.strategy not in ("auto", record.strategy)
    )


def _in_parts(items: Sequence[T], send: Callable[[Sequence[T]], None]) -> Iterator[Sequence[T]]:
    """Sends items and gives those that were sent; in halves, and so on, where a request is too large."""
    try:
        send(items)
    except TooLargeError:
        if len(items) == 1:
            raise
        yield from _in_parts(items[: len(items) // 2], send)
        yield from _in_parts(items[len(items) // 2 :], send)
    else:
        yield items


def _limited(ready: list[_Prepared]) -> Iterator[list[_Prepared]]:
    """The same in order, in chunks of so many bytes."""
    chunk: list[_Prepared] = []
    size = 0
    for item in ready:
        if chunk and size + len(item.png) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item.png)
    if chunk:
        yield chunk
