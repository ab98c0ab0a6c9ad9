"""A thin client of Label Studio's HTTP interface, on its own SDK.

The SDK's generated methods are used where they exist and cost nothing; the rest goes through the SDK's own
transport, which renews access tokens. Only what reads is ever sent again here: a request that makes something
may have been carried out although its answer was lost, and only its sender can tell. One that was refused for
its token was not carried out; it is sent once more with a new access token.

No message holds a header or a token. No redirect is followed: it would give the token to another address, or
make a GET of a POST.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx
from label_studio_sdk.base_client import LabelStudioBase as Sdk  # the rest of it loads pandas

from labelloop.errors import ServerError
from labelloop.integrations.label_studio.answers import check, refused, status_of, translated, understood

READ_TRIES = 4
WAIT_S = 0.5  # before the second try; twice as long before each further one
TIMEOUT_S = 60.0  # of connecting, and between bytes; a large import takes seconds
PAGE = 100  # tasks in one answer
_RETRIED = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class ProjectFacts:
    """What the server says of a project.

    Attributes:
        id: Its number.
        title: As people see it.
        config: Its labelling configuration, XML.
        tasks: How many.
        annotations: How many, those of skipped tasks too.
        model_version: Whose scores order the tasks; may be empty.
        description: As its settings have it.
    """

    id: int
    title: str
    config: str
    tasks: int
    annotations: int
    model_version: str
    description: str


def is_this_machine(url: str) -> bool:
    """Whether an address is one of the machine's own loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class LabelStudio:
    """A connection to one server.

    Args:
        url: Address of the server, with a path where it lies behind one.
        token: Personal access token or legacy token.

    Raises:
        ServerError: The token is none, or the proxy or the certificates that the environment names cannot be
            used.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self._clock: datetime | None = None  # the server's, when it answered last
        if not token.isascii() or not token.isprintable() or " " in token:
            raise refused(401, "", self.url)  # here: what HTTP says of such a token would show it
        try:
            # A server on this machine is spoken to directly: the environment's proxy would get the token.
            direct = httpx.HTTPTransport() if is_this_machine(self.url) else None
            self._http = httpx.Client(
                timeout=TIMEOUT_S,
                event_hooks={"response": [partial(check, url=self.url), self._hear]},
                transport=direct,
            )
        except (ImportError, ValueError) as error:
            raise ServerError(
                f"the proxy that the environment names cannot be used ({error})",
                value=self.url,
                way_out="Change ALL_PROXY, HTTPS_PROXY and HTTP_PROXY, or name the server in NO_PROXY.",
            ) from error
        except OSError as error:
            raise ServerError(
                f"the certificates cannot be read ({error.strerror or error})",
                value=os.environ.get("SSL_CERT_FILE", ""),
                way_out="Set SSL_CERT_FILE to a file with the certificates to trust, or unset it.",
            ) from error
        try:
            with self._translated():
                self._sdk = Sdk(
                    base_url=self.url + "/",  # without it the SDK loses a path when it renews tokens
                    api_key=token,
                    httpx_client=self._http,
                )
        except ServerError:
            self._http.close()
            raise

    def __enter__(self) -> LabelStudio:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def version(self) -> str:
        """The server's release, such as 1.23.2."""
        found = self._reading(self._sdk.versions.get)
        with self._understood():
            return str(found.release)

    def user(self) -> str:
        """Whose token it is: the e-mail address."""
        found = self._reading(self._sdk.users.whoami)
        with self._understood():
            return str(found.email)

    def users(self) -> dict[int, str]:
        """E-mail addresses of the people on the server, by number."""
        found = self._read("api/users/")
        with self._understood():
            return {int(user["id"]): str(user.get("email", "")) for user in found}

    def project(self, project: int) -> ProjectFacts:
        """A project.

        Raises:
            ServerError: There is none, or the server does not answer.
        """
        found = self._read(f"api/projects/{project}/")
        with self._understood():
            return _facts(found)

    def find_project(self, title: str, description: str) -> int | None:
        """The number of the project of this title and description, or None."""
        page = 1
        while True:
            found = self._read("api/projects/", {"title": title, "page": page, "page_size": PAGE})
            with self._understood():
                for project in found["results"]:
                    if project.get("description") == description:
                        return int(project["id"])
                if not found["next"]:
                    return None
            page += 1

    def create_project(self, title: str, config: str, description: str) -> int:
        """Makes a project whose tasks come least confident first; its number."""
        made = self._once(
            self._sdk.projects.create,
            title=title,
            label_config=config,
            description=description,
            sampling="Uncertainty sampling",
            show_collab_predictions=True,
        )
        with self._understood():
            return int(made.id)

    def set_model_version(self, project: int, version: str) -> None:
        """Whose scores order the tasks and are shown."""
        self._once(self._sdk.projects.update, id=project, model_version=version)

    def model_versions(self, project: int) -> dict[str, int]:
        """How many predictions there are of each model."""
        found = self._read(f"api/projects/{project}/model-versions/")
        with self._understood():
            return {str(name): int(n) for name, n in found.items()}

    def delete_model_version(self, project: int, version: str) -> None:
        """Deletes all predictions of a model."""
        self._send("DELETE", f"api/projects/{project}/model-versions/", {"model_version": version})

    def upload(self, project: int, files: Mapping[str, bytes]) -> dict[str, str]:
        """Uploads PNG images without making tasks of them.

        Args:
            project: Where to.
            files: Content by name; up to 100.

        Returns:
            What a task's data holds to show each file, by name.
        """
        parts = {f"file{i}": (name, content, "image/png") for i, (name, content) in enumerate(files.items())}
        answer = self._request(
            "POST", f"api/projects/{project}/import", params={"commit_to_project": "false"}, files=parts
        )
        with self._understood():
            ids = json.dumps(answer["file_upload_ids"])
        return self._uploaded(project, {"ids": ids})

    def uploads(self, project: int) -> dict[str, str]:
        """All files that this user uploaded to a project, as ``upload`` returns them."""
        return self._uploaded(project, {"all": "true"})

    def _uploaded(self, project: int, which: Mapping[str, str]) -> dict[str, str]:
        found = self._read(f"api/projects/{project}/file-uploads", which)
        # The server puts eight random characters and a hyphen before the name.
        with self._understood():
            return {upload["file"].rpartition("/")[2][9:]: "/data/" + upload["file"] for upload in found}

    def create_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Makes tasks, with the predictions that they hold; their numbers, in the order given.

        Raises:
            ServerError: The server refused, or made another number of tasks or predictions than were sent.
        """
        answer = self._send("POST", f"api/projects/{project}/import?return_task_ids=true", list(tasks))
        with self._understood():
            ids = [int(number) for number in answer.get("task_ids", ())]
            made = answer.get("prediction_count")
        wanted = sum(len(task.get("predictions", ())) for task in tasks)
        if len(ids) != len(tasks) or made != wanted:
            raise ServerError(
                "Label Studio did not take all that was sent",
                value=f"{len(ids)} of {len(tasks)} tasks, {made} of {wanted} predictions",
                way_out="Its log says why. Run labelloop push again: it sends what is missing.",
            )
        return ids

    def create_predictions(self, project: int, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Adds predictions to tasks.

        Raises:
            ServerError: The server refused, or made fewer than were sent, which it does not say by itself.
        """
        answer = self._send("POST", f"api/projects/{project}/import/predictions", list(predictions))
        with self._understood():
            made = answer.get("created")
        if made != len(predictions):
            raise ServerError(
                "Label Studio did not take all predictions",
                value=f"{made} of {len(predictions)}",
                way_out="Its log says why. Run labelloop push again: it sends what is missing.",
            )

    def predictions(self, task: int) -> list[tuple[int, str]]:
        """Number and model of each prediction of a task."""
        found = self._read("api/predictions/", {"task": task})
        with self._understood():
            return [(int(each["id"]), str(each.get("model_version"))) for each in found]

    def delete_prediction(self, prediction: int) -> None:
        """Deletes one prediction."""
        self._request("DELETE", f"api/predictions/{prediction}/")

    def has_drafts(self, task: int) -> bool:
        """Whether anybody has begun an annotation of a task; a list of tasks tells only the token's own."""
        return bool(self._read(f"api/tasks/{task}/drafts"))

    def delete_task(self, task: int) -> None:
        """Deletes one task, with all that is in it."""
        self._request("DELETE", f"api/tasks/{task}/")

    def tasks(
        self, project: int, *, fields: Sequence[str], where: Sequence[Mapping[str, Any]] = ()
    ) -> Iterator[dict[str, Any]]:
        """The tasks of a project by number, a page at a time.

        A page is asked for by the last number of the one before: what is changed, made or deleted meanwhile
        moves no task from one page to another.

        Args:
            project: Which.
            fields: Names of the fields wanted, ``id`` among them.
            where: Conditions that must all hold, as the server's data manager takes them.
        """
        last = 0
        while True:
            beyond = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": last}
            page, more = self._page(project, fields, PAGE, [*where, beyond], "tasks:id")
            with self._understood():
                numbers = [last, *(int(task["id"]) for task in page)]
                if numbers != sorted(set(numbers)):
                    raise ValueError("the server does not heed the condition or the order")
            yield from page
            if not more or not page:
                return
            last = numbers[-1]

    def last_change(self, project: int) -> str | None:
        """When a task of a project was changed last, ISO 8601; None where there is no task.

        It is never later than the server's clock: that may have been set back since the change, and what is
        changed next says an earlier time.
        """
        page, _ = self._page(project, ["id", "updated_at"], 1, [], "-tasks:updated_at")
        with self._understood():
            if not page:
                return None
            changed = datetime.fromisoformat(page[0]["updated_at"]).astimezone(UTC)
            return (changed if self._clock is None else min(changed, self._clock)).isoformat()

    def _hear(self, response: httpx.Response) -> None:
        """Notes the server's clock, to the end of the second that an answer names."""
        try:
            self._clock = parsedate_to_datetime(response.headers["date"]) + timedelta(seconds=1)
        except (KeyError, ValueError):
            self._clock = None

    def _page(
        self, project: int, fields: Sequence[str], size: int, where: Sequence[Mapping[str, Any]], order: str
    ) -> tuple[list[dict[str, Any]], bool]:
        """The first tasks in an order, and whether there are more."""
        query: dict[str, Any] = {"ordering": [order]}
        if where:
            query["filters"] = {"conjunction": "and", "items": list(where)}
        answer = self._read(
            "api/tasks",
            {
                "project": project,
                "fields": "all",
                "include": ",".join(fields),
                "page": 1,
                "page_size": size,
                "query": json.dumps(query),
            },
        )
        with self._understood():
            tasks = [dict(task) for task in answer["tasks"]]
            return tasks, int(answer["total"]) > len(tasks)

    def _read(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        return self._again(lambda: self._request("GET", path, params=params))

    def _reading(self, method: Callable[..., Any]) -> Any:
        return self._again(lambda: self._once(method))

    def _again(self, read: Callable[[], Any]) -> Any:
        """Reads, and again after failures that pass."""
        for attempt in range(READ_TRIES):
            try:
                return read()
            except ServerError as error:
                passing = isinstance(error.__cause__, httpx.TransportError) or status_of(error) in _RETRIED
                if not passing or attempt == READ_TRIES - 1:
                    raise
            time.sleep(WAIT_S * 2**attempt)
        raise AssertionError("not reached")

    def _once(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """A generated method of the SDK, with its errors translated."""
        return self._renewing(lambda: method(**arguments, request_options={"max_retries": 0}))

    def _send(self, method: str, path: str, body: Any) -> Any:
        return self._request(method, path, content=json.dumps(body, separators=(",", ":")).encode())

    def _request(self, method: str, path: str, **options: Any) -> Any:
        headers = {"content-type": "application/json"} if "content" in options else None
        send = self._sdk._client_wrapper.httpx_client.request
        response = self._renewing(
            lambda: send(path, method=method, headers=headers, request_options={"max_retries": 0}, **options)
        )
        if response.status_code == 204 or not response.content:
            return None
        with self._understood():
            return response.json()

    def _renewing(self, send: Callable[[], Any]) -> Any:
        """Sends, and again with a new access token where the server does not accept the one there was.

        The SDK looks at this machine's clock to see when one has expired; the server at its own.
        """
        try:
            with self._translated():
                return send()
        except ServerError as error:
            tokens = self._sdk._client_wrapper._tokens_client
            if status_of(error) != 401 or tokens._access_token is None:
                raise
            tokens._access_token = None
        with self._translated():
            return send()

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.url)

    def _understood(self) -> AbstractContextManager[None]:
        return understood(self.url)


def _facts(project: Mapping[str, Any]) -> ProjectFacts:
    return ProjectFacts(
        id=int(project["id"]),
        title=str(project.get("title", "")),
        config=str(project.get("label_config", "")),
        tasks=int(project.get("task_number") or 0),
        annotations=int(project.get("total_annotations_number") or 0)
        + int(project.get("skipped_annotations_number") or 0),
        model_version=str(project.get("model_version") or ""),
        description=str(project.get("description") or ""),
    )
