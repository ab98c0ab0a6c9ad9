"""Which run's model proposes in the loop, and why: what the ledger keeps of the gate's decisions."""

from __future__ import annotations

import json
import shlex
from typing import Any

from labelloop.progress import Progress
from labelloop.project.project import Project
from labelloop.project.tables import Meta

PROPOSER = "loop:run"  # in the ledger: the run whose model proposes
GATE = "loop:gate"  # in the ledger: why that one, as JSON


def proposer(project: Project) -> str | None:
    """The run whose model proposes: the newest finished one if the loop never trained, None without any."""
    with project.ledger.read() as session:
        row = session.get(Meta, PROPOSER)
    finished = [run.name for run in project.finished_runs()]
    if row is not None and row.value in finished:
        return row.value
    return finished[-1] if finished else None


def last_gate(project: Project) -> dict[str, Any] | None:
    """The newest decision between two runs; None where there was none."""
    return stored_facts(project, GATE)


def stored_facts(project: Project, key: str) -> dict[str, Any] | None:
    """What the ledger has under this name, as JSON; None where it has nothing."""
    with project.ledger.read() as session:
        row = session.get(Meta, key)
    return None if row is None else dict(json.loads(row.value))


def refusal(project: Project) -> dict[str, Any] | None:
    """The gate's decision where it refused the newest finished run and another one proposes, else None."""
    gate, finished = last_gate(project), project.finished_runs()
    if gate is None or gate["promote"] or not finished:
        return None
    refused = gate["new"] == finished[-1].name != proposer(project)
    return gate if refused else None


def note_refusal(project: Project, progress: Progress) -> None:
    """Says where the newest finished run, which is used as none was named, was refused by the loop's gate."""
    gate = refusal(project)
    if gate is not None:
        progress.note(
            f"note: the loop's gate refused {gate['new']}, which is used here ({gate['reason']});"
            f" --run {shlex.quote(gate['old'])} uses the run that proposes in the loop"
        )
