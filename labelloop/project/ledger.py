"""The ledger: how a transaction is made, and how instances are stored."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session

from labelloop.errors import ProjectError
from labelloop.instances import Instances
from labelloop.project.tables import Base, Meta
from labelloop.project.upgrade import upgrade

# 2: review; 3: the budget, and rounds without a model; 4: outlines of edits, drafts; 5: replaced images
SCHEMA_VERSION = 5
VALUES_AT_ONCE = 500  # in one SQL statement
WAIT_FOR_LOCK_S = 300  # another labelloop command may be writing: a large pull does for minutes
BUSY_S = 30  # of that in SQLite, which does not hear Ctrl-C


class LockedLedgerError(ProjectError):
    """Another labelloop command writes for longer than this one waits."""


def rows_with(session: Session, statement: Any, column: Any, values: Sequence[Any]) -> Iterator[Any]:
    """The rows of a select in which a column has one of many values, part by part of the values.

    Within a part they come as the statement orders them.
    """
    for start in range(0, len(values), VALUES_AT_ONCE):
        yield from session.execute(statement.where(column.in_(values[start : start + VALUES_AT_ONCE])))


def scalars_with(session: Session, statement: Any, column: Any, values: Sequence[Any]) -> Iterator[Any]:
    """The same of a select of one thing."""
    return (value for (value,) in rows_with(session, statement, column, values))


def encode_instances(instances: Instances) -> bytes:
    """Instances as the ledger stores them: compressed JSON with COCO run lengths."""
    document = {
        "size": list(instances.size_hw),
        "counts": [counts.decode("ascii") for counts in instances.rles],
        "labels": instances.labels.tolist(),
        "crowd": np.flatnonzero(instances.crowd).tolist(),
        "scores": None if instances.scores is None else [float(s) for s in instances.scores],
    }
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode("ascii"), 6)


def decode_instances(stored: bytes) -> Instances:
    """The inverse of ``encode_instances``, exact."""
    document = json.loads(zlib.decompress(stored))
    crowd = np.zeros(len(document["counts"]), np.bool_)
    crowd[document["crowd"]] = True
    return Instances(
        size_hw=(document["size"][0], document["size"][1]),
        rles=tuple(counts.encode("ascii") for counts in document["counts"]),
        labels=np.asarray(document["labels"], np.int64),
        scores=None if document["scores"] is None else np.asarray(document["scores"], np.float32),
        crowd=crowd,
    )


class Ledger:
    """The project's database. ``read()`` and ``write()`` are its only two ways in.

    Args:
        url: Where it is, as ``sqlite_url`` gives it as a rule.
    """

    def __init__(self, url: URL) -> None:
        self.engine: Engine = create_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    def create(self) -> None:
        """Makes the tables; a ledger that has them stays as it is."""
        with _translated(self.engine):
            Base.metadata.create_all(self.engine)
        with self.write() as session:
            if session.get(Meta, "schema") is None:
                session.add(Meta(key="schema", value=str(SCHEMA_VERSION)))

    def check(self) -> None:
        """Looks whether this version can work with the ledger. An older one is brought up to date.

        Raises:
            ProjectError: It is damaged, not a ledger, or written by a newer labelloop.
        """
        with self.read() as session:
            meta = session.get(Meta, "schema")
        if meta is not None and 1 <= int(meta.value) < SCHEMA_VERSION:
            with _translated(self.engine):
                upgrade(self.engine, SCHEMA_VERSION)
            return
        if meta is None or int(meta.value) != SCHEMA_VERSION:
            raise ProjectError(
                "the ledger has another version than this labelloop",
                value=f"{meta.value if meta else 'none'}, not {SCHEMA_VERSION}",
                way_out="Use the labelloop version that wrote it.",
            )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the ledger."""
        with _translated(self.engine), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: everything in the block is stored, or nothing.

        The write lock is taken at the start, so what the block reads cannot change before it writes.
        """
        engine = self.engine.execution_options(labelloop_write=True)
        with _translated(self.engine), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session


def sqlite_url(path: Path) -> URL:
    """The SQLAlchemy URL of a SQLite file, whatever characters its path has."""
    return URL.create("sqlite", database=str(path))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN below, not the driver's late one
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {min(BUSY_S, WAIT_FOR_LOCK_S) * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    if not connection.get_execution_options().get("labelloop_write", False):
        connection.exec_driver_sql("BEGIN")
        return
    end = time.monotonic() + WAIT_FOR_LOCK_S
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            return
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() >= end:
                raise


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        reason = str(error.orig)
        way_outs = {
            "locked": "Another labelloop command is writing; wait for it and try again.",
            "full": "Free space on the disk and try again; nothing was changed.",
            "readonly": "Make the project folder writable.",
            "unable to open": "Check that the folder exists and can be written.",
        }
        way_out = next((text for key, text in way_outs.items() if key in reason), "Nothing was changed.")
        kind = LockedLedgerError if "locked" in reason else ProjectError
        raise kind(
            f"the ledger cannot be used ({reason})", value=engine.url.database or engine.url, way_out=way_out
        ) from error
