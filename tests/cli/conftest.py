"""Running the program inside the test, and a small project to run it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


Labelloop = Callable[..., Ran]


@pytest.fixture
def labelloop() -> Labelloop:
    """Calls the program; a bug is raised, as it would be shown."""
    from labelloop.cli.app import app

    def call(*arguments: object) -> Ran:
        result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        return Ran(code=result.exit_code, out=result.stdout, err=result.stderr)

    return call


@pytest.fixture
def project(tmp_path: Path, labelloop: Labelloop) -> Path:
    """An empty project with one class."""
    root = tmp_path / "screen"
    assert labelloop("init", root, "--classes", "organoid").code == 0
    return root
