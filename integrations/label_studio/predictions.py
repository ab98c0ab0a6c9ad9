"""The predictions of rounds on the server: each task that waits has its own once, and old models are gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from labelloop.integrations.label_studio.copies import models_of
from labelloop.integrations.label_studio.pushed_round import PushedRound
from labelloop.integrations.label_studio.sending import CHUNK_TASKS, in_parts
from labelloop.project.tables import Meta
from labelloop.review.rounds import rounds
from labelloop.review.tasks import REVIEWED, SENT, SKIPPED

_THERE = (SENT, REVIEWED, SKIPPED)  # states of tasks that have predictions, unless these were deleted


def complete_predictions(pushed: PushedRound, *, opened: bool) -> int:
    """Every task has its prediction once, the newest model orders them, and old models are gone.

    Args:
        pushed: The newest round of its server.
        opened: Whether it is new: all its tasks were made just now, each together with its prediction.

    Returns:
        Tasks whose prediction was put right, of older rounds too.
    """
    version, project = pushed.record.model_version, pushed.settings.project
    n_waiting, repaired = len(pushed.waiting()), 0
    versions = pushed.client.model_versions(project)
    if not opened or versions.get(version, 0) != n_waiting:
        n_waiting, repaired = _repair(pushed)
        versions = pushed.client.model_versions(project)
    if n_waiting:
        pushed.client.set_model_version(project, version)
    server = pushed.settings.server_name
    old = [r for r in rounds(pushed.project) if r.server == server and r.id != pushed.record.id]
    for record in old:
        there = versions.get(record.model_version, 0)
        if there and not record.unsettled:
            pushed.client.delete_model_version(project, record.model_version)
        elif record.tasks.get(SENT) and there < sum(record.tasks.get(state, 0) for state in _THERE):
            # Its predictions were deleted when all was settled, and something is to be done again.
            repaired += _repair_old(replace(pushed, record=record), there)
    return repaired


def _repair_old(pushed: PushedRound, n_there: int) -> int:
    """Repairs a round that is not the newest; how many of its tasks.

    Where nothing was to be put right the server is not asked again, as long as the same tasks wait and it has
    as many predictions of the round.
    """
    looked_at = f"push:whole:{pushed.record.id}"
    state = json.dumps([n_there, sorted(pushed.waiting())])
    with pushed.project.ledger.read() as session:
        known = session.get(Meta, looked_at)
    if known is not None and known.value == state:
        return 0
    _, repaired = _repair(pushed)
    if not repaired:
        with pushed.project.ledger.write() as session:
            session.merge(Meta(key=looked_at, value=state))
    return repaired


def _repair(pushed: PushedRound) -> tuple[int, int]:
    """Gives each task that waits its prediction once.

    Returns:
        How many tasks that wait are on the server, and of how many the prediction was put right.
    """
    version, waiting = pushed.record.model_version, pushed.waiting()
    there = {key: task for key, task in pushed.there().items() if key in waiting}
    bare = {key for key, task in there.items() if version not in models_of(task)}
    _predict_again(pushed, bare, there)
    repaired = len(bare)
    for task in there.values():
        if int(task.get("total_predictions") or 0) > len(models_of(task)):
            ours = [number for number, model in pushed.client.predictions(task["id"]) if model == version]
            for number in sorted(ours)[1:]:
                pushed.client.delete_prediction(number)
            repaired += len(ours) > 1
    return len(there), repaired


def _predict_again(pushed: PushedRound, keys: set[str], there: Mapping[str, Mapping[str, Any]]) -> None:
    """Sends the predictions of tasks that have lost theirs."""
    if not keys:
        return
    bare = [task for task in pushed.tasks(with_sent=True) if task.key in keys]
    shown = pushed.shown([task for task in bare if task.sent is None])
    predictions = [
        {
            "task": there[task.key]["id"],
            **pushed.prediction(
                task, pushed.regions(task, shown[task.key]) if task.sent is None else task.sent
            ),
        }
        for task in bare
    ]
    for start in range(0, len(predictions), CHUNK_TASKS):
        some = predictions[start : start + CHUNK_TASKS]
        list(in_parts(some, partial(pushed.client.create_predictions, pushed.settings.project)))
