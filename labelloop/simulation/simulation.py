"""Simulation: the loop replayed on labelled data, to see what strategies are worth before a person works.

Each strategy starts from the same labels and model; a simulated person corrects what it asks about. Lanes
(one strategy, one seed) run in processes of their own. All that a lane did is kept in its folder, so a
simulation that was interrupted goes on, and further strategies, seeds or rounds add to what is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labelloop.budget.strategies import STRATEGIES, Budget, Strategy
from labelloop.cgroups import usable_cores
from labelloop.data.groups import units_of
from labelloop.data.label_draw import draw_labels
from labelloop.errors import ProjectError, UsageError
from labelloop.locks import wait_for_lock
from labelloop.plurals import plural
from labelloop.progress import Progress, Silent, stage
from labelloop.project.project import ImageRecord, Project
from labelloop.runs.files import write_json
from labelloop.simulation.annotator import PRESETS
from labelloop.simulation.lane import LaneSettings, read_points, write_recipe
from labelloop.simulation.lane_process import SETTINGS, Job, run_jobs, settings_to_json
from labelloop.simulation.lanes_compared import METRIC, compare_lanes

LOCK = ".lock"
FEWEST_TEST_IMAGES = 3
HELD_OUT = 5  # every fifth labelled image measures where the project has no test images
_HELD_OUT_SEED = 20_001  # fixed: the same images measure every simulation of a project


@dataclass(frozen=True, kw_only=True)
class SimulationRequest:
    """What is asked for.

    Attributes:
        strategies: Side by side.
        rounds: Of review, after the start.
        budget: Of each round.
        seed: The first one.
        seeds: How many.
        time_s: Seconds for a training; the first one fixes the iterations of all.
        iterations: Of every training, in place of a time.
        labels: Images with labels before the first round.
        annotator: A name of ``annotator.PRESETS``.
        model: A name of ``list_models``.
        jobs: Lanes at once; None for one per core that may be used.
    """

    strategies: tuple[Strategy, ...] = ("random", "auto")
    rounds: int = 4
    budget: Budget = Budget(minutes=30.0)  # noqa: RUF009 (frozen)
    seed: int = 0
    seeds: int = 1
    time_s: float = 240.0
    iterations: int | None = None
    labels: int = 5
    annotator: str = "perfect"
    model: str = "mask-rcnn-lite"
    jobs: int | None = None


def simulate(
    project: Project, request: SimulationRequest, progress: Progress | None = None
) -> dict[str, Any]:
    """Replays the loop and compares the strategies.

    Args:
        project: With labelled images; they are the truth.
        request: What is asked for.
        progress: Told of every training.

    Returns:
        What ``simulate --json`` prints.

    Raises:
        UsageError: The request cannot be carried out.
        ProjectError: There are too few labelled images, or a lane failed.
    """
    progress = progress or Silent()
    _check(request)
    settings, split, notes = _settings(project, request)
    folder = _folder(project, request, settings)
    with (folder / LOCK).open("w") as lock:
        wait_for_lock(lock, progress, "waiting for another simulation of this project")
        return _simulate(project, request, settings, split, notes, folder, progress)


def _simulate(
    project: Project,
    request: SimulationRequest,
    settings: LaneSettings,
    split: str,
    notes: Sequence[str],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    settings = replace(settings, iterations=request.iterations or _known_iterations(folder))
    seeds = range(request.seed, request.seed + request.seeds)
    jobs = request.jobs or usable_cores()
    starts = [Job(folder=folder, source=project.root, strategy=None, seed=seed) for seed in seeds]
    lanes = [
        Job(folder=folder, source=project.root, strategy=strategy, seed=seed)
        for seed in seeds
        for strategy in request.strategies
    ]
    total = len(starts) + len(lanes) * request.rounds
    with stage(progress, "simulating", total):
        write_json(folder / SETTINGS, settings_to_json(settings))
        if settings.iterations is None:
            timed, starts = starts[:1], starts[1:]  # the first training finds how many fit
            run_jobs(timed, 1, request.rounds, progress)
            settings = replace(settings, iterations=_iterations_of(timed[0].place))
            write_recipe(timed[0].place, settings)  # its lanes learn as those of the other seeds
            write_json(folder / SETTINGS, settings_to_json(settings))
        run_jobs(starts, jobs, request.rounds, progress)
        run_jobs(lanes, jobs, request.rounds, progress)
    compared = compare_lanes(
        project,
        {
            strategy: [lane.place for lane in lanes if lane.strategy == strategy]
            for strategy in request.strategies
        },
        list(settings.test),
        rounds=request.rounds,
    )
    result = {
        "metric": METRIC,
        "split": split,
        "folder": str(folder),
        "annotator": request.annotator,
        "seeds": list(seeds),
        "iterations": settings.iterations,
        **compared,
        "notes": [*compared["notes"], *notes],
    }
    write_json(folder / "result.json", result)
    return result


def _check(request: SimulationRequest) -> None:
    unknown = [name for name in request.strategies if name not in STRATEGIES]
    if unknown:
        raise UsageError(
            "there is no such strategy", value=unknown[0], way_out=f"Strategies: {', '.join(STRATEGIES)}."
        )
    if request.annotator not in PRESETS:
        raise UsageError(
            "there is no such annotator",
            value=request.annotator,
            way_out=f"Annotators: {', '.join(PRESETS)}.",
        )
    for name in ("rounds", "seeds", "labels"):
        if getattr(request, name) < 1:
            raise UsageError(f"--{name} is below 1", value=getattr(request, name), way_out="Give 1 or more.")


def _settings(project: Project, request: SimulationRequest) -> tuple[LaneSettings, str, list[str]]:
    """What all lanes have in common, the split that measures, and notes on what comes of them."""
    labelled = project.images(split="train", labelled=True)
    test, split = project.images(split="test", labelled=True), "test"
    notes = ["test images measured these models: what is chosen by them fits them too well"]
    if not test:
        test, split, notes = _held_out(labelled), "held out", []
    measured = {image.id for image in test}
    rest = [image for image in labelled if image.id not in measured]
    unknown = _partly_unknown(project, rest)
    askable = [image for image in rest if image.id not in unknown]
    if unknown:
        notes.append(
            plural(
                len(unknown),
                "labelled image is asked about by nobody, as part of it is unknown",
                "labelled images are asked about by nobody, as part of them is unknown",
            )
        )
    if len(test) < FEWEST_TEST_IMAGES or len(askable) < request.labels + request.rounds:
        left_out = f" ({plural(len(unknown), 'more is', 'more are')} known only in part)" if unknown else ""
        raise ProjectError(
            "there are too few labelled images to replay the loop on",
            value=f"{len(askable)} to ask about{left_out}, {len(test)} to measure on",
            way_out=f"It takes {request.labels} to start with, one for each round, and {FEWEST_TEST_IMAGES} "
            "to measure on. Add labels, or start with fewer (--labels).",
        )
    ids = {image.id for image in askable}
    start = {}
    for seed in range(request.seed, request.seed + request.seeds):
        draw = draw_labels(askable, ids, budget=request.labels, seed=seed, validation_share=0.0)
        start[seed] = [image.id for image in draw.train]
    settings = LaneSettings(
        rounds=request.rounds,
        budget=request.budget,
        annotator=request.annotator,
        model=request.model,
        time_s=request.time_s,
        iterations=None,
        start=start,
        test=sorted(measured),
        askable=sorted(ids),
    )
    return settings, split, notes


def _partly_unknown(project: Project, images: Sequence[ImageRecord]) -> set[int]:
    """Ids of images with crowds: the truth does not say what is there, so nobody could be told it."""
    labels = project.labels([image.id for image in images])
    return {image_id for image_id, instances in labels.items() if instances.crowd.any()}


def _held_out(labelled: Sequence[ImageRecord]) -> list[ImageRecord]:
    """A fixed random fifth of the labelled images, whole groups at a time."""
    ids = {image.id for image in labelled}
    if not ids:
        return []
    budget = max(len(ids) // HELD_OUT, 1)
    draw = draw_labels(labelled, ids, budget=budget, seed=_HELD_OUT_SEED, validation_share=0.0)
    drawn = {image.id for image in draw.train}
    whole = {image.id for unit in units_of(labelled) if any(i.id in drawn for i in unit) for image in unit}
    return [image for image in labelled if image.id in whole]


def _folder(project: Project, request: SimulationRequest, settings: LaneSettings) -> Path:
    """Where simulations with these settings lie; strategies, seeds and rounds may differ.

    Named after all that lanes copy or are measured by: others would not go on as they began.
    """
    val = {image.id for image in project.images(split="val", labelled=True)}
    copied = {*settings.test, *val, *(image.id for image in project.images(split="train"))}
    revisions = project.newest_label_revisions([*settings.askable, *settings.test, *val])
    settled = {
        "budget": asdict(request.budget),
        "length": request.iterations or f"{request.time_s} s",
        "labels": request.labels,
        "annotator": request.annotator,
        "model": request.model,
        "revisions": sorted(revisions.items()),
        "test": settings.test,
        "askable": settings.askable,
        "images": [(each.id, each.split, each.group) for each in project.images() if each.id in copied],
    }
    digest = hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()[:12]
    folder = project.root / ".labelloop" / "simulations" / digest
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _known_iterations(folder: Path) -> int | None:
    path = folder / SETTINGS
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))["iterations"]
    return None if known is None else int(known)


def _iterations_of(start: Path) -> int:
    """The length that the first training was given."""
    record = Project.open(start).run(read_points(start)[0].run)
    return int((record.result or {})["iterations"])
