"""Trainer: the stages of a run, one after the other, each of them resumable."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment

from labelloop.data.objects import SoftObjects
from labelloop.data.parts import Part, whole
from labelloop.data.pool import ImageLoader
from labelloop.distill.batches import BatchPlan, repeated_ids
from labelloop.distill.ema import ema_update
from labelloop.distill.labelling import Labelling
from labelloop.distill.recipe import OptimiserConfig, Recipe
from labelloop.distill.schedule import Schedule
from labelloop.distill.stages import Learner, StagePlan, make_optimiser, run_stage
from labelloop.interrupts import interrupts_held
from labelloop.models.catalog import build_model
from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import InstanceModel
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord
from labelloop.runs.checkpoint import fitting, load_tensors, save_tensors
from labelloop.runs.files import RunFiles, checkpoint_due
from labelloop.runs.loading import restore_model
from labelloop.team import ALONE, Team


@dataclass(kw_only=True)
class Trainer:
    """A run's stages.

    Attributes:
        files: Where the run keeps what it makes.
        model: A name of ``list_models``.
        stats: Of the labelled images.
        recipe: How to train.
        schedule: How long.
        seed: Of everything random.
        device: Where to compute.
        precision: In Lightning Fabric's words.
        labelled: Objects of the labelled images by image id.
        images: The labelled images.
        pool: Parts of the images without labels.
        progress: Told of every stage and step.
        parts: A step's batch is seen in so many parts.
        team: The processes that share the work; only the first one writes.
    """

    files: RunFiles
    model: str
    stats: DataStats
    recipe: Recipe
    schedule: Schedule
    seed: int
    device: torch.device
    precision: str
    labelled: Mapping[int, SoftObjects]
    images: Sequence[ImageRecord]
    pool: Sequence[Part]
    progress: Progress
    parts: int = 1
    team: Team = ALONE

    def __post_init__(self) -> None:
        devices = 1 if self.device.index is None else [self.device.index]
        self.fabric = Fabric(
            accelerator=self.device.type,
            devices=devices,
            precision=cast(Any, self.precision),
            plugins=[LightningEnvironment()],  # one device: what a cluster says of processes is the team's
        )
        self.load = ImageLoader(
            [*map(whole, self.images), *self.pool], intensity_percentile=self.stats.intensity_percentile
        )
        self.small_area_px = float(np.pi / 4 * self.stats.diameter_px[0] ** 2)
        self.labelling = Labelling(
            files=self.files,
            recipe=self.recipe,
            schedule=self.schedule,
            seed=self.seed,
            pool=self.pool,
            load=self.load,
            fabric=self.fabric,
            small_area_px=self.small_area_px,
            progress=self.progress,
            team=self.team,
        )
        self.waited_s = 0.0
        self.checkpoint_s = 0.0  # that the last checkpoint took

    def run(self, *, supervised_only: bool) -> dict[str, float]:
        """Runs every stage that has not been finished; returns the seconds that each took now."""
        seconds: dict[str, float] = {}
        stages: list[tuple[str, Callable[[], None]]] = [("teacher", self.train_teacher)]
        if self.schedule.apart:
            stages.append(("supervised", self.train_supervised))
        if not supervised_only:
            stages += [("pseudo-labels", self.label_pool), ("student", self.train_student)]
        for name, stage in stages:
            begun = time.monotonic()
            stage()
            seconds[name] = time.monotonic() - begun
        seconds["waiting for data"] = self.waited_s
        return seconds

    def train_teacher(self) -> None:
        """The teacher on labels; it is the supervised baseline too, unless that has a longer schedule."""
        name = "teacher" if self.schedule.apart else "supervised"
        self._train_on_labels("teacher", name, self.schedule.teacher)

    def train_supervised(self) -> None:
        """The supervised baseline where its best schedule is longer than the teacher's."""
        self._train_on_labels("supervised", "supervised", self.schedule.supervised)

    def label_pool(self) -> None:
        """The frozen teacher's labels of a part of the pool."""
        if self.schedule.cached_images > 0:
            self.labelling.make("pseudo-labels", self._teacher, "teacher")

    def train_student(self) -> None:
        """Guided burn-in, distillation and fine-tuning: one schedule, one optimiser."""
        if self.team.tell(self.files.weights("guided").exists()):
            return
        learner = self.student_learner()
        done = self._restore("student", learner)
        for name in ("burn-in", "distillation", "fine-tuning"):
            start, stop = self.bounds(name)
            if name == "distillation" and (done == start or done < stop):  # also where it has no steps
                self._teacher_becomes_student(learner, anew=done <= start)
            if done >= stop:
                continue
            self._run(name, "student", self.student_plan(name), learner, done)
            done = stop
        self._save_weights("guided", learner.student if self.recipe.keeps_student else learner.average)

    def student_learner(self) -> Learner:
        """The student as it begins, with the teacher beside it where it labels every step."""
        student = self._fresh_model("student")
        if not self.recipe.fresh_student:
            student.module().load_state_dict(self._teacher().module().state_dict())
        average = self._copy_of(student) if self._average_is_student else self._teacher()
        return Learner(student, average, make_optimiser(student.module(), self.recipe.student_optimiser))

    def bounds(self, name: str) -> tuple[int, int]:
        """First step of a stage of the student, and the step after its last one."""
        s = self.schedule
        ends = {"burn-in": s.burn_in, "distillation": s.burn_in + s.distillation, "fine-tuning": s.student}
        starts = {"burn-in": 0, "distillation": ends["burn-in"], "fine-tuning": ends["distillation"]}
        return starts[name], ends[name]

    def student_plan(self, name: str) -> StagePlan:
        """A stage of the student; its cached labels must have been made."""
        recipe, (start, stop) = self.recipe, self.bounds(name)
        batches = replace(
            self._batches(name),
            labelled_batch=recipe.labelled_batch,
            labelled_ids=self._labelled_ids(recipe.repeat_threshold),
        )
        if name == "fine-tuning":
            batches = replace(batches, labelled_batch=recipe.labelled_batch + recipe.unlabelled_batch)
        else:
            cached = self.labelling.labels(name)
            pool = [part.id for part in self.pool] if cached is None else sorted(cached)
            batches = replace(
                batches, unlabelled_ids=pool, unlabelled_batch=recipe.unlabelled_batch, pseudo=cached
            )
        frozen = name == "burn-in" and not self._average_is_student
        online = name != "fine-tuning" and batches.pseudo is None
        return StagePlan(
            batches=batches,
            start=start,
            stop=stop,
            schedule=self.schedule.student,
            ema_decay=None if frozen else recipe.ema_decay_over(self.schedule.distillation),
            ema_from=0 if self._average_is_student else None,
            online=recipe.pseudo if online else None,
            unlabelled_weight=recipe.unlabelled_weight,
            small_area_px=self.small_area_px,
            optimiser=recipe.student_optimiser,
        )

    def _teacher_becomes_student(self, learner: Learner, *, anew: bool) -> None:
        """The switch from burn-in to distillation; ``anew`` where no step of distillation has been made."""
        if not self._average_is_student:
            if anew:
                ema_update(learner.average.module(), learner.student.module(), decay=0.0)
        elif self.labelling.in_turns:
            self.labelling.make("new pseudo-labels", lambda: learner.average, "student")

    def labels_plan(self, steps: int) -> StagePlan:
        """A schedule on labels alone; teacher and supervised baseline differ in its length only."""
        decay = self.recipe.supervised_ema_decay
        return StagePlan(
            batches=self._batches("labels"),
            start=0,
            stop=steps,
            schedule=steps,
            ema_decay=decay,
            ema_from=0,
            online=None,
            unlabelled_weight=0.0,
            small_area_px=self.small_area_px,
            optimiser=self.recipe.optimiser,
        )

    def labels_learner(self, optimiser: OptimiserConfig | None = None) -> Learner:
        """A model on labels alone as it begins; with the recipe's optimiser if none is named."""
        model = self._fresh_model("labels")
        rates = optimiser or self.recipe.optimiser
        return Learner(model, self._copy_of(model), make_optimiser(model.module(), rates))

    @property
    def _average_is_student(self) -> bool:
        """Whether the average follows the student from the first step: the teacher is in the cache."""
        return self.schedule.cached_images > 0

    def _train_on_labels(self, stage: str, which: str, steps: int) -> None:
        if self.team.tell(self.files.weights(which).exists()):
            return
        learner = self.labels_learner()
        done = self._restore(stage, learner)
        self._run(stage, stage, self.labels_plan(steps), learner, done)
        self._save_weights(which, learner.average)

    def _run(self, name: str, schedule: str, plan: StagePlan, learner: Learner, done: int) -> None:
        """The steps of a stage that are not done, with a checkpoint now and then and one on the way out."""
        start = max(plan.start, done)
        if start >= plan.stop:
            return
        for model in (learner.student.module(), learner.average.module()):
            self.team.copy_leader([*model.parameters(), *model.buffers()])
        self.progress.start(name, plan.stop - start)
        saved = time.monotonic()
        with interrupts_held() as interrupted:

            def after_step(step: int, facts: Mapping[str, float]) -> None:
                nonlocal saved
                stop = self.team.any(interrupted())
                if self.team.leads:
                    self._log(schedule, name, step, facts)
                    begun = time.monotonic()
                    if stop or step == plan.stop or checkpoint_due(begun - saved, self.checkpoint_s):
                        self._checkpoint(schedule, learner, step)
                        saved = time.monotonic()
                        self.checkpoint_s = saved - begun
                if stop:
                    self.team.wait()  # for the checkpoint: a launcher ends all when one has left
                    raise KeyboardInterrupt

            try:
                self.waited_s += run_stage(
                    replace(plan, start=start),
                    learner,
                    self.fabric,
                    self.load,
                    self.progress,
                    after_step=after_step,
                    team=self.team,
                )
            finally:
                self.progress.finish()

    def _log(self, schedule: str, stage: str, step: int, facts: Mapping[str, float]) -> None:
        line = {
            "schedule": schedule,
            "stage": stage,
            "step": step,
            **{k: round(v, 7) for k, v in facts.items()},
        }
        with self.files.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def _checkpoint(self, schedule: str, learner: Learner, step: int) -> None:
        document = {
            "schedule": schedule,
            "step": step,
            "student": learner.student.module().state_dict(),
            "average": learner.average.module().state_dict(),
            "optimiser": learner.optimiser.state_dict(),
        }
        save_tensors(self.files.checkpoint, document)

    def _restore(self, schedule: str, learner: Learner) -> int:
        """Puts the learner where its checkpoint left it; 0 where there is none of this schedule."""
        if not self.team.tell(self.files.checkpoint.exists()):
            return 0
        stored = load_tensors(self.files.checkpoint, device=self.device)
        if stored["schedule"] != schedule:
            return 0
        with fitting(self.files.checkpoint):
            learner.student.module().load_state_dict(stored["student"])
            learner.average.module().load_state_dict(stored["average"])
            learner.optimiser.load_state_dict(stored["optimiser"])
        return int(stored["step"])

    def _save_weights(self, which: str, model: InstanceModel) -> None:
        if self.team.leads:
            save_tensors(self.files.weights(which), {"model": model.module().state_dict()})

    def _batches(self, stage: str) -> BatchPlan:
        return BatchPlan(
            seed=self.seed,
            stage=stage,
            labelled=self.labelled,
            labelled_ids=self._labelled_ids(0.0),
            labelled_batch=self.recipe.supervised_batch,
            unlabelled_ids=(),
            unlabelled_batch=0,
            pseudo=None,
            geometry=self.recipe.geometry,
            known_views=self.recipe.known_views,
            weak=self.recipe.weak,
            strong=self.recipe.strong,
            parts=self.parts,
        )

    def _labelled_ids(self, threshold: float) -> list[int]:
        return repeated_ids(
            self.labelled,
            threshold=threshold,
            by_known=self.recipe.known_views,
            empty_too=self.recipe.empty_images,
        )

    def _fresh_model(self, stage: str) -> InstanceModel:
        torch.manual_seed(zlib.crc32(f"{self.seed}/{stage}/weights".encode()))
        model = build_model(self.model, self.stats)
        model.module().to(self.device).to(memory_format=torch.channels_last)
        return model

    def _copy_of(self, model: InstanceModel) -> InstanceModel:
        copy = build_model(self.model, self.stats, pretrained=False)
        copy.module().load_state_dict(model.module().state_dict())
        copy.module().to(self.device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
        return copy

    def _teacher(self) -> InstanceModel:
        which = "teacher" if self.schedule.apart else "supervised"
        return restore_model(self.files, which, model=self.model, stats=self.stats, device=self.device)
