"""Tying a project to a Label Studio project, and finding the token for it."""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import ValidationError

from labelloop.errors import ProjectError, ServerError, UsageError
from labelloop.integrations.label_studio.answers import NoTokenError, status_of
from labelloop.integrations.label_studio.client import LabelStudio, ProjectFacts
from labelloop.integrations.label_studio.labelling_config import check_config, labelling_config
from labelloop.integrations.label_studio.server import server_status
from labelloop.integrations.label_studio.server_account import mint_token
from labelloop.integrations.label_studio.server_home import read_settings, server_home
from labelloop.integrations.label_studio.task_data import key_of
from labelloop.integrations.label_studio.transport import is_this_machine
from labelloop.project.config import LabelStudioConfig
from labelloop.project.project import Project
from labelloop.project.tables import Meta
from labelloop.review.rounds import move_rounds
from labelloop.review.tasks import all_tasks

TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"
KEYRING_SERVICE = "labelloop"
MARK = "connect:mark"  # in the ledger
_LOOKED_AT = 100  # tasks, to recognise a project by
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
    mark, made = _mark(project), False
    with LabelStudio(url, find_token(url)) as client:
        version, user = client.version(), client.user()
        facts = _tied_before(client, project, known, ls_project)
        moved = facts is not None
        if facts is None and ls_project is not None:
            facts = client.project(ls_project)
        if facts is None:
            title = f"labelloop: {project.config.name}"[:TITLE_LENGTH]
            # A connect before may have made it and not heard of it.
            found = client.find_project(title, mark)
            made = found is None
            facts = client.project(found or client.create_project(title, labelling_config(classes), mark))
    check_config(facts.config, classes)
    tied = LabelStudioConfig(url=url, project=facts.id)
    if moved and known is not None:
        move_rounds(project, known.server_name, tied.server_name)
    project.set_label_studio(tied)
    notes = []
    if not version.startswith(VERIFIED):
        notes.append(f"labelloop was measured on Label Studio {VERIFIED} only")
    if facts.description.startswith(_MARKED) and facts.description != mark:
        notes.append(f"project {facts.id} there was made for another labelloop project")
    return ConnectReport(
        url=url,
        ls_project=facts.id,
        title=facts.title,
        made=made,
        version=version,
        user=user,
        notes=tuple(notes),
    )


def _tied_before(
    client: LabelStudio, project: Project, known: LabelStudioConfig | None, ls_project: int | None
) -> ProjectFacts | None:
    """The project there that this one is tied to now, maybe by another address; None where another is meant.

    One of another number is the same where our tasks are in it: they were exported there and imported.

    Raises:
        ServerError: It is gone.
    """
    if known is None:
        return None
    if ls_project is not None and ls_project != known.project:
        facts = client.project(ls_project)
        return facts if _holds(client, ls_project, _keys(project, known)) else None
    try:
        facts = client.project(known.project)
    except ServerError as error:
        if known.url != client.url and status_of(error):
            return None  # another server, whose projects have such numbers too
        if status_of(error) != 404:
            raise
        raise ServerError(
            "the server no longer has the project that this one is tied to",
            value=f"{client.url}, project {known.project}",
            way_out="Remove [label_studio] from labelloop.toml to have one made, or name one: --ls-project.",
        ) from error
    if known.url == client.url or facts.description == _mark(project):
        return facts
    there = LabelStudioConfig(url=client.url, project=known.project)  # as a connect that was killed left it
    ours = _keys(project, known) | _keys(project, there)
    return facts if _holds(client, known.project, ours) else None


def _keys(project: Project, server: LabelStudioConfig) -> set[str]:
    """Of all tasks that are there."""
    return {task.key for task in all_tasks(project, server.server_name)}


def _holds(client: LabelStudio, ls_project: int, ours: set[str]) -> bool:
    """Whether a project of the server has tasks of ours among its first ones."""
    first = islice(client.tasks(ls_project, fields=["id", "data"]), _LOOKED_AT)
    return any(key_of(task) in ours for task in first)


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
            f"this is not the address of a server ({reason})",
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
    if local is not None and local.url.rstrip("/") == url:  # by another name somebody else may listen
        return mint_token()
    settings = read_settings(server_home())
    if local is None and here and settings.ready and urlsplit(url).port == settings.port:
        way_out = f"Run labelloop server up, or copy a token to {TOKEN_VARIABLE}."
        raise ServerError("labelloop's own Label Studio is not running", value=url, way_out=way_out)
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
