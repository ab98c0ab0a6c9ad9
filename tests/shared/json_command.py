"""The program called in the test's own process."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from labelloop.cli.app import app


def labelloop_json(*arguments: object) -> dict:
    """What a command that succeeds says with ``--json``."""
    ran = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.stderr
    document: dict = json.loads(ran.stdout)
    return document
