"""A lane of a simulation: one strategy with one seed, round after round, in a scratch project of its own.

The scratch project holds the same images under the same numbers. Labels that the simulated person has not
given yet are not in it, nor are those of the test images: no strategy, training or model can see them.
Rounds are opened, stored and learnt by the code that serves ``push``, ``pull`` and ``train``; all that a lane
has done is in its ledger, so one that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelloop.budget.opening import RoundRequest, open_round
from labelloop.budget.strategies import Budget, Strategy
from labelloop.distill.train import TrainRequest, train
from labelloop.errors import NothingToReviewError
from labelloop.evaluating import predict_known_images
from labelloop.instances import Instances
from labelloop.progress import Progress
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import ImageRecord, Project
from labelloop.project.tables import ImageRow, LabelRow
from labelloop.review.rounds import rounds
from labelloop.runs.files import write_json
from labelloop.runs.loading import load_model
from labelloop.simulation.simulated_review import review_round

SERVER = "simulated"
RECIPE = "simulation.toml"
POINTS = "points.json"
TEACHER_SHARE = 0.4  # of the iterations of a training
TEACHER_STEPS_PER_MINUTE = 40  # the same where a time is asked for and iterations are not known yet
CACHED_IMAGES = 100


@dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """What every lane of a simulation has in common.

    Attributes:
        rounds: Of review.
        budget: Of each of them.
        annotator: A name of ``annotator.PRESETS``.
        model: A name of ``list_models``.
        time_s: Of the first training; it fixes ``iterations``.
        iterations: Of every training; None until it is known.
        start: Image ids with labels before the first round, by seed.
        test: Ids of the images that measure.
        askable: Ids of the images that the simulated person can be asked about.
    """

    rounds: int
    budget: Budget
    annotator: str
    model: str
    time_s: float
    iterations: int | None
    start: Mapping[int, Sequence[int]]
    test: Sequence[int]
    askable: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a lane stood after a round.

    Attributes:
        round: 0 is the start.
        minutes: That the simulated person had worked, without idle spells.
        reported_minutes: That a server would have reported.
        predicted_minutes: That labelloop had predicted.
        images: With labels.
        run: That learnt them.
    """

    round: int
    minutes: float
    reported_minutes: float
    predicted_minutes: float
    images: int
    run: str


def start_lane(source: Project, folder: Path, settings: LaneSettings, seed: int, progress: Progress) -> Point:
    """The scratch project with the first labels, and the model that they give."""
    scratch = _scratch(source, folder, settings, seed)
    run = _train(scratch, settings, 0, seed, progress)
    point = Point(
        round=0,
        minutes=0.0,
        reported_minutes=0.0,
        predicted_minutes=0.0,
        images=len(settings.start[seed]),
        run=run,
    )
    _keep(folder, [point])
    return point


def run_lane(
    source: Project,
    start: Path,
    folder: Path,
    settings: LaneSettings,
    *,
    strategy: Strategy,
    seed: int,
    progress: Progress,
) -> list[Point]:
    """All rounds of a lane; those that are done are not done again.

    Args:
        source: The project that holds the truth.
        start: The folder of ``start_lane``.
        folder: The lane's own.
        settings: Of the simulation.
        strategy: How this lane chooses.
        seed: Of its draws and trainings.
        progress: Where progress is reported.
    """
    if not folder.exists():
        beside = folder.with_name(folder.name + ".copying")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(start, beside)
        beside.rename(folder)
    scratch = Project.open(folder)
    points = read_points(folder)
    for number in range(len(points), settings.rounds + 1):
        try:
            points.append(_round(source, scratch, settings, points[-1], number, strategy, seed, progress))
        except NothingToReviewError as error:
            progress.note(f"{strategy}, seed {seed}: ended after round {number - 1}: {error.what}")
            _keep(folder, points, ended=error.what)
            break
        _keep(folder, points)
    return points


def read_points(folder: Path) -> list[Point]:
    """What a lane has reached so far."""
    return [Point(**point) for point in _kept(folder).get("points", ())]


def why_ended(folder: Path) -> str:
    """Why a lane ended before its last round, where it did."""
    return str(_kept(folder).get("ended", ""))


def _round(
    source: Project,
    scratch: Project,
    settings: LaneSettings,
    before: Point,
    number: int,
    strategy: Strategy,
    seed: int,
    progress: Progress,
) -> Point:
    opened = rounds(scratch)
    if len(opened) < number:
        request = RoundRequest(
            budget=settings.budget,
            strategy=strategy,
            run=before.run,
            seed=seed,
            only=frozenset(settings.askable),
        )
        record = open_round(scratch, SERVER, request, progress)
    else:
        record = opened[number - 1]
    spent = review_round(scratch, source, record, annotator=settings.annotator, seed=seed)
    return Point(
        round=number,
        minutes=before.minutes + spent.active_s / 60,
        reported_minutes=before.reported_minutes + spent.reported_s / 60,
        predicted_minutes=before.predicted_minutes + spent.predicted_minutes,
        images=len(scratch.images(split="train", labelled=True)),
        run=_train(scratch, settings, number, seed, progress),
    )


def _train(scratch: Project, settings: LaneSettings, number: int, seed: int, progress: Progress) -> str:
    name = f"round-{number}"
    known = {run.name: run.state for run in scratch.runs()}
    if known.get(name) != "finished":
        request = TrainRequest(
            labels="all",
            model=settings.model,
            time_s=settings.time_s if settings.iterations is None else None,
            iterations=settings.iterations,
            recipe=str(scratch.root / RECIPE),
            seed=seed,
            name=name,
            resume=name in known,
        )
        train(scratch, request, progress)
    judges = set(settings.test)
    images = [image for image in scratch.images() if image.id in judges]
    predict_known_images(scratch, load_model(scratch, name), images, progress)
    return name


def _keep(folder: Path, points: Sequence[Point], *, ended: str = "") -> None:
    write_json(folder / POINTS, {"points": [asdict(point) for point in points], "ended": ended})


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / POINTS
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return kept


def _scratch(source: Project, folder: Path, settings: LaneSettings, seed: int) -> Project:
    """The scratch project, made whole or not at all."""
    if folder.exists():
        return Project.open(folder)
    beside = folder.with_name(folder.name + ".making")
    shutil.rmtree(beside, ignore_errors=True)
    project = Project.init(beside, ProjectConfig(name=folder.name, classes=source.config.classes))
    write_recipe(beside, settings)
    test, start = set(settings.test), set(settings.start[seed])
    val = {image.id for image in source.images(split="val", labelled=True)}
    labels = source.labels([*start, *val])
    with project.ledger.write() as session:
        for image in source.images():
            if image.split == "train" or image.id in labels or image.id in test:
                session.add(_row(image, "test" if image.id in test else image.split))
        session.flush()
        session.add_all(_labels(image_id, instances) for image_id, instances in labels.items())
    beside.rename(folder)
    return Project.open(folder)


def _row(image: ImageRecord, split: str) -> ImageRow:
    height, width = image.size_hw
    return ImageRow(
        id=image.id,
        sha256=image.sha256,
        page=image.page,
        channel=image.channel,
        path=str(image.path),
        file_name=image.file_name,
        height=height,
        width=width,
        pixel_size_um=image.pixel_size_um,
        group=image.group,
        split=split,
    )


def _labels(image_id: int, instances: Instances) -> LabelRow:
    return LabelRow(
        image_id=image_id,
        revision=1,
        source="simulation:start",
        n_objects=int((~instances.crowd).sum()),
        instances=encode_instances(instances),
    )


def write_recipe(folder: Path, settings: LaneSettings) -> None:
    """The default recipe, for short trainings of which only the guided model counts.

    Nothing is held back for validation, the teacher is the baseline, and few images are labelled from few
    views: what a training of minutes has time for.
    """
    by_time = TEACHER_STEPS_PER_MINUTE * settings.time_s / 60
    steps = max(round(TEACHER_SHARE * settings.iterations if settings.iterations else by_time), 1)
    recipe = (
        "validation_share = 0.0\n"
        f"supervised_steps = [[1, {steps}]]\n"
        f"cached_images = {CACHED_IMAGES}\n"
        "[pseudo]\nviews = 2\n"
    )
    (folder / RECIPE).write_text(recipe, encoding="utf-8")
