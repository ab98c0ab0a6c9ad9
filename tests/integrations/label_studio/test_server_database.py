"""Which database the local server uses: addresses, and what the server is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelloop.errors import UsageError
from labelloop.integrations.label_studio.server_database import (
    Database,
    command_environment,
    parse_database,
    server_environment,
)
from labelloop.integrations.label_studio.server_home import server_home

HOME = server_home(Path("/home/lab"))


@pytest.mark.parametrize(
    ("text", "expected", "address"),
    [
        pytest.param("sqlite", Database(), "sqlite", id="sqlite"),
        pytest.param(
            "postgresql://lab@db.lab:5433/ls",
            Database(kind="postgresql", user="lab", host="db.lab", port=5433, name="ls"),
            "postgresql://lab@db.lab:5433/ls",
            id="all but a password",
        ),
        pytest.param(
            "postgres://lab:se%40cret%2F@[::1]/my%20ls",
            Database(kind="postgresql", user="lab", host="::1", name="my ls", password="se@cret/"),
            "postgresql://lab@[::1]:5432/my%20ls",
            id="quoted, with a password",
        ),
        pytest.param(
            "postgresql:///ls",
            Database(kind="postgresql", name="ls"),
            "postgresql://:5432/ls",
            id="PostgreSQL's own defaults",
        ),
    ],
)
def test_addresses_are_read_and_shown_without_their_password(
    text: str, expected: Database, address: str
) -> None:
    found = parse_database(text)
    assert found == expected
    assert found.address == address
    assert parse_database(address) == parse_database(text.replace("se%40cret%2F", ""))


@pytest.mark.parametrize(
    "text",
    [
        "mysql://lab:geheim@db/ls",
        "postgresql://lab:geheim@db",
        "postgresql://lab:geheim@db:99999/ls",
        "postgresql://lab:geh@eim:x@db:port/ls",
        "postgresql://lab@db/ls?password=geheim",
        "postgresql://lab:geheim@[db/ls",
        "ls.sqlite3",
        "",
    ],
)
def test_what_is_no_database_is_refused_without_repeating_a_password(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_database(text)
    assert "geh" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_password_is_told_to_the_server_alone() -> None:
    database = parse_database("postgresql://lab:geheim@db/ls")
    assert "geheim" not in repr(database)
    assert server_environment(HOME, database)["PGPASSWORD"] == "geheim"
    assert "geheim" not in str(command_environment(HOME, database))


def test_of_the_users_variables_only_the_needed_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABEL_STUDIO_API_KEY", "LABEL_STUDIO_HOST", "POSTGRE_HOST", "SECRET_KEY", "PYTHONPATH"):
        monkeypatch.setenv(name, "surprise")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("PGSSLMODE", "require")
    found = server_environment(HOME, Database())
    assert "surprise" not in found.values()
    assert found["LOG_LEVEL"] == "WARNING"
    assert found["PGSSLMODE"] == "require"
    assert found["COLLECT_ANALYTICS"] == "false"
    assert found["SENTRY_DSN"] == found["FRONTEND_SENTRY_DSN"] == ""
