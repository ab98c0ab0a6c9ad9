"""Which way a request to a server goes, and with which token; no server is needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from labelloop.errors import ServerError
from labelloop.integrations.label_studio import connecting
from labelloop.integrations.label_studio.answers import NoTokenError
from labelloop.integrations.label_studio.client import LabelStudio
from labelloop.integrations.label_studio.server import ServerState
from labelloop.integrations.label_studio.transport import is_this_machine

TOKEN = "x" * 40


@pytest.fixture(autouse=True)
def nobody_knows_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(connecting.TOKEN_VARIABLE, raising=False)
    monkeypatch.setattr(connecting, "_from_keyring", lambda url: "")


@pytest.fixture
def recorder() -> Iterator[list[str]]:
    """The address of a proxy, and what it was asked."""
    asked: list[str] = []

    class Recording(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.requestline)
            self.send_error(502)

        do_POST = do_CONNECT = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Recording) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        asked.append(f"http://127.0.0.1:{server.server_port}")
        yield asked
        server.shutdown()


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080/studio", True),
        ("http://[::1]:8080", True),
        ("https://lab.example.org", False),
        ("http://localhost.example.org", False),
        ("http://127.example.org", False),
    ],
)
def test_the_loopback_is_this_machine(url: str, here: bool) -> None:
    assert is_this_machine(url) is here


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_matters_only_to_other_machines(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with LabelStudio("http://127.0.0.1:9", TOKEN):
        pass
    with pytest.raises(ServerError, match="proxy"):
        LabelStudio("http://lab.example.org", TOKEN)


def test_a_server_on_this_machine_is_not_asked_for_by_way_of_a_proxy(
    monkeypatch: pytest.MonkeyPatch, recorder: list[str]
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, recorder[0])
    with LabelStudio("http://127.0.0.1:9", TOKEN) as studio, pytest.raises(ServerError, match="reached"):
        studio.version()
    assert recorder[1:] == []


def test_the_token_of_labelloops_own_server_goes_to_its_own_address_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ServerState(
        url="http://127.0.0.1:8081", data=tmp_path, pid=1, version="1", database="sqlite", since=""
    )
    monkeypatch.setattr(connecting, "server_status", lambda: state)
    monkeypatch.setattr(connecting, "mint_token", lambda: TOKEN)
    assert connecting.find_token(state.url) == TOKEN
    for url in (
        "http://127.0.0.1:8080",
        "http://localhost:8081",
    ):  # where it was before; who knows who listens
        with pytest.raises(NoTokenError, match=r"at http://127\.0\.0\.1:8081 now"):
            connecting.find_token(url)
