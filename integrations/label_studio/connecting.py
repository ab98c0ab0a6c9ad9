"""Tying a project to a Label Studio project, and finding the token for it."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import ValidationError

from labelloop.errors import ProjectError, ServerError, UsageError
from labelloop.integrations.label_studio.answers import NoTokenError, status_of
from labelloop.integrations.label_studio.client import LabelStudio, ProjectFacts, is_this_machine
from labelloop.integrations.label_studio.labelling_config import check_config, labelling_config
from labelloop.integrations.label_studio.server import server_status
from labelloop.integrations.label_studio.server_account import mint_token
from labelloop.integrations.label_studio.server_home import read_settings, server_home
from labelloop.project.config import LabelStudioConfig
from labelloop.project.project import Project
from labelloop.project.tables import Meta
from labelloop.review.rounds import move_rounds

TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"
KEYRING_SERVICE = "labelloop"
MARK = "connect:mark"  # in the ledger
_MARKED = "Review of a labelloop project, "
TITLE_LENGTH = 50  # the most that the server takes
VERIFIED = "1.23"  # releases that the integration was measured on


@dataclass(frozen=True, kw_only=True)
class ConnectReport:
    """What connecting found.

    Attributes:
        url: Address of the server.
        ls_project: Number of the project there.
        title: Its title.
        made: Whether it was made now.
        version: The server's release.
        user: Whose token it is.
        notes: What a person should know.
    """

    url: str
    ls_project: int
    title: str
    made: bool
    version: str
    user: str
    notes: tuple[str, ...] = ()


def connect(project: Project, url: str, *, ls_project: int | None = None) -> ConnectReport:
    """Checks a server and its project, makes the project if none is named, and writes both to labelloop.toml.

    Connecting again to the same server keeps the project.

    Raises:
        UsageError: The address cannot be used, or the labelloop project has no classes yet.
        ProjectError: The project's labelling configuration lacks something.
        ServerError: The server cannot be reached or refuses.
    """
    url = checked_url(url)
    classes = project.config.classes
    if not classes:
        raise UsageError(
            "the project has no classes yet, and people need names to choose from",
            value=project.root,
            way_out="Add labels first, or write classes into labelloop.toml.",
        )
    known = project.config.label_studio
    remembered = known is not None and known.url == url and ls_project in (None, known.project)
    if remembered and known is not None:
        ls_project = known.project
    made = ls_project is None
    with LabelStudio(url, find_token(url)) as client:
        version, user = client.version(), client.user()
        if ls_project is None:
            title = f"labelloop: {project.config.name}"[:TITLE_LENGTH]
            mark = _mark(project)
            # A connect before may have made it and not heard of it.
            ls_project = client.find_project(title, mark)
            ls_project = ls_project or client.create_project(title, labelling_config(classes), mark)
        facts = _facts(client, ls_project, remembered=remembered)
    check_config(facts.config, classes)
    tied, mark = LabelStudioConfig(url=url, project=ls_project), _mark(project)
    if known is not None and known.project == ls_project and facts.description == mark:
        move_rounds(project, server_name(known), server_name(tied))  # the same project at another address
    project.set_label_studio(tied)
    notes = []
    if not version.startswith(VERIFIED):
        notes.append(f"labelloop was measured on Label Studio {VERIFIED} only")
    if facts.description.startswith(_MARKED) and facts.description != mark:
        notes.append(f"project {ls_project} there was made for another labelloop project")
    return ConnectReport(
        url=url,
        ls_project=ls_project,
        title=facts.title,
        made=made,
        version=version,
        user=user,
        notes=tuple(notes),
    )


def _facts(client: LabelStudio, ls_project: int, *, remembered: bool) -> ProjectFacts:
    try:
        return client.project(ls_project)
    except ServerError as error:
        if status_of(error) != 404 or not remembered:
            raise
        raise ServerError(
            "the server no longer has the project that this one is tied to",
            value=f"{client.url}, project {ls_project}",
            way_out="Remove [label_studio] from labelloop.toml to have one made, or name one: --ls-project.",
        ) from error


def _mark(project: Project) -> str:
    """The description of the project on the server, by which it is found again; the ledger keeps it."""
    with project.ledger.write() as session:
        row = session.get(Meta, MARK)
        if row is None:
            row = Meta(key=MARK, value=f"{_MARKED}{uuid4().hex}")
            session.add(row)
        return row.value


def connected(project: Project) -> tuple[LabelStudio, LabelStudioConfig]:
    """The connection that ``connect`` made.

    Raises:
        ProjectError: There is none.
        ServerError: There is no token.
    """
    settings = project.config.label_studio
    if settings is None:
        raise ProjectError(
            "the project is not tied to a Label Studio project",
            value=project.root,
            way_out="Run labelloop connect URL, after labelloop server up where the lab has no server.",
        )
    return LabelStudio(settings.url, find_token(settings.url)), settings


def server_name(settings: LabelStudioConfig) -> str:
    """How the ledger names a project on a server."""
    return f"{settings.url}#{settings.project}"


def checked_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        UsageError: It is none, or holds a name or a password. The message does not show it then.
    """
    try:
        return LabelStudioConfig(url=url, project=1).url
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"this is no address of a server ({reason})",
            value="" if "@" in url else url,
            way_out=f"Give it as http://127.0.0.1:8080, and the token in {TOKEN_VARIABLE}.",
        ) from None  # the cause would show the address


def find_token(url: str) -> str:
    """The token for a server: from the environment, the keyring, or the server that ``server up`` started.

    Raises:
        NoTokenError: There is none.
        ServerError: It is that of our own server, which does not run now.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip() or _from_keyring(url)
    if token:
        return token
    local, here = server_status(), is_this_machine(url)
    if local is not None and here and urlsplit(local.url).port == urlsplit(url).port:
        return mint_token()
    if local is None and here and read_settings(server_home()).ready:
        way_out = f"Run labelloop server up, or copy a token to {TOKEN_VARIABLE}."
        raise ServerError("labelloop's own Label Studio does not run", value=url, way_out=way_out)
    start = "Run labelloop server up, if that is this server; or copy " if local is None else "Copy "
    if local is not None and here:
        start = f"labelloop's own server is at {local.url} now: labelloop connect {local.url}. Or copy "
    copy = f"{start}one from Account & Settings, Personal Access Token, to {TOKEN_VARIABLE}."
    raise NoTokenError("there is no token for Label Studio", value=url, way_out=copy)


def _from_keyring(url: str) -> str:
    """What the operating system's keyring holds, if the package keyring is installed."""
    if importlib.util.find_spec("keyring") is None:
        return ""
    keyring = importlib.import_module("keyring")
    errors = importlib.import_module("keyring.errors")
    try:
        return str(keyring.get_password(KEYRING_SERVICE, url) or "")
    except errors.KeyringError:
        return ""
