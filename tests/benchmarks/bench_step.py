"""What a guided step costs beside a supervised one over as many student images, and what data loading adds.

Run by hand on a project with a finished guided run, whose teacher then labels real images:

    python tests/benchmarks/bench_step.py PROJECT RUN --rounds 6

Steps of the three kinds alternate: a busy machine slows them alike. Medians of process time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from labelloop.distill.assembly import trainer_of
from labelloop.distill.batches import fitted, make_batch
from labelloop.distill.recipe import REFERENCE
from labelloop.distill.schedule import Schedule
from labelloop.distill.stages import Learner, make_optimiser, train_step
from labelloop.models.backbones import freeze_first_stages
from labelloop.progress import Silent
from labelloop.project.project import Project
from labelloop.runs.loading import read_run_config


def main() -> None:
    """Times a supervised step, a burn-in step with cached labels and one labelled by the moving average."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("project", type=Path)
    parser.add_argument("run")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    project = Project.open(arguments.project)
    config = read_run_config(project.runs_dir / arguments.run)
    trainer = trainer_of(project, config, Schedule(**config["schedule"]), arguments.run, Silent(), parts=1)
    recipe = trainer.recipe
    images = recipe.labelled_batch + recipe.unlabelled_batch
    student, teacher = trainer._teacher(), trainer._teacher()
    student.module().requires_grad_(True)
    freeze_first_stages(student.module().backbone.body, 3)  # type: ignore[union-attr, arg-type]
    learner = Learner(student, teacher, make_optimiser(student.module(), recipe.optimiser))
    labels = trainer.labels_plan(1000)
    labels = replace(labels, batches=replace(labels.batches, labelled_batch=images))
    burn_in = trainer.student_plan("burn-in")
    online = replace(
        burn_in,
        batches=replace(burn_in.batches, pseudo=None, unlabelled_ids=[part.id for part in trainer.pool]),
        online=replace(REFERENCE.pseudo, min_area_px=0.0),
        ema_decay=0.99,
    )
    kinds = {"supervised": labels, "burn-in, cached labels": burn_in, "moving average labels": online}
    spent: dict[str, list[float]] = {kind: [] for kind in kinds}
    loading: dict[str, list[float]] = {kind: [] for kind in kinds}
    for step in range(arguments.rounds + 1):
        for kind, plan in kinds.items():
            begun = time.process_time()
            batch = make_batch(fitted(plan.batches, student, trainer.load), trainer.load, step)
            loaded = time.process_time()
            train_step(step, [batch], plan, learner, trainer.fabric)
            if step:
                loading[kind].append(loaded - begun)
                spent[kind].append(time.process_time() - loaded)
    base = statistics.median(spent["supervised"])
    print(f"{images} student images a step, {arguments.rounds} steps of each kind, CPU seconds, one thread\n")
    print("| step | seconds | ratio | making its batch (in a thread beside it) |\n|---|---|---|---|")
    for kind, seconds in spent.items():
        middle = statistics.median(seconds)
        print(f"| {kind} | {middle:.3f} | {middle / base:.2f} | {statistics.median(loading[kind]):.3f} |")


if __name__ == "__main__":
    main()
