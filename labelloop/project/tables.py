"""The ledger's tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, ForeignKey, LargeBinary, UniqueConstraint, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column


def now() -> datetime:
    """The present in UTC, without a zone, as the ledger keeps times."""
    return datetime.now(UTC).replace(tzinfo=None)


class Base(DeclarativeBase):
    """Base of the ledger's tables."""


class Meta(Base):
    """Facts about the ledger itself."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class ImageRow(Base):
    """One image: a page and channel of a file, recognised by the content of that file."""

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("sha256", "page", "channel"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(index=True)
    page: Mapped[int] = mapped_column(default=0)
    channel: Mapped[int] = mapped_column(default=-1)  # -1: all of gray or RGB
    path: Mapped[str]  # absolute, or relative to the project when inside it
    file_name: Mapped[str] = mapped_column(index=True)
    height: Mapped[int]
    width: Mapped[int]
    pixel_size_um: Mapped[float | None]
    group: Mapped[str | None] = mapped_column("group_name")
    split: Mapped[str] = mapped_column(default="train", index=True)  # train, val or test
    added_at: Mapped[datetime] = mapped_column(default=now)
    replaced_at: Mapped[datetime | None]  # when its path was seen to hold another file; it is used no more


class LabelRow(Base):
    """One revision of an image's labels; the highest revision counts, none is ever overwritten."""

    __tablename__ = "label_revisions"
    __table_args__ = (UniqueConstraint("image_id", "revision"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    revision: Mapped[int]
    source: Mapped[str]
    n_objects: Mapped[int]
    instances: Mapped[bytes] = mapped_column(LargeBinary)
    added_at: Mapped[datetime] = mapped_column(default=now)


def is_newest_label() -> ColumnElement[bool]:
    """Of a LabelRow in a statement: whether it is the newest revision of its image's labels."""
    of_image = aliased(LabelRow)
    newest = select(func.max(of_image.revision)).where(of_image.image_id == LabelRow.image_id)
    return LabelRow.revision == newest.correlate(LabelRow).scalar_subquery()


class RunRow(Base):
    """One training run. Its files lie in runs/<name>/."""

    __tablename__ = "runs"
    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]  # running, finished
    method: Mapped[str]
    model: Mapped[str]
    seed: Mapped[int]
    promoted: Mapped[str | None]  # guided or supervised
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    started_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]


class PredictionRow(Base):
    """What one model of one run sees in one image, scores 0.05 and up."""

    __tablename__ = "predictions"
    run: Mapped[str] = mapped_column(ForeignKey("runs.name"), primary_key=True)
    which: Mapped[str] = mapped_column(primary_key=True)  # guided or supervised
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    instances: Mapped[bytes] = mapped_column(LargeBinary)
    added_at: Mapped[datetime] = mapped_column(default=now)


class RoundRow(Base):
    """One round of review: what a person was asked to look at, and by which model."""

    __tablename__ = "review_rounds"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str | None] = mapped_column(ForeignKey("runs.name"))  # None: no model proposed anything
    which: Mapped[str | None]  # guided or supervised
    model_version: Mapped[str]  # as the annotation server shows it
    server: Mapped[str]  # address and project there, as ``LabelStudioConfig.server_name``
    strategy: Mapped[str]
    min_score: Mapped[float]  # objects scored lower are not shown
    settings: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # budget, seed and the like of the choice
    opened_at: Mapped[datetime] = mapped_column(default=now)
    closed_at: Mapped[datetime | None]


class ReviewTaskRow(Base):
    """One image, or one tile of it, in a round. Its key, not the server's number, names it permanently."""

    __tablename__ = "review_tasks"
    key: Mapped[str] = mapped_column(primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("review_rounds.id"), index=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    tile: Mapped[dict[str, Any]] = mapped_column(JSON)  # predict.tiles.Tile
    confidence: Mapped[float]
    chosen: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # arm, why, predicted minutes
    state: Mapped[str]  # planned, sent, reviewed, skipped, deleted, dropped
    server_id: Mapped[int | None]
    sent: Mapped[bytes | None] = mapped_column(LargeBinary)  # the regions as they were sent, packed JSON


class ProposalRow(Base):
    """The objects of one image that a round proposes."""

    __tablename__ = "review_proposals"
    round_id: Mapped[int] = mapped_column(ForeignKey("review_rounds.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    keys: Mapped[list[str]] = mapped_column(JSON)  # of the objects, unique in the ledger
    instances: Mapped[bytes] = mapped_column(LargeBinary)


class AnnotationRow(Base):
    """One state of one person's annotation of a task, as it came back; later states are further rows."""

    __tablename__ = "review_annotations"
    __table_args__ = (UniqueConstraint("task_key", "server_id", "updated_at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(ForeignKey("review_tasks.key"), index=True)
    server_id: Mapped[int]
    created_at: Mapped[str]  # both as the server says them
    updated_at: Mapped[str]
    who: Mapped[str]
    lead_time_s: Mapped[float | None]
    maybe_twice: Mapped[bool | None]  # the server may have counted a draft's time twice; None: not known
    skipped: Mapped[bool]
    ground_truth: Mapped[bool]
    bulk: Mapped[bool]  # accepted with many others at once, without a look at each
    result: Mapped[bytes] = mapped_column(LargeBinary)  # as it came, packed JSON
    pulled_at: Mapped[datetime] = mapped_column(default=now)
    gone_at: Mapped[datetime | None]  # when it was seen to be deleted on the server


class EditRow(Base):
    """What an annotation did to one object, or to those of one split or merge."""

    __tablename__ = "review_edits"
    id: Mapped[int] = mapped_column(primary_key=True)
    annotation_id: Mapped[int] = mapped_column(ForeignKey("review_annotations.id"), index=True)
    kind: Mapped[str] = mapped_column(index=True)  # review.edits.EditKind
    before: Mapped[list[str]] = mapped_column(JSON)
    after: Mapped[list[str]] = mapped_column(JSON)
    iou: Mapped[float | None]
    label_before: Mapped[int | None]
    label_after: Mapped[int | None]
    outline_px: Mapped[float | None]  # of what came back; None in rows that are older than this column


class EmbeddingRow(Base):
    """What one encoder makes of one image; computed once, never changed."""

    __tablename__ = "embeddings"
    encoder: Mapped[str] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    vector: Mapped[bytes] = mapped_column(LargeBinary)  # float32, little-endian


class DoubtRow(Base):
    """How unsure one model of one run is of one image, by object; computed once, never changed."""

    __tablename__ = "doubts"
    run: Mapped[str] = mapped_column(ForeignKey("runs.name"), primary_key=True)
    which: Mapped[str] = mapped_column(primary_key=True)  # guided or supervised
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    doubts: Mapped[dict[str, Any]] = mapped_column(JSON)


class CurvePointRow(Base):
    """One point of a learning curve: a model trained on a subset of the labels, and how good it was."""

    __tablename__ = "curve_points"
    key: Mapped[str] = mapped_column(primary_key=True)  # digest of all that the point depends on
    n_images: Mapped[int]
    seed: Mapped[int]
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)  # images, label revisions, schedule, split
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)  # name -> {value, low, high, n}
    made_at: Mapped[datetime] = mapped_column(default=now)


class LookRow(Base):
    """A run measured on the test images: each look makes the next number a little less honest."""

    __tablename__ = "test_looks"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(ForeignKey("runs.name"), index=True)
    which: Mapped[str]
    n_images: Mapped[int]
    metrics: Mapped[dict[str, Any]] = mapped_column(JSON)
    looked_at: Mapped[datetime] = mapped_column(default=now)
