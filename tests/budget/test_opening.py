from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from labelloop.budget.diversity import is_near_duplicate
from labelloop.budget.embeddings import Picture, embed
from labelloop.budget.opening import RoundRequest, open_round
from labelloop.budget.round_minutes import predicted_minutes
from labelloop.budget.strategies import Budget
from labelloop.data.synthetic_set import write_micrographs
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import NothingToReviewError, UsageError
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import DoubtRow, EmbeddingRow
from labelloop.review.rounds import current_round
from labelloop.review.tasks import TaskRecord, round_tasks
from labelloop.review.unsendable import drop_unsendable


def pool_project(folder: Path, *, labelled: int, pool: int) -> Project:
    project = Project.init(folder / "screen", ProjectConfig(name="screen", classes=("organoid",)))
    if labelled:
        labels = folder / "labelled.json"
        write_micrographs(folder / "labelled", labelled, seed=0, labels=labels, size_hw=(96, 96))
        add_labels(project, LabelSource(path=str(labels), images=str(folder / "labelled")))
    write_micrographs(folder / "pool", pool, seed=1, labels=None, size_hw=(96, 96))
    add_images(project, [str(folder / "pool")])
    return project


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = pool_project(tmp_path_factory.mktemp("opening"), labelled=2, pool=8)
    train(project, TrainRequest(iterations=4, name="first"))
    return project


def test_the_same_state_and_seed_open_the_same_round(trained: Project) -> None:
    asked = []
    for _ in range(2):  # the first round's plan is undone between
        record = open_round(trained, "here", RoundRequest(budget=Budget(tasks=4)), Silent())
        asked.append([(task.image_id, task.chosen) for task in round_tasks(trained, record.id)])
        with trained.ledger.write() as session:
            for table in ("review_tasks", "review_proposals", "review_rounds"):
                session.connection().exec_driver_sql(f"DELETE FROM {table}")
    assert asked[0] == asked[1]


class Watching(Silent):
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def start(self, stage: str, total: int) -> None:
        self.stages.append(stage)

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_strategy_that_does_not_ask_for_doubt_looks_once_and_auto_still_looks_twice_later(
    tmp_path: Path,
) -> None:
    project = pool_project(tmp_path, labelled=2, pool=4)
    train(project, TrainRequest(iterations=4, name="first"))
    looks = {}
    for strategy in ("random", "auto"):
        watching = Watching()
        open_round(project, "here", RoundRequest(budget=Budget(tasks=1), strategy=strategy), watching)
        looks[strategy] = [stage for stage in watching.stages if stage.startswith("evaluating")]
    assert looks == {"random": ["evaluating guided"], "auto": ["evaluating supervised"]}
    with project.ledger.read() as session:
        twice = [doubts["twice"] for doubts in session.scalars(select(DoubtRow.doubts))]
    assert sorted(twice) == [False, True, True, True]  # one was asked about at random, and is done with


def test_doubts_and_embeddings_are_computed_once(trained: Project) -> None:
    def stored() -> tuple[int, int]:
        with trained.ledger.read() as session:
            return tuple(  # type: ignore[return-value]
                int(session.execute(select(func.count()).select_from(table)).scalar_one())
                for table in (DoubtRow, EmbeddingRow)
            )

    open_round(trained, "first", RoundRequest(budget=Budget(tasks=1)), Silent())
    before, watching = stored(), Watching()
    open_round(trained, "second", RoundRequest(budget=Budget(tasks=1)), watching)
    assert stored() == before == (8, 10)
    assert watching.stages == []


def test_a_round_of_what_is_known_is_opened_without_torch(trained: Project) -> None:
    """Neither its memory nor its seconds are needed where predictions, doubts and embeddings are kept."""
    open_round(trained, "warm", RoundRequest(budget=Budget(tasks=1)), Silent())
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from labelloop.budget.opening import RoundRequest, open_round\n"
        "from labelloop.budget.strategies import Budget\n"
        "from labelloop.progress import Silent\n"
        "from labelloop.project.project import Project\n"
        "project = Project.open(Path(sys.argv[1]))\n"
        "record = open_round(project, 'cool', RoundRequest(budget=Budget(tasks=2)), Silent())\n"
        "print(record.run, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, str(trained.root)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.split() == ["first", "False"]


def test_a_round_in_minutes_costs_about_so_many(trained: Project) -> None:
    record = open_round(trained, "minutes", RoundRequest(budget=Budget(minutes=3.0)), Silent())
    tasks = round_tasks(trained, record.id)
    minutes = predicted_minutes(tasks)
    assert len(tasks) > 1
    assert 0 < (minutes.value or 0) <= 3.0
    assert minutes.low is not None
    assert minutes.low < minutes.value < minutes.high


def test_before_any_model_typical_images_are_asked_about_with_nothing_drawn(tmp_path: Path) -> None:
    project = pool_project(tmp_path, labelled=0, pool=6)
    record = open_round(project, "cold", RoundRequest(budget=Budget(tasks=4)), Silent())
    assert (record.run, record.which, record.model_version) == (None, None, "no-model-round-1")
    tasks = round_tasks(project, record.id)
    assert len(tasks) == 4
    assert all(task.shown == () and task.chosen and task.chosen["why"] for task in tasks)
    with pytest.raises(UsageError, match="needs a model"):
        open_round(project, "cold", RoundRequest(budget=Budget(tasks=4), strategy="uncertainty"), Silent())


def test_before_any_model_a_group_that_was_asked_about_leaves_the_turn_to_another(tmp_path: Path) -> None:
    project = Project.init(tmp_path / "screen", ProjectConfig(name="screen", classes=("organoid",)))
    for seed, donor in enumerate(["large", "small"]):
        write_micrographs(tmp_path / donor, 4 - seed, seed=seed, size_hw=(96, 96))
        add_images(project, [str(tmp_path / donor)], group_by="folder")
    images, groups = {image.id: image for image in project.images()}, []
    for _ in range(2):
        record = open_round(project, "cold", RoundRequest(budget=Budget(tasks=1)), Silent())
        groups += [images[task.image_id].group for task in round_tasks(project, record.id)]
    assert groups == ["large", "small"]


def test_an_empty_pool_says_so(tmp_path: Path) -> None:
    project = pool_project(tmp_path, labelled=0, pool=2)
    open_round(project, "here", RoundRequest(budget=Budget(tasks=2)), Silent())
    with pytest.raises(NothingToReviewError):
        open_round(project, "here", RoundRequest(budget=Budget(tasks=2)), Silent())


def test_alike_images_have_alike_embeddings(tmp_path: Path) -> None:
    project = pool_project(tmp_path, labelled=0, pool=5)
    pictures = [Picture(image=image) for image in project.images()]
    vectors = embed(project, pictures)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-4)
    assert is_near_duplicate(vectors[0], vectors)
    assert not is_near_duplicate(vectors[0], vectors[1:])
    np.testing.assert_array_equal(embed(project, pictures), vectors)
    tile = Picture(image=pictures[0].image, box=(0, 0, 48, 48))
    assert not is_near_duplicate(embed(project, [tile])[0], vectors[:1])


def test_a_round_says_that_its_budget_is_not_used_up_where_the_rest_are_near_duplicates(
    tmp_path: Path,
) -> None:
    project = pool_project(tmp_path, labelled=0, pool=1)
    (first,) = project.images()
    pixels = np.array(Image.open(first.path))
    for i in range(4):  # the same field, but for a pixel
        pixels[i, i] = 255 - pixels[i, i]
        Image.fromarray(pixels).save(tmp_path / "pool" / f"later {i}.png")
    add_images(project, [str(tmp_path / "pool")])
    watching = Watching()
    record = open_round(project, "here", RoundRequest(budget=Budget(tasks=5)), watching)
    asked = len(round_tasks(project, record.id))
    assert asked < 5
    [said] = watching.notes
    assert f"{5 - asked} tasks that would fit" in said


def asked_names(project: Project, tasks: list[TaskRecord]) -> set[str]:
    names = {image.id: image.file_name for image in project.images()}
    return {names[task.image_id] for task in tasks}


def move_away(project: Project, away: Path, *, but: int = 0) -> list[Path]:
    """Moves the files of images without labels to another folder, all but the first so many."""
    away.mkdir(exist_ok=True)
    paths = [image.path for image in project.images(labelled=False)][but:]
    for path in paths:
        path.rename(away / path.name)
    return paths


def test_an_image_that_moved_is_left_out_and_said_and_is_asked_about_when_it_is_back(tmp_path: Path) -> None:
    project = pool_project(tmp_path, labelled=2, pool=4)
    train(project, TrainRequest(iterations=4, name="first"))
    [gone] = move_away(project, tmp_path / "away", but=3)
    record = open_round(project, "here", RoundRequest(budget=Budget(tasks=9)), Silent())
    assert asked_names(project, round_tasks(project, record.id)).isdisjoint({gone.name})
    assert len(round_tasks(project, record.id)) == 3
    [reason] = record.left_out
    assert str(gone) in reason
    (tmp_path / "away" / gone.name).rename(gone)
    record = open_round(project, "here", RoundRequest(budget=Budget(tasks=9)), Silent())
    assert asked_names(project, round_tasks(project, record.id)) == {gone.name}
    assert record.left_out == ()


@pytest.mark.parametrize("labelled", [0, 2])
def test_when_only_images_are_left_that_cannot_be_read_nothing_is_left_to_review(
    tmp_path: Path, labelled: int
) -> None:
    project = pool_project(tmp_path, labelled=labelled, pool=4)
    if labelled:
        train(project, TrainRequest(iterations=4, name="first"))
    open_round(
        project, "here", RoundRequest(budget=Budget(tasks=1)), Silent()
    )  # it has looked at all of them
    for image in project.images(labelled=False):
        image.path.write_bytes(image.path.read_bytes()[:200])
    with pytest.raises(NothingToReviewError, match=r"3 .*cannot be read") as caught:
        open_round(project, "here", RoundRequest(budget=Budget(tasks=9)), Silent())
    assert str(project.images(labelled=False)[-1].path.parent) in str(caught.value)


def test_what_the_editor_cannot_take_is_asked_about_again_only_when_another_model_proposes(
    tmp_path: Path,
) -> None:
    project = pool_project(tmp_path, labelled=2, pool=2)
    train(project, TrainRequest(iterations=4, name="first"))
    record = open_round(project, "here", RoundRequest(budget=Budget(tasks=9)), Silent())
    tasks = round_tasks(project, record.id)
    drop_unsendable(project, [task.key for task in tasks], ragged={tasks[1].key})
    assert current_round(project, "here") is None
    record = open_round(project, "here", RoundRequest(budget=Budget(tasks=9)), Silent())
    assert [task.image_id for task in round_tasks(project, record.id)] == [tasks[0].image_id]
    with pytest.raises(NothingToReviewError, match=r"1 .*ragged"):
        open_round(project, "here", RoundRequest(budget=Budget(tasks=9)), Silent())
    train(project, TrainRequest(iterations=4, name="second"))
    record = open_round(project, "here", RoundRequest(budget=Budget(tasks=9)), Silent())
    assert [task.image_id for task in round_tasks(project, record.id)] == [tasks[1].image_id]


def test_what_an_image_looks_like_is_not_kept_while_it_cannot_be_read(tmp_path: Path) -> None:
    project = pool_project(tmp_path, labelled=0, pool=2)
    [gone] = move_away(project, tmp_path / "away", but=1)
    pictures = [Picture(image=image) for image in project.images()]
    assert not embed(project, pictures)[1].any()
    (tmp_path / "away" / gone.name).rename(gone)
    assert embed(project, pictures)[1].any()
