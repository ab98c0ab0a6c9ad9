from __future__ import annotations

from typing import Any

import pytest

from labelloop.integrations.label_studio.annotations import counts_drafts_twice, read_task


@pytest.mark.parametrize(
    ("version", "twice"),
    [
        ("1.23.0", False),
        ("1.14.0.post0", False),
        ("2.0", False),
        ("1.13.1", True),
        ("1.9.2", True),
        ("", None),
    ],
)
def test_releases_before_1_14_count_drafts_twice(version: str, twice: bool | None) -> None:
    assert counts_drafts_twice(version) is twice


@pytest.mark.parametrize(
    ("drafts_twice", "fields", "expected"),
    [
        (True, {"draft_created_at": "2024-01-01T00:00:00Z"}, True),
        (True, {"draft_created_at": None}, False),
        (True, {}, True),  # the server does not say whether there was a draft
        (False, {"draft_created_at": "2024-01-01T00:00:00Z"}, False),
        (None, {"draft_created_at": "2024-01-01T00:00:00Z"}, None),
    ],
)
def test_a_time_may_be_counted_twice_where_there_was_a_draft(
    drafts_twice: bool | None, fields: dict[str, Any], expected: bool | None
) -> None:
    annotation = {"id": 7, "result": [], "lead_time": 3.0, **fields}
    task = read_task("k", [{"id": 1, "annotations": [annotation]}], 1, {}, drafts_twice=drafts_twice)
    assert task is not None
    assert task.annotations[0].maybe_twice is expected
