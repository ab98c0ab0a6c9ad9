"""What each switch of the default recipe is worth: students of one teacher that differ in one setting.

Run by hand; it can be stopped at any time and goes on when called again:

    python tests/benchmarks/ablations.py DATA WORK --seeds 0-1 --jobs 2

Per seed, 15 of the labelled images of DATA/m-orgaquant are drawn, and the others are the validation images
that measure; test images are not touched. One teacher serves all students of a seed, and its labels those
that want the same. Scores go to tests/benchmarks/results/ablations; ``--report`` prints the table of what is
there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scores import METRICS, Score, commit, mean_difference, measure, percent

from labelloop.distill.assembly import trainer_of
from labelloop.distill.recipe import recipe_from_dict
from labelloop.distill.schedule import guided_schedule
from labelloop.images import read_image
from labelloop.predict.field import predict_array
from labelloop.progress import Silent
from labelloop.project.project import Project
from labelloop.runs.files import RunFiles
from labelloop.runs.loading import read_run_config, restore_model, stats_from_dict

DRAWN = 15
RESULTS = Path(__file__).parent / "results" / "ablations"
# Each switch of the default turned back, then settings of the published method as one varies them; ``pseudo``
# settings as in PseudoLabelConfig, the others as in Recipe. Guided burn-in is a fresh student's, so it is
# compared with one that has none: its distillation begins with the teacher itself, which learnt from labels.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "certain labels": {"pseudo": {"soft_scores": False, "min_score": 0.6, "ignore_score": 0.2}},
    "hard masks": {"pseudo": {"soft_masks": False}},
    "masks cut at one half": {"pseudo": {"mask_cut": 0.5}},
    "one view": {"pseudo": {"views": 1, "zooms": [1.0]}},
    "one size": {"pseudo": {"views": 8, "zooms": [1.0]}},
    "labels of 300 images": {"looks_per_label": 2},
    "full rate": {"student_lr_factor": 1.0},
    "backbone kept": {"student_backbone_lr_factor": 0.0},
    "fresh student": {"fresh_student": True},
    "no fine-tuning": {"fine_tune_share": 0.0},
    "no pool": {"labelled_batch": 2, "unlabelled_batch": 0, "fine_tune_share": 1.0, "cached_images": 1},
    "guided burn-in, EMA labels": {"fresh_student": True, "distillation_labels": "online"},
    "no guided burn-in, EMA labels": {"burn_in_share": 0.0, "distillation_labels": "online"},
    "EMA 0.9": {"ema_decay": 0.9},
    "EMA 0.998": {"ema_decay": 0.998},
    "labels from 0.3": {"pseudo": {"min_score": 0.3}},
    "weight 0.5": {"unlabelled_weight": 0.5},
    "weight 2": {"unlabelled_weight": 2.0},
    "no ignored labels": {"pseudo": {"soft_scores": False, "min_score": 0.6}},
}


def labelloop(*arguments: str, log: Path) -> None:
    """Runs the command line in a process of its own, on one thread."""
    with log.open("a") as out:
        subprocess.run([sys.executable, "-m", "labelloop", *arguments], stdout=out, stderr=out, check=True)


def prepare(data: Path, work: Path, seed: int) -> Project:
    """The project of a seed, made once: drawn labels, the pool, and the other labels as validation."""
    folder, source = work / f"project-{seed}", data / "m-orgaquant"
    if not (folder / "labelloop.toml").exists():
        document = json.loads((source / "labeled.json").read_text())
        ids = sorted(image["id"] for image in document["images"])
        random.Random(seed).shuffle(ids)
        log = work / "prepare.log"
        labelloop("init", str(folder), "--classes", "organoid", log=log)
        for split, part in (("train", set(ids[:DRAWN])), ("val", set(ids[DRAWN:]))):
            coco = work / f"{split}-{seed}.json"
            kept = {
                **document,
                "images": [i for i in document["images"] if i["id"] in part],
                "annotations": [a for a in document["annotations"] if a["image_id"] in part],
            }
            coco.write_text(json.dumps(kept))
            where = ("--images", str(source / "labeled"), "--split", split, "-C", str(folder))
            labelloop("add", "labels", str(coco), *where, log=log)
        labelloop("add", "images", str(source / "unlabeled"), "-C", str(folder), log=log)
    return Project.open(folder)


def teach(project: Project, seed: int, log: Path) -> None:
    """The teacher of a seed, as the baseline of the default recipe."""
    if not any(run.name == "teacher" and run.state == "finished" for run in project.runs()):
        begun = any(run.name == "teacher" for run in project.runs())
        options = ("--resume",) if begun else ("--method", "supervised", "--seed", str(seed))
        labelloop("train", "--name", "teacher", *options, "-C", str(project.root), log=log)


def train_student(project: Project, name: str, steps: int) -> dict[str, float]:
    """One student of the teacher; what was interrupted goes on. Returns the seconds of its stages."""
    config = read_run_config(project.runs_dir / "teacher")
    changes, base = VARIANTS[name], recipe_from_dict(config["recipe"])
    recipe = recipe_from_dict(changes, base=base)
    taught = config["schedule"]["teacher"]
    sizes = {"n_labels": len(config["train_images"]), "pool": config["pool_images"]}
    schedule = guided_schedule(recipe, iterations=taught + steps, **sizes)
    trainer = replace(
        trainer_of(
            project,
            config | {"recipe": recipe.as_dict()},
            schedule,
            folder_name(name),
            Silent(),
            parts=recipe.accumulate,
        ),
        schedule=replace(schedule, teacher=taught, supervised=taught),
    )
    trainer.files.folder.mkdir(exist_ok=True)
    shutil.copy(project.runs_dir / "teacher" / "supervised.pt", trainer.files.weights("supervised"))
    default = RunFiles(folder=project.runs_dir / "default").pseudo_labels("teacher")
    mine = trainer.files.pseudo_labels("teacher")
    usual = guided_schedule(base, iterations=taught + steps, **sizes).cached_images
    same_labels = "views" not in changes.get("pseudo", {}) and schedule.cached_images == usual
    if default.exists() and same_labels and not mine.exists():
        shutil.copy(default, mine)
    seconds = {}
    for stage, run in (("pseudo-labels", trainer.label_pool), ("student", trainer.train_student)):
        begun = time.monotonic()
        run()
        seconds[stage] = round(time.monotonic() - begun, 1)
    return seconds


def one(work: Path, seed: int, name: str, steps: int) -> None:
    """Trains a student, or takes the teacher, and keeps the score."""
    path = score_file(seed, name)
    if path.exists():
        return
    torch.set_num_threads(1)
    project = Project.open(work / f"project-{seed}")
    run, which = ("teacher", "supervised") if name == "teacher" else (folder_name(name), "guided")
    seconds = {} if name == "teacher" else train_student(project, name, steps)
    config = read_run_config(project.runs_dir / "teacher")
    stats = stats_from_dict(config["stats"])
    files, device = RunFiles(folder=project.runs_dir / run), torch.device("cpu")
    model = restore_model(files, which, model=config["model"], stats=stats, device=device)
    images = project.images(split="val", labelled=True)
    truth = project.labels([i.id for i in images])
    seen = [
        predict_array(model, read_image(i.path, page=i.page, channel=i.channel).pixels, stats=stats)
        for i in images
    ]
    facts = {"seconds": seconds, "steps": steps, "date": str(datetime.date.today()), "commit": commit()}
    measure([truth[i.id] for i in images], seen, min_score=0.5, facts=facts).save(path)


def score_file(seed: int, name: str) -> Path:
    """Where the score of a student is kept."""
    return RESULTS / f"{folder_name(name)}-{seed}.json"


def folder_name(name: str) -> str:
    """A variant's name as a file may have it."""
    return name.replace(",", "").replace(" ", "-")


def report(seeds: list[int]) -> None:
    """Prints every student's scores and its difference from the default, paired."""
    found = {
        name: {s: Score.load(path) for s in seeds if (path := score_file(s, name)).exists()}
        for name in ("teacher", *VARIANTS)
    }
    print("| student | seed | " + " | ".join(METRICS) + " | seconds |")
    print("|---|---|" + "---|" * (len(METRICS) + 1))
    for name, scores in found.items():
        for seed, score in scores.items():
            values = " | ".join(percent(score.metrics[m]) for m in METRICS)
            print(f"| {name} | {seed} | {values} | {sum(score.facts['seconds'].values()):.0f} |")
    print("\n| | seeds | AP minus the default's [95 % over images and seeds] |\n|---|---|---|")
    for name, scores in found.items():
        both = sorted(scores.keys() & found["default"].keys())
        if both and name != "default":
            mean, low, high = mean_difference([(scores[s], found["default"][s]) for s in both])
            print(f"| {name} | {len(both)} | {mean:+.2f} [{low:+.2f}, {high:+.2f}] |")


def main() -> None:
    """Parses, trains what is missing, reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", default="0-1")
    parser.add_argument("--steps", type=int, default=700, help="of each student")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--one", nargs=2, metavar=("SEED", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    if arguments.one:
        one(work, int(arguments.one[0]), arguments.one[1], arguments.steps)
        return
    first, _, last = arguments.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    if not arguments.report:
        work.mkdir(parents=True, exist_ok=True)
        RESULTS.mkdir(parents=True, exist_ok=True)
        projects = {seed: prepare(arguments.data.absolute(), work, seed) for seed in seeds}
        rest = [name for name in arguments.only if name != "default"]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda s: teach(projects[s], s, work / f"teacher-{s}.log"), seeds))
            for names in (("teacher",), ("default",), rest):  # the others take the default's labels
                jobs = [(str(s), name) for name in names for s in seeds]
                list(pool.map(lambda job: subprocess.run([*sys.orig_argv, "--one", *job], check=True), jobs))
    report(seeds)


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    main()
