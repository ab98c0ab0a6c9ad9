"""Retraining: when the labels that came back are worth another training, and which run proposes after it.

All of its state is in the ledger, so it may be stopped anywhere: an unfinished run goes on.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select

from labelloop.distill.naming import free_name, run_stem
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import ProjectError
from labelloop.progress import Progress
from labelloop.project.project import Project, RunRecord
from labelloop.project.tables import LabelRow, Meta, RunRow
from labelloop.promotion import gate_of_runs

PROPOSER = "loop:run"  # in the ledger: the run whose model proposes
GATE = "loop:gate"  # in the ledger: why that one, as JSON
TRAINED = "loop:trained"  # in the ledger: the run that was trained last and the one before it, as JSON


def new_labels(project: Project) -> int:
    """Images whose newest labels came from review after the newest finished run began."""
    newest = select(func.max(RunRow.started_at)).where(RunRow.state == "finished").scalar_subquery()
    statement = select(func.count(func.distinct(LabelRow.image_id))).where(
        LabelRow.source.startswith("review:"), LabelRow.added_at > func.coalesce(newest, "")
    )
    with project.ledger.read() as session:
        return int(session.execute(statement).scalar_one())


def retrain(project: Project, progress: Progress) -> str:
    """Trains as the newest run was trained, on all labels; goes on with a run that was interrupted."""
    runs = project.runs()
    unfinished = [run for run in runs if run.state != "finished"]
    if unfinished:
        name = unfinished[-1].name
        request = TrainRequest(name=name, resume=True)
    else:
        request = replace(_request(project.run()), labels="all", resume=False)
        name = free_name(project, run_stem(request))
        request = replace(request, name=name)
    trained = json.dumps({"new": name, "old": proposer(project)})
    with project.ledger.write() as session:  # before it begins: it may be stopped before the gate has decided
        session.merge(Meta(key=TRAINED, value=trained))
    train(project, request, progress)
    gate_trained(project, progress)
    return name


def gate_trained(project: Project, progress: Progress) -> None:
    """Lets the gate decide about the run that was trained last, where it has not: the training was stopped.

    Runs that a person trained are not asked about: they may have been trained for anything.
    """
    trained, decided = _stored(project, TRAINED), last_gate(project)
    if trained is None or (decided is not None and decided["new"] == trained["new"]):
        return
    if any(run.name == trained["new"] and run.state == "finished" for run in project.runs()):
        _choose_proposer(project, trained["new"], trained["old"], progress)


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


def last_gate(project: Project) -> dict[str, Any] | None:
    """The newest decision between two runs; None where there was none."""
    return _stored(project, GATE)


def _stored(project: Project, key: str) -> dict[str, Any] | None:
    with project.ledger.read() as session:
        row = session.get(Meta, key)
    return None if row is None else dict(json.loads(row.value))


def proposer(project: Project) -> str:
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
