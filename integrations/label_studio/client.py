"""A thin client of Label Studio's HTTP interface: what labelloop asks a server for, and what it says.

The SDK's generated methods are used where they exist and cost nothing; all else is asked for by its path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from labelloop.errors import ServerError
from labelloop.integrations.label_studio.answers import status_of
from labelloop.integrations.label_studio.transport import Transport
from labelloop.plurals import plural

PAGE = 100  # tasks in one answer


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
        self._http = Transport(url, token)
        self.url = self._http.url

    def __enter__(self) -> LabelStudio:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def version(self) -> str:
        """The server's release, such as 1.23.2."""
        found = self._http.read_with(self._http.sdk.versions.get)
        with self._http.understood():
            return str(found.release)

    def user(self) -> str:
        """Whose token it is: the e-mail address."""
        found = self._http.read_with(self._http.sdk.users.whoami)
        with self._http.understood():
            return str(found.email)

    def users(self) -> dict[int, str]:
        """E-mail addresses of the people on the server, by number."""
        found = self._http.read("api/users/")
        with self._http.understood():
            return {int(user["id"]): str(user.get("email", "")) for user in found}

    def project(self, project: int) -> ProjectFacts:
        """A project.

        Raises:
            ServerError: There is none, or the server does not answer.
        """
        found = self._http.read(f"api/projects/{project}/")
        with self._http.understood():
            return _facts(found)

    def find_project(self, title: str, description: str) -> int | None:
        """The number of the project of this title and description, or None."""
        page = 1
        while True:
            found = self._http.read("api/projects/", {"title": title, "page": page, "page_size": PAGE})
            with self._http.understood():
                for project in found["results"]:
                    if project.get("description") == description:
                        return int(project["id"])
                if not found["next"]:
                    return None
            page += 1

    def create_project(self, title: str, config: str, description: str) -> int:
        """Makes a project whose tasks come least confident first; its number."""
        made = self._http.call(
            self._http.sdk.projects.create,
            title=title,
            label_config=config,
            description=description,
            sampling="Uncertainty sampling",
            show_collab_predictions=True,
        )
        with self._http.understood():
            return int(made.id)

    def set_model_version(self, project: int, version: str) -> None:
        """Whose scores order the tasks and are shown."""
        self._http.call(self._http.sdk.projects.update, id=project, model_version=version)

    def model_versions(self, project: int) -> dict[str, int]:
        """How many predictions there are of each model."""
        found = self._http.read(f"api/projects/{project}/model-versions/")
        with self._http.understood():
            return {str(name): int(n) for name, n in found.items()}

    def delete_model_version(self, project: int, version: str) -> None:
        """Deletes all predictions of a model."""
        self._http.send("DELETE", f"api/projects/{project}/model-versions/", {"model_version": version})

    def upload(self, project: int, files: Mapping[str, bytes]) -> dict[str, str]:
        """Uploads PNG images without making tasks of them.

        Args:
            project: Where to.
            files: Content by name; up to 100.

        Returns:
            What a task's data holds to show each file, by name.
        """
        parts = {f"file{i}": (name, content, "image/png") for i, (name, content) in enumerate(files.items())}
        answer = self._http.request(
            "POST", f"api/projects/{project}/import", params={"commit_to_project": "false"}, files=parts
        )
        with self._http.understood():
            ids = json.dumps(answer["file_upload_ids"])
        return self._uploaded(project, {"ids": ids})

    def uploads(self, project: int) -> dict[str, str]:
        """All files that this user uploaded to a project, as ``upload`` returns them."""
        return self._uploaded(project, {"all": "true"})

    def _uploaded(self, project: int, which: Mapping[str, str]) -> dict[str, str]:
        found = self._http.read(f"api/projects/{project}/file-uploads", which)
        # The server puts eight random characters and a hyphen before the name.
        with self._http.understood():
            return {upload["file"].rpartition("/")[2][9:]: "/data/" + upload["file"] for upload in found}

    def create_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Makes tasks, with the predictions that they hold; their numbers, in the order given.

        Raises:
            ServerError: The server refused, or made another number of tasks or predictions than were sent.
        """
        answer = self._http.send("POST", f"api/projects/{project}/import?return_task_ids=true", list(tasks))
        with self._http.understood():
            ids = [int(number) for number in answer.get("task_ids", ())]
            made = answer.get("prediction_count")
        wanted = sum(len(task.get("predictions", ())) for task in tasks)
        if len(ids) != len(tasks) or made != wanted:
            raise ServerError(
                "Label Studio did not take all that was sent",
                value=f"{len(ids)} of {plural(len(tasks), 'task')}, {made} of {plural(wanted, 'prediction')}",
                way_out="Its log says why. Run labelloop push again: it sends what is missing.",
            )
        return ids

    def create_predictions(self, project: int, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Adds predictions to tasks.

        Raises:
            ServerError: The server refused, or made fewer than were sent, which it does not say by itself.
        """
        answer = self._http.send("POST", f"api/projects/{project}/import/predictions", list(predictions))
        with self._http.understood():
            made = answer.get("created")
        if made != len(predictions):
            raise ServerError(
                "Label Studio did not take all predictions",
                value=f"{made} of {len(predictions)}",
                way_out="Its log says why. Run labelloop push again: it sends what is missing.",
            )

    def predictions(self, task: int) -> list[tuple[int, str]]:
        """Number and model of each prediction of a task."""
        found = self._http.read("api/predictions/", {"task": task})
        with self._http.understood():
            return [(int(each["id"]), str(each.get("model_version"))) for each in found]

    def delete_prediction(self, prediction: int) -> None:
        """Deletes one prediction; nothing where it is gone already."""
        self._delete(f"api/predictions/{prediction}/")

    def has_drafts(self, task: int) -> bool:
        """Whether anybody has begun an annotation of a task; a list of tasks tells only the token's own."""
        return bool(self._http.read(f"api/tasks/{task}/drafts"))

    def delete_task(self, task: int) -> None:
        """Deletes one task, with all that is in it; nothing where it is gone already."""
        self._delete(f"api/tasks/{task}/")

    def _delete(self, path: str) -> None:
        try:
            self._http.request("DELETE", path)
        except ServerError as error:
            if status_of(error) != 404:  # somebody else has deleted it meanwhile
                raise

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
            with self._http.understood():
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
        with self._http.understood():
            if not page:
                return None
            changed = datetime.fromisoformat(page[0]["updated_at"]).astimezone(UTC)
            clock = self._http.clock
            return (changed if clock is None else min(changed, clock)).isoformat()

    def _page(
        self, project: int, fields: Sequence[str], size: int, where: Sequence[Mapping[str, Any]], order: str
    ) -> tuple[list[dict[str, Any]], bool]:
        """The first tasks in an order, and whether there are more."""
        query: dict[str, Any] = {"ordering": [order]}
        if where:
            query["filters"] = {"conjunction": "and", "items": list(where)}
        answer = self._http.read(
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
        with self._http.understood():
            tasks = [dict(task) for task in answer["tasks"]]
            return tasks, int(answer["total"]) > len(tasks)


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
