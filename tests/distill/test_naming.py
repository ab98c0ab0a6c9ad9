"""Names of runs, which run goes on, and one process per run."""

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from labelloop.distill.naming import check_name, claimed, make_run_folder, run_begins, run_to_resume
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import TrainingError, UsageError
from labelloop.progress import Silent
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from made_records import run_record


@pytest.fixture
def empty(tmp_path):
    return Project.init(tmp_path / "project", ProjectConfig(name="p", classes=("a",)))


def save_run(project, request, *, state="running"):
    of_request = {"method": request.method, "model": request.model, "seed": request.seed}
    config = {"request": dataclasses.asdict(request)}
    project.save_run(run_record(request.name, state=state, config=config, **of_request))
    (project.runs_dir / request.name).mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize(
    "name", ["../evil", "a/b", "a\\b", "", ".", "..", ".hidden", "-x", "a\n", "x.", "x" * 101]
)
def test_a_name_that_is_no_folder_of_its_own_is_refused(project, name):
    with pytest.raises(UsageError, match="cannot have this name"):
        train(project, TrainRequest(iterations=4, name=name))
    assert project.runs() == []


@pytest.mark.parametrize("name", ["guided-5pc-s0-1", "Größe 2", "a", "x" * 100, "lr=0.1+ema"])
def test_usual_names_are_taken(empty, name):
    check_name(name)
    assert make_run_folder(empty, name, "stem") == name
    assert (empty.runs_dir / name).is_dir()


def test_a_folder_is_given_to_one_run_only(empty):
    assert make_run_folder(empty, "mine", "stem") == "mine"
    save_run(empty, TrainRequest(name="mine"))
    with pytest.raises(UsageError, match="run of this name") as caught:
        make_run_folder(empty, "mine", "stem")
    assert "--resume" in caught.value.way_out
    assert [make_run_folder(empty, None, "stem") for _ in range(2)] == ["stem-1", "stem-2"]


@pytest.mark.parametrize("left", [(), ("config.json",), (".0a1b-2c3d-77.partial",)])
def test_a_folder_that_a_killed_process_made_before_its_run_was_stored_is_taken_again(empty, left):
    folder = empty.runs_dir / "mine"
    folder.mkdir(parents=True)
    for name in left:
        (folder / name).write_text("{}")
    assert make_run_folder(empty, "mine", "stem") == "mine"


@pytest.mark.parametrize("held", ["checkpoint.pt", "teacher.pt", "log.jsonl", "notes.txt"])
def test_a_folder_without_a_run_that_holds_anything_else_is_left_alone(empty, held):
    folder = empty.runs_dir / "mine"
    folder.mkdir(parents=True)
    (folder / held).write_text("")
    with pytest.raises(UsageError, match="folder of this name") as caught:
        make_run_folder(empty, "mine", "stem")
    assert "--resume" not in caught.value.way_out
    assert (folder / held).exists()


def test_of_two_that_begin_a_run_of_one_name_at_once_one_gets_it(empty):
    both = Barrier(2)

    def begin(_):
        both.wait()
        with run_begins(empty, Silent()):
            try:
                make_run_folder(empty, "mine", "stem")
            except UsageError:
                return False
            save_run(empty, TrainRequest(name="mine"))
            return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(begin, range(2))) == [False, True]


def test_a_made_up_name_is_never_that_of_a_run_whose_folder_was_deleted(empty):
    name = make_run_folder(empty, None, "stem")
    save_run(empty, TrainRequest(name=name))
    shutil.rmtree(empty.runs_dir / name)
    assert make_run_folder(empty, None, "stem") == "stem-2"


def test_the_newest_unfinished_run_goes_on(empty):
    save_run(empty, TrainRequest(name="z first"))
    save_run(empty, TrainRequest(name="newest"))
    save_run(empty, TrainRequest(name="done"), state="finished")
    assert run_to_resume(empty, TrainRequest(resume=True)).name == "newest"


def test_a_request_that_contradicts_the_run_is_refused_and_names_what_differs(empty):
    save_run(empty, TrainRequest(name="run", labels="15", time_s=60.0, seed=3))
    for same in (TrainRequest(resume=True), TrainRequest(resume=True, labels="15", time_s=60.0, seed=3)):
        assert run_to_resume(empty, same).name == "run"
    with pytest.raises(UsageError, match="started with other settings") as caught:
        run_to_resume(empty, TrainRequest(resume=True, labels="5", seed=3))
    assert "labels 5 instead of 15" in caught.value.value
    assert "seed" not in caught.value.value
    with pytest.raises(UsageError, match="started with other settings"):
        run_to_resume(empty, TrainRequest(resume=True, name="run", method="supervised"))


def test_a_run_may_go_on_on_another_device(empty):
    save_run(empty, TrainRequest(name="run", device="cuda"))
    assert run_to_resume(empty, TrainRequest(resume=True, device="cpu")).name == "run"


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path):
    with claimed(tmp_path):
        with pytest.raises(TrainingError, match="another process"), claimed(tmp_path):
            pass
    with claimed(tmp_path):
        pass
