"""Labelling: what a run's teachers see in the pool, made once and kept in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric

from labelloop.data.objects import SoftObjects
from labelloop.data.parts import Part
from labelloop.data.pool import ImageLoader
from labelloop.distill.batches import rng_for
from labelloop.distill.pseudo_labels import predict_views, pseudo_objects
from labelloop.distill.recipe import Recipe
from labelloop.distill.schedule import Schedule
from labelloop.models.protocol import InstanceModel, Prediction, grid_scale
from labelloop.progress import Progress
from labelloop.runs.checkpoint import load_predictions, save_predictions
from labelloop.runs.files import CHECKPOINT_EVERY_S, RunFiles
from labelloop.team import ALONE, Team

LABELLED_AT_ONCE = 2  # images; of one size where possible, so that none is padded
LOWEST_KEPT_SCORE = 0.1  # of a teacher's predictions


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """The cached pseudo-labels of a run.

    Attributes:
        files: Where they are kept.
        recipe: Views, thresholds, and whose labels serve which stage.
        schedule: How many images are labelled.
        seed: Decides which.
        pool: Parts of the images without labels.
        load: Where images come from.
        fabric: Device and precision.
        small_area_px: Area of a 5th-percentile object of the labelled data.
        progress: Told of every image.
        team: The processes that share the images; only the first one writes.
    """

    files: RunFiles
    recipe: Recipe
    schedule: Schedule
    seed: int
    pool: Sequence[Part]
    load: ImageLoader
    fabric: Fabric
    small_area_px: float
    progress: Progress
    team: Team = ALONE

    @property
    def in_turns(self) -> bool:
        """Whether the student's average labels a half of the images as it becomes the teacher."""
        return self.recipe.distillation_labels == "in turns" and self.schedule.distillation > 0

    def parts(self, maker: str) -> list[Part]:
        """The parts of the pool that a teacher labels; in turns, the first one labels the first half.

        Args:
            maker: ``teacher`` or ``student``.
        """
        order = rng_for(self.seed, "pool-part", 0).permutation(len(self.pool))
        parts = [self.pool[i] for i in order[: self.schedule.cached_images]]
        if not self.in_turns:
            return parts
        half = (len(parts) + 1) // 2
        return parts[:half] if maker == "teacher" else parts[half:]

    def see(
        self, teacher: InstanceModel, ids: Sequence[int], *, min_score: float = LOWEST_KEPT_SCORE
    ) -> list[Prediction]:
        """A teacher's predictions of some parts, averaged over the recipe's views, as finely as it sees."""
        images = [torch.from_numpy(self.load(i)).to(self.fabric.device) for i in ids]
        pseudo = self.recipe.pseudo
        with self.fabric.autocast():
            return predict_views(
                teacher,
                images,
                views=pseudo.views,
                zooms=pseudo.zooms,
                min_score=min_score,
                scale=grid_scale(teacher),
            )

    def make(self, stage: str, teacher: Callable[[], InstanceModel], maker: str) -> None:
        """Labels a teacher's parts of the pool once; an interruption costs the last minute at most.

        Args:
            stage: What progress calls it.
            teacher: Gives the model; not called where the labels are there.
            maker: ``teacher`` or ``student``.
        """
        path = self.files.pseudo_labels(maker)
        if self.team.tell(path.exists()):
            return
        partial = path.with_suffix(".part.npz")
        found = load_predictions(partial) if self.team.leads and partial.exists() else {}
        order = sorted(self.parts(maker), key=lambda part: (part.size_hw, part.image.id, part.id))
        wanted = self.team.tell([part.id for part in order if part.id not in found])
        pairs = [wanted[i : i + LABELLED_AT_ONCE] for i in range(0, len(wanted), LABELLED_AT_ONCE)]
        model, saved = teacher(), time.monotonic()
        self.progress.start(stage, len(wanted))
        for start in range(0, len(pairs), self.team.size):
            ids = [i for pair in self.team.share(pairs[start : start + self.team.size]) for i in pair]
            for seen in self.team.gather(dict(zip(ids, self.see(model, ids), strict=True)) if ids else {}):
                found |= seen
                self.progress.advance(len(seen))
            if self.team.leads and time.monotonic() - saved > CHECKPOINT_EVERY_S:
                save_predictions(partial, found)
                saved = time.monotonic()
        if self.team.leads:
            save_predictions(path, found)
            partial.unlink(missing_ok=True)
        self.team.wait()
        self.progress.finish()

    def labels(self, stage: str) -> dict[int, SoftObjects] | None:
        """The labels that serve a stage, by part, or None where its teacher makes them in every step.

        Args:
            stage: ``burn-in`` or ``distillation``.
        """
        online = stage == "distillation" and self.recipe.distillation_labels == "online"
        if self.schedule.cached_images == 0 or online:
            return None
        found = load_predictions(self.files.pseudo_labels("teacher"))
        if stage == "distillation" and self.in_turns:
            found |= load_predictions(self.files.pseudo_labels("student"))
        return {
            part_id: pseudo_objects(
                p, self.recipe.pseudo, small_area_px=self.small_area_px, grid_yx=self._grid_yx(part_id, p)
            )
            for part_id, p in found.items()
        }

    def _grid_yx(self, part_id: int, prediction: Prediction) -> tuple[float, float]:
        """Pixels of a prediction per pixel of its part: 1 in runs of before teachers saw a coarse grid."""
        (height, width), (rows, columns) = self.load.size_hw(part_id), prediction.size_hw
        return rows / height, columns / width
