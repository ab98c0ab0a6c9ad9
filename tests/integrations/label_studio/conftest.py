"""A real Label Studio for the tests: installed once, kept between runs, started once per run.

The installation is kept in the folder that LABELLOOP_SERVER_HOME names, or in pytest's cache, or for one run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from labelloop.integrations.label_studio.server import ServerState, start_server, stop_server
from labelloop.integrations.label_studio.server_account import mint_token
from labelloop.integrations.label_studio.server_environment import make_environment
from labelloop.integrations.label_studio.server_home import HOME_VARIABLE, ServerHome, server_home
from labelloop.progress import Silent

PORT = 18080
DATABASE_VARIABLE = "LABELLOOP_TEST_DATABASE"  # an empty PostgreSQL database, to run all of it there


@dataclass(frozen=True, kw_only=True)
class LabelStudio:
    """A server that runs, and what a test needs to use it."""

    state: ServerState
    token: str
    home: Path
    email: str
    password: str

    @property
    def url(self) -> str:
        return self.state.url


@pytest.fixture(scope="session")
def installed_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerHome]:
    """A home with the environment in it; no test writes data there."""
    cache = getattr(request.config, "cache", None)
    if os.environ.get(HOME_VARIABLE):
        home = server_home()
    elif cache is not None:
        home = server_home(Path(cache.mkdir("label-studio")))
    else:
        home = server_home(tmp_path_factory.mktemp("label-studio"))
    make_environment(home, Silent())
    yield home
    if home.root.is_relative_to(tmp_path_factory.getbasetemp()):
        shutil.rmtree(home.environment)  # pytest would keep 1 GB of each of the last runs


@pytest.fixture(scope="session")
def make_home(
    installed_server: ServerHome, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Path]]:
    """Gives new homes that share the installation; what runs there at the end is stopped."""
    made: list[Path] = []

    def make() -> Path:
        home = server_home(tmp_path_factory.mktemp("server-home"))
        home.environment.symlink_to(installed_server.environment)
        made.append(home.root)
        return home.root

    yield make
    for root in made:
        stop_server(root)


@pytest.fixture(scope="session")
def label_studio_server(make_home: Callable[[], Path]) -> LabelStudio:
    """The server that tests share. Leave its account and its token as they are."""
    home, told = make_home(), []
    state = start_server(
        home=home,
        port=PORT,
        database=os.environ.get(DATABASE_VARIABLE),
        tell_password=lambda email, password: told.append((email, password)),
    )
    ((email, password),) = told
    return LabelStudio(state=state, token=mint_token(home), home=home, email=email, password=password)
