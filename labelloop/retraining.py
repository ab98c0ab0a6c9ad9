"""Retraining: when the labels that came back are worth another training, and which run proposes after it.

All of its state is in the ledger, so it may be stopped anywhere: its own unfinished run goes on.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from labelloop.distill.naming import claimed, free_name, run_stem
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import ProjectError, TrainingError, UsageError
from labelloop.progress import Progress
from labelloop.project.project import Project, RunRecord
from labelloop.project.tables import Meta
from labelloop.promotion import gate_of_runs

PROPOSER = "loop:run"  # in the ledger: the run whose model proposes
GATE = "loop:gate"  # in the ledger: why that one, as JSON
TRAINED = "loop:trained"  # in the ledger: the run that was trained last and the one before it, as JSON


def retrain(project: Project, progress: Progress) -> str | None:
    """Trains as the newest run was trained, on all labels; goes on with its own run if that was interrupted.

    Runs that a person began are left to the person.

    Returns:
        The run's name; None where another process is training it, which is said.
    """
    began = _own_run(project)
    if began is not None and began.state != "finished":
        if _is_claimed(project, began):
            progress.note(f"the run {began.name} is trained by another process, which is waited for")
            return None
        try:
            _train(project, TrainRequest(name=began.name, resume=True), progress)
        except (TrainingError, UsageError) as error:
            progress.note(f"the run {began.name} cannot go on, another is trained: {error}")
        else:
            gate_trained(project, progress)
            return began.name
    request = _request(project)
    name = free_name(project, run_stem(request))
    _train(project, replace(request, name=name), progress)
    gate_trained(project, progress)
    return name


def _train(project: Project, request: TrainRequest, progress: Progress) -> None:
    trained = json.dumps({"new": request.name, "old": proposer(project)})
    with project.ledger.write() as session:  # before it begins: it may be stopped before the gate has decided
        session.merge(Meta(key=TRAINED, value=trained))
    train(project, request, progress)


def _own_run(project: Project) -> RunRecord | None:
    """The run that was trained last, if it has begun.

    A run that a person began meanwhile may have its name, but was not asked for by that name.
    """
    trained = _stored(project, TRAINED)
    for run in project.runs():
        if trained is not None and run.name == trained["new"] == run.config["request"]["name"]:
            return run
    return None


def _is_claimed(project: Project, run: RunRecord) -> bool:
    try:
        with claimed(project.runs_dir / run.name):
            return False
    except TrainingError:
        return True


def gate_trained(project: Project, progress: Progress) -> None:
    """Lets the gate decide about the run that was trained last, where it has not: the training was stopped.

    Runs that a person trained are not asked about: they may have been trained for anything.
    """
    trained, decided = _stored(project, TRAINED), last_gate(project)
    if trained is None or (decided is not None and decided["new"] == trained["new"]):
        return
    own = _own_run(project)
    if own is not None and own.state == "finished":
        _choose_proposer(project, trained["new"], trained["old"], progress)


def _request(project: Project) -> TrainRequest:
    """As the newest run was asked for, on all labels; without folds where there are images that validate."""
    asked: dict[str, Any] = dict(project.run().config["request"])
    known = TrainRequest.__dataclass_fields__
    request = TrainRequest(**{name: value for name, value in asked.items() if name in known})
    folds = 0 if project.images(split="val", labelled=True) else request.folds
    return replace(request, labels="all", resume=False, folds=folds)


def _choose_proposer(project: Project, new: str, before: str, progress: Progress) -> None:
    """The gate decides which run proposes, and is kept in the ledger with its reason."""
    decision = gate_of_runs(project, new=new, old=before, progress=progress)
    if decision is None:
        decided = _without_validation(project, new, before)
    else:
        decided = decision.as_dict()
    chosen = new if decided["promote"] else before
    progress.note(f"{chosen} proposes from now on; {new} beside {before}: {decided['reason']}")
    with project.ledger.write() as session:
        session.merge(Meta(key=PROPOSER, value=chosen))
        session.merge(Meta(key=GATE, value=json.dumps({"new": new, "old": before, **decided})))


def _without_validation(project: Project, new: str, before: str) -> dict[str, Any]:
    """What decides where no image can: the run that has learnt from more images, or from newer labels."""
    n_new, n_before = (len(project.run(name).config.get("train_images", ())) for name in (new, before))
    reason = "there are no validation images that neither run has learnt"
    if n_new < n_before:
        reason += f", and {new} has learnt {n_new} images, {before} {n_before}"
    return {
        "promote": n_new >= n_before,
        "verdict": None,
        "difference": None,
        "rule": "without validation images the new model is promoted, unless it has learnt fewer images",
        "reason": reason,
    }


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
    finished = [run.name for run in project.finished_runs()]
    if row is not None and row.value in finished:
        return row.value
    if not finished:
        raise ProjectError(
            "no run has finished yet, so nothing can be proposed",
            value=project.root,
            way_out="Run labelloop train.",
        )
    return finished[-1]
