"""A thin client of Label Studio's HTTP interface, on its own SDK.

The SDK's generated methods are used where they exist and cost nothing; the rest goes through the SDK's own
transport, which renews access tokens. Only what reads is ever sent again here: a request that makes something
may have been carried out although its answer was lost, and only its sender can tell.

No error holds a header or a token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from label_studio_sdk.base_client import LabelStudioBase as Sdk  # the rest of it loads pandas
from label_studio_sdk.core.api_error import ApiError

from labelloop.errors import ServerError

READ_TRIES = 4
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
    """

    id: int
    title: str
    config: str
    tasks: int
    annotations: int
    model_version: str


class LabelStudio:
    """A connection to one server.

    Args:
        url: Address of the server, with a path where it lies behind one.
        token: Personal access token or legacy token.
        http: Replaces the HTTP client, for tests with faults and for special networks.

    Raises:
        ServerError: The token is none.
    """

    def __init__(self, url: str, token: str, *, http: httpx.Client | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = http or httpx.Client(timeout=TIMEOUT_S, follow_redirects=True)
        try:
            self._sdk = Sdk(
                base_url=self.url + "/",  # with the slash, else the SDK loses a path when it renews tokens
                api_key=token,
                httpx_client=self._http,
            )
        except ApiError as error:
            self._http.close()
            raise _refused(error.status_code or 401, error.body, self.url) from error

    def __enter__(self) -> LabelStudio:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def version(self) -> str:
        """The server's release, such as 1.23.2."""
        return str(self._reading(self._sdk.versions.get).release)

    def user(self) -> str:
        """Whose token it is: the e-mail address."""
        return str(self._reading(self._sdk.users.whoami).email)

    def users(self) -> dict[int, str]:
        """E-mail addresses of the people on the server, by number."""
        return {int(user["id"]): str(user.get("email", "")) for user in self._read("api/users/")}

    def project(self, project: int) -> ProjectFacts:
        """A project.

        Raises:
            ServerError: There is none, or the server does not answer.
        """
        return _facts(self._read(f"api/projects/{project}"))

    def create_project(self, title: str, config: str) -> int:
        """Makes a project whose tasks come least confident first; its number."""
        made = self._once(
            self._sdk.projects.create,
            title=title,
            label_config=config,
            sampling="Uncertainty sampling",
            show_collab_predictions=True,
        )
        return int(made.id)

    def set_model_version(self, project: int, version: str) -> None:
        """Whose scores order the tasks and are shown."""
        self._once(self._sdk.projects.update, id=project, model_version=version)

    def model_versions(self, project: int) -> dict[str, int]:
        """How many predictions there are of each model."""
        found = self._read(f"api/projects/{project}/model-versions/")
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
        return self._uploaded(project, {"ids": json.dumps(answer["file_upload_ids"])})

    def uploads(self, project: int) -> dict[str, str]:
        """All files that this user uploaded to a project, as ``upload`` returns them."""
        return self._uploaded(project, {"all": "true"})

    def _uploaded(self, project: int, which: Mapping[str, str]) -> dict[str, str]:
        found = self._read(f"api/projects/{project}/file-uploads", which)
        # The server puts eight random characters and a hyphen before the name.
        return {upload["file"].rpartition("/")[2][9:]: "/data/" + upload["file"] for upload in found}

    def create_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Makes tasks, with the predictions that they hold; their numbers, in the order given.

        Raises:
            ServerError: The server refused, or made another number of tasks or predictions than were sent.
        """
        answer = self._send("POST", f"api/projects/{project}/import?return_task_ids=true", list(tasks))
        ids = [int(number) for number in answer.get("task_ids", ())]
        wanted = sum(len(task.get("predictions", ())) for task in tasks)
        made = answer.get("prediction_count")
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
        if answer.get("created") != len(predictions):
            raise ServerError(
                "Label Studio did not take all predictions",
                value=f"{answer.get('created')} of {len(predictions)}",
                way_out="Its log says why. Run labelloop push again: it sends what is missing.",
            )

    def tasks(
        self, project: int, *, fields: Sequence[str], query: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The tasks of a project, a page at a time.

        Args:
            project: Which.
            fields: Names of the fields wanted, of tasks and of what is in them.
            query: Filters and ordering, as the server's data manager takes them; by number if None.
        """
        page, seen = 1, 0
        wanted: dict[str, Any] = {"ordering": ["tasks:id"], **(query or {})}
        while True:
            answer = self._read(
                "api/tasks",
                {
                    "project": project,
                    "fields": "all",
                    "include": ",".join(fields),
                    "page": page,
                    "page_size": PAGE,
                    "query": json.dumps(wanted),
                },
            )
            yield from answer["tasks"]
            seen += len(answer["tasks"])
            if seen >= answer["total"] or not answer["tasks"]:
                return
            page += 1

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
                passing = isinstance(error.__cause__, httpx.TransportError) or _status(error) in _RETRIED
                if not passing or attempt == READ_TRIES - 1:
                    raise
            time.sleep(0.5 * 2**attempt)
        raise AssertionError("not reached")

    def _once(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """A generated method of the SDK, with its errors translated."""
        try:
            return method(**arguments, request_options={"max_retries": 0})
        except httpx.TransportError as error:
            raise _unreachable(error, self.url) from error
        except ApiError as error:
            raise _refused(error.status_code or 0, error.body, self.url) from error

    def _send(self, method: str, path: str, body: Any) -> Any:
        return self._request(method, path, content=json.dumps(body, separators=(",", ":")).encode())

    def _request(self, method: str, path: str, **options: Any) -> Any:
        headers = {"content-type": "application/json"} if "content" in options else None
        try:
            response = self._sdk._client_wrapper.httpx_client.request(
                path, method=method, headers=headers, request_options={"max_retries": 0}, **options
            )
        except httpx.TransportError as error:
            raise _unreachable(error, self.url) from error
        except ApiError as error:  # the token could not be renewed
            raise _refused(error.status_code or 401, error.body, self.url) from error
        if response.status_code >= 400:
            raise _refused(response.status_code, response.text, self.url)
        if response.status_code == 204 or not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise ServerError(
                "this is no Label Studio", value=self.url, way_out="Check the address; it may lack a path."
            ) from error


def _facts(project: Mapping[str, Any]) -> ProjectFacts:
    return ProjectFacts(
        id=int(project["id"]),
        title=str(project.get("title", "")),
        config=str(project.get("label_config", "")),
        tasks=int(project.get("task_number") or 0),
        annotations=int(project.get("total_annotations_number") or 0)
        + int(project.get("skipped_annotations_number") or 0),
        model_version=str(project.get("model_version") or ""),
    )


def _unreachable(error: httpx.TransportError, url: str) -> ServerError:
    if isinstance(error, httpx.TimeoutException):
        return ServerError(
            "Label Studio did not answer in time",
            value=url,
            way_out="Run the same command again; it goes on.",
        )
    return ServerError(
        f"Label Studio cannot be reached ({type(error).__name__})",
        value=url,
        way_out="Start it (labelloop server up) or check the address. The same command goes on where it was.",
    )


class _Refused(ServerError):
    status = 0


def _status(error: ServerError) -> int:
    return error.status if isinstance(error, _Refused) else 0


def _refused(status: int, body: Any, url: str) -> ServerError:
    """What a status means, with the server's own words where these help; a page of HTML does not."""
    way_outs = {
        401: "Set LABEL_STUDIO_API_KEY to a valid token of that server: Account & Settings, Access Token.",
        403: "Ask the server's administrator for access.",
        404: "Check the number of the project and the address.",
        413: "Raise the server's limit on the size of a request, or push fewer tasks at a time.",
    }
    meanings = {401: "Label Studio does not accept the token", 404: "Label Studio has no such thing"}
    words = _words(body)
    what = meanings.get(status, f"Label Studio refused (HTTP {status})")
    error = _Refused(
        what if not words or status == 401 else f"{what}: {words}",
        value=url,
        way_out=way_outs.get(status, "Its log says more. Run the same command again; it goes on."),
    )
    error.status = status
    return error


def _words(body: Any) -> str:
    """The server's reason, short."""
    if isinstance(body, bytes | str):
        try:
            body = json.loads(body)
        except ValueError:
            return ""
    if not isinstance(body, Mapping):
        return ""
    faults = body.get("validation_errors") or body.get("detail") or ""
    text = faults if isinstance(faults, str) else json.dumps(faults, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + "..."
