"""Brings an older ledger up to date, whole or not at all."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.schema import CreateTable

from labelloop.project.tables import Base, Meta


def upgrade(engine: Engine, version: int) -> None:
    """Makes the tables and columns that came since; what the ledger holds stays.

    A table whose columns differ is made anew beside the old one, filled from it, and takes its name, as
    SQLite advises (https://www.sqlite.org/lang_altertable.html, section 7). Another command that does the
    same at the same time waits, and then finds nothing to do.

    Args:
        engine: Of the ledger.
        version: That the ledger has afterwards.
    """
    with engine.execution_options(labelloop_write=True).connect() as connection:
        if engine.dialect.name == "sqlite":
            raw = connection.connection.cursor()
            raw.execute("PRAGMA foreign_keys = OFF")  # has no effect inside a transaction
            raw.close()
        try:
            with connection.begin():
                _bring_up(connection, version)
        finally:
            connection.invalidate()  # the next connection checks foreign keys again


def _bring_up(connection: Connection, version: int) -> None:
    there = inspect(connection)
    known = set(there.get_table_names())
    for table in Base.metadata.sorted_tables:
        if table.name not in known:
            continue
        old = {column["name"]: bool(column["nullable"]) for column in there.get_columns(table.name)}
        new = {column.name: bool(column.nullable) for column in table.columns}
        if old == new:
            continue
        common = ", ".join(f'"{name}"' for name in new if name in old)
        beside = f"{table.name}__new"
        made = str(CreateTable(table).compile(connection)).replace(
            f"CREATE TABLE {table.name} ", f"CREATE TABLE {beside} ", 1
        )
        connection.execute(text(made))
        connection.execute(text(f"INSERT INTO {beside} ({common}) SELECT {common} FROM {table.name}"))
        connection.execute(text(f"DROP TABLE {table.name}"))
        connection.execute(text(f"ALTER TABLE {beside} RENAME TO {table.name}"))
        for index in table.indexes:
            index.create(connection)
    Base.metadata.create_all(connection)
    connection.execute(Meta.__table__.update().where(Meta.key == "schema").values(value=str(version)))  # type: ignore[attr-defined]
