"""The loop on a real Label Studio: push, a simulated annotator through its REST interface, pull, train again.

The images hold discs on a grid, so the truth is known. The model's predictions are planted in the ledger with
one fault of each kind in every image; the annotator corrects them to the truth, as the editor would store it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sqlalchemy import select
from typer.testing import CliRunner

from labelloop.cli.app import app
from labelloop.errors import ProjectError
from labelloop.instances import Instances
from labelloop.integrations.label_studio import sending
from labelloop.integrations.label_studio.labelling_config import ControlNames
from labelloop.integrations.label_studio.loop import run_loop, turn
from labelloop.integrations.label_studio.regions import to_regions
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import AnnotationRow, EditRow, PredictionRow
from labelloop.review.edits import EDIT_KINDS
from labelloop.review.rounds import rounds

pytestmark = pytest.mark.slow

Mask = npt.NDArray[np.bool_]
CELL, ROWS, COLUMNS = 48, 3, 4
SIZE_HW = (ROWS * CELL, COLUMNS * CELL)
CLASSES = ("organoid", "debris")
CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")
N_IMAGES = 20
ITERATIONS = 60
FAULTS = ("moved", "relabelled", "added", "deleted", "split", "merged")


def disc(cell: int, radius: float, dx: float = 0, dy: float = 0) -> Mask:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    y, x = (cell // COLUMNS + 0.5) * CELL + dy, (cell % COLUMNS + 0.5) * CELL + dx
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


@dataclass(frozen=True)
class Scene:
    """An image, its truth, and what a model with one fault of each kind sees in it."""

    pixels: npt.NDArray[np.uint8]
    truth: Instances
    predicted: Instances


def scene(seed: int) -> Scene:
    """Below 1000 objects are light or dark, from 1000 on dark, from 2000 on light."""
    rng = np.random.default_rng(seed)
    light = seed >= 2000 or (seed < 1000 and seed % 2 == 1)
    cells = rng.permutation(ROWS * COLUMNS)
    truth: list[tuple[Mask, int]] = []
    predicted: list[tuple[Mask, int]] = []
    for fault, cell in zip((*FAULTS, *["accepted"] * 5, "ring"), cells, strict=True):
        label = int(rng.integers(2))
        mask = disc(cell, 18 if label == 0 else 9)
        left = np.zeros(SIZE_HW, np.bool_)
        left[:, : int(cell % COLUMNS * CELL + CELL / 2)] = True
        match fault:
            case "moved":
                truth.append((mask, label))
                predicted.append((disc(cell, 16 if label == 0 else 7, 1, 2), label))
            case "relabelled":
                truth.append((mask, label))
                predicted.append((mask, 1 - label))
            case "added":
                truth.append((mask, label))
            case "deleted":
                predicted.append((mask, label))
            case "split":
                truth += [(disc(cell, 9, -10), 1), (disc(cell, 9, 10), 1)]
                predicted.append((disc(cell, 9, -10) | disc(cell, 9, 10) | disc(cell, 4), 1))
            case "merged":
                truth.append((mask, label))
                predicted += [(mask & left, label), (mask & ~left, label)]
            case "ring":
                ring = disc(cell, 18) & ~disc(cell, 6)
                truth.append((ring, 0))
                predicted.append((ring, 0))
            case _:
                truth.append((mask, label))
                predicted.append((mask, label))
    inside, outside = (190, 90) if light else (90, 190)
    shade = np.where(np.any([m for m, _ in truth], axis=0), inside, outside)
    pixels = np.clip(shade + rng.normal(0, 12, SIZE_HW), 0, 255).astype(np.uint8)
    return Scene(
        pixels=pixels,
        truth=Instances.from_dense(np.asarray([m for m, _ in truth]), [n for _, n in truth]),
        predicted=Instances.from_dense(
            np.asarray([m for m, _ in predicted]),
            [n for _, n in predicted],
            rng.uniform(0.55, 0.99, len(predicted)),
        ),
    )


def coco(folder: Path, scenes: dict[str, Scene]) -> Path:
    """Writes images and their truth."""
    folder.mkdir(parents=True)
    document: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
    }
    for number, (name, made) in enumerate(scenes.items()):
        Image.fromarray(made.pixels).save(folder / name)
        document["images"].append(
            {"id": number, "file_name": name, "height": SIZE_HW[0], "width": SIZE_HW[1]}
        )
        for rle, label in zip(made.truth.rles, made.truth.labels.tolist(), strict=True):
            document["annotations"].append(
                {
                    "id": len(document["annotations"]),
                    "image_id": number,
                    "category_id": label,
                    "segmentation": {"size": list(SIZE_HW), "counts": rle.decode()},
                }
            )
    labels = folder.with_suffix(".json")
    labels.write_text(json.dumps(document))
    return labels


def run(*arguments: object) -> Any:
    ran = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.stdout
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two labelled images, twenty without labels, and a run trained for a few steps."""
    folder = tmp_path_factory.mktemp("loop")
    few = coco(folder / "few", {f"few-{i}.png": scene(1000 + i) for i in range(2)})
    test = coco(folder / "test", {f"test-{i}.png": scene(2000 + i) for i in range(6)})
    coco(folder / "pool", {f"pool-{i:02d}.png": scene(i) for i in range(N_IMAGES)})
    root = folder / "screen"
    run("init", root, "--classes", ",".join(CLASSES))
    run("add", "labels", few, "--images", folder / "few", "-C", root)
    run("add", "labels", test, "--images", folder / "test", "--split", "test", "-C", root)
    run("add", "images", folder / "pool", "-C", root)
    run("train", "--method", "supervised", "--iterations", ITERATIONS, "--name", "first", "-C", root)
    return root


@pytest.fixture
def screen(trained: Path, tmp_path: Path, label_studio_server: Any, monkeypatch: Any) -> Path:
    """A copy of that project, with planted predictions, tied to a new project on the server."""
    root = tmp_path / "screen"
    shutil.copytree(trained, root)
    plant(Project.open(root))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", label_studio_server.token)
    run("connect", label_studio_server.url, "-C", root)
    return root


def plant(project: Project) -> None:
    """Makes the run's predictions those of the scenes."""
    with project.ledger.write() as session:
        for image in project.images(split="train", labelled=False):
            made = scene(int(image.file_name.removeprefix("pool-").removesuffix(".png")))
            session.merge(
                PredictionRow(
                    run="first",
                    which="supervised",
                    image_id=image.id,
                    instances=encode_instances(made.predicted),
                )
            )


@dataclass
class Annotator:
    """Corrects tasks to the truth through REST, with what the editor would store."""

    url: str
    token: str
    project: int

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=60)
        access = self.http.post("/api/token/refresh/", json={"refresh": self.token}).json()["access"]
        self.http.headers["authorization"] = f"Bearer {access}"

    def tasks(self) -> list[dict[str, Any]]:
        answer = self.http.get(
            "/api/tasks", params={"project": self.project, "fields": "all", "page_size": 500}
        )
        return list(answer.json()["tasks"])

    def submit(self, task: dict[str, Any], result: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        body = {"result": result, "lead_time": 30.0, **more}
        answer = self.http.post(f"/api/tasks/{task['id']}/annotations/", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def correct(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        """The task's prediction, corrected to the truth of its scene."""
        made = scene(int(task["data"]["name"].removeprefix("pool-").removesuffix(".png")))
        regions = task["predictions"][0]["result"]
        iou = made.predicted.iou(made.truth)
        by_key = {region["id"]: region for region in regions}
        keys = [f"{regions[0]['id'].rpartition('-o')[0]}-o{i}" for i in range(len(made.predicted))]
        result, drawn = [], set()
        for i, key in enumerate(keys):
            best = int(iou[i].argmax())
            inside = [j for j in range(len(made.truth)) if iou[i, j] > 0.3]
            if iou[i].max() < 0.3 or best in drawn:  # spurious, or the other half of what was merged
                continue
            drawn.add(best)
            region = dict(by_key[key])
            same_mask, same_label = iou[i, best] == 1, made.predicted.labels[i] == made.truth.labels[best]
            if same_mask and same_label:
                result.append({**region, "origin": "prediction"})
            elif same_mask:
                value = dict(region["value"])
                value[region["type"]] = [CLASSES[int(made.truth.labels[best])]]
                result.append({**region, "value": value, "origin": "prediction-changed"})
            else:
                [shape] = to_regions(made.truth.select([best]), [key], CLASSES, CONTROLS)
                result.append({**shape, "origin": "prediction-changed"})
            for j in inside:
                if j != best:
                    drawn.add(j)
                    result += self._drawn(made.truth, j)
        for j in range(len(made.truth)):
            if j not in drawn:
                result += self._drawn(made.truth, j)
        return result

    def _drawn(self, truth: Instances, j: int) -> list[dict[str, Any]]:
        [region] = to_regions(truth.select([j]), [f"manual{j:04d}"], CLASSES, CONTROLS)
        return [{**region, "origin": "manual"}]


@pytest.fixture
def annotator(screen: Path, label_studio_server: Any) -> Iterator[Annotator]:
    settings = Project.open(screen).config.label_studio
    assert settings is not None
    made = Annotator(url=label_studio_server.url, token=label_studio_server.token, project=settings.project)
    yield made
    made.http.close()


def labels_of(root: Path) -> dict[str, Instances]:
    project = Project.open(root)
    images = project.images(split="train", labelled=True)
    labels = project.labels([image.id for image in images])
    return {image.file_name: labels[image.id] for image in images if image.file_name.startswith("pool")}


def test_twenty_images_go_out_come_back_corrected_and_make_the_next_model_better(
    screen: Path, annotator: Annotator
) -> None:
    pushed = run("push", "--budget", N_IMAGES, "-C", screen)
    assert (pushed["round"], pushed["tasks"], pushed["skipped"]) == (1, N_IMAGES, [])
    assert pushed["regions"] == sum(len(scene(i).predicted) for i in range(N_IMAGES))
    tasks = annotator.tasks()
    assert [task["predictions_score"] is not None for task in tasks] == [True] * N_IMAGES
    for task in tasks:
        annotator.submit(task, annotator.correct(task))
    pulled = run("pull", "-C", screen)
    assert pulled["edits"] == {
        "accepted": 6 * N_IMAGES,
        **dict.fromkeys(("moved", "relabelled", "added", "deleted", "split", "merged"), N_IMAGES),
    }
    assert (pulled["annotations_new"], pulled["annotations_changed"], pulled["images"]) == (20, 0, 20)
    assert pulled["minutes"] == pytest.approx(N_IMAGES * 0.5)
    for name, labels in labels_of(screen).items():
        truth = scene(int(name.removeprefix("pool-").removesuffix(".png"))).truth
        iou = truth.iou(labels)
        best = iou.argmax(axis=1)
        assert len(labels) == len(truth)
        assert (iou.max(axis=1) >= 0.98).all()
        assert labels.labels[best].tolist() == truth.labels.tolist()
        untouched = [r for r in scene(int(name[5:7])).predicted.rles if r in labels.rles]
        assert len(untouched) >= 6  # bit for bit
    before = run("evaluate", "-C", screen)["metrics"]["coco_ap"]["value"]
    run("train", "--method", "supervised", "--iterations", ITERATIONS, "--name", "second", "-C", screen)
    after = run("evaluate", "-C", screen)["metrics"]["coco_ap"]["value"]
    assert after > before + 0.1


def test_a_second_push_and_a_second_pull_change_nothing(screen: Path, annotator: Annotator) -> None:
    run("push", "--budget", 4, "-C", screen)
    tasks = annotator.tasks()
    annotator.submit(tasks[0], annotator.correct(tasks[0]))
    first = run("pull", "-C", screen)
    again = run("push", "-C", screen)
    nothing = run("pull", "-C", screen)
    assert first["annotations_new"] == 1
    assert (again["round"], again["sent"], again["tasks"]) == (1, 0, 3)
    assert {t["id"] for t in annotator.tasks()} == {t["id"] for t in tasks}
    assert [nothing[k] for k in ("annotations_new", "annotations_changed", "annotations_gone", "images")] == [
        0
    ] * 4
    assert set(nothing["edits"]) == set(EDIT_KINDS)


def test_drafts_are_left_alone_skipped_tasks_are_understood_and_of_two_annotations_the_last_counts(
    screen: Path, annotator: Annotator
) -> None:
    run("push", "--budget", 3, "-C", screen)
    drafted, skipped, twice = annotator.tasks()
    draft = annotator.http.post(f"/api/tasks/{drafted['id']}/drafts", json={"result": []})
    assert draft.status_code == 201
    annotator.submit(skipped, [], was_cancelled=True, lead_time=5.0)
    annotator.submit(twice, [])
    annotator.submit(twice, annotator.correct(twice))
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_new"], pulled["images"]) == (3, 1)
    assert pulled["edits"]["accepted"] == 6
    assert list(labels_of(screen)) == [twice["data"]["name"]]
    assert run("push", "-C", screen)["tasks"] == 1  # the drafted one
    project = Project.open(screen)
    with project.ledger.read() as session:
        kept = session.scalars(select(AnnotationRow.skipped).order_by(AnnotationRow.id)).all()
        edits = session.scalars(select(EditRow.annotation_id)).all()
    assert sorted(kept) == [False, False, True]
    assert len(set(edits)) == 2  # of the annotation that does not count too


def test_a_changed_annotation_is_a_new_revision_and_a_deleted_one_is_noticed(
    screen: Path, annotator: Annotator
) -> None:
    run("push", "--budget", 2, "-C", screen)
    task = annotator.tasks()[0]
    made = annotator.submit(task, annotator.correct(task))
    run("pull", "-C", screen)
    first = labels_of(screen)[task["data"]["name"]]
    changed = annotator.http.patch(f"/api/annotations/{made['id']}/", json={"result": made["result"][1:]})
    assert changed.status_code == 200
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_new"], pulled["annotations_changed"], pulled["images"]) == (0, 1, 1)
    second = labels_of(screen)[task["data"]["name"]]
    assert len(second) == len(first) - 1
    assert annotator.http.delete(f"/api/annotations/{made['id']}/").status_code == 204
    pulled = run("pull", "-C", screen)
    assert (pulled["annotations_gone"], pulled["images"]) == (1, 0)
    assert labels_of(screen)[task["data"]["name"]] == second  # nothing of the lab's work is lost
    assert run("push", "-C", screen)["tasks"] == 2


def test_a_deleted_task_is_noticed_and_not_made_again(screen: Path, annotator: Annotator) -> None:
    run("push", "--budget", 3, "-C", screen)
    first, second, third = annotator.tasks()
    annotator.submit(second, annotator.correct(second))
    run("pull", "-C", screen)
    for task in (first, second):
        assert annotator.http.delete(f"/api/tasks/{task['id']}/").status_code == 204
    pulled = run("pull", "-C", screen)
    assert (pulled["tasks_deleted"], pulled["annotations_gone"]) == (2, 1)
    assert list(labels_of(screen)) == [second["data"]["name"]]
    again = run("push", "-C", screen)
    assert (again["round"], again["tasks"], again["sent"]) == (1, 1, 0)
    assert [task["id"] for task in annotator.tasks()] == [third["id"]]


def test_tasks_accepted_in_bulk_are_told_from_tasks_that_somebody_looked_at(
    screen: Path, annotator: Annotator
) -> None:
    run("push", "--budget", 2, "-C", screen)
    bulk, looked_at = annotator.tasks()
    action = annotator.http.post(
        "/api/dm/actions",
        params={"id": "predictions_to_annotations", "project": annotator.project},
        json={"selectedItems": {"all": False, "included": [bulk["id"]]}},
    )
    assert action.status_code == 200, action.text
    annotator.submit(looked_at, annotator.correct(looked_at))
    pulled = run("pull", "-C", screen)
    assert pulled["annotations_new"] == 2
    assert pulled["edits"]["accepted"] == 6 + len(bulk["predictions"][0]["result"])
    with Project.open(screen).ledger.read() as session:
        assert sorted(session.scalars(select(AnnotationRow.bulk))) == [False, True]


def test_the_round_closes_when_all_is_reviewed_and_the_next_push_opens_another_without_the_old_model(
    screen: Path, annotator: Annotator
) -> None:
    run("push", "--budget", 2, "-C", screen)
    for task in annotator.tasks():
        annotator.submit(task, annotator.correct(task))
    run("pull", "-C", screen)
    second = run("push", "--budget", 3, "-C", screen)
    assert (second["round"], second["tasks"]) == (2, 3)
    versions = annotator.http.get(f"/api/projects/{annotator.project}/model-versions/").json()
    assert versions == {second["model_version"]: 3}
    names = [task["data"]["name"] for task in annotator.tasks()]
    assert len(set(names)) == 5  # no image is asked about twice


def test_uncertain_tasks_come_first(screen: Path, annotator: Annotator) -> None:
    run("push", "--budget", 5, "-C", screen)
    scores = {task["id"]: task["predictions_score"] for task in annotator.tasks()}
    following = annotator.http.get(f"/api/projects/{annotator.project}/next").json()
    assert scores[following["id"]] == min(scores.values())


def test_the_loop_trains_again_when_enough_came_back_and_ends_when_nothing_is_left(
    screen: Path, annotator: Annotator
) -> None:
    project = Project.open(screen)
    opened = turn(project, retrain_after=2)
    assert (opened.round, opened.waiting, opened.trained, opened.proposer) == (1, N_IMAGES, None, "first")
    assert opened.gate is None
    one, two, *others = annotator.tasks()
    annotator.submit(one, annotator.correct(one))
    step = turn(project, retrain_after=2)
    assert (step.images, step.new_labels, step.trained, step.waiting) == (1, 1, None, N_IMAGES - 1)
    annotator.submit(two, annotator.correct(two))
    step = turn(project, retrain_after=2)
    assert step.trained is not None
    assert (step.images, step.new_labels, step.proposer, step.round) == (1, 2, step.trained, 1)
    assert step.gate is not None
    assert (step.gate["new"], step.gate["old"], step.gate["promote"]) == (step.trained, "first", True)
    assert "no validation images" in step.gate["reason"]
    run_of = {record.name: record for record in project.runs()}
    again = run_of[step.trained].config["request"]
    assert (again["method"], again["iterations"], again["labels"]) == ("supervised", ITERATIONS, "all")
    assert turn(project, retrain_after=2).new_labels == 0
    for task in others:
        annotator.submit(task, annotator.correct(task))
    last = turn(project, retrain_after=50)  # the round is finished
    assert last.trained not in (None, step.trained)
    assert (last.images, last.round, last.waiting) == (N_IMAGES - 2, None, 0)


def test_the_loop_ends_when_only_images_are_left_that_cannot_be_asked_about(
    screen: Path, annotator: Annotator, watching: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sending, "TASK_BYTES", 10)  # no masks but none at all
    project = Project.open(screen)
    gone = project.images(split="train", labelled=False)[0]
    gone.path.rename(gone.path.with_suffix(".gone"))
    try:
        last = run_loop(project, every_s=0.01, retrain_after=99, progress=watching)
    finally:
        gone.path.with_suffix(".gone").rename(gone.path)
    assert (last.round, annotator.tasks()) == (None, [])
    assert [r.tasks for r in rounds(project)] == [{"dropped": N_IMAGES - 1}]
    assert sum("too ragged" in text for text in watching.told) == N_IMAGES
    assert any("1 image cannot be read" in text and str(gone.path) in text for text in watching.told)


def test_the_loop_says_what_it_left_out_and_takes_a_class_that_was_written_down_meanwhile(
    screen: Path, annotator: Annotator, watching: Any
) -> None:
    project = Project.open(screen)
    turn(project, retrain_after=99)
    config = annotator.http.get(f"/api/projects/{annotator.project}/").json()["label_config"]
    with_cyst = re.sub(r"(<Label value=.)debris(.[^>]*/>)", r"\g<0>\1cyst\2", config)
    changed = annotator.http.patch(f"/api/projects/{annotator.project}/", json={"label_config": with_cyst})
    assert changed.status_code == 200, changed.text
    task = annotator.tasks()[0]
    result = json.loads(json.dumps(task["predictions"][0]["result"]))
    result[0]["value"][result[0]["type"]] = ["cyst"]
    annotator.submit(task, result)
    turn(project, retrain_after=99, progress=watching)
    assert any("left out" in text and "cyst is not a class" in text for text in watching.told)
    toml = screen / "labelloop.toml"
    toml.write_text(toml.read_text().replace('"debris"]', '"debris", "cyst"]'))
    turn(project, retrain_after=99, progress=watching)
    assert project.config.classes == (*CLASSES, "cyst")
    assert 2 in labels_of(screen)[task["data"]["name"]].labels.tolist()


def test_a_loop_that_cannot_push_says_so_and_does_not_take_it_for_the_end(
    screen: Path, annotator: Annotator
) -> None:
    config = annotator.http.get(f"/api/projects/{annotator.project}/").json()["label_config"]
    without = config.replace("debris", "rubble")
    changed = annotator.http.patch(f"/api/projects/{annotator.project}/", json={"label_config": without})
    assert changed.status_code == 200, changed.text
    with pytest.raises(ProjectError, match="debris"):
        turn(Project.open(screen), retrain_after=2)
