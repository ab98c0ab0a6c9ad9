"""The loop in a real browser: Chromium opens pushed tasks, corrects them with mouse and keys; pull reads it.

Objects lie on a grid, so it is known where to click. The model's predictions are planted: one object is
missed, one is where nothing is, one has the wrong class, and one is a ring, which only a brush mask can show.
Screenshots are kept in the folder that LABELLOOP_ARTEFACTS names; ``examples/first_hour/`` has some of them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from label_studio_sdk.converter.brush import decode_rle
from PIL import Image
from sqlalchemy import select
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.instances import Instances
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import AnnotationRow, EditRow, PredictionRow
from labelloop.review.packing import unpack_json

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium on this machine", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")

pytestmark = pytest.mark.slow

Mask = npt.NDArray[np.bool_]
Point = tuple[float, float]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
CELL, ROWS, COLUMNS = 80, 3, 4
SIZE_HW = (ROWS * CELL, COLUMNS * CELL)
CLASSES = ("organoid", "debris")
SPURIOUS, MISSED, WRONG, RING = 2, 5, 7, 11  # cells of the grid
HOLE_PX = 10
PLATES = ("plate-A01.png", "plate-A02.png", "plate-A03.png")
WAIT_MS = 60_000
STORE = "Htx.annotationStore.selected"  # the editor's own state, read to wait for what was done


def centre(cell: int) -> Point:
    """x and y, px."""
    return (cell % COLUMNS + 0.5) * CELL, (cell // COLUMNS + 0.5) * CELL


def radius(cell: int) -> float:
    return 30 if cell == RING else 17 + 9 * (cell * 7 % ROWS) / 2


def label(cell: int) -> int:
    """Small ones are debris."""
    return int(radius(cell) < 20)


def disc(cell: int) -> Mask:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    x, y = centre(cell)
    distance = np.hypot(rows + 0.5 - y, columns + 0.5 - x)
    return np.asarray((distance <= radius(cell)) & ((cell != RING) | (distance > HOLE_PX)))


def micrograph(seed: int) -> npt.NDArray[np.uint8]:
    """A bright field with rounded bodies in the cells that hold an object."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    light = 188 - 14 * np.hypot(rows / SIZE_HW[0] - 0.5, columns / SIZE_HW[1] - 0.5)
    for cell in range(ROWS * COLUMNS):
        if cell != SPURIOUS:
            x, y = centre(cell)
            inside = np.clip(1 - np.hypot(rows + 0.5 - y, columns + 0.5 - x) / radius(cell), 0, 1)
            light -= disc(cell) * (70 - 45 * np.sqrt(inside))
    return np.clip(light + rng.normal(0, 2, SIZE_HW), 0, 255).astype(np.uint8)


def proposed() -> Instances:
    cells = [cell for cell in range(ROWS * COLUMNS) if cell != MISSED]
    labels = [1 - label(cell) if cell == WRONG else label(cell) for cell in cells]
    scores = np.linspace(0.95, 0.6, len(cells))
    return Instances.from_dense(np.asarray([disc(cell) for cell in cells]), labels, scores)


def place(cell: int) -> int:
    """Where a cell's object is among those proposed."""
    return cell - (cell > MISSED)


def run(*arguments: object) -> Any:
    ran = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.stdout
    return json.loads(ran.stdout)


@dataclass(frozen=True, kw_only=True)
class Screen:
    """A project whose images were pushed."""

    root: Path
    project: int
    tasks: dict[str, int]

    def stored(self) -> AnnotationRow:
        """The one annotation that was pulled."""
        with Project.open(self.root).ledger.read() as session:
            row = session.scalars(select(AnnotationRow)).one()
            session.expunge(row)
        return row

    def edits(self, kind: str) -> list[EditRow]:
        with Project.open(self.root).ledger.read() as session:
            rows = list(session.scalars(select(EditRow).where(EditRow.kind == kind)))
            session.expunge_all()
        return rows

    def labels(self, name: str) -> Instances:
        project = Project.open(self.root)
        (image,) = (image for image in project.images(split="train") if image.file_name == name)
        return project.labels([image.id])[image.id]


@pytest.fixture
def send(tmp_path: Path, label_studio_server: Any, monkeypatch: Any) -> Callable[..., Screen]:
    """Makes a project, trained for two steps, that proposes the grid in each image, and pushes it."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio_server.token)

    def make(classes: tuple[str, ...] = CLASSES, names: tuple[str, ...] = PLATES, title: str = "") -> Screen:
        root, pool = tmp_path / "my-screen", tmp_path / "plates"
        pool.mkdir()
        for seed, name in enumerate(names):
            Image.fromarray(micrograph(seed)).save(pool / name)
        run("init", root, "--classes", ",".join(classes), *(["--name", title] if title else []))
        labelled = annotated(tmp_path / "annotated", classes)
        run("add", "labels", labelled, "--images", tmp_path / "annotated", "-C", root)
        run("add", "images", pool, "-C", root)
        run("train", "--method", "supervised", "--iterations", 2, "--name", "first", "-C", root)
        project = Project.open(root)
        planted = encode_instances(proposed())
        with project.ledger.write() as session:
            for image in project.images(split="train", labelled=False):
                session.merge(
                    PredictionRow(run="first", which="supervised", image_id=image.id, instances=planted)
                )
        connected = run("connect", label_studio_server.url, "-C", root)
        run("push", "-C", root)
        http = httpx.Client(base_url=label_studio_server.url, timeout=60)
        with http:
            token = http.post("/api/token/refresh/", json={"refresh": label_studio_server.token}).json()
            listed = http.get(
                "/api/tasks",
                params={"project": connected["ls_project"], "fields": "all"},
                headers={"authorization": f"Bearer {token['access']}"},
            ).json()["tasks"]
        tasks = {task["data"]["name"]: int(task["id"]) for task in listed}
        return Screen(root=root, project=connected["ls_project"], tasks=tasks)

    return make


def annotated(folder: Path, classes: tuple[str, ...]) -> Path:
    """Two images with the truth, as COCO."""
    folder.mkdir()
    truth = [cell for cell in range(ROWS * COLUMNS) if cell != SPURIOUS]
    rles = Instances.from_dense(np.asarray([disc(cell) for cell in truth])).rles
    document: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes)],
    }
    for number in range(2):
        Image.fromarray(micrograph(100 + number)).save(folder / f"few-{number}.png")
        document["images"].append(
            {"id": number, "file_name": f"few-{number}.png", "height": SIZE_HW[0], "width": SIZE_HW[1]}
        )
        document["annotations"] += [
            {
                "id": number * len(truth) + i,
                "image_id": number,
                "category_id": label(cell),
                "segmentation": {"size": list(SIZE_HW), "counts": rle.decode()},
            }
            for i, (cell, rle) in enumerate(zip(truth, rles, strict=True))
        ]
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(document))
    return path


@dataclass(kw_only=True)
class Editor:
    """Label Studio in a browser, used as a person uses it; points are px of the image."""

    page: Any
    url: str
    kept: Path
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def log_in(self, email: str, password: str) -> None:
        self.page.goto(f"{self.url}/user/login/")
        self.page.fill("#email", email)
        self.page.fill("#password", password)
        self.page.press("#password", "Enter")
        self.page.wait_for_url(lambda url: "login" not in url)

    def list_tasks(self, screen: Screen) -> None:
        self.page.goto(f"{self.url}/projects/{screen.project}/data")
        self.page.locator(f'text="{next(iter(screen.tasks))}"').first.wait_for()

    def open(self, screen: Screen, name: str) -> None:
        self.page.goto(f"{self.url}/projects/{screen.project}/data?task={screen.tasks[name]}")
        self.page.locator(".lsf-outliner-item").first.wait_for()
        self.wait_for_regions(len(proposed()))
        self.page.wait_for_function(f"{STORE}.objects[0].imageIsLoaded !== false")
        self.page.wait_for_timeout(1000)  # the picture is drawn, and fitted to the window

    def wait_for_regions(self, count: int) -> None:
        self.page.wait_for_function(f"n => window.Htx && {STORE}?.regions.length === n", arg=count)

    def scale(self) -> Point:
        """Pixels of the editor's stage per pixel of the image, before zooming."""
        width, height = self.page.evaluate(f"[{STORE}.objects[0].stageWidth, {STORE}.objects[0].stageHeight]")
        return width / SIZE_HW[1], height / SIZE_HW[0]

    def at(self, x: float, y: float) -> Point:
        """Where a point of the image is in the window."""
        left, top, zoom_x, zoom_y = self.page.evaluate(
            f"(s => [s.x(), s.y(), s.scaleX(), s.scaleY()])({STORE}.objects[0].stageRef)"
        )
        box, (scale_x, scale_y) = self.page.locator(".konvajs-content").first.bounding_box(), self.scale()
        return box["x"] + left + x * scale_x * zoom_x, box["y"] + top + y * scale_y * zoom_y

    def select(self, x: float, y: float) -> None:
        self.press("v")
        self.page.mouse.click(*self.at(x, y))
        self.page.wait_for_function(f"{STORE}.selectionSize === 1")

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.page.wait_for_timeout(200)

    def choose_label(self, name: str) -> None:
        self.page.locator(".lsf-label", has_text=name).first.click()
        self.page.wait_for_timeout(200)

    def drag(self, start: Point, stop: Point) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.wait_for_timeout(200)
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*stop), steps=8)
        self.page.wait_for_timeout(200)
        self.page.mouse.up()
        self.page.wait_for_timeout(300)

    def draw_polygon(self, points: list[Point]) -> None:
        for point in [*points, points[0]]:  # the first one again closes it
            self.page.mouse.click(*self.at(*point))
            self.page.wait_for_timeout(300)

    def submit(self) -> None:
        self.page.get_by_role("button", name="Submit").click()
        self.page.locator('button:has-text("Update")').wait_for()

    def keep(self, name: str) -> None:
        """A small picture of the window."""
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        self.kept.mkdir(parents=True, exist_ok=True)
        shot.quantize(128, dither=Image.Dither.NONE).save(self.kept / f"{name}.png", optimize=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def editor(chromium: Any, label_studio_server: Any, tmp_path: Path) -> Iterator[Editor]:
    """Logged in, in a window wide enough that a picture's height limits it."""
    with chromium.new_context(viewport={"width": 1280, "height": 680}) as context:
        context.set_default_timeout(WAIT_MS)
        kept = Path(os.environ.get("LABELLOOP_ARTEFACTS") or tmp_path)
        made = Editor(page=context.new_page(), url=label_studio_server.url, kept=kept)
        context.on("request", lambda request: made.requests.append(request.url))
        made.page.on("websocket", lambda socket: made.requests.append(socket.url))
        made.page.on("dialog", lambda dialog: (made.dialogs.append(dialog.message), dialog.dismiss()))
        made.log_in(label_studio_server.email, label_studio_server.password)
        yield made
        hosts = {urlsplit(url).hostname for url in made.requests if not url.startswith(("data:", "blob:"))}
        assert hosts == {"127.0.0.1"}  # nothing was asked of any other machine
        assert made.dialogs == []


def test_what_a_person_deletes_relabels_and_draws_comes_back_as_these_edits_and_no_others(
    send: Callable[..., Screen], editor: Editor, label_studio_server: Any
) -> None:
    screen, name = send(), PLATES[0]
    editor.list_tasks(screen)
    editor.keep("task-list")
    opened = time.monotonic()
    editor.open(screen, name)
    editor.keep("proposals")
    editor.select(*centre(SPURIOUS))
    editor.press("Backspace")
    editor.wait_for_regions(10)
    editor.select(*centre(WRONG))
    editor.choose_label(CLASSES[label(WRONG)])
    editor.press("Escape")
    editor.choose_label(CLASSES[label(MISSED)])
    (x, y), r = centre(MISSED), radius(MISSED)
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    editor.draw_polygon([(x + r * np.cos(a), y + r * np.sin(a)) for a in angles])
    editor.wait_for_regions(11)
    editor.press("Escape")
    editor.keep("corrected")
    editor.submit()
    editor.keep("submitted")
    open_s = time.monotonic() - opened
    pulled = run("pull", "-C", screen.root)
    assert pulled["edits"] == {
        "accepted": 9, "relabelled": 1, "added": 1, "deleted": 1, "moved": 0, "split": 0, "merged": 0,
    }  # fmt: skip
    assert (pulled["annotations_new"], pulled["images"], pulled["unusable"]) == (1, 1, [])
    row = screen.stored()
    assert row.who == label_studio_server.email
    assert (row.bulk, row.skipped, row.ground_truth) == (False, False, False)
    assert row.lead_time_s is not None
    assert 1 < row.lead_time_s < open_s
    assert pulled["minutes"] == pytest.approx(row.lead_time_s / 60)
    result = unpack_json(row.result)
    origins = {region["id"]: region["origin"] for region in result}
    ((relabelled,), (added,)) = screen.edits("relabelled")[0].after, screen.edits("added")[0].after
    assert origins.pop(relabelled) == "prediction-changed"
    assert origins.pop(added) == "manual"
    assert list(origins.values()) == ["prediction"] * 9
    before, after = proposed(), screen.labels(name)
    kept = [i for i in range(len(before)) if i != place(SPURIOUS)]
    assert set(after.rles) >= {before.rles[i] for i in kept}  # bit for bit, the relabelled one too
    assert screen.edits("relabelled")[0].iou == 1
    found = dict(zip(after.rles, after.labels.tolist(), strict=True))
    assert found[before.rles[place(WRONG)]] == label(WRONG)
    (drawn,) = (i for i, rle in enumerate(after.rles) if rle not in before.rles)
    assert after.labels[drawn] == label(MISSED)
    assert after.select([drawn]).iou(Instances.from_dense(disc(MISSED)[None]))[0, 0] > 0.9


def test_a_polygon_that_is_dragged_and_a_vertex_that_is_dragged_are_moved(
    send: Callable[..., Screen], editor: Editor
) -> None:
    screen, name = send(names=PLATES[:1]), PLATES[0]
    editor.open(screen, name)
    sent = editor.page.evaluate(f"{STORE}.regions.map(r => r.serialize().value)")
    (x, y), dragged = centre(4), 4
    editor.press("v")
    editor.drag((x, y), (x + 9, y + 6))
    editor.press("v")
    editor.press("Escape")
    stretched = 1
    points = np.asarray(sent[stretched]["points"]) * [SIZE_HW[1] / 100, SIZE_HW[0] / 100]
    (x, y), corner = centre(stretched), points[2]
    out = corner + 0.5 * (corner - [x, y])
    editor.page.locator(".lsf-outliner-item").nth(stretched).click()
    editor.page.wait_for_function(f"{STORE}.selectionSize === 1")
    editor.drag((corner[0], corner[1]), (out[0], out[1]))
    editor.keep("moved")
    editor.submit()
    pulled = run("pull", "-C", screen.root)
    assert {kind: n for kind, n in pulled["edits"].items() if n} == {"accepted": 9, "moved": 2}
    result = unpack_json(screen.stored().result)
    assert {region["origin"] for region in result} == {"prediction"}  # the editor does not tell by origin
    before, after = proposed(), screen.labels(name)
    moved = {edit.after[0]: edit for edit in screen.edits("moved")}
    assert {int(key.rpartition("-o")[2]) for key in moved} == {place(dragged), place(stretched)}
    assert all(edit.iou is not None and 0.3 < edit.iou < 1 for edit in moved.values())
    masks = {rle: after.mask(i) for i, rle in enumerate(after.rles) if rle not in before.rles}
    shifted = np.roll(disc(dragged), (6, 9), (0, 1))
    iou = [(shifted & mask).sum() / (shifted | mask).sum() for mask in masks.values()]
    assert max(iou) > 0.95
    (grown,) = (mask for mask in masks.values() if mask[disc(stretched)].any())
    assert (grown & disc(stretched)).sum() > 0.97 * disc(stretched).sum()
    assert grown[int(out[1] * 0.7 + corner[1] * 0.3), int(out[0] * 0.7 + corner[0] * 0.3)]


@pytest.mark.parametrize("tool", ["erase", "paint"])
def test_a_brush_mask_that_is_edited_is_cut_at_half_of_its_antialiased_edge(
    tool: str, send: Callable[..., Screen], editor: Editor
) -> None:
    screen, name = send(names=PLATES[:1]), PLATES[0]
    editor.open(screen, name)
    x, y = centre(RING)
    editor.select(x, y + 20)
    editor.press({"erase": "e", "paint": "b"}[tool])
    start, stop = (x - 20, y - 36), (x + 26, y + 36)  # aslant, so that its edge cuts pixels at all fractions
    editor.drag(start, stop)
    editor.keep(tool)
    scale_x, _ = editor.scale()
    editor.submit()
    pulled = run("pull", "-C", screen.root)
    assert {kind: n for kind, n in pulled["edits"].items() if n} == {"accepted": 10, "moved": 1}
    (edit,) = screen.edits("moved")
    (region,) = (r for r in unpack_json(screen.stored().result) if r["id"] == edit.after[0])
    assert region["origin"] == "prediction-changed"
    alpha = decode_rle(region["value"]["rle"]).reshape(*SIZE_HW, 4)[..., 3]
    for low, high in ((1, 128), (128, 255)):
        assert ((alpha >= low) & (alpha < high)).sum() > 10  # the browser did leave an edge to be cut
    (after,) = (m for m, rle in _masks(screen.labels(name)) if rle not in proposed().rles)
    assert (after == (alpha >= 128)).all()
    ring, width = disc(RING), {"erase": 10, "paint": 15}[tool] / scale_x  # as Label Studio's tools start
    distance = _distance_to_segment(start, stop)
    wanted = ring & (distance > width / 2) if tool == "erase" else ring | (distance <= width / 2)
    agreed = (after & wanted).sum() / (after | wanted).sum()
    assert agreed > 0.98
    assert agreed > (ring & wanted).sum() / (ring | wanted).sum()
    far = distance > width / 2 + 1
    assert (after[far] == ring[far]).all()


def _distance_to_segment(start: Point, stop: Point) -> npt.NDArray[np.float64]:
    """Of each pixel's centre, px."""
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] + 0.5
    (x, y), (dx, dy) = start, (stop[0] - start[0], stop[1] - start[1])
    along = np.clip(((columns - x) * dx + (rows - y) * dy) / (dx**2 + dy**2), 0, 1)
    return np.asarray(np.hypot(columns - x - along * dx, rows - y - along * dy))


def _masks(instances: Instances) -> Iterator[tuple[Mask, bytes]]:
    for i, rle in enumerate(instances.rles):
        yield instances.mask(i), rle


def test_names_that_look_like_html_are_shown_as_text(send: Callable[..., Screen], editor: Editor) -> None:
    classes = ("<img src=x onerror=alert(1)>", "<b>debris")
    name, title = "<img src=x onerror=alert(2)>.png", "<img src=x onerror=alert(3)>"
    screen = send(classes=classes, names=(name,), title=title)
    editor.list_tasks(screen)
    assert editor.page.get_by_text(f"labelloop: {title}", exact=True).first.is_visible()
    editor.keep("html-list")
    editor.open(screen, name)
    editor.select(*centre(0))  # its details are shown
    shown = editor.page.locator(".lsf-label").all_inner_texts()
    assert [text.split("\n")[0] for text in shown[: len(classes)]] == list(classes)
    assert editor.page.locator(".lsf-outliner-item").first.inner_text().count(classes[label(0)]) == 1
    editor.choose_label(classes[1 - label(0)])
    editor.press("Escape")
    editor.keep("html-task")
    assert editor.page.locator('img[src="x"], [onerror]').count() == 0
    editor.submit()
    pulled = run("pull", "-C", screen.root)
    assert {kind: n for kind, n in pulled["edits"].items() if n} == {"accepted": 10, "relabelled": 1}
