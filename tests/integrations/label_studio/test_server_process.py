"""Processes that outlive their command: recognised, ended, and never mistaken for others."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from labelloop.errors import ServerError
from labelloop.integrations.label_studio import server
from labelloop.integrations.label_studio.server import server_status, start_server, stop_server
from labelloop.integrations.label_studio.server_environment import (
    environment_is_complete,
    make_environment,
    telling_line,
)
from labelloop.integrations.label_studio.server_home import (
    ServerProcess,
    ServerSettings,
    keep,
    only_one,
    read_process,
    read_settings,
    server_home,
)
from labelloop.integrations.label_studio.server_process import end, identify, identify_with_ps, launch
from labelloop.progress import Silent

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "time.sleep(60)",
]


@contextmanager
def _sleeping(tmp_path: Path, command: list[str] = SLEEP) -> Iterator[tuple[int, str]]:
    pid = launch(command, environment=os.environ, folder=tmp_path, log=tmp_path / "log")
    identity = identify(pid)
    assert identity is not None
    try:
        yield pid, identity
    finally:
        end(pid, identity)


def _remembered(pid: int, identity: str, machine: str | None = None) -> ServerProcess:
    return ServerProcess(
        pid=pid,
        identity=identity,
        machine=machine or os.uname().nodename,
        version="1.23.2",
        database="sqlite",
        since="2026-01-01T00:00:00+00:00",
        url="http://127.0.0.1:1",
    )


def test_a_launched_process_has_its_own_session_and_ends(tmp_path: Path) -> None:
    with _sleeping(tmp_path) as (pid, identity):
        assert os.getpgid(pid) == os.getsid(pid) == pid
        assert identify(pid) == identity
        assert identify_with_ps(pid) == identify_with_ps(pid) is not None
        end(pid, identity)
        assert identify(pid) is None
        assert identify_with_ps(pid) is None


def test_two_processes_have_two_identities(tmp_path: Path) -> None:
    with _sleeping(tmp_path) as (_, first):
        time.sleep(0.05)
        with _sleeping(tmp_path) as (_, second):
            assert first != second


def test_a_later_process_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    home = server_home(tmp_path / "home")
    with _sleeping(tmp_path) as (pid, identity):
        keep(home, _remembered(pid, "boot before tick 1"))
        assert server_status(home.root) is None
        assert stop_server(home.root) is None
        assert read_process(home) is None
        assert identify(pid) == identity


def test_a_process_that_leads_no_group_is_left_alone() -> None:
    with subprocess.Popen(SLEEP) as process:
        identity = identify(process.pid)
        assert identity is not None
        end(process.pid, identity)
        assert process.poll() is None
        process.kill()


@pytest.mark.slow
def test_who_does_not_listen_is_made_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelloop.integrations.label_studio.server_process.PATIENCE_S", 1.0)
    with _sleeping(tmp_path, STUBBORN) as (pid, identity):
        while not (tmp_path / "log").read_text(encoding="utf-8"):
            time.sleep(0.05)
        end(pid, identity)
        assert identify(pid) is None


def test_a_server_of_another_machine_is_neither_shown_nor_stopped(tmp_path: Path) -> None:
    home = server_home(tmp_path / "home")
    with _sleeping(tmp_path) as (pid, identity):
        keep(home, _remembered(pid, "boot elsewhere tick 1", machine="elsewhere"))
        for act in (server_status, stop_server):
            with pytest.raises(ServerError, match="elsewhere"):
                act(home.root)
        with pytest.raises(ServerError, match="elsewhere"):
            start_server(home=home.root)
        assert identify(pid) == identity


def test_a_machine_that_is_called_otherwise_in_another_network_finds_its_server(tmp_path: Path) -> None:
    home = server_home(tmp_path / "home")
    with _sleeping(tmp_path) as (pid, identity):
        keep(home, _remembered(pid, identity, machine="name-at-home"))
        found = server_status(home.root)
        assert found is not None
        assert found.pid == pid
        assert stop_server(home.root) is not None
        assert identify(pid) is None


ANSWERING = [
    sys.executable,
    "-c",
    "import http.server, sys\n"
    "class Up(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200)\n"
    "        self.end_headers()\n"
    '        self.wfile.write(b\'{"status": "UP"}\')\n'
    "server = http.server.HTTPServer(('127.0.0.1', 0), Up)\n"
    "print(server.server_port, flush=True)\n"
    "server.serve_forever()",
]


def test_a_server_that_runs_is_found_though_its_log_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelloop.integrations.label_studio.server_process.START_LIMIT_S", 2.0)
    home = server_home(tmp_path / "home")
    with _sleeping(tmp_path, ANSWERING) as (pid, identity):
        while not (port := (tmp_path / "log").read_text(encoding="utf-8").strip()):
            time.sleep(0.05)
        url = f"http://127.0.0.1:{port}"
        keep(home, replace(_remembered(pid, identity), url=url))
        assert start_server(home=home.root).url == url


def test_a_database_whose_file_is_gone_is_made_anew_and_a_port_that_failed_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = server_home(tmp_path / "home")
    keep(home, ServerSettings(port=8090, ready=("sqlite",)))
    told: list[str] = []
    monkeypatch.setattr(server, "make_environment", lambda *_: None)
    monkeypatch.setattr(server, "prepare_database", lambda *_: "secret")

    def fails(*_: object) -> None:
        raise ServerError("no permission to listen there")

    monkeypatch.setattr(server, "_start", fails)
    with pytest.raises(ServerError, match="no permission"):
        start_server(home=home.root, port=80, tell_password=lambda _, password: told.append(password))
    assert told == ["secret"]
    assert read_settings(home) == ServerSettings(port=8090, ready=("sqlite",))


def test_what_was_remembered_is_read_back(tmp_path: Path) -> None:
    home = server_home(tmp_path)
    assert (read_settings(home), read_process(home)) == (ServerSettings(), None)
    settings = ServerSettings(database="postgresql://lab@db:5432/ls", port=8090, ready=("sqlite",))
    keep(home, settings)
    keep(home, _remembered(7, "x"))
    assert (read_settings(home), read_process(home)) == (settings, _remembered(7, "x"))
    assert home.data.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", '{"pid": "seven"}', "[]"])
def test_a_spoilt_file_is_named(tmp_path: Path, text: str) -> None:
    home = server_home(tmp_path)
    home.data.mkdir()
    home.running_file.write_text(text, encoding="utf-8")
    with pytest.raises(ServerError, match=r"running\.json"):
        server_status(tmp_path)


def test_one_command_waits_for_the_other(tmp_path: Path) -> None:
    home, order = server_home(tmp_path), []

    def second() -> None:
        with only_one(home, Silent()):
            order.append("second")

    with only_one(home, Silent()):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_what_a_killed_command_had_begun_is_waited_for(tmp_path: Path) -> None:
    home = server_home(tmp_path)
    with only_one(home, Silent()):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"], close_fds=False)
    with only_one(home, Silent()):
        assert child.wait(timeout=0.5) == 0


def test_home_is_where_user_data_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELLOOP_SERVER_HOME", str(tmp_path / "a"))
    assert server_home().root == tmp_path / "a"
    assert server_home(tmp_path / "b").root == tmp_path / "b"
    monkeypatch.delenv("LABELLOOP_SERVER_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert server_home().root == tmp_path / "labelloop"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert server_home().root == Path.home() / ".local" / "share" / "labelloop"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert server_home().root == Path.home() / "Library" / "Application Support" / "labelloop"


@pytest.mark.slow
def test_an_environment_that_could_not_be_made_is_no_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    home = server_home(tmp_path)
    (home.environment / "left").mkdir(parents=True)
    with pytest.raises(ServerError, match="could not be installed: ERROR: No matching distribution"):
        make_environment(home, Silent())
    assert not environment_is_complete(home)
    assert not (home.environment / "left").exists()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param([], "it printed nothing", id="silence"),
        pytest.param(["one", "two", " "], "two", id="no error"),
        pytest.param(
            ["x.OperationalError: no such table", "  at exit"],
            "x.OperationalError: no such table",
            id="error",
        ),
    ],
)
def test_the_line_that_tells_why(said: list[str], told: str) -> None:
    assert telling_line(said) == told
