"""What comes back from review, before it is in the ledger, and what a pull says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from labelloop.review.edits import EDIT_KINDS, KeyedInstances
from labelloop.review.tasks import TaskRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class PulledAnnotation:
    """One annotation as the server has it now.

    Attributes:
        server_id: Its number there.
        created_at: As the server says it.
        updated_at: As the server says it; another one is another state.
        who: Who made it.
        lead_time_s: Seconds a person had it open, or None.
        skipped: The person declined the task.
        ground_truth: It is marked so.
        bulk: It was accepted with many others at once.
        result: Its regions, in the server's words; anything where it is damaged.
        maybe_twice: Whether the server may have counted a draft's time twice; None where that is not known.
    """

    server_id: int
    created_at: str
    updated_at: str
    who: str
    lead_time_s: float | None
    skipped: bool
    ground_truth: bool
    bulk: bool
    result: Any
    maybe_twice: bool | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PulledTask:
    """A task with all its annotations, as the server has them now."""

    key: str
    server_id: int
    annotations: tuple[PulledAnnotation, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadReview:
    """An annotation in labelloop's words.

    Attributes:
        objects: In the coordinates of the task's tile.
        untouched: Keys that came back as they were sent.
        unusable: Regions that say nothing that can be used, with reasons.
        unknown: Run lengths, in the task's tile, of objects that are there without a class that the project
            has, by key.
        lost: Something else that is unusable may have been an object, who knows where.
    """

    objects: KeyedInstances
    untouched: frozenset[str]
    unusable: tuple[str, ...] = ()
    unknown: Mapping[str, bytes] = field(default_factory=dict)
    lost: bool = False

    @property
    def says_nothing(self) -> bool:
        """Whether nothing in it can be used, though a person left something: no image is empty by that."""
        return not self.objects.keys and (self.lost or bool(self.unknown))


ReadResult = Callable[[TaskRecord, Any, KeyedInstances], ReadReview]


@dataclass(kw_only=True)
class PullReport:
    """What a pull brought.

    Attributes:
        annotations_new: Annotations that were not known.
        annotations_changed: Known ones that were changed.
        annotations_gone: Known ones that were deleted.
        edits: How many of each kind, in the annotations that count.
        minutes: That people had annotations open since the last pull.
        images: Images whose labels are new.
        unusable: Regions that were left out, with reasons.
        tasks_deleted: Tasks that are no longer on the server.
        audit: Whether what was chosen on purpose brought more than what was drawn at random
            (``budget.audit``); None where nothing is new or there is nothing to compare.
    """

    annotations_new: int = 0
    annotations_changed: int = 0
    annotations_gone: int = 0
    edits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EDIT_KINDS, 0))
    minutes: float = 0.0
    images: int = 0
    unusable: list[str] = field(default_factory=list)
    tasks_deleted: int = 0
    audit: dict[str, Any] | None = None
