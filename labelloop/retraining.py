"""Retraining: when the labels that came back are worth another training, and which run proposes after it.

All of its state is in the ledger, so it may be stopped anywhere: its own unfinished run goes on.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from labelloop.distill.naming import claimed, free_name, run_stem
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import TrainingError, UsageError
from labelloop.plurals import plural
from labelloop.progress import Progress
from labelloop.project.project import Project, RunRecord
from labelloop.project.tables import Meta
from labelloop.promotion import gate_of_runs
from labelloop.proposing import GATE, PROPOSER, last_gate, proposer, stored_facts

TRAINED = "loop:trained"  # in the ledger: the run that was trained last and the one before it, as JSON
_FIRST = "no run had finished before it"


def retrain(project: Project, progress: Progress) -> str | None:
    """Trains as the newest run was trained, on all labels; goes on with its own run if that was interrupted.

    Where no run has finished it trains with the defaults. Runs that a person began are left to the person.

    Returns:
        The run's name; None where another process is training it, which is reported.
    """
    began = _own_run(project)
    if began is not None and began.state != "finished":
        if _is_claimed(project, began):
            progress.note(f"another process is training the run {began.name}; waiting for it")
            return None
        try:
            _train(project, TrainRequest(name=began.name, resume=True), progress)
        except (TrainingError, UsageError) as error:
            progress.note(f"the run {began.name} cannot be continued, so another is trained: {error}")
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
    trained = stored_facts(project, TRAINED)
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
    trained, decided = stored_facts(project, TRAINED), last_gate(project)
    if trained is None or (decided is not None and decided["new"] == trained["new"]):
        return
    own = _own_run(project)
    if own is not None and own.state == "finished":
        _choose_proposer(project, trained["new"], trained["old"], progress)


def _request(project: Project) -> TrainRequest:
    """As the newest run was asked for, on all labels; without folds where there are images that validate."""
    finished = project.finished_runs()
    asked: dict[str, Any] = finished[-1].config["request"] if finished else {}
    known = TrainRequest.__dataclass_fields__
    request = TrainRequest(**{name: value for name, value in asked.items() if name in known})
    folds = 0 if project.images(split="val", labelled=True) else request.folds
    return replace(request, labels="all", resume=False, folds=folds)


def _choose_proposer(project: Project, new: str, before: str | None, progress: Progress) -> None:
    """The gate decides which run proposes, and is kept in the ledger with its reason."""
    if before is None:
        chosen, decided = new, _decided(promote=True, rule="the first run proposes", reason=_FIRST)
        progress.note(f"{new} proposes from now on: {_FIRST}")
    else:
        decision = gate_of_runs(project, new=new, old=before, progress=progress)
        decided = _without_validation(project, new, before) if decision is None else decision.as_dict()
        chosen = new if decided["promote"] else before
        progress.note(f"{chosen} proposes from now on; {new} beside {before}: {decided['reason']}")
    with project.ledger.write() as session:
        session.merge(Meta(key=PROPOSER, value=chosen))
        session.merge(Meta(key=GATE, value=json.dumps({"new": new, "old": before, **decided})))


def _without_validation(project: Project, new: str, before: str) -> dict[str, Any]:
    """What decides where no image can: the run that has learnt from more images, or from newer labels."""
    n_new, n_before = (len(project.run(name).config.get("train_images", ())) for name in (new, before))
    reason = "there are no validation images that neither run was trained on"
    if n_new < n_before:
        reason += f", and {new} was trained on {plural(n_new, 'image')}, {before} on {n_before}"
    rule = "without validation images the new model is promoted, unless it was trained on fewer images"
    return _decided(promote=n_new >= n_before, rule=rule, reason=reason)


def _decided(*, promote: bool, rule: str, reason: str) -> dict[str, Any]:
    """A decision that no images stand behind, as ``GateDecision.as_dict`` has those of the gate."""
    return {"promote": promote, "verdict": None, "difference": None, "rule": rule, "reason": reason}
