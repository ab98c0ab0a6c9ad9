"""``labelloop server`` where nothing has to run; the server itself is tested with the integration."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELLOOP_SERVER_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--database", "mysql://lab:geheim@db/ls"], id="another database"),
        pytest.param(["--database", "postgresql://lab:geheim@db"], id="no name"),
        pytest.param(["--port", "0"], id="port 0"),
        pytest.param(["--port", "many"], id="no number"),
    ],
)
def test_wrong_usage_is_exit_2_and_makes_nothing(labelloop, tmp_path: Path, arguments: list[str]) -> None:
    ran = labelloop("server", "up", *arguments, "--json")
    assert ran.code == 2
    assert set(ran.document["error"]) == {"what", "value", "way_out"}
    assert "geheim" not in ran.out + ran.err
    assert not (tmp_path / "home").exists()


def test_where_nothing_runs_status_and_down_say_so(labelloop) -> None:
    status = labelloop("server", "status", "--json")
    assert (status.code, status.document["running"], status.document["url"]) == (0, False, None)
    assert "labelloop server up" in labelloop("server", "status").out
    down = labelloop("server", "down", "--json")
    assert (down.code, down.document) == (0, {"stopped": False, "pid": None})
    assert "was not running" in labelloop("server", "down").out


def test_what_cannot_be_read_is_one_line(labelloop, tmp_path: Path) -> None:
    (tmp_path / "home" / "server").mkdir(parents=True)
    (tmp_path / "home" / "server" / "running.json").write_text("{", encoding="ascii")
    ran = labelloop("server", "status")
    assert ran.code == 1
    assert "running.json" in ran.err
    assert ran.err.count("\n") == 1
