from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelloop.budget.strategies import Budget
from labelloop.data.synthetic_set import write_micrographs
from labelloop.errors import ProjectError, UsageError
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import LabelRow
from labelloop.review.rounds import rounds
from labelloop.review.tasks import round_tasks
from labelloop.simulation.lane import RECIPE, read_points, write_recipe
from labelloop.simulation.lane_process import INTERRUPTED, SETTINGS, settings_from_json
from labelloop.simulation.simulation import LOCK, SimulationRequest, simulate

REQUEST = SimulationRequest(
    strategies=("random", "auto"), rounds=2, budget=Budget(tasks=3), iterations=4, labels=2, jobs=2
)


def labelled_project(folder: Path, *, train: int = 10, test: int = 3, val: int = 0) -> Project:
    project = Project.init(folder / "screen", ProjectConfig(name="screen", classes=("organoid",)))
    for seed, (name, count) in enumerate({"train": train, "test": test, "val": val}.items()):
        if count:
            labels = folder / f"{name}.json"
            write_micrographs(folder / name, count, seed=seed, labels=labels, size_hw=(96, 96))
            add_labels(project, LabelSource(path=str(labels), images=str(folder / name)), split=name)
    return project


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict]:
    project = labelled_project(tmp_path_factory.mktemp("simulation"))
    return project, simulate(project, REQUEST)


def test_each_strategy_is_measured_at_the_start_and_after_each_round(replayed: tuple[Project, dict]) -> None:
    _, result = replayed
    assert (result["metric"], result["split"]) == ("coco_ap", "test")
    assert set(result["strategies"]) == {"random", "auto"}
    for points in result["strategies"].values():
        assert [point["round"] for point in points] == [0, 1, 2]
        assert [point["images"] for point in points] == [2, 5, 8]
        assert points[0]["minutes"] == 0 < points[1]["minutes"] < points[2]["minutes"]
        assert all({"value", "low", "high", "n"} <= set(point) for point in points)
    starts = [points[0] for points in result["strategies"].values()]
    assert starts[0] == starts[1]
    assert result["compared"]["random"]["difference"] is None
    assert set(result["compared"]["auto"]["difference"]) == {"value", "low", "high"}


def test_the_simulated_person_gives_the_truth_and_nothing_else_is_known(
    replayed: tuple[Project, dict],
) -> None:
    project, result = replayed
    for strategy in result["strategies"]:
        scratch = Project.open(Path(result["folder"]) / "seed-0" / strategy)
        labelled = scratch.images(split="train", labelled=True)
        asked = {task.image_id for record in rounds(scratch) for task in round_tasks(scratch, record.id)}
        assert len(asked) == 6
        assert len(labelled) == 8
        truth = project.labels([image.id for image in labelled])
        given = scratch.labels([image.id for image in labelled])
        for image_id in asked:
            iou = truth[image_id].iou(given[image_id])
            assert len(truth[image_id]) == len(given[image_id])
            assert (iou.max(axis=1) > 0.75).all()
        with scratch.ledger.read() as session:
            known = {row.image_id for row in session.query(LabelRow)}
        assert known == {image.id for image in labelled}


def test_every_task_says_which_arm_chose_it_why_and_what_it_should_cost(
    replayed: tuple[Project, dict],
) -> None:
    _, result = replayed
    scratch = Project.open(Path(result["folder"]) / "seed-0" / "auto")
    for record in rounds(scratch):
        for task in round_tasks(scratch, record.id):
            assert task.chosen is not None
            assert task.chosen["arm"] in {"random", "empty", "auto", "fill"}
            assert task.chosen["why"]
            minutes = task.chosen["minutes"]
            assert 0 < minutes["low"] < minutes["value"] < minutes["high"]


def test_repeating_a_finished_simulation_trains_nothing_and_gives_the_same(
    replayed: tuple[Project, dict],
) -> None:
    project, result = replayed
    begun = {path: path.stat().st_mtime_ns for path in Path(result["folder"]).rglob("weights*")}
    assert simulate(project, REQUEST) == result
    assert begun == {path: path.stat().st_mtime_ns for path in Path(result["folder"]).rglob("weights*")}


def test_a_second_simulation_in_the_same_place_waits_for_the_first(
    replayed: tuple[Project, dict],
) -> None:
    project, result = replayed
    notes: list[str] = []

    class FirstEnds(Silent):
        def note(self, message: str) -> None:
            notes.append(message)
            first.close()

    first = (Path(result["folder"]) / LOCK).open("w")
    fcntl.flock(first, fcntl.LOCK_EX)
    assert simulate(project, REQUEST, FirstEnds()) == result
    assert notes == ["waiting for another simulation of this project"]


def test_a_killed_simulation_goes_on_and_ends_as_if_nothing_had_happened(
    replayed: tuple[Project, dict], tmp_path: Path
) -> None:
    project, result = replayed
    copy = tmp_path / "screen"
    shutil.copytree(project.root, copy)
    folder = copy / Path(result["folder"]).relative_to(project.root)
    shutil.rmtree(folder / "seed-0" / "auto")  # its rounds are replayed
    code = (
        "import sys; from pathlib import Path\n"
        "from labelloop.simulation.simulation import SimulationRequest, simulate\n"
        "from labelloop.budget.strategies import Budget\n"
        "from labelloop.project.project import Project\n"
        f"simulate(Project.open(Path({str(copy)!r})), {REQUEST!r})\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(read_points(folder / "seed-0" / "auto")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(read_points(folder / "seed-0" / "auto")) >= 2
    time.sleep(2.5)  # the lane notices that nobody waits for it
    again = simulate(Project.open(copy), REQUEST)
    assert again["strategies"] == result["strategies"]


def test_a_lane_of_a_simulation_in_the_background_of_a_script_can_be_stopped(
    replayed: tuple[Project, dict], tmp_path: Path
) -> None:
    project, result = replayed
    folder = tmp_path / "simulation"
    shutil.copytree(result["folder"], folder)
    shutil.rmtree(folder / "seed-0" / "auto")
    deaf = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]  # as shells start what is put into the background
    lane = [sys.executable, "-m", "labelloop.simulation.lane_process", folder, project.root, "0", "auto"]
    process = subprocess.Popen([*deaf, *map(str, lane)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (folder / "seed-0" / "auto").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    # ``python -m`` dies by the signal when it came while code was made at run time, as dataclasses are.
    assert process.wait(timeout=120) in (INTERRUPTED, -signal.SIGINT)


def test_further_rounds_and_strategies_add_to_what_is_there(
    replayed: tuple[Project, dict], tmp_path: Path
) -> None:
    project, result = replayed
    copy = tmp_path / "screen"
    shutil.copytree(project.root, copy)
    more = simulate(Project.open(copy), replace(REQUEST, strategies=("random", "diversity"), rounds=1))
    assert more["strategies"]["random"][:2] == result["strategies"]["random"][:2]
    assert [point["round"] for point in more["strategies"]["diversity"]] == [0, 1]


def test_without_test_images_a_fixed_fifth_measures_and_is_never_asked_about(tmp_path: Path) -> None:
    project = labelled_project(tmp_path, train=20, test=0)
    request = replace(REQUEST, strategies=("random",), rounds=1, budget=Budget(tasks=30))
    result = simulate(project, request)
    assert result["split"] == "held out"
    settings = json.loads((Path(result["folder"]) / "settings.json").read_text())
    assert len(settings["test"]) == 4
    scratch = Project.open(Path(result["folder"]) / "seed-0" / "random")
    asked = {task.image_id for record in rounds(scratch) for task in round_tasks(scratch, record.id)}
    assert len(asked) == 14
    assert not asked & set(settings["test"])
    assert not any("no image is left" in note for note in result["notes"])
    longer = simulate(project, replace(request, rounds=2))
    assert any(
        "random ended after round 1 of 2: no image is left to review" in note for note in longer["notes"]
    )


def test_test_images_measure_the_promoted_models_where_others_validate(tmp_path: Path) -> None:
    project = labelled_project(tmp_path, train=5, val=2)
    result = simulate(project, replace(REQUEST, strategies=("random",), rounds=1))
    assert [point["n"] for point in result["strategies"]["random"]] == [3, 3]
    scratch = Project.open(Path(result["folder"]) / "seed-0" / "random")
    assert scratch.images(split="test", labelled=True) == []
    assert scratch.run("round-1").result["split"] == "val"


class StoppedBeforeTraining(Silent):
    """Ctrl-C when the place of a simulation is known and nothing has been trained in it."""

    def start(self, stage: str, total: int) -> None:
        if stage == "simulating":
            raise KeyboardInterrupt


def places(project: Project, folder: Path) -> set[str]:
    """Names of the folders of all simulations that were begun, this one too."""
    with pytest.raises(KeyboardInterrupt):
        simulate(project, REQUEST, StoppedBeforeTraining())
    return {each.name for each in (folder / "screen" / ".labelloop" / "simulations").iterdir()}


def correct_one(project: Project, split: str) -> None:
    """The labels of an image have a newer revision, of the same objects."""
    image, *_ = project.images(split=split, labelled=True)
    labels = project.labels([image.id])[image.id]
    with project.ledger.write() as session:
        row = LabelRow(image_id=image.id, revision=2, source="tiles", n_objects=len(labels))
        row.instances = encode_instances(labels)
        session.add(row)


@pytest.mark.parametrize("test", [0, 3], ids=["a held-out fifth measures", "test images measure"])
def test_lanes_begun_before_images_had_groups_are_not_continued(tmp_path: Path, test: int) -> None:
    project = labelled_project(tmp_path, train=20, test=test)
    before = places(project, tmp_path)
    assert places(project, tmp_path) == before
    add_images(project, [str(tmp_path / "train")], group_by=r"0(\d)\d\.png$")
    assert len({image.group for image in project.images(split="train")}) == 3
    assert len(places(project, tmp_path)) == 2


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_lanes_begun_before_labels_were_corrected_are_not_continued(tmp_path: Path, split: str) -> None:
    project = labelled_project(tmp_path, train=5, val=2)
    before = places(project, tmp_path)
    correct_one(project, split)
    assert len(places(project, tmp_path)) == len(before) + 1


def know_in_part(project: Project, n: int) -> set[int]:
    """Makes an object of each of so many labelled images a crowd, in a new revision; their ids."""
    images = project.images(split="train", labelled=True)[:n]
    with project.ledger.write() as session:
        for image_id, known in project.labels([image.id for image in images]).items():
            crowd = np.arange(len(known)) == 0
            partly = replace(known, crowd=crowd)
            row = LabelRow(image_id=image_id, revision=2, source="tiles", n_objects=int((~crowd).sum()))
            row.instances = encode_instances(partly)
            session.add(row)
    return {image.id for image in images}


def test_images_of_which_the_truth_is_known_in_part_are_never_asked_about(tmp_path: Path) -> None:
    project = labelled_project(tmp_path, train=6)
    partly = know_in_part(project, 3)
    result = simulate(project, replace(REQUEST, strategies=("random",), rounds=1))
    assert [point["images"] for point in result["strategies"]["random"]] == [2, 3]
    assert any("3 labelled images" in note for note in result["notes"])
    scratch = Project.open(Path(result["folder"]) / "seed-0" / "random")
    assert not partly & {image.id for image in scratch.images(labelled=True)}


def test_a_lane_that_ends_as_images_cannot_be_read_says_so_and_goes_on_when_they_can(tmp_path: Path) -> None:
    project = labelled_project(tmp_path, train=5)
    asked = replace(REQUEST, strategies=("random",), rounds=1)
    start = simulate(project, replace(asked, rounds=1, strategies=("diversity",)))
    scratch = Project.open(Path(start["folder"]) / "seed-0" / "start")
    away = [image.path for image in scratch.images(split="train", labelled=False)]
    for path in away:
        path.rename(path.with_suffix(".away"))
    result = simulate(project, asked)
    assert [point["round"] for point in result["strategies"]["random"]] == [0]
    (said,) = (note for note in result["notes"] if note.startswith("random ended after round 0 of 1: "))
    assert "3 images cannot be read" in said
    for path in away:
        path.with_suffix(".away").rename(path)
    result = simulate(project, asked)
    assert [point["round"] for point in result["strategies"]["random"]] == [0, 1]
    assert not any("ended after" in note for note in result["notes"])


def test_where_most_truth_is_known_in_part_the_refusal_says_so(tmp_path: Path) -> None:
    project = labelled_project(tmp_path, train=10)
    know_in_part(project, 8)
    with pytest.raises(ProjectError, match=r"2 to ask about \(8 more are known only in part\)"):
        simulate(project, REQUEST)


def test_where_a_time_is_asked_for_lanes_learn_as_if_its_iterations_had_been(
    replayed: tuple[Project, dict],
) -> None:
    project, result = replayed
    asked = replace(REQUEST, strategies=("random",), rounds=1, iterations=None, time_s=0.1)
    with pytest.raises(ProjectError, match="too short"):
        simulate(project, asked)
    before = Path(result["folder"])
    (folder,) = set(before.parent.iterdir()) - {before}
    start = folder / "seed-0" / "start"  # the timed training, as if four iterations had fitted
    shutil.rmtree(start)
    shutil.copytree(before / "seed-0" / "start", start)
    write_recipe(start, settings_from_json(json.loads((folder / SETTINGS).read_text())))
    timed = simulate(project, asked)
    assert timed["iterations"] == REQUEST.iterations
    assert timed["strategies"]["random"] == result["strategies"]["random"][:2]
    recipes = [(each / "seed-0" / "random" / RECIPE).read_text() for each in (folder, before)]
    assert recipes[0] == recipes[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategies": ("clever",)}, "strategy"),
        ({"annotator": "angel"}, "annotator"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_what_there_is_not_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    project = labelled_project(tmp_path, train=3, test=3)
    with pytest.raises(UsageError, match=message):
        simulate(project, replace(REQUEST, **change))


def test_too_few_labelled_images_are_said_to_be_too_few(tmp_path: Path) -> None:
    project = labelled_project(tmp_path, train=3, test=3)
    with pytest.raises(ProjectError, match="too few"):
        simulate(project, REQUEST)
