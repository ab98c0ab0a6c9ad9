"""Faults between labelloop and a real Label Studio: nothing of the lab's work is lost or doubled.

A small proxy in front of the server cuts connections, loses answers, refuses, waits, or rewrites what comes
back. Whatever happens ends in one line, and the same command goes on.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.errors import ProjectError, ServerError
from labelloop.instances import Instances
from labelloop.integrations.label_studio import client as client_module
from labelloop.integrations.label_studio import sending, transport
from labelloop.integrations.label_studio.client import LabelStudio
from labelloop.integrations.label_studio.loop import turn
from labelloop.integrations.label_studio.pull import pull
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import AnnotationRow, EditRow, LabelRow, PredictionRow, ReviewTaskRow
from labelloop.review.counting import counting
from labelloop.review.rounds import move_rounds, rounds
from labelloop.review.tasks import all_tasks

pytestmark = pytest.mark.slow

SIZE = 64
CLASSES = ("organoid", "debris")
N_IMAGES = 12
N_TASKS = 4
RUN = "first"


# --- the proxy


@dataclass(frozen=True)
class Request:
    """What a client asked for; ``path`` with its query, without the prefix."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Answer:
    """What a client gets."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Cut(Exception):
    """The connection is closed without an answer."""


Before = Callable[[Request], "Answer | None"]
After = Callable[[Request, Answer], "Answer | None"]


class Proxy:
    """Forwards to a server. ``before`` may answer in its place, ``after`` may change what it answers."""

    def __init__(self, target: str, *, prefix: str = "", tls: Path | None = None) -> None:
        self.target = urlsplit(target)
        self.prefix = prefix
        self.before: Before = lambda request: None
        self.after: After = lambda request, answer: None
        self.seen: list[Request] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    super().handle_one_request()

            def serve(self) -> None:
                proxy.serve(self)

            do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = serve

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}{prefix}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def clear(self) -> None:
        self.before = lambda request: None
        self.after = lambda request, answer: None

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        if not handler.path.startswith(self.prefix):
            self._send(handler, Answer(404, b"<html>nothing here</html>"))
            return
        request = Request(
            handler.command, handler.path.removeprefix(self.prefix), dict(handler.headers.items()), body
        )
        self.seen.append(request)
        try:
            answer = self.before(request)
            if answer is None:
                answer = self.forward(request)
                answer = self.after(request, answer) or answer
        except (Cut, OSError):
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(handler, answer)

    def forward(self, request: Request) -> Answer:
        assert self.target.hostname is not None
        connection = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=60)
        try:
            kept = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
            connection.request(request.method, request.path, request.body, kept)
            response = connection.getresponse()
            body = response.read()
            return Answer(
                response.status, body, {"content-type": response.getheader("content-type") or "text/plain"}
            )
        finally:
            connection.close()

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        with contextlib.suppress(OSError):
            handler.send_response(answer.status)
            for name, value in answer.headers.items():
                handler.send_header(name, value)
            handler.send_header("content-length", str(len(answer.body)))
            handler.send_header("connection", "close")
            handler.end_headers()
            handler.wfile.write(answer.body)


# What a push asks for, in its order.
PROJECT = ("GET", "/api/projects/")
UPLOAD = ("POST", "commit_to_project=false")
UPLOADS = ("GET", "/file-uploads")
CREATE = ("POST", "return_task_ids=true")
TASKS = ("GET", "/api/tasks")
SET_VERSION = ("PATCH", "/api/projects/")
VERSIONS = ("GET", "/model-versions/")
HTML = Answer(502, b"<html><body><h1>Bad Gateway</h1></body></html>", {"content-type": "text/html"})


def is_for(request: Request, what: tuple[str, str]) -> bool:
    return request.method == what[0] and what[1] in request.path


class Once:
    """Something that a proxy does to the first request of a kind, or to its n-th."""

    def __init__(self, what: tuple[str, str], act: Callable[[], Answer | None], *, number: int = 1) -> None:
        self.what, self.act, self.left = what, act, number
        self.done = False

    def __call__(self, request: Request, answer: Answer | None = None) -> Answer | None:
        if is_for(request, self.what):
            self.left -= 1
            if self.left == 0:
                self.done = True
                return self.act()
        return None


class Always(Once):
    """Something that a proxy does to all requests of a kind, from the n-th on."""

    def __call__(self, request: Request, answer: Answer | None = None) -> Answer | None:
        if is_for(request, self.what):
            self.left -= 1
            if self.left <= 0:
                self.done = True
                return self.act()
        return None


def cut() -> Answer | None:
    raise Cut


# --- a project, a server, and what people do there


def disc(row: int, column: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def objects(seed: int) -> Instances:
    """Three discs and a ring, of both classes."""
    rng = np.random.default_rng(seed)
    masks = [disc(*rng.integers(14, 18, 2), 9), disc(16, 47, 8), disc(47, 16, 10)]
    masks.append(disc(47, 47, 12) & ~disc(47, 47, 5))
    return Instances.from_dense(np.asarray(masks), [0, 1, 0, 0], rng.uniform(0.6, 0.99, 4))


def save_images(folder: Path, seeds: range) -> Path:
    """Images of these objects, and their labels in COCO."""
    folder.mkdir(parents=True)
    document: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    for seed in seeds:
        truth, name = objects(seed), f"{folder.name}-{seed:03d}.png"
        shade = np.where(np.any([truth.mask(i) for i in range(len(truth))], axis=0), 90, 190)
        noise = np.random.default_rng(seed).normal(0, 9, shade.shape)
        Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8)).save(folder / name)
        document["images"].append({"id": seed, "file_name": name, "height": SIZE, "width": SIZE})
        document["annotations"] += [
            {
                "id": len(document["annotations"]) + i,
                "image_id": seed,
                "category_id": int(truth.labels[i]),
                "segmentation": {"size": [SIZE, SIZE], "counts": truth.rles[i].decode()},
            }
            for i in range(len(truth))
        ]
    labels = folder.with_suffix(".json")
    labels.write_text(json.dumps(document))
    return labels


@dataclass(frozen=True)
class Ran:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        return json.loads(self.stdout)


def lab(*arguments: object) -> Ran:
    """One command line, in this process."""
    ran = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    return Ran(ran.exit_code, ran.stdout, ran.stderr)


def run(*arguments: object) -> Any:
    ran = lab(*arguments, "--json")
    assert ran.code == 0, ran.stdout
    return ran.document


def fails(*arguments: object, code: int = 1) -> str:
    """What a command that cannot do it says: one line, in which the three parts are, and no token."""
    ran = lab(*arguments)
    return the_line(ran, code=code)


def the_line(ran: Ran, *, code: int = 1) -> str:
    everything = ran.stdout + ran.stderr
    assert ran.code == code, everything
    assert "Traceback" not in everything
    assert os.environ["LABEL_STUDIO_API_KEY"] not in everything
    lines = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ran.stderr
    assert ran.stderr.splitlines()[-1] == lines[0]
    return lines[0]


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """One command line, in a process of its own, with Ctrl-C as a terminal has it."""
    return subprocess.Popen(
        [sys.executable, "-m", "labelloop", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def ended(process: subprocess.Popen[str], timeout: float = 60) -> Ran:
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Ran(process.returncode, stdout, stderr)


class Server:
    """The project on the server, as a person with a browser has it; past the proxy."""

    def __init__(self, url: str, token: str, project: int) -> None:
        self.project = project
        self.http = httpx.Client(base_url=url, timeout=60)
        access = self.http.post("/api/token/refresh/", json={"refresh": token}).json()["access"]
        self.http.headers["authorization"] = f"Bearer {access}"

    def ask(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        answer = self.http.request(method, path, json=body, params=params)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def facts(self) -> Any:
        return self.ask("GET", f"/api/projects/{self.project}/")

    def tasks(self) -> list[dict[str, Any]]:
        found = self.ask("GET", "/api/tasks", project=self.project, fields="all", page_size=500)["tasks"]
        return sorted(found, key=lambda task: int(task["id"]))

    def submit(self, task: Mapping[str, Any], result: Any = None, **more: Any) -> Any:
        """Accepts the prediction, or says something else."""
        if result is None:
            result = [{**region, "origin": "prediction"} for region in task["predictions"][0]["result"]]
        body = {"result": result, "lead_time": 30.0, **more}
        return self.ask("POST", f"/api/tasks/{task['id']}/annotations/", body)

    def make(self, *tasks: Mapping[str, Any], project: int | None = None) -> list[int]:
        answer = self.ask(
            "POST", f"/api/projects/{project or self.project}/import", list(tasks), return_task_ids="true"
        )
        return list(answer["task_ids"])

    def delete(self, task: Mapping[str, Any]) -> None:
        self.ask("DELETE", f"/api/tasks/{task['id']}/")

    def uploads(self) -> list[str]:
        found = self.ask("GET", f"/api/projects/{self.project}/file-uploads", all="true")
        return [upload["file"] for upload in found]

    def configure(self, xml: str) -> None:
        self.ask("PATCH", f"/api/projects/{self.project}/", {"label_config": xml})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two labelled images, twelve without labels, and a run whose predictions are planted."""
    folder = tmp_path_factory.mktemp("faults")
    few = save_images(folder / "few", range(100, 102))
    save_images(folder / "pool", range(N_IMAGES))
    root = folder / "screen"
    run("init", root, "--classes", ",".join(CLASSES))
    run("add", "labels", few, "--images", folder / "few", "-C", root)
    run("add", "images", folder / "pool", "-C", root)
    run("train", "--method", "supervised", "--iterations", 4, "--name", RUN, "-C", root)
    project = Project.open(root)
    with project.ledger.write() as session:
        for image in project.images(split="train", labelled=False):
            seed = int(image.file_name[5:8])
            row = PredictionRow(run=RUN, which="supervised", image_id=image.id)
            row.instances = encode_instances(objects(seed))
            session.merge(row)
    project.ledger.engine.dispose()
    return root


@pytest.fixture
def proxy(label_studio_server: Any) -> Iterator[Proxy]:
    made = Proxy(label_studio_server.url)
    yield made
    made.close()


@pytest.fixture
def token(label_studio_server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio_server.token)
    monkeypatch.setattr(transport, "WAIT_S", 0.01)
    return str(label_studio_server.token)


@pytest.fixture
def screen(trained: Path, tmp_path: Path, proxy: Proxy, token: str) -> Path:
    """A copy of the project, tied to a new project on the server behind the proxy."""
    root = tmp_path / "screen"
    shutil.copytree(trained, root)
    run("connect", proxy.url, "-C", root)
    proxy.seen.clear()
    return root


@pytest.fixture
def server(screen: Path, label_studio_server: Any) -> Iterator[Server]:
    made = Server(label_studio_server.url, label_studio_server.token, ls_project(screen))
    yield made
    made.http.close()


def ls_project(root: Path) -> int:
    settings = Project.open(root).config.label_studio
    assert settings is not None
    return settings.project


def push_some(root: Path, n: int = N_TASKS) -> Any:
    return run("push", "--budget", n, "-C", root)


def check_whole(root: Path, server: Server, *, tasks: int = N_TASKS, uploads: int | None = None) -> None:
    """Exactly the planned tasks are there, each with one prediction of the round's model."""
    project = Project.open(root)
    record = rounds(project)[-1]
    planned = {task.key: task for task in all_tasks(project, record.server) if task.round_id == record.id}
    there = [task for task in server.tasks() if task["data"]["labelloop_key"] in planned]
    assert Counter(task["data"]["labelloop_key"] for task in there) == Counter(planned.keys())
    assert len(planned) == tasks
    for task in there:
        assert [p["model_version"] for p in task["predictions"]] == [record.model_version]
        assert len(task["predictions"][0]["result"]) == 4
        assert planned[task["data"]["labelloop_key"]].server_id == task["id"]
    assert server.facts()["model_version"] == record.model_version
    assert len(server.uploads()) == (tasks if uploads is None else uploads)
    images = {task.image_id for task in planned.values()}
    assert len(images) == tasks


def rows(root: Path, table: type[Any]) -> list[Any]:
    with Project.open(root).ledger.read() as session:
        return list(session.scalars(select(table)))


def reviewed(root: Path) -> dict[str, int]:
    """How many label revisions from review each image has."""
    return dict(Counter(str(row.image_id) for row in rows(root, LabelRow) if row.source.startswith("review")))


# --- connect


@pytest.mark.parametrize("killed", [False, True])
def test_rounds_go_on_where_the_same_server_is_found_at_another_address(
    screen: Path, server: Server, label_studio_server: Any, killed: bool
) -> None:
    first = push_some(screen)
    if killed:  # a connect, after the rounds were moved and before labelloop.toml was written
        project = Project.open(screen)
        old = project.config.label_studio
        assert old is not None
        new = old.model_copy(update={"url": label_studio_server.url})
        move_rounds(project, old.server_name, new.server_name)
    server.ask(
        "PATCH", f"/api/projects/{server.project}/", {"title": "Renamed", "description": "by a person"}
    )
    moved = run("connect", label_studio_server.url, "-C", screen)
    assert (moved["ls_project"], moved["made"]) == (server.project, False)
    again = push_some(screen)
    assert (again["round"], again["opened"]) == (first["round"], False)
    check_whole(screen, server)
    server.submit(server.tasks()[0])
    assert run("pull", "-C", screen)["annotations_new"] == 1


def test_a_project_that_was_deleted_on_the_server_can_be_made_anew(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    server.ask("DELETE", f"/api/projects/{server.project}/")
    assert "Remove [label_studio]" in fails("connect", proxy.url, "-C", screen)
    toml = screen / "labelloop.toml"
    before, table, _ = toml.read_text().partition("[label_studio]")
    assert table
    toml.write_text(before)
    made = run("connect", proxy.url, "-C", screen)
    assert made["made"]
    assert made["ls_project"] != server.project


def test_a_project_of_another_labelloop_project_is_said_to_be_one(
    screen: Path, trained: Path, tmp_path: Path, server: Server, proxy: Proxy
) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    [note] = run("connect", proxy.url, "--ls-project", server.project, "-C", other)["notes"]
    assert "another labelloop project" in note


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connect_that_was_cut_off_makes_one_project_in_all(
    tmp_path: Path, proxy: Proxy, token: str, server: Server, when: str
) -> None:
    root = tmp_path / "new"
    run("init", root, "--classes", "organoid", "--name", f"cut off {when}")
    fault = Once(("POST", "/api/projects/"), cut)
    setattr(proxy, when, fault)
    fails("connect", proxy.url, "-C", root)
    assert fault.done
    proxy.clear()
    made = run("connect", proxy.url, "-C", root)
    found = server.http.get("/api/projects/", params={"title": f"cut off {when}"}).json()["results"]
    assert [project["id"] for project in found] == [made["ls_project"]]
    assert run("connect", proxy.url, "-C", root)["ls_project"] == made["ls_project"]


# --- push


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(PROJECT, id="project"),
        pytest.param(UPLOAD, id="upload"),
        pytest.param(UPLOADS, id="uploads"),
        pytest.param(CREATE, id="tasks"),
        pytest.param(SET_VERSION, id="version"),
        pytest.param(VERSIONS, id="versions"),
    ],
)
def test_a_push_cut_off_anywhere_is_completed_by_the_next(
    screen: Path, server: Server, proxy: Proxy, what: tuple[str, str], when: str
) -> None:
    fault = Always(what, cut)
    setattr(proxy, when, fault)
    assert "cannot be reached" in fails("push", "--budget", N_TASKS, "-C", screen)
    assert fault.done
    proxy.clear()
    push_some(screen)
    check_whole(screen, server)
    again = run("push", "-C", screen)
    assert (again["sent"], again["tasks"]) == (0, N_TASKS)
    check_whole(screen, server)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_push_whose_completion_is_cut_off_as_well_is_completed_by_the_next(
    screen: Path, server: Server, proxy: Proxy, when: str
) -> None:
    proxy.after = Always(CREATE, cut)
    fails("push", "--budget", N_TASKS, "-C", screen)
    proxy.clear()
    fault = Always(TASKS, cut)  # the listing of what is there
    setattr(proxy, when, fault)
    fails("push", "-C", screen)
    assert fault.done
    proxy.clear()
    push_some(screen)
    check_whole(screen, server)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(Answer(500, b'{"detail": "database is locked"}'), "database is locked", id="500"),
        pytest.param(HTML, "HTTP 502", id="html"),
        pytest.param(Answer(200, b"<html>log in</html>"), "not Label Studio", id="page"),
        pytest.param(Answer(201, b"[1, 2]"), "not Label Studio", id="list"),
        pytest.param(Answer(201, b"{}"), "not take all that was sent", id="nothing"),
    ],
)
def test_tasks_whose_answer_was_replaced_are_found_again(
    screen: Path, server: Server, proxy: Proxy, answer: Answer, says: str
) -> None:
    proxy.after = Once(CREATE, lambda: answer)
    assert says in fails("push", "--budget", N_TASKS, "-C", screen)
    proxy.clear()
    assert run("push", "-C", screen)["sent"] == 0
    check_whole(screen, server)


def test_of_several_chunks_only_the_lost_one_is_looked_for(
    screen: Path, server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CHUNK_TASKS", 2)
    proxy.after = Once(CREATE, cut, number=2)
    fails("push", "--budget", 6, "-C", screen)
    states = Counter(task.state for task in rows(screen, ReviewTaskRow))
    assert states == {"sent": 2, "planned": 4}
    proxy.clear()
    done = run("push", "-C", screen)
    assert (done["sent"], done["tasks"]) == (2, 6)
    check_whole(screen, server, tasks=6)


def test_a_push_that_waits_too_long_says_so_and_goes_on(
    screen: Path, server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "TIMEOUT_S", 1.0)

    def sleep() -> None:
        time.sleep(1.6)

    proxy.after = Once(CREATE, sleep)
    assert "did not answer in time" in fails("push", "--budget", N_TASKS, "-C", screen)
    monkeypatch.setattr(transport, "TIMEOUT_S", 60.0)
    proxy.clear()
    assert run("push", "-C", screen)["sent"] == 0
    check_whole(screen, server)


def test_a_server_still_at_work_when_it_was_asked_again_keeps_no_task_twice(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    held: list[Request] = []

    def hold(request: Request) -> Answer | None:
        if is_for(request, CREATE) and not held:
            held.append(request)
            raise Cut
        return None

    proxy.before = hold
    fails("push", "--budget", N_TASKS, "-C", screen)
    push_some(screen)
    check_whole(screen, server)
    proxy.forward(held[0])  # only now is it done with the first
    twice = server.tasks()
    assert len(twice) == 2 * N_TASKS
    late = twice[N_TASKS:]
    server.submit(late[0])  # somebody has found a copy meanwhile
    ran = lab("push", "-C", screen, "--json")
    assert ran.document["sent"] == 0
    assert f"{N_TASKS} copies" in ran.stderr
    left = {task["id"] for task in server.tasks()}
    assert left == {late[0]["id"], *(task["id"] for task in twice[:N_TASKS])} - {
        task["id"]
        for task in twice[:N_TASKS]
        if task["data"]["labelloop_key"] == late[0]["data"]["labelloop_key"]
    }
    check_whole(screen, server)
    assert run("pull", "-C", screen)["annotations_new"] == 1


def test_a_new_round_adopts_what_the_last_push_could_not_note(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    proxy.after = Once(CREATE, cut)
    fails("push", "--budget", N_TASKS, "-C", screen)
    proxy.clear()
    assert run("push", "--new-round", "--budget", N_TASKS, "-C", screen)["round"] == 2
    names = Counter(task["data"]["name"] for task in server.tasks())
    assert len(names) == 2 * N_TASKS
    assert set(names.values()) == {1}  # no image is asked about twice


def test_reviews_of_tasks_that_no_push_could_note_are_pulled_as_they_are(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    proxy.after = Once(CREATE, cut)
    fails("push", "--budget", N_TASKS, "-C", screen)
    proxy.clear()
    server.submit(server.tasks()[0])
    pulled = run("pull", "-C", screen)
    assert pulled["annotations_new"] == 1
    assert {kind: n for kind, n in pulled["edits"].items() if n} == {"accepted": 4}
    assert run("push", "-C", screen)["tasks"] == N_TASKS - 1


def test_a_push_killed_at_random_requests_is_completed(screen: Path, server: Server, proxy: Proxy) -> None:
    rng = random.Random(7)
    for number in [rng.randrange(4, 9) for _ in range(2)]:
        left, process = [number], []

        def die(left: list[int] = left, process: list[Any] = process) -> None:
            left[0] -= 1
            if left[0] == 0:
                process[0].kill()
                process[0].wait()
                raise Cut

        hook = rng.choice(["before", "after"])
        setattr(proxy, hook, lambda *_, die=die: die())
        process.append(start("push", "--budget", N_TASKS, "-C", screen))
        assert ended(process[0]).code in (-signal.SIGKILL, 0)
        proxy.clear()
    push_some(screen)
    check_whole(screen, server)


def test_two_pushes_at_once_send_nothing_twice(screen: Path, server: Server, proxy: Proxy) -> None:
    both = [start("push", "--budget", N_TASKS, "-C", screen, "--json") for _ in range(2)]
    ran = [ended(process) for process in both]
    assert [each.code for each in ran] == [0, 0], ran
    assert sorted(each.document["sent"] for each in ran) == [0, N_TASKS]
    assert {each.document["round"] for each in ran} == {1}
    check_whole(screen, server)


def test_a_push_waits_for_another_one_and_says_so(screen: Path, server: Server, proxy: Proxy) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert go_on.wait(30)

    proxy.before = Once(CREATE, wait)
    first = threading.Thread(target=lab, args=("push", "--budget", N_TASKS, "-C", screen))
    first.start()
    assert entered.wait(30)
    second = start("pull", "-C", screen)
    try:
        assert second.stderr is not None
        assert "waiting for it" in second.stderr.readline()
    finally:
        go_on.set()
        first.join()
    assert ended(second).code == 0
    check_whole(screen, server)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            Answer(500, b'{"detail": "You cannot access body after reading from request\'s data stream"}'),
            id="server",
        ),
        pytest.param(Answer(413, b"<html>413 Request Entity Too Large</html>"), id="proxy"),
    ],
)
def test_what_is_too_large_for_the_server_is_sent_in_parts(
    screen: Path, server: Server, proxy: Proxy, answer: Answer
) -> None:
    largest = [10_000]

    def limit(request: Request) -> Answer | None:
        return answer if len(request.body) > largest[0] else None

    proxy.before = limit
    assert push_some(screen)["sent"] == N_TASKS
    parts = [request for request in proxy.seen if is_for(request, CREATE)]
    assert len(parts) > 1
    check_whole(screen, server)
    proxy.seen.clear()
    largest[0] = 700
    line = fails("push", "--new-round", "--budget", N_TASKS, "-C", screen)
    assert "does not accept a request this large" in line
    assert "DATA_UPLOAD_MAX_MEMORY_SIZE" in line
    proxy.clear()
    push_some(screen)
    check_whole(screen, server, uploads=2 * N_TASKS)


def test_a_task_deleted_while_a_push_is_at_work(screen: Path, server: Server, proxy: Proxy) -> None:
    def delete() -> None:
        server.delete(server.tasks()[0])

    proxy.after = Once(CREATE, delete)
    push_some(screen)
    proxy.clear()
    done = run("push", "-C", screen)
    assert (done["tasks"], done["sent"]) == (N_TASKS - 1, 0)
    assert len(server.tasks()) == N_TASKS - 1


def test_all_tasks_deleted_while_a_push_is_at_work(screen: Path, server: Server, proxy: Proxy) -> None:
    def delete() -> None:
        for task in server.tasks():
            server.delete(task)

    proxy.after = Once(CREATE, delete)
    push_some(screen)
    assert run("push", "--budget", N_TASKS, "-C", screen)["round"] in (1, 2)


def test_predictions_deleted_or_doubled_by_hand_are_put_right(screen: Path, server: Server) -> None:
    push_some(screen)
    reviewed_one, bare, twice, _ = server.tasks()
    server.submit(reviewed_one)
    run("pull", "-C", screen)
    server.ask("DELETE", f"/api/predictions/{bare['predictions'][0]['id']}/")
    copy = {k: twice["predictions"][0][k] for k in ("result", "score", "model_version")}
    server.ask("POST", "/api/predictions/", {"task": twice["id"], **copy})
    theirs = {**copy, "model_version": "another model"}
    server.ask("POST", "/api/predictions/", {"task": bare["id"], **theirs})
    again = run("push", "-C", screen)
    assert (again["sent"], again["repaired"], again["deleted"]) == (0, 2, 0)
    after = {task["id"]: task["predictions"] for task in server.tasks()}
    (restored,) = [p for p in after[bare["id"]] if p["model_version"] != "another model"]
    assert restored["result"] == bare["predictions"][0]["result"]
    assert restored["score"] == pytest.approx(bare["predictions"][0]["score"])
    assert len(after[bare["id"]]) == 2  # what others put there stays
    assert len(after[twice["id"]]) == 1


# --- pull


def test_a_pull_cut_off_between_pages_stores_nothing_and_the_next_takes_all(
    screen: Path, server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    push_some(screen)
    for task in server.tasks():
        server.submit(task)
    proxy.after = Always(TASKS, cut, number=3)  # the newest change, a page, and not the next
    assert "cannot be reached" in fails("pull", "-C", screen)
    assert rows(screen, AnnotationRow) == []
    assert reviewed(screen) == {}
    proxy.clear()
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_new"], pulled["images"]) == (N_TASKS, N_TASKS)
    assert run("pull", "-C", screen)["annotations_new"] == 0
    assert set(reviewed(screen).values()) == {1}


@pytest.mark.parametrize(
    "answer", [pytest.param(Answer(500, b"{}"), id="500"), pytest.param(HTML, id="html")]
)
def test_failures_that_pass_are_not_noticed_and_those_that_stay_are_one_line(
    screen: Path, server: Server, proxy: Proxy, answer: Answer
) -> None:
    push_some(screen)
    server.submit(server.tasks()[0])
    proxy.before = Always(TASKS, lambda: answer)
    line = fails("pull", "-C", screen)
    assert f"HTTP {answer.status}" in line
    assert "<" not in line
    proxy.before = Once(TASKS, lambda: answer)
    assert run("pull", "-C", screen)["annotations_new"] == 1


def test_a_pull_that_waits_too_long_tries_again(
    screen: Path, server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_some(screen)
    server.submit(server.tasks()[0])
    monkeypatch.setattr(transport, "TIMEOUT_S", 1.0)

    def sleep() -> None:
        time.sleep(1.6)

    proxy.before = Once(TASKS, sleep)
    assert run("pull", "-C", screen)["annotations_new"] == 1


def test_a_pull_that_finds_nothing_new_asks_for_little(screen: Path, server: Server, proxy: Proxy) -> None:
    push_some(screen)
    first, second, *_ = server.tasks()
    server.submit(first)
    server.submit(second, [], was_cancelled=True)
    run("pull", "-C", screen)
    proxy.seen.clear()
    assert run("pull", "-C", screen)["annotations_new"] == 0
    assert sum(is_for(request, TASKS) for request in proxy.seen) == 2  # the newest change, and what changed


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from labelloop.integrations.label_studio.pull import pull
from labelloop.project.project import Project

project = Project.open(Path(sys.argv[1]))

def die(_connection):
    os.kill(os.getpid(), signal.SIGKILL)

event.listen(project.ledger.engine, "commit", die)
pull(project)
"""


def test_a_pull_killed_anywhere_takes_everything_once(screen: Path, server: Server, proxy: Proxy) -> None:
    push_some(screen)
    for task in server.tasks():
        server.submit(task)
    for number in (1, 2):
        process: list[Any] = []

        def die(process: list[Any] = process) -> None:
            process[0].kill()
            process[0].wait()
            raise Cut

        proxy.after = Once(TASKS, die, number=number)
        process.append(start("pull", "-C", screen))
        assert ended(process[0]).code == -signal.SIGKILL
    proxy.clear()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(screen)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert rows(screen, AnnotationRow) == []
    assert run("pull", "-C", screen)["annotations_new"] == N_TASKS
    assert len(rows(screen, AnnotationRow)) == N_TASKS
    assert len(rows(screen, EditRow)) == 4 * N_TASKS


def test_two_pulls_at_once_store_everything_once(screen: Path, server: Server) -> None:
    push_some(screen)
    for task in server.tasks():
        server.submit(task)
    both = [ended(p) for p in [start("pull", "-C", screen, "--json") for _ in range(2)]]
    assert [each.code for each in both] == [0, 0], both
    assert sorted(each.document["annotations_new"] for each in both) == [0, N_TASKS]
    assert len(rows(screen, EditRow)) == 4 * N_TASKS
    assert set(reviewed(screen).values()) == {1}


def test_what_changes_while_pages_are_read_is_neither_skipped_nor_forgotten(
    screen: Path, server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    monkeypatch.setattr("labelloop.integrations.label_studio.pull.OVERLAP", timedelta(0))
    push_some(screen, 6)
    tasks = server.tasks()
    made = [server.submit(task) for task in tasks]

    def change() -> None:
        """After the first page: one of it is changed, one is deleted, and one of the rest is changed."""
        server.ask("PATCH", f"/api/annotations/{made[0]['id']}/", {"result": []})
        server.delete(tasks[1])
        server.ask("PATCH", f"/api/annotations/{made[5]['id']}/", {"result": made[5]["result"][:1]})

    proxy.after = Once(TASKS, change, number=2)
    first = run("pull", "-C", screen)
    proxy.clear()
    second = run("pull", "-C", screen)
    assert first["annotations_new"] == 6
    assert second["annotations_changed"] == 1
    assert second["tasks_deleted"] == 1
    by_key = {row.key: row.server_id for row in rows(screen, ReviewTaskRow)}
    objects_of = {by_key[row.task_key]: row for row in rows(screen, AnnotationRow)}
    assert len(objects_of) == 6
    newest = {row.image_id: row.n_objects for row in rows(screen, LabelRow) if "review" in row.source}
    assert sorted(newest.values()) == [0, 1, 4, 4, 4, 4]


def test_the_newest_annotation_counts_whether_or_not_its_time_has_fractions() -> None:
    def state(number: int, when: str) -> AnnotationRow:
        return AnnotationRow(server_id=number, updated_at=when, skipped=False, ground_truth=False)

    early, late = state(2, "2026-01-01T10:00:00Z"), state(1, "2026-01-01T10:00:00.500000Z")
    assert counting([early, late]) is late
    zone = state(3, "2026-01-01T12:00:00.400000+02:00")
    assert counting([early, late, zone]) is late
    same = state(4, "2026-01-01T10:00:00.500000Z")
    assert counting([late, same, early]) is same  # made later


def test_a_state_that_is_older_than_the_known_one_changes_nothing(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    push_some(screen)
    task = server.tasks()[0]
    made = server.submit(task)
    run("pull", "-C", screen)
    server.ask("PATCH", f"/api/annotations/{made['id']}/", {"result": made["result"][:1]})
    assert run("pull", "-C", screen)["annotations_changed"] == 1
    before = reviewed(screen)

    def old(request: Request, answer: Answer) -> Answer | None:
        """As a copy of the database from before would answer."""
        if not is_for(request, TASKS):
            return None
        document = json.loads(answer.body)
        for each in document["tasks"]:
            for annotation in each.get("annotations") or ():
                annotation |= {"updated_at": made["updated_at"], "result": made["result"]}
        return Answer(200, json.dumps(document).encode())

    proxy.after = old
    assert run("pull", "-C", screen)["annotations_changed"] == 0
    assert reviewed(screen) == before


def test_an_annotation_that_was_missing_in_one_answer_comes_back(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    push_some(screen)
    server.submit(server.tasks()[0])
    run("pull", "-C", screen)

    def without(request: Request, answer: Answer) -> Answer | None:
        if not is_for(request, TASKS):
            return None
        document = json.loads(answer.body)
        for each in document["tasks"]:
            each["annotations"] = []
        return Answer(200, json.dumps(document).encode())

    proxy.after = without
    assert run("pull", "-C", screen)["annotations_gone"] == 1
    proxy.clear()
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_new"], pulled["images"]) == (0, 0)
    assert [row.gone_at for row in rows(screen, AnnotationRow)] == [None]
    assert run("push", "-C", screen)["tasks"] == N_TASKS - 1


JUNK: list[Any] = [
    None, True, 7, "text", {}, {"id": 1}, [5], [None], [[]], [{"id": []}], [{"id": {"a": 1}, "type": 5}],
    [{"id": "x", "type": "polygonlabels", "value": 3}], [{"type": ["polygonlabels"]}],
    [{"id": "x", "type": "brushlabels", "original_width": 64, "original_height": 64,
      "value": {"format": "rle", "rle": [1, 2, 3], "brushlabels": ["organoid"]}}],
    [{"id": "x", "type": "polygonlabels", "original_width": 64, "original_height": 64,
      "value": {"points": [[1, 2], ["a", None]], "polygonlabels": ["organoid"]}}],
]  # fmt: skip


def test_answers_that_hold_anything_are_one_line_or_taken_as_far_as_they_go(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    push_some(screen)
    made = server.submit(server.tasks()[0])
    good = server.submit(server.tasks()[1])
    places: list[Callable[[Any, Any], Any]] = [
        lambda a, junk: a | {"result": junk},
        lambda a, junk: a | {"id": junk},
        lambda a, junk: a | {"lead_time": junk},
        lambda a, junk: a | {"completed_by": junk},
        lambda a, junk: a | {"updated_at": junk},
        lambda a, junk: junk,
    ]
    number = [0]

    def spoil(place: Callable[[Any, Any], Any], junk: Any) -> After:
        def after(request: Request, answer: Answer) -> Answer | None:
            if not is_for(request, TASKS):
                return None
            document = json.loads(answer.body)
            for task in document["tasks"]:
                if "annotations" in task:
                    task["annotations"] = [
                        place({**a, "updated_at": f"2027-01-01T00:00:00.{number[0]:06d}Z"}, junk)
                        if a["id"] == made["id"]
                        else a
                        for a in task["annotations"]
                    ]
            return Answer(200, json.dumps(document).encode())

        return after

    for place in places:
        for junk in JUNK if place is places[0] else JUNK[:5]:
            number[0] += 1
            proxy.after = spoil(place, junk)
            pull(Project.open(screen))
    for junk in JUNK[:7]:
        body = json.dumps(junk).encode()
        proxy.after = Always(TASKS, lambda body=body: Answer(200, body))
        with pytest.raises(ServerError):
            pull(Project.open(screen))
        body = json.dumps({"tasks": junk, "total": 3}).encode()
        for number_of_request in (1, 2):
            proxy.after = Always(TASKS, lambda body=body: Answer(200, body), number=number_of_request)
            with contextlib.suppress(ServerError):
                pull(Project.open(screen))
    proxy.clear()
    run("pull", "-C", screen)
    known = [row for row in rows(screen, AnnotationRow) if row.server_id == good["id"]]
    assert len(known) == 1
    assert known[0].gone_at is None


# --- what people do on the server


def test_foreign_tasks_and_strange_keys_are_left_alone(screen: Path, server: Server) -> None:
    push_some(screen)
    ours = server.tasks()
    region = ours[0]["predictions"][0]["result"][0]
    strange = [
        5,
        1.5,
        None,
        True,
        ["a"],
        {"a": 1},
        "",
        "ä" * 50,
        "0" * 32,
        ours[0]["data"]["labelloop_key"][:-1],
    ]
    foreign = [
        {"data": {"image": "/data/x.png", "labelloop_key": key, "labelloop_round": "1"}} for key in strange
    ]
    numbers = server.make(*foreign, {"data": {"image": "/data/y.png"}})
    for number in numbers:
        server.submit({"id": number}, [region])
    server.submit(ours[1])
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_new"], pulled["tasks_deleted"]) == (1, 0)
    assert run("push", "-C", screen)["tasks"] == N_TASKS - 1
    assert run("pull", "-C", screen)["annotations_new"] == 0
    assert len(server.tasks()) == N_TASKS + len(numbers)


def test_a_number_that_the_server_gives_to_another_task_confuses_nothing(
    screen: Path, server: Server, label_studio_server: Any
) -> None:
    push_some(screen)
    ours = server.tasks()
    server.delete(ours[-1])
    region = ours[0]["predictions"][0]["result"][0]
    foreign = {"image": "/data/x.png", "labelloop_key": "somebody else's"}
    (number,) = server.make({"data": foreign})
    if number != ours[-1]["id"]:
        pytest.skip("this server's database gives no number twice")
    server.submit({"id": number}, [region])
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_new"], pulled["tasks_deleted"]) == (0, 1)
    done = run("push", "-C", screen)
    assert (done["tasks"], done["sent"]) == (N_TASKS - 1, 0)
    assert [p for task in server.tasks() if task["id"] == number for p in task["predictions"]] == []


def test_a_task_that_somebody_copied_counts_once_with_the_work_on_both(screen: Path, server: Server) -> None:
    push_some(screen)
    original = server.tasks()[0]
    (number,) = server.make({"data": original["data"]})
    copy = {"id": number}
    first = server.submit(original)
    second = server.submit(copy, first["result"][:2])
    ran = lab("pull", "-C", screen, "--json")
    assert f"{original['id']}, {number}" in ran.stderr
    assert (ran.document["annotations_new"], ran.document["images"]) == (2, 1)
    assert run("pull", "-C", screen)["annotations_gone"] == 0
    server.ask("PATCH", f"/api/annotations/{first['id']}/", {"result": first["result"][:3]})
    changed = run("pull", "-C", screen)
    assert (changed["annotations_changed"], changed["annotations_gone"]) == (1, 0)
    assert [row.gone_at for row in rows(screen, AnnotationRow)] == [None] * 3
    newest = max((row for row in rows(screen, LabelRow) if "review" in row.source), key=lambda r: r.revision)
    assert newest.n_objects == 3
    run("push", "-C", screen)
    assert {original["id"], number} <= {task["id"] for task in server.tasks()}  # both have work
    server.ask("DELETE", f"/api/annotations/{second['id']}/")
    assert run("pull", "-C", screen)["annotations_gone"] == 1


def test_paths_in_task_data_are_never_looked_at(screen: Path, server: Server) -> None:
    push_some(screen)
    for task, path in zip(
        server.tasks(),
        (
            "/data/local-files/?d=../../etc/passwd",
            "/etc/passwd",
            "file:///etc/passwd",
            "../../labelloop.toml",
        ),
        strict=True,
    ):
        place = {**task["data"]["labelloop"], "file_name": path, "sha256": path}
        data = {**task["data"], "image": path, "name": path, "labelloop": place}
        server.ask("PATCH", f"/api/tasks/{task['id']}/", {"data": data})
        server.submit(task)
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_new"], pulled["images"], pulled["unusable"]) == (N_TASKS, N_TASKS, [])
    assert len(Project.open(screen).images()) == N_IMAGES + 2


LABELS = '<Label value="organoid"/><Label value="debris"/>'
RENAMED = f"""<View><Image name="picture" value="$image"/>
<PolygonLabels name="outline" toName="picture">{LABELS}</PolygonLabels>
<BrushLabels name="paint" toName="picture">{LABELS}</BrushLabels></View>"""


def test_a_changed_labelling_configuration_loses_nothing(screen: Path, server: Server) -> None:
    push_some(screen)
    tasks = server.tasks()
    names = {"polygonlabels": "outline", "brushlabels": "paint"}

    def renamed(task: Mapping[str, Any]) -> list[dict[str, Any]]:
        regions = task["predictions"][0]["result"]
        return [r | {"from_name": names[r["type"]], "to_name": "picture"} for r in regions]

    server.configure(RENAMED)
    server.submit(tasks[0], renamed(tasks[0]))
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_new"], pulled["edits"]["accepted"], pulled["unusable"]) == (1, 4, [])
    assert run("push", "-C", screen)["sent"] == 0
    server.submit(tasks[1], renamed(tasks[1]))
    assert run("pull", "-C", screen)["edits"]["accepted"] == 4


@pytest.mark.parametrize(
    ("pattern", "instead", "missing"),
    [
        pytest.param("<Label value=.debris.[^>]*>", "", "debris", id="class"),
        pytest.param("(?s)<BrushLabels.*</BrushLabels>", "", "BrushLabels", id="control"),
        pytest.param(r"\$image", "$picture", "$image", id="image"),
    ],
)
def test_what_a_labelling_configuration_lacks_is_one_line_and_the_work_is_taken_all_the_same(
    screen: Path, server: Server, pattern: str, instead: str, missing: str
) -> None:
    push_some(screen)
    for task in server.tasks():  # the server wants all tasks to have what a configuration names
        server.ask("PATCH", f"/api/tasks/{task['id']}/", {"data": {**task["data"], "picture": "/x.png"}})
    xml = server.facts()["label_config"]
    server.configure(re.sub(pattern, instead, xml))
    server.submit(server.tasks()[0])
    line = fails("push", "-C", screen)
    assert missing in line
    assert "Labeling Interface" in line
    ran = lab("pull", "-C", screen, "--json")
    assert missing in ran.stderr
    assert (ran.code, ran.document["annotations_new"], ran.document["edits"]["accepted"]) == (0, 1, 4)
    server.configure(xml)
    assert run("push", "-C", screen)["tasks"] == N_TASKS - 1


def set_classes(root: Path, *classes: str) -> None:
    path = root / "labelloop.toml"
    text = re.sub(r"^classes = .*$", f"classes = {json.dumps(list(classes))}", path.read_text(), flags=re.M)
    path.write_text(text)


def test_classes_that_moved_are_one_line_and_nothing_is_stored_until_they_are_back(
    screen: Path, server: Server
) -> None:
    push_some(screen)
    server.submit(server.tasks()[0])
    for classes in (("debris", "organoid"), ("organoid",), ("cell", "debris")):
        set_classes(screen, *classes)
        for command in ("pull", "push"):
            assert "organoid, debris" in fails(command, "-C", screen)
    set_classes(screen, *CLASSES)
    assert run("pull", "-C", screen)["edits"]["accepted"] == 4


def test_a_class_added_on_the_server_first_is_taken_when_the_project_has_it(
    screen: Path, server: Server
) -> None:
    push_some(screen)
    server.configure(server.facts()["label_config"].replace("debris", "cyst"))
    task = server.tasks()[0]
    result = json.loads(json.dumps(task["predictions"][0]["result"]))
    result[0]["value"][result[0]["type"]] = ["cyst"]
    server.submit(task, result)
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_new"], pulled["images"]) == (1, 1)
    assert "cyst is not a class" in pulled["unusable"][0]
    set_classes(screen, *CLASSES, "cyst")
    assert run("pull", "-C", screen)["images"] == 1
    newest = max((row for row in rows(screen, LabelRow) if "review" in row.source), key=lambda r: r.revision)
    assert newest.n_objects == 4
    assert run("pull", "-C", screen)["images"] == 0


# --- tokens and addresses


def test_a_token_that_is_refused_is_one_line_without_the_token(
    screen: Path, server: Server, proxy: Proxy, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Answer(401, b'{"detail": "Token is blacklisted"}')
    proxy.before = lambda request: refused if is_for(request, CREATE) or "refresh" in request.path else None
    proxy.seen.clear()
    assert "does not accept the token" in fails("push", "--budget", N_TASKS, "-C", screen)
    proxy.clear()
    revoked = [False]

    def revoke(request: Request) -> Answer | None:
        revoked[0] = revoked[0] or is_for(request, CREATE)
        return refused if revoked[0] else None

    proxy.before = revoke
    assert "does not accept the token" in fails("push", "--budget", N_TASKS, "-C", screen)
    proxy.clear()
    head, payload, _ = token.split(".")
    for wrong in ("0" * 40, "x", f"{head}.{payload}.{'A' * 43}", "tökén", "a b", "a\nb"):
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", wrong)
        ran = lab("push", "-C", screen)
        assert ran.code == 1
        assert "does not accept the token" in ran.stderr
        assert "Traceback" not in ran.stderr
        assert len(wrong) == 1 or wrong not in ran.stderr
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    push_some(screen)
    check_whole(screen, server)


def test_a_project_that_the_user_cannot_see_is_one_line(screen: Path, proxy: Proxy) -> None:
    text = (screen / "labelloop.toml").read_text()
    (screen / "labelloop.toml").write_text(re.sub(r"project = \d+", "project = 999999", text))
    for command in ("push", "pull"):
        line = fails(command, "-C", screen)
        assert "/api/projects/999999/" in line
        assert "may see that project" in line


def far_from_expiring() -> str:
    """An access token that only the server knows to be none."""
    payload = base64.urlsafe_b64encode(json.dumps({"exp": 4e9, "token_type": "access"}).encode())
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}')
    return b".".join(part.rstrip(b"=") for part in (head, payload, b"A" * 43)).decode()


def test_an_access_token_that_the_server_finds_expired_is_renewed(
    screen: Path, proxy: Proxy, token: str
) -> None:
    with LabelStudio(proxy.url, token) as studio:
        assert studio.project(ls_project(screen)).tasks == 0
        studio._http.sdk._client_wrapper._tokens_client._access_token = far_from_expiring()
        studio.upload(
            ls_project(screen), {"a.png": (screen.parent / "screen" / "labelloop.toml").read_bytes()}
        )
        studio._http.sdk._client_wrapper._tokens_client._access_token = far_from_expiring()
        assert studio.user()
    assert sum("token/refresh" in request.path for request in proxy.seen) == 3


def test_a_renewal_answered_by_a_page_is_one_line(screen: Path, proxy: Proxy) -> None:
    for answer, says in ((HTML, "HTTP 502"), (Answer(200, b"<html>"), "not Label Studio")):
        proxy.before = lambda request, answer=answer: answer if "refresh" in request.path else None
        assert says in fails("pull", "-C", screen)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_takes_the_token_elsewhere(
    screen: Path, server: Server, proxy: Proxy, token: str, status: int
) -> None:
    other = Proxy(proxy.url)
    try:
        elsewhere = lambda request: Answer(status, b"", {"location": other.url + request.path})  # noqa: E731
        proxy.before = elsewhere
        line = fails("push", "--budget", N_TASKS, "-C", screen)
        assert "redirects" in line
        assert urlsplit(other.url).hostname in line
        proxy.before = lambda request: None if "refresh" in request.path else elsewhere(request)
        assert "redirects" in fails("push", "--budget", N_TASKS, "-C", screen)
        proxy.before = lambda request: (
            elsewhere(request) if request.method != "GET" and "refresh" not in request.path else None
        )
        assert "redirects" in fails("push", "--budget", N_TASKS, "-C", screen)
        assert other.seen == []
    finally:
        other.close()
    proxy.clear()
    push_some(screen)
    check_whole(screen, server)


def test_a_server_below_a_path(trained: Path, tmp_path: Path, label_studio_server: Any, token: str) -> None:
    below = Proxy(label_studio_server.url, prefix="/studio")
    root = tmp_path / "screen"
    shutil.copytree(trained, root)
    try:
        assert run("connect", below.url + "/", "-C", root)["url"] == below.url
        push_some(root)
        server = Server(label_studio_server.url, token, ls_project(root))
        with contextlib.closing(server.http):
            server.submit(server.tasks()[0])
            assert run("pull", "-C", root)["annotations_new"] == 1
        assert "Check the address" in fails("connect", below.url.removesuffix("/studio"), "-C", root)
    finally:
        below.close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for this machine, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    key, made, both = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lab",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_bytes(key.read_bytes() + made.read_bytes())
    return both


def test_a_certificate_of_the_lab_is_trusted_where_it_is_named(
    trained: Path,
    tmp_path: Path,
    label_studio_server: Any,
    token: str,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secure = Proxy(label_studio_server.url, tls=certificate)
    root = tmp_path / "screen"
    shutil.copytree(trained, root)
    try:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        line = fails("connect", secure.url, "-C", root)
        assert "certificate is not trusted" in line
        assert "SSL_CERT_FILE" in line
        for wrong in (tmp_path / "none.pem", root / "labelloop.toml"):
            monkeypatch.setenv("SSL_CERT_FILE", str(wrong))
            line = fails("connect", secure.url, "-C", root)
            assert "certificates cannot be read" in line
            assert str(wrong) in line
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        run("connect", secure.url, "-C", root)
        assert push_some(root)["sent"] == N_TASKS
    finally:
        secure.close()


@pytest.mark.parametrize(
    "url",
    ["http://lab:hunter2@127.0.0.1:1/", "https://:hunter2@127.0.0.1", "http://hunter2@127.0.0.1/studio"],
)
def test_an_address_with_a_password_is_refused_without_showing_it(screen: Path, url: str) -> None:
    before = (screen / "labelloop.toml").read_text()
    for more in ((), ("--json",)):
        ran = lab("connect", url, "-C", screen, *more)
        assert ran.code == 2
        assert "hunter2" not in ran.stdout + ran.stderr
        assert "name or a password" in ran.stdout + ran.stderr
    assert (screen / "labelloop.toml").read_text() == before


@pytest.mark.parametrize(
    "url", ["http://host:port", "http://h\x00st", "ftp://host", "http://", "http://[::1"]
)
def test_an_address_that_is_none_is_one_line(screen: Path, url: str) -> None:
    assert "not the address of a server" in fails("connect", url, "-C", screen, code=2)


def test_the_token_is_in_no_file_no_output_and_no_process_list(
    screen: Path, server: Server, proxy: Proxy, token: str
) -> None:
    lines: list[str] = []

    def look(request: Request) -> Answer | None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                lines.append(path.read_bytes().decode(errors="replace"))
        return None

    proxy.before = look
    pushed = ended(start("push", "--budget", N_TASKS, "-C", screen))
    proxy.before = Always(TASKS, cut)
    failed = ended(start("pull", "-C", screen, "--json"))
    proxy.clear()
    access = {
        request.headers.get("Authorization", request.headers.get("authorization", ""))
        for request in proxy.seen
    }
    secrets = [token, *(value.rpartition(" ")[2] for value in access if value)]
    assert len(secrets) > 1
    said = [pushed.stdout, pushed.stderr, failed.stdout, failed.stderr, *lines]
    files = [path.read_bytes() for path in screen.rglob("*") if path.is_file()]
    assert (pushed.code, failed.code) == (0, 1)
    for secret in secrets:
        assert not any(secret in text for text in said)
        assert not any(secret.encode() in content for content in files)


# --- the machine


def test_a_full_disk_is_one_line_and_stores_nothing(screen: Path, server: Server) -> None:
    push_some(screen)
    server.submit(server.tasks()[0])
    project = Project.open(screen)

    def full(_connection: Any) -> None:
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    event.listen(project.ledger.engine, "commit", full)
    with pytest.raises(ProjectError, match="Free space"):
        pull(project)
    event.remove(project.ledger.engine, "commit", full)
    assert rows(screen, AnnotationRow) == []
    assert run("pull", "-C", screen)["annotations_new"] == 1


def mounted(folder: Path, *commands: list[str]) -> None:
    """Runs mount commands; skips the test where they are not allowed."""
    for command in commands:
        try:
            done = subprocess.run(["mount", *command, str(folder)], capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip("mounting is not allowed here")


def test_a_disk_that_is_full_in_the_middle_of_a_push_and_a_pull(
    screen: Path, server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    """The ledger lies on a small disk of its own."""
    ledger = screen / ".labelloop"
    shutil.copytree(ledger, tmp_path / "kept")
    size = sum(path.stat().st_size for path in ledger.rglob("*") if path.is_file())
    mounted(ledger, ["-t", "tmpfs", "-o", f"size={size + 600_000}", "tmpfs"])
    filler = ledger / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 4096)

    try:
        shutil.copytree(tmp_path / "kept", ledger, dirs_exist_ok=True)
        proxy.after = Once(CREATE, fill)  # the tasks are there, and cannot be noted
        assert "Free space" in fails("push", "--budget", N_TASKS, "-C", screen)
        proxy.clear()
        filler.unlink()
        assert run("push", "-C", screen)["sent"] == 0
        check_whole(screen, server)
        for task in server.tasks():
            server.submit(task)
        proxy.after = Once(TASKS, fill)
        assert "Free space" in fails("pull", "-C", screen)
        proxy.clear()
        filler.unlink()
        assert run("pull", "-C", screen)["annotations_new"] == N_TASKS
    finally:
        subprocess.run(["umount", "-l", str(ledger)], check=True)


def test_a_project_that_cannot_be_written_is_one_line(screen: Path, server: Server) -> None:
    push_some(screen)
    server.submit(server.tasks()[0])
    mounted(screen, ["--bind", str(screen)], ["-o", "remount,ro,bind"])
    try:
        for command in ("pull", "push"):
            assert "writable" in fails(command, "-C", screen)
    finally:
        subprocess.run(["umount", "-l", str(screen)], check=True)
    assert run("pull", "-C", screen)["annotations_new"] == 1


# --- the loop


def test_the_loop_waits_for_the_server_goes_on_and_stops_on_ctrl_c(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    proxy.before = lambda request: cut()  # the server is down
    process = start("loop", "--every", "1s", "--retrain-after", 50, "-C", screen)
    assert process.stderr is not None
    lines: list[str] = []

    def until(text: str) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if text in line:
                return
        raise AssertionError(lines)

    try:
        until("Waiting for it")
        proxy.clear()
        until("round 1")
        until("answers again")
        server.submit(server.tasks()[0])
        until("1 image came back")
        proxy.before = lambda request: HTML  # it restarts behind the lab's own proxy
        until("Waiting for it")
        proxy.clear()
        until("answers again")
        process.send_signal(signal.SIGINT)  # it sleeps
        ran = ended(process)
    finally:
        process.kill()
    assert ran.code == 130
    assert "Traceback" not in "".join(lines) + ran.stderr
    assert "interrupted" in ran.stderr
    assert len(server.tasks()) == N_IMAGES - 1  # two of the images are near-duplicates


def test_ctrl_c_in_the_middle_of_a_push_leaves_everything_whole(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    process: list[subprocess.Popen[str]] = []

    def interrupt() -> None:
        process[0].send_signal(signal.SIGINT)
        process[0].wait(30)

    proxy.after = Once(CREATE, interrupt)
    process.append(start("push", "--budget", N_TASKS, "-C", screen))
    ran = ended(process[0])
    assert ran.code == 130
    assert "Traceback" not in ran.stderr
    assert "run the same command again" in ran.stderr
    proxy.clear()
    push_some(screen)
    check_whole(screen, server)


def test_a_turn_of_the_loop_that_is_cut_off_is_done_again_whole(
    screen: Path, server: Server, proxy: Proxy
) -> None:
    for what in (UPLOAD, CREATE, SET_VERSION):
        proxy.after = Once(what, cut)
        with pytest.raises(ServerError):
            turn(Project.open(screen), retrain_after=50)
    proxy.clear()
    turn(Project.open(screen), retrain_after=50)
    check_whole(screen, server, tasks=N_IMAGES - 1)  # two of the images are near-duplicates
