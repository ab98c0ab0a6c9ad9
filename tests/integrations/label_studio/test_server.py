"""A real local Label Studio: up, down, its account and its token, and what goes wrong on the way."""

from __future__ import annotations

import http.cookiejar
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labelloop.errors import ServerError
from labelloop.integrations.label_studio.server import (
    ServerState,
    reset_password_command,
    server_answers,
    server_status,
    start_server,
    stop_server,
)
from labelloop.integrations.label_studio.server_account import mint_token
from labelloop.integrations.label_studio.server_environment import environment_is_complete
from labelloop.integrations.label_studio.server_home import read_process, server_home
from labelloop.integrations.label_studio.server_process import identify

pytestmark = pytest.mark.slow

MakeHome = Callable[[], Path]
FREE_PORT = 18180
PROGRAM = (
    "import signal\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored\n"
    "from labelloop.cli.app import main\n"
    "main()\n"
)


def _call(url: str, body: Any = None, *, method: str | None = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json", **headers}, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read() or "null")


def _access(url: str, token: str) -> str:
    return str(_call(f"{url}/api/token/refresh/", {"refresh": token})["access"])


def _log_in(url: str, email: str, password: str) -> urllib.request.OpenerDirector:
    """As a browser does."""
    cookies = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(cookies))
    browser.open(f"{url}/user/login/").close()
    csrf = next(cookie.value for cookie in cookies if cookie.name == "csrftoken")
    form = {"email": email, "password": password, "csrfmiddlewaretoken": csrf}
    data = urllib.parse.urlencode(form).encode()
    browser.open(urllib.request.Request(f"{url}/user/login/", data, {"Referer": url})).close()
    return browser


@pytest.fixture
def copied(label_studio_server, make_home: MakeHome) -> Path:
    """A home of its own with a database that is ready, so that it starts in seconds."""
    home = server_home(make_home())
    left_out = shutil.ignore_patterns("running.json", "server.log*")
    shutil.copytree(server_home(label_studio_server.home).data, home.data, ignore=left_out)
    home.data.chmod(0o700)
    return home.root


def _labelloop(home: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "server", *arguments],
        env=os.environ | {"LABELLOOP_SERVER_HOME": str(home)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_up_makes_a_server_and_a_second_up_finds_it(label_studio_server) -> None:
    state = label_studio_server.state
    assert server_status(label_studio_server.home) == state
    assert server_answers(state)
    assert _call(f"{state.url}/api/version")["release"] == state.version == "1.23.2"
    assert start_server(home=label_studio_server.home, port=FREE_PORT) == state


def test_the_token_is_the_administrators_and_stays_the_same(label_studio_server) -> None:
    url, token = label_studio_server.url, label_studio_server.token
    access = _access(url, token)
    me = _call(f"{url}/api/current-user/whoami", Authorization=f"Bearer {access}")
    assert me["email"] == label_studio_server.email
    assert mint_token(label_studio_server.home) == token


def test_the_password_that_was_told_opens_the_browser(label_studio_server) -> None:
    url, email = label_studio_server.url, label_studio_server.email
    with _log_in(url, email, label_studio_server.password).open(f"{url}/api/current-user/whoami") as me:
        assert json.load(me)["email"] == email
    with pytest.raises(urllib.error.HTTPError):
        _log_in(url, email, "wrong").open(f"{url}/api/current-user/whoami")


def test_no_file_and_no_process_shows_a_secret(label_studio_server) -> None:
    """A token without its signature, as Label Studio stores it, opens nothing."""
    home, pid = server_home(label_studio_server.home), label_studio_server.state.pid
    signature = label_studio_server.token.rpartition(".")[2]
    access = _access(label_studio_server.url, label_studio_server.token).rpartition(".")[2]
    secrets = [secret.encode() for secret in (label_studio_server.password, signature, access)]
    files = [path for path in home.data.rglob("*") if path.is_file()]
    assert {"server.log", "label_studio.sqlite3", "settings.json"} <= {path.name for path in files}
    shown = [path.read_bytes() for path in files]
    shown.append(subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout)
    if (environment := Path(f"/proc/{pid}/environ")).exists():
        shown.append(environment.read_bytes())
    assert [secret for secret in secrets for text in shown if secret in text] == []
    without_signature = label_studio_server.token.rpartition(".")[0].encode()
    assert any(without_signature in text for text in shown)
    assert home.data.stat().st_mode & 0o077 == 0


def test_only_this_machine_is_answered_and_only_by_its_own_name(label_studio_server) -> None:
    url = label_studio_server.url
    listening = Path("/proc/net/tcp")
    if listening.exists():
        port = f":{urllib.parse.urlsplit(url).port:04X}"
        local = [line.split()[1] for line in listening.read_text(encoding="ascii").splitlines()[1:]]
        assert {address for address in local if address.endswith(port)} == {f"0100007F{port}"}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        _call(f"{url}/health", Host="elsewhere.example")


def test_nobody_signs_up_without_a_link(label_studio_server) -> None:
    url = label_studio_server.url
    browser = _log_in(url, "nobody@lab.local", "wrong")
    (cookies,) = (h.cookiejar for h in browser.handlers if isinstance(h, urllib.request.HTTPCookieProcessor))
    csrf = next(cookie.value for cookie in cookies if cookie.name == "csrftoken")
    form = {"email": "nobody@lab.local", "password": "longenough1", "csrfmiddlewaretoken": csrf}
    data = urllib.parse.urlencode(form).encode()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        browser.open(urllib.request.Request(f"{url}/user/signup/", data, {"Referer": url}))


def test_predictions_that_do_not_fit_are_refused_with_a_reason(label_studio_server) -> None:
    url = label_studio_server.url
    bearer = f"Bearer {_access(url, label_studio_server.token)}"
    config = (
        '<View><Image name="image" value="$image"/>'
        '<RectangleLabels name="box" toName="image"><Label value="cell"/></RectangleLabels></View>'
    )
    project = _call(f"{url}/api/projects/", {"title": "fit", "label_config": config}, Authorization=bearer)
    tasks = f"{url}/api/projects/{project['id']}/import?return_task_ids=true"
    (task,) = _call(tasks, [{"data": {"image": "x.png"}}], Authorization=bearer)["task_ids"]
    wrong = [
        {"task": task, "result": [{"from_name": "nobody", "to_name": "image", "type": "rectanglelabels"}]}
    ]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        _call(f"{url}/api/projects/{project['id']}/import/predictions", wrong, Authorization=bearer)
    _call(f"{url}/api/projects/{project['id']}/", method="DELETE", Authorization=bearer)


def test_a_revoked_token_is_replaced(copied: Path) -> None:
    state, first = start_server(home=copied, port=FREE_PORT), mint_token(copied)
    bearer = f"Bearer {_access(state.url, first)}"
    _call(f"{state.url}/api/token/blacklist/", {"refresh": first}, Authorization=bearer)
    second = mint_token(copied)
    assert second != first
    assert _access(state.url, second)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        _access(state.url, first)
    stop_server(copied)


def test_down_stops_it_and_the_work_is_there_after_up(copied: Path) -> None:
    state = start_server(home=copied, port=FREE_PORT)
    identity = identify(state.pid)
    bearer = f"Bearer {_access(state.url, mint_token(copied))}"
    made = _call(f"{state.url}/api/projects/", {"title": "kept"}, Authorization=bearer)
    stopped = stop_server(copied)
    assert stopped is not None
    assert stopped.pid == state.pid
    assert identify(state.pid) != identity
    assert server_status(copied) is None
    assert stop_server(copied) is None
    again = start_server(home=copied)
    assert again.url == state.url
    kept = _call(f"{again.url}/api/projects/{made['id']}/", Authorization=f"Bearer {bearer.split()[1]}")
    assert kept["title"] == "kept"
    stop_server(copied)


def test_a_taken_port_is_left_and_the_next_one_is_kept(copied: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", FREE_PORT + 1))
        taken.listen()
        state = start_server(home=copied, port=FREE_PORT + 1)
        assert int(state.url.rpartition(":")[2]) > FREE_PORT + 1
        stop_server(copied)
    assert start_server(home=copied).url == state.url
    stop_server(copied)


def test_a_killed_server_is_recognised_and_started_anew(copied: Path) -> None:
    state = start_server(home=copied, port=FREE_PORT)
    os.killpg(state.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while server_status(copied) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server_status(copied) is None
    assert start_server(home=copied).pid != state.pid
    stop_server(copied)


def test_two_at_once_start_one(copied: Path) -> None:
    both = [_labelloop(copied, "up", "--port", str(FREE_PORT), "--json") for _ in range(2)]
    ended = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    first, second = (json.loads(out) for out, _ in ended)
    assert first == second
    assert set(first) >= {"url", "data", "pid", "version"}
    down = _labelloop(copied, "down", "--json")
    assert json.loads(down.communicate(timeout=60)[0]) == {"stopped": True, "pid": first["pid"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_start_that_is_cut_short_leaves_no_unknown_server(copied: Path, number: signal.Signals) -> None:
    home, up = server_home(copied), _labelloop(copied, "up", "--port", str(FREE_PORT), "--json")
    deadline = time.monotonic() + 120
    while (process := read_process(home)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    up.send_signal(number)
    out, _ = up.communicate(timeout=60)
    assert process is not None
    if number == signal.SIGINT:
        assert up.returncode == 130
        assert "interrupted" in json.loads(out)["error"]["what"]
        assert identify(process.pid) != process.identity
    else:  # nobody could stop it: the next command knows it
        assert start_server(home=copied).pid == process.pid
    stop_server(copied)
    assert identify(process.pid) != process.identity
    assert environment_is_complete(home)


def test_a_first_start_that_is_cut_short_is_begun_anew(make_home: MakeHome) -> None:
    home = server_home(make_home())
    up = _labelloop(home.root, "up", "--port", str(FREE_PORT))
    deadline = time.monotonic() + 300
    while not list(home.data.glob("begun.sqlite3*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2.0)
    up.send_signal(signal.SIGINT)
    assert "interrupted" in up.communicate(timeout=60)[1]
    assert not (home.data / "label_studio.sqlite3").exists()
    told: list[str] = []
    state = start_server(home=home.root, port=FREE_PORT, tell_password=lambda *said: told.extend(said))
    _log_in(state.url, told[0], told[1]).open(f"{state.url}/api/current-user/whoami").close()
    assert not list(home.data.glob("begun.sqlite3*"))
    stop_server(home.root)


def test_a_start_that_fails_says_why_and_where_to_look(copied: Path) -> None:
    home = server_home(copied)
    (home.data / "label_studio.sqlite3").write_bytes(b"spoilt" * 1000)
    with pytest.raises(ServerError, match="not a database") as caught:
        start_server(home=copied, port=FREE_PORT)
    assert str(home.log) in caught.value.way_out
    assert server_status(copied) is None
    assert read_process(home) is None


def test_without_a_server_there_is_no_token(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="labelloop server up"):
        mint_token(tmp_path)


def test_the_password_can_be_set_anew(copied: Path) -> None:
    """Typed twice by hand; here Label Studio's own flag for it stands in for the typing."""
    command = f"{reset_password_command(copied)} --password 'another one 1'"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300, check=False)
    assert "Password successfully changed" in ran.stdout, ran.stderr
    state = start_server(home=copied, port=FREE_PORT)
    email = "admin@labelloop.local"
    _log_in(state.url, email, "another one 1").open(f"{state.url}/api/current-user/whoami").close()
    stop_server(copied)


def _postgresql_programs() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "initdb").exists()), None)


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL that asks for a password, which is ``geheim``."""
    programs = _postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="labelloop-pg-"))  # a socket's path has to be short
    (folder / "password").write_text("geheim\n", encoding="ascii")
    if user:
        for path in (folder, folder / "password"):
            os.chown(path, user["user"], user["group"])

    def run(name: str, *arguments: str) -> None:
        subprocess.run(
            [programs / name, "-D", folder / "data", *arguments],
            stdout=subprocess.DEVNULL, cwd=folder, timeout=120, check=True, **user,
        )  # fmt: skip

    port = FREE_PORT + 50
    try:
        run("initdb", "-U", "lab", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield f"postgresql://lab@127.0.0.1:{port}/postgres"
        run("pg_ctl", "-m", "fast", "stop")
    finally:
        shutil.rmtree(folder)


def test_postgresql_keeps_the_work_and_its_password_is_not_kept(
    make_home: MakeHome, postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    home = make_home()
    with pytest.raises(ServerError, match=r"no password supplied.*PGPASSWORD"):
        start_server(home=home, port=FREE_PORT, database=postgresql)
    state: ServerState = start_server(
        home=home, port=FREE_PORT, database=postgresql.replace("lab@", "lab:geheim@")
    )
    assert state.database == postgresql
    assert not any(b"geheim" in path.read_bytes() for path in home.rglob("server/*") if path.is_file())
    with pytest.raises(ServerError, match="PGPASSWORD"):
        mint_token(home)
    with pytest.raises(ServerError, match="server down"):
        start_server(home=home, database="sqlite")
    stop_server(home)
    with pytest.raises(ServerError, match=r"no password supplied.*PGPASSWORD"):
        start_server(home=home)
    monkeypatch.setenv("PGPASSWORD", "geheim")
    state = start_server(home=home)
    assert state.database == postgresql
    assert _access(state.url, mint_token(home))
    stop_server(home)
