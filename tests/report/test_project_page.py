"""The report of a project: its sections come and go with its data, and nothing is trained for it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update

from labelloop.data.synthetic_set import write_micrographs
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import UsageError
from labelloop.evaluating import evaluate_run
from labelloop.forecast.curve_points import point_key
from labelloop.forecast.subsets import CurveSettings, plan_points
from labelloop.instances import Instances
from labelloop.metrics.bootstrap import REPLICATES
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_images, add_labels
from labelloop.project.config import LabelStudioConfig, ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import (
    AnnotationRow,
    CurvePointRow,
    EditRow,
    ImageRow,
    PredictionRow,
    ReviewTaskRow,
    RunRow,
)
from labelloop.report.metric_tables import STAR
from labelloop.report.page import write_report
from labelloop.report.project_facts import gather
from labelloop.review.choice import Choice
from labelloop.review.packing import pack_json
from labelloop.review.rounds import plan_round, rounds, set_states
from labelloop.review.tasks import mark_sent, round_tasks
from labelloop.review.tiles import whole_view

SIZE_HW = (96, 96)
SERVER = LabelStudioConfig(url="http://127.0.0.1:8080", project=1)


def _project(folder: Path) -> Project:
    """Labelled, unlabelled and test images on which organoids are drawn."""
    project = Project.init(folder / "screen", ProjectConfig(name="screen <1>", classes=("organoid",)))
    for seed, (name, count) in enumerate({"labelled": 3, "unlabelled": 3, "test": 3}.items()):
        labels = None if name == "unlabelled" else folder / f"{name}.json"
        write_micrographs(folder / name, count, seed=seed, labels=labels, size_hw=SIZE_HW)
    add_labels(project, LabelSource(path=str(folder / "labelled.json"), images=str(folder / "labelled")))
    add_images(project, [str(folder / "unlabelled")])
    add_labels(
        project, LabelSource(path=str(folder / "test.json"), images=str(folder / "test")), split="test"
    )
    return project


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with a run that has learnt for a few steps."""
    folder = tmp_path_factory.mktemp("report")
    project = _project(folder)
    train(project, TrainRequest(labels="2", iterations=4, name="first", device="cpu"))
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Project:
    """A copy of it that a test may change; images lie where they lay."""
    shutil.copytree(trained / "screen", tmp_path / "screen")
    return Project.open(tmp_path / "screen")


def titles(page: str, check_page) -> list[str]:
    return [heading.text for heading in check_page(page).named("h2")]


def review(project: Project, *, seconds: list[float], waiting: int = 0, first: int = 0) -> None:
    """A round of which some tasks have come back and others wait, where the project is tied to now."""
    project.set_label_studio(SERVER)
    pool = project.images(split="train", labelled=False)
    choices = [
        Choice(
            image=image,
            proposed=Instances(size_hw=image.size_hw),
            views=(whole_view(Instances(size_hw=image.size_hw)),),
            confidence=0.25,
            chosen=(
                {"arm": "auto", "why": "doubt <b>first</b>", "minutes": {"value": 2, "low": 1, "high": 4}},
            ),
        )
        for image in pool[first : first + len(seconds) + waiting]
    ]
    made = plan_round(
        project, choices, run="first", which="guided", server=SERVER.server_name, min_score=0.5,
        strategy="auto",
    )  # fmt: skip
    keys = [task.key for task in round_tasks(project, made.id)]
    with project.ledger.write() as session:
        for number, (key, spent) in enumerate(zip(keys, seconds, strict=False)):
            annotation = AnnotationRow(
                task_key=key, server_id=number, created_at="a", updated_at="a", who="ada", lead_time_s=spent,
                skipped=False, ground_truth=False, bulk=False, result=pack_json([]),
            )  # fmt: skip
            session.add(annotation)
            session.flush()
            session.add(EditRow(annotation_id=annotation.id, kind="added", before=[], after=["x"]))
    mark_sent(project, [(key, number, pack_json([])) for number, key in enumerate(keys)])
    set_states(project, dict.fromkeys(keys[: len(seconds)], "reviewed"))


def test_a_new_project_has_a_page_that_says_how_to_get_the_rest(tmp_path: Path, check_page) -> None:
    project = Project.init(tmp_path / "new", ProjectConfig(name="new"))
    page = write_report(project).read_text(encoding="utf-8")
    assert write_report(project) == tmp_path / "new" / "report.html"
    assert titles(page, check_page) == [
        "Where the project stands", "How good the model is", "What more labels would bring",
        "What annotation cost", "What to review next", "Settings and versions",
    ]  # fmt: skip
    for command in ("labelloop train", "labelloop forecast", "labelloop push", "labelloop add labels PATH"):
        assert command in page


def test_a_trained_project_has_its_numbers_its_images_and_its_looks(project: Project, check_page) -> None:
    path = write_report(project, written=date(2026, 1, 2))
    assert path == project.runs_dir / "first" / "report.html"
    page = path.read_text(encoding="utf-8")
    found = titles(page, check_page)
    assert found == [
        "Where the project stands", "How good the model is", "What unlabelled images bring",
        "What more labels would bring", "What annotation cost", "Best, middle and worst images",
        "Counts, sizes and scores", "What to review next", "Looks at the test images",
        "Settings and versions",
    ]  # fmt: skip
    assert "n = 3: unreliable" in page
    assert check_page(page).named("h1")[0].text == "screen <1>"
    assert str(project.root) not in page
    assert path.stat().st_size < 5_000_000


def test_tables_of_runs_and_looks_star_what_few_images_tell(project: Project, check_page) -> None:
    evaluate_run(project, min_score=0.06, protocol="coco")  # another look, which knows a protocol
    page = check_page(write_report(project).read_text(encoding="utf-8"))
    for title in ("Runs, oldest first", "Looks, oldest first"):
        table = next(e.text for e in page.named("table") if title in e.text)
        assert f"{title}; {STAR}" in table
        assert table.count("]\N{NO-BREAK SPACE}*") == table.count("[") > 0
    looks = next(e.text for e in page.named("table") if "Looks, oldest first" in e.text)
    assert "AP by a protocol" in looks


def test_a_run_with_a_protocol_has_its_numbers_on_the_page(project: Project, check_page) -> None:
    record = project.run("first")
    project.save_run(replace(record, config={**record.config, "protocol": "coco"}))
    page = check_page(write_report(project).read_text(encoding="utf-8"))
    assert any("By the protocol coco" in e.text for e in page.named("caption"))
    settings = next(e.text for e in page.named("section") if e.attributes["id"] == "settings")
    assert "How it was measured" in settings
    assert f"Bootstrap replicates{REPLICATES:,}" in settings


def test_the_same_project_gives_the_same_bytes_and_nothing_is_trained(project: Project) -> None:
    first, again = (write_report(project, written=date(2026, 1, 2)).read_bytes() for _ in range(2))
    assert first == again
    with project.ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(RunRow)) == 1
        assert session.scalar(select(func.count()).select_from(CurvePointRow)) == 0


def test_test_images_that_were_not_seen_are_predicted_and_kept(project: Project, check_page) -> None:
    with project.ledger.write() as session:
        session.execute(delete(PredictionRow))
    assert "Counts, sizes and scores" in titles(write_report(project).read_text("utf-8"), check_page)
    with project.ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(PredictionRow)) == 3


def test_images_that_are_gone_leave_the_numbers_where_predictions_are_kept(
    project: Project, check_page
) -> None:
    write_report(project)
    with project.ledger.write() as session:
        session.execute(update(ImageRow).values(path="gone.png"))
    page = write_report(project).read_text(encoding="utf-8")
    assert check_page(page).named("img") == []
    assert "The image is not shown" in page
    assert "Counts, sizes and scores" in titles(page, check_page)


def test_a_model_that_is_gone_leaves_the_stored_result_and_says_why(project: Project, check_page) -> None:
    (project.runs_dir / "first" / "guided.pt").unlink()
    page = write_report(project).read_text(encoding="utf-8")
    found = titles(page, check_page)
    assert "Not measured: " in page
    assert "What unlabelled images bring" in found
    assert "Counts, sizes and scores" not in found


def test_rounds_say_what_they_cost_and_what_waits(project: Project, check_page) -> None:
    review(project, seconds=[90.0, 150.0], waiting=1)
    page = write_report(project).read_text(encoding="utf-8")
    text = check_page(page).named("main")[0].text
    assert "4.0 min of annotation in 1 round." in text
    assert "1 task waits for review, about 2.0 min of work." in text
    assert "doubt <b>first</b>" in text
    assert "added" in text
    rounds = next(e for e in check_page(page).named("table") if "Rounds" in e.text)
    assert "4.0 min4.0 min" in rounds.text  # predicted and reported


def test_what_waits_where_the_project_is_not_tied_to_any_more_is_said_apart(
    project: Project, check_page
) -> None:
    review(project, seconds=[90.0, 150.0], waiting=1)
    project.set_label_studio(LabelStudioConfig(url="http://127.0.0.1:8080", project=2))
    text = check_page(write_report(project).read_text(encoding="utf-8")).named("main")[0].text
    assert "Nothing waits for review." in text
    assert "1 task waits at http://127.0.0.1:8080#1, which the project is not tied to now." in text
    assert "doubt <b>first</b>" not in text


def test_the_least_sure_of_all_rounds_come_first(project: Project) -> None:
    review(project, seconds=[], waiting=1)
    [sent] = rounds(project)
    set_states(project, {task.key: "sent" for task in round_tasks(project, sent.id)})
    review(project, seconds=[], waiting=2, first=1)
    with project.ledger.write() as session:
        for confidence, row in zip((0.9, 0.5, 0.1), session.scalars(select(ReviewTaskRow)), strict=True):
            row.confidence = confidence
    found = gather(project, run=None, progress=Silent())
    assert [task.confidence for task in found.waiting] == [0.1, 0.5, 0.9]


def test_a_plot_of_minutes_needs_two_rounds(project: Project, check_page) -> None:
    review(project, seconds=[90.0])
    assert "plot-minutes-title" not in write_report(project).read_text("utf-8")
    review(project, seconds=[60.0, 30.0])
    page = write_report(project).read_text("utf-8")
    check_page(page)
    assert "round 2: 4.0 min and 1.5 min" in page


def test_stored_points_give_the_learning_curve(tmp_path: Path, check_page) -> None:
    project = Project.init(tmp_path / "curve", ProjectConfig(name="curve", classes=("organoid",)))
    write_micrographs(tmp_path / "all", 24, seed=0, labels=tmp_path / "all.json", size_hw=(48, 48))
    add_labels(project, LabelSource(path=str(tmp_path / "all.json"), images=str(tmp_path / "all")))
    settings = CurveSettings()
    with project.ledger.write() as session:
        for plan in plan_points(project, settings):
            value = 0.95 - 1.2 * len(plan.train) ** -0.55
            metrics = {"coco_ap50": {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 6}}
            session.add(
                CurvePointRow(
                    key=point_key(project, plan, settings),
                    n_images=len(plan.train),
                    seed=plan.seed,
                    settings={"split": plan.split},
                    metrics=metrics,
                )
            )
    page = write_report(project).read_text(encoding="utf-8")
    check_page(page)
    assert "plot-curve-title" in page
    assert "after twice the labels" in page
    assert "This is the curve of short trainings" in page  # as forecast says of it
    with project.ledger.write() as session:
        for row in session.scalars(select(CurvePointRow)):
            row.metrics = {
                "coco_ap50": {"value": None, "low": None, "high": None, "n": 6, "reason": "no object"}
            }
    page = write_report(project).read_text(encoding="utf-8")
    check_page(page)
    assert "plot-curve-title" not in page  # nothing to draw, and the reason is said
    with project.ledger.write() as session:  # a forecast that was interrupted is not one
        session.delete(session.scalars(select(CurvePointRow)).first())
    page = write_report(project).read_text(encoding="utf-8")
    assert "plot-curve-title" not in page
    assert "labelloop forecast" in page


def test_the_report_of_a_run_whose_folder_was_deleted_does_not_bring_it_back(project: Project) -> None:
    shutil.rmtree(project.runs_dir / "first")
    written = write_report(project, run="first")
    assert written.parent == project.root
    assert not project.run_there("first")


def test_a_run_that_does_not_exist_is_refused(project: Project) -> None:
    with pytest.raises(UsageError, match="first"):
        write_report(project, run="other")
