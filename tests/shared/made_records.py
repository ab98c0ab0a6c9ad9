"""A run and a review as the ledger takes them; a test names what it is about."""

from __future__ import annotations

from typing import Any

from labelloop.project.project import RunRecord
from labelloop.review.pulled import PulledAnnotation

NOON = "2026-01-01T12:00:00Z"


def run_record(name: str = "r", **changes: Any) -> RunRecord:
    """A finished run that guided distillation won; ``state="running"`` is one that has promoted nothing."""
    begun = {"name": name, "state": "finished", "method": "guided", "model": "m", "seed": 0, "config": {}}
    running = changes.get("state", "finished") != "finished"
    ended = {"promoted": None, "result": None} if running else {"promoted": "guided", "result": {}}
    return RunRecord(**{**begun, **ended, **changes})


def pulled_annotation(result: Any = (), **changes: Any) -> PulledAnnotation:
    """A person's review with these regions, made once and not marked in any way."""
    values = {
        "server_id": 1, "created_at": NOON, "updated_at": NOON, "who": "ada", "lead_time_s": 5.0,
        "skipped": False, "ground_truth": False, "bulk": False, "result": result,
    }  # fmt: skip
    return PulledAnnotation(**{**values, **changes})
