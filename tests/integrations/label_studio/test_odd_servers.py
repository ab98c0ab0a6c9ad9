"""What a real server does too seldom to be tested on it: lost answers, clocks that are set, drafts of others.

The server here is a few lines that answer as Label Studio 1.23 does. Its state is plain: a test moves its
clock, begins drafts, or takes annotations away.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from labelloop.budget.opening import RoundRequest
from labelloop.budget.strategies import Budget
from labelloop.errors import ServerError
from labelloop.instances import Instances
from labelloop.integrations.label_studio import sending, transport
from labelloop.integrations.label_studio.connecting import connect
from labelloop.integrations.label_studio.labelling_config import labelling_config
from labelloop.integrations.label_studio.loop import run_loop
from labelloop.integrations.label_studio.pull import pull
from labelloop.integrations.label_studio.push import push
from labelloop.project import ledger
from labelloop.project.adding import add_images
from labelloop.project.config import LabelStudioConfig, ProjectConfig
from labelloop.project.project import Project
from labelloop.review.choice import Choice
from labelloop.review.known import minutes_spent
from labelloop.review.rounds import plan_round, rounds
from labelloop.review.tiles import whole_view

SIDE = 32


@dataclass(kw_only=True)
class SmallServer:
    """One project of a server.

    Attributes:
        url: Its address.
        config: The project's labelling configuration.
        number: Of the project; the server has no other.
        clock: The server's time.
        tasks: By number.
        drafts: Numbers of tasks in which somebody has begun; the list of tasks does not show them.
        asked: Method and path of each request.
        read: Numbers of the tasks that were given with their annotations, as often as they were.
        meanwhile: Called with each request before it is answered: what people do at that moment.
        fail: The so-many-th making of tasks from now answers 500, after it has made nothing.
    """

    config: str
    url: str = ""
    number: int = 1
    description: str = ""
    clock: datetime = datetime(2026, 1, 1, 10, tzinfo=UTC)
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    drafts: set[int] = field(default_factory=set)
    files: dict[int, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    read: list[int] = field(default_factory=list)
    meanwhile: Callable[[str], object] = lambda asked: None
    fail: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def now(self) -> str:
        return self.clock.isoformat()

    def later(self, **time: float) -> None:
        self.clock += timedelta(**time)

    def annotate(self, task: int, *, lead_time: float = 30.0, **other: Any) -> int:
        """Somebody submits what the task shows; the annotation's number."""
        there = self.tasks[task]
        result = [{**region, "origin": "prediction"} for region in there["predictions"][0]["result"]]
        annotation = {
            "id": next(self.numbers), "created_at": self.now(), "updated_at": self.now(), "completed_by": 1,
            "lead_time": lead_time, "was_cancelled": False, "ground_truth": False, "draft_created_at": None,
            "result": result, **other,
        }  # fmt: skip
        there["annotations"].append(annotation)
        there["updated_at"] = self.now()
        return int(annotation["id"])

    def add_task(self, data: dict[str, Any], predictions: Any = ()) -> int:
        number = next(self.numbers)
        self.tasks[number] = {
            "id": number, "data": data, "annotations": [], "predictions": [dict(p) for p in predictions],
            "created_at": self.now(), "updated_at": self.now(),
        }  # fmt: skip
        return number

    def of_round(self) -> list[str]:
        """The round of each task of labelloop's."""
        return [task["data"]["labelloop_round"] for _, task in sorted(self.tasks.items())]

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
        parts = path.strip("/").split("/")[1:]
        match method, parts:
            case _, ["version"]:
                return {"release": "1.23.2"}
            case _, ["current-user", "whoami"]:
                return {"id": 1, "email": "a@example.org", "username": "a"}
            case _, ["users"]:
                return [{"id": 1, "email": "a@example.org"}]
            case "GET", ["projects"]:
                return {"results": [self._facts()], "next": None}
            case "GET" | "PATCH", ["projects", number]:
                return self._facts() if int(number) == self.number else None
            case "GET", ["projects", _, "model-versions"]:
                models = [p["model_version"] for t in self.tasks.values() for p in t["predictions"]]
                return {model: models.count(model) for model in models}
            case "DELETE", ["projects", _, "model-versions"]:
                gone = json.loads(body)["model_version"]
                for task in self.tasks.values():
                    task["predictions"] = [p for p in task["predictions"] if p["model_version"] != gone]
                return {}
            case "POST", ["projects", _, "import", "predictions"]:
                made = json.loads(body)
                for prediction in made:
                    self.tasks[prediction["task"]]["predictions"].append(prediction)
                return {"created": len(made)}
            case "POST", ["projects", _, "import"] if "commit_to_project" in query:
                ids = []
                for name in re.findall(rb'filename="([^"]+)"', body):
                    ids.append(next(self.numbers))
                    self.files[ids[-1]] = f"upload/1/01234567-{name.decode()}"
                return {"file_upload_ids": ids}
            case "POST", ["projects", _, "import"]:
                self.fail -= 1
                if self.fail == 0:
                    return None
                sent = json.loads(body)
                ids = [self.add_task(task["data"], task["predictions"]) for task in sent]
                return {"task_ids": ids, "prediction_count": sum(len(task["predictions"]) for task in sent)}
            case "GET", ["projects", _, "file-uploads"]:
                wanted = json.loads(query["ids"]) if "ids" in query else list(self.files)
                return [{"file": self.files[number]} for number in wanted]
            case "GET", ["tasks"]:
                return self._list(query)
            case "GET", ["tasks", number, "drafts"]:
                return [{"id": 1}] if int(number) in self.drafts else []
            case "DELETE", ["tasks", number]:
                return None if self.tasks.pop(int(number), None) is None else {}
        return None

    def _facts(self) -> dict[str, Any]:
        made = [a for task in self.tasks.values() for a in task["annotations"]]
        skipped = sum(a["was_cancelled"] for a in made)
        return {
            "id": self.number, "title": "screen", "label_config": self.config, "task_number": len(self.tasks),
            "total_annotations_number": len(made) - skipped, "skipped_annotations_number": skipped,
            "model_version": "", "description": self.description,
        }  # fmt: skip

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        asked = json.loads(query["query"])
        found = sorted(self.tasks.values(), key=lambda task: int(task["id"]))
        for item in asked.get("filters", {}).get("items", ()):
            found = [task for task in found if _holds(item, task)]
        if asked["ordering"] == ["-tasks:updated_at"]:
            found.sort(key=lambda task: datetime.fromisoformat(task["updated_at"]), reverse=True)
        page = found[: int(query["page_size"])]
        if "annotations" in query["include"].split(","):
            self.read += [int(task["id"]) for task in page]
        return {"tasks": [self._shown(task) for task in page], "total": len(found)}

    def _shown(self, task: dict[str, Any]) -> dict[str, Any]:
        skipped = sum(a["was_cancelled"] for a in task["annotations"])
        models = dict.fromkeys(p["model_version"] for p in task["predictions"])
        return {
            **task, "drafts": [], "total_annotations": len(task["annotations"]) - skipped,
            "cancelled_annotations": skipped, "total_predictions": len(task["predictions"]),
            "predictions_model_versions": ",".join(models),
        }  # fmt: skip


def _holds(item: dict[str, Any], task: dict[str, Any]) -> bool:
    name, value = item["filter"].removeprefix("filter:tasks:"), item["value"]
    has = task["data"].get(name[5:]) if name.startswith("data.") else task[name]
    match item["operator"]:
        case "equal":
            return bool(has == value)
        case "regex":
            return re.match(value, str(has)) is not None
        case "greater" if name == "updated_at":
            return datetime.fromisoformat(has) > datetime.fromisoformat(value)
        case "greater":
            return bool(has > value)
    raise AssertionError(item)


@pytest.fixture
def server() -> Iterator[SmallServer]:
    made = SmallServer(config=labelling_config(("cell",)))

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            made.asked.append(f"{self.command} {path}")
            made.meanwhile(made.asked[-1])
            said = made.answer(self.command, path, {k: v[0] for k, v in query.items()}, body)
            text = json.dumps(said).encode()
            self.send_response_only(200 if said is not None else 500 if "import" in path else 404)
            self.send_header("date", format_datetime(made.clock, usegmt=True))
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        made.url = f"http://127.0.0.1:{http.server_port}"
        yield made
        http.shutdown()


@dataclass
class Screen:
    """A project of images without labels that is tied to the server; in each lies one object."""

    project: Project

    def plan(self, *images: int) -> int:
        """A round about some images, by number from 1; its number."""
        square = np.zeros((1, SIDE, SIDE), np.bool_)
        square[0, 8:20, 8:20] = True
        shown = Instances.from_dense(square, scores=[0.9])
        choices = [
            Choice(
                image=image,
                proposed=shown,
                views=(whole_view(shown),),
                confidence=0.5,
                chosen=({"arm": "x"},),
            )
            for image in self.project.images()
            if image.id in images
        ]
        settings = self.project.config.label_studio
        assert settings is not None
        return plan_round(
            self.project, choices, run=None, which=None, server=settings.server_name, min_score=0.0,
            strategy="random",
        ).id  # fmt: skip

    def push(self, *, tasks: int = 3, new_round: bool = False) -> Any:
        request = RoundRequest(budget=Budget(tasks=tasks), strategy="random")
        return push(self.project, request, new_round=new_round)


@pytest.fixture
def screen(tmp_path: Path, server: SmallServer, monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "x" * 40)
    (tmp_path / "pool").mkdir()
    for i in range(9):
        Image.fromarray(np.full((SIDE, SIDE), i, np.uint8)).save(tmp_path / "pool" / f"{i}.png")
    tied = LabelStudioConfig(url=server.url, project=server.number)
    config = ProjectConfig(name="screen", classes=("cell",), label_studio=tied)
    project = Project.init(tmp_path / "screen", config)
    add_images(project, [str(tmp_path / "pool")])
    return Screen(project)


def test_a_task_says_why_it_was_chosen_and_what_it_should_take_on_the_server_and_in_the_report(
    screen: Screen, server: SmallServer
) -> None:
    server.fail = 1
    with pytest.raises(ServerError):
        screen.push(tasks=2)
    report = screen.push()
    known = [
        {key: task["data"].get(key) for key in ("name", "why", "minutes")} for task in server.tasks.values()
    ]
    assert {each["why"] for each in known} == {"drawn at random"}
    assert sum(each["minutes"] for each in known) == pytest.approx(report.predicted_minutes, abs=0.1)
    assert report.chosen == known
    again = screen.push()
    assert (again.sent, again.chosen) == (0, known)


def test_tasks_of_rounds_that_do_not_keep_why_are_completed_and_pulled_as_ever(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1, 2)
    report = screen.push()
    assert not any({"why", "minutes"} & task["data"].keys() for task in server.tasks.values())
    assert [each["why"] for each in report.chosen] == [None, None]
    server.annotate(min(server.tasks))
    assert pull(screen.project).annotations_new == 1
    assert (screen.push().sent, len(screen.push().chosen)) == (0, 1)


def test_a_copy_in_which_somebody_has_begun_a_draft_is_kept_and_is_the_task(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1)
    screen.push()
    [task] = server.tasks.values()
    _, begun = (server.add_task(task["data"], task["predictions"]) for _ in range(2))
    server.drafts = {begun}
    screen.push()
    assert sorted(server.tasks) == [begun]
    server.add_task(task["data"], task["predictions"])
    server.drafts = set(server.tasks)
    screen.push()
    assert len(server.tasks) == 2


def test_a_copy_that_is_submitted_while_a_push_looks_for_copies_is_kept(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1)
    screen.push()
    [task] = server.tasks.values()
    copy = server.add_task(task["data"], task["predictions"])
    server.drafts = {copy}

    def submit(asked: str) -> None:
        """The draft is an annotation by the time that the push asks for drafts."""
        if asked == f"GET /api/tasks/{copy}/drafts":
            server.drafts.clear()
            server.annotate(copy)

    server.meanwhile = submit
    screen.push()
    assert sorted(server.tasks) == [copy]
    assert pull(screen.project).annotations_new == 1


def test_a_copy_that_somebody_else_deletes_meanwhile_is_gone_all_the_same(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1)
    screen.push()
    [(number, task)] = server.tasks.items()
    copy = server.add_task(task["data"], task["predictions"])

    def delete(asked: str) -> None:
        if asked == f"DELETE /api/tasks/{copy}/":
            del server.tasks[copy]

    server.meanwhile = delete
    assert screen.push().tasks == 1
    assert sorted(server.tasks) == [number]


def test_a_push_that_has_nothing_to_send_asks_for_no_list_of_pictures(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1, 2)
    screen.push()
    server.asked.clear()
    assert screen.push().sent == 0
    assert not any("file-uploads" in asked for asked in server.asked)


def test_a_new_round_that_was_cut_off_is_completed_by_the_same_command(
    screen: Screen, server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CHUNK_TASKS", 2)
    screen.plan(1)
    screen.push()
    server.fail = 2
    with pytest.raises(ServerError, match="Run the same command again"):
        screen.push(tasks=4, new_round=True)
    assert server.of_round() == ["1", "2", "2"]
    again = screen.push(tasks=4, new_round=True)
    assert (again.round, again.sent, again.tasks, again.came_first) == (2, 2, 4, False)
    assert screen.push(tasks=2, new_round=True).round == 3
    assert server.of_round() == ["1", "2", "2", "2", "2", "3", "3"]


def test_a_new_round_is_opened_though_the_first_one_was_cut_off(screen: Screen, server: SmallServer) -> None:
    screen.plan(1, 2)
    server.fail = 1
    with pytest.raises(ServerError):
        screen.push()
    assert screen.push(tasks=2, new_round=True).round == 2
    assert server.of_round() == ["2", "2"]


def test_the_loop_waits_for_a_ledger_that_another_command_writes_and_goes_on(
    screen: Screen, server: SmallServer, monkeypatch: pytest.MonkeyPatch, watching: Any
) -> None:
    screen.plan(1, 2)
    screen.push()
    server.annotate(min(server.tasks))
    monkeypatch.setattr(ledger, "WAIT_FOR_LOCK_S", 0)
    project = Project.open(screen.project.root)
    other = sqlite3.connect(project.root / ".labelloop" / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    turns = []

    def sleep(_: float) -> None:
        turns.append(len(watching.told))
        if len(turns) == 2:
            other.execute("COMMIT")
        if len(turns) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        run_loop(project, every_s=1, retrain_after=99, progress=watching)
    other.close()
    assert turns == [1, 1, 3]
    assert "locked" in watching.told[0]
    assert watching.told[1:] == ["1 image came back from review", "The ledger can be used again."]


@pytest.mark.parametrize("foreign", [True, False])
def test_nothing_is_missed_after_the_servers_clock_was_set_back(
    screen: Screen, server: SmallServer, *, foreign: bool
) -> None:
    screen.plan(1, 2, 3)
    screen.push()
    first, second, third = server.tasks
    server.later(hours=4)
    if foreign:
        server.add_task({"image": "x"})
    else:
        server.annotate(first)
    pull(screen.project)
    server.later(hours=-2)
    number = server.annotate(second)
    assert pull(screen.project).annotations_new == 1
    server.later(minutes=20)
    [annotation] = server.tasks[second]["annotations"]
    annotation["updated_at"] = server.tasks[second]["updated_at"] = server.now()
    annotation["result"] = []
    report = pull(screen.project)
    assert (report.annotations_changed, report.edits["deleted"]) == (1, 1)
    server.later(hours=2)
    server.annotate(third)
    server.tasks[second]["annotations"] = []
    report = pull(screen.project)
    assert (report.annotations_new, report.annotations_gone) == (1, 1)
    assert number == annotation["id"]


def test_an_annotation_that_left_no_trace_when_it_was_deleted_is_noticed_beside_tasks_of_others(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1, 2)
    screen.push()
    first, second = server.tasks
    other = server.add_task({"image": "x"}, server.tasks[first]["predictions"])
    for task in (first, second, other):
        server.annotate(task)
        server.later(minutes=1)
    assert pull(screen.project).annotations_new == 2
    server.tasks[first]["annotations"] = []
    server.annotate(other)
    assert pull(screen.project).annotations_gone == 1
    server.asked.clear()
    assert pull(screen.project).annotations_gone == 0
    assert server.asked.count("GET /api/tasks") == 2  # the last change, and what changed since


@pytest.mark.parametrize("many", [False, True])
def test_where_an_annotation_was_deleted_without_a_trace_no_more_is_read_again_than_has_to_be(
    screen: Screen, server: SmallServer, monkeypatch: pytest.MonkeyPatch, *, many: bool
) -> None:
    if many:
        monkeypatch.setattr("labelloop.integrations.label_studio.pull.MOST_KEYS", 0)
    screen.plan(1, 2, 3)
    screen.push()
    first, *others = server.tasks
    for task in (first, *others):
        server.annotate(task)
        server.later(minutes=1)
    pull(screen.project)
    server.tasks[first]["annotations"] = []
    server.read.clear()
    assert pull(screen.project).annotations_gone == 1
    again = server.read[server.read.index(first) :]
    assert again == ([first, *others, first] if many else [first])
    assert pull(screen.project).annotations_gone == 0


def test_what_is_submitted_while_a_pull_reads_makes_it_read_nothing_again(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1, 2)
    screen.push()
    first, second = server.tasks
    server.annotate(first)

    def submit(asked: str) -> None:
        """After the counts were given, and before the tasks are."""
        if server.asked.count("GET /api/tasks") == 1 and asked == "GET /api/tasks":
            server.annotate(second)

    server.asked.clear()
    server.meanwhile = submit
    assert pull(screen.project).annotations_new == 2
    assert server.asked.count("GET /api/tasks") == 2  # the last change, and what changed since
    assert sorted(server.read) == [first, second]


def test_a_pull_says_what_it_brought_though_the_server_fails_when_annotations_are_counted(
    screen: Screen, server: SmallServer, monkeypatch: pytest.MonkeyPatch, watching: Any
) -> None:
    monkeypatch.setattr(transport, "WAIT_S", 0.0)
    screen.plan(1, 2, 3)
    screen.push()
    first, second, third = server.tasks
    for task in (first, second):
        server.annotate(task)
        server.later(minutes=1)
    pull(screen.project)
    server.tasks[first]["annotations"] = []
    server.annotate(third)
    server.asked.clear()

    def fail(asked: str) -> None:
        """From the third list of tasks on."""
        if asked == "GET /api/tasks" and server.asked.count(asked) > 2:
            raise ConnectionResetError

    server.meanwhile = fail
    report = pull(screen.project, progress=watching)
    assert (report.annotations_new, report.annotations_gone) == (1, 0)
    assert "cannot be reached" in watching.told[-1]
    server.meanwhile = lambda asked: None
    report = pull(screen.project)
    assert (report.annotations_new, report.annotations_gone) == (0, 1)


def test_a_task_that_is_deleted_while_annotations_are_counted_is_noticed_once(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1, 2, 3)
    screen.push()
    first, second, third = server.tasks
    for task in (first, second, third):
        server.annotate(task)
        server.later(minutes=1)
    pull(screen.project)
    server.tasks[first]["annotations"] = []
    server.annotate(third)
    server.asked.clear()

    def delete(asked: str) -> None:
        """After the last change and what changed since were asked for."""
        if server.asked.count("GET /api/tasks") == 3:
            server.tasks.pop(second, None)

    server.meanwhile = delete
    report = pull(screen.project)
    assert (report.annotations_gone, report.tasks_deleted) == (2, 1)
    report = pull(screen.project)
    assert (report.annotations_gone, report.tasks_deleted) == (0, 0)


def test_a_deleted_task_is_noticed_though_another_one_was_made_while_the_pull_before_looked(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1, 2)
    screen.push()
    first, second = server.tasks
    server.later(minutes=1)

    def make(asked: str) -> None:
        """After the counts were given, and before the last change is asked for."""
        if asked == "GET /api/tasks" and len(server.tasks) == 2:
            server.add_task({"image": "x"})

    server.meanwhile = make
    pull(screen.project)
    server.meanwhile = lambda asked: None
    server.later(minutes=1)
    server.annotate(second)
    del server.tasks[first]
    assert pull(screen.project).tasks_deleted == 1


def _moved(server: SmallServer) -> None:
    """All tasks are exported and imported into another project: made anew there, with other numbers."""
    server.number, server.description = 7, ""
    server.later(days=1)
    old, server.tasks = list(server.tasks.values()), {}
    for task in old:
        number = server.add_task(task["data"], task["predictions"])
        server.tasks[number]["annotations"] = [
            {
                **annotation,
                "id": next(server.numbers),
                "created_at": server.now(),
                "updated_at": server.now(),
            }
            for annotation in task["annotations"]
        ]


def test_rounds_go_on_in_another_project_into_which_their_tasks_were_imported(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1, 2)
    screen.push()
    server.annotate(min(server.tasks), lead_time=600.0)
    assert pull(screen.project).minutes == 10.0
    _moved(server)
    assert not connect(screen.project, server.url, ls_project=7).made
    report = pull(screen.project)
    assert (report.annotations_new, report.annotations_gone, report.minutes) == (1, 1, 0.0)
    assert (report.tasks_deleted, minutes_spent(screen.project)) == (0, 10.0)
    pushed = screen.push()
    assert (pushed.round, pushed.tasks, pushed.sent, len(server.tasks)) == (1, 1, 0, 2)


def test_rounds_stay_where_they_are_when_a_project_without_their_tasks_is_named(
    screen: Screen, server: SmallServer
) -> None:
    screen.plan(1)
    screen.push()
    tied = screen.project.config.label_studio
    server.number, server.tasks = 7, {}
    connect(screen.project, server.url, ls_project=7)
    [record] = rounds(screen.project)
    assert tied is not None
    assert record.server == tied.server_name


def tasks_of_a_closed_round(screen: Screen, server: SmallServer) -> tuple[int, int]:
    """The numbers of two tasks that were reviewed, and a round after theirs."""
    screen.plan(1, 2)
    screen.push()
    first, second = server.tasks
    for task in (first, second):
        server.annotate(task)
        server.later(minutes=1)
    pull(screen.project)
    screen.plan(3)
    screen.push()
    return first, second


def test_a_task_to_be_done_again_in_a_closed_round_shows_its_objects(
    screen: Screen, server: SmallServer
) -> None:
    first, second = tasks_of_a_closed_round(screen, server)
    assert not server.tasks[first]["predictions"]  # of a model that nobody is shown any more
    for again in (first, second):
        before = server.tasks[again]["annotations"]
        server.tasks[again] |= {"annotations": [], "updated_at": server.now()}
        assert pull(screen.project).annotations_gone == 1
        assert screen.push().repaired == 1
        [prediction] = server.tasks[again]["predictions"]
        assert [region["id"] for region in prediction["result"]] == [
            region["id"] for region in before[0]["result"]
        ]
        server.annotate(again)
        server.later(minutes=1)
        pull(screen.project)
    assert screen.push().repaired == 0
    assert not server.tasks[first]["predictions"]


def test_a_closed_round_with_a_task_to_be_done_again_is_not_looked_at_in_every_push(
    screen: Screen, server: SmallServer
) -> None:
    first, _ = tasks_of_a_closed_round(screen, server)
    server.asked.clear()
    screen.push()
    only_the_newest = server.asked.count("GET /api/tasks")
    server.tasks[first] |= {"annotations": [], "updated_at": server.now()}
    pull(screen.project)
    assert [screen.push().repaired for _ in range(2)] == [1, 0]
    server.asked.clear()
    assert screen.push().repaired == 0
    assert server.asked.count("GET /api/tasks") == only_the_newest
    server.tasks[first]["predictions"] = []  # by hand
    assert screen.push().repaired == 1
