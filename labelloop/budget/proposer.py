"""Proposer: what a model would show of each image of a pool, how it is cut, and what that would cost.

Most images are one task, and their numbers of objects, doubts and minutes follow from the scores that the
ledger keeps; masks are read only of those that have to be cut, and of those that were chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.budget.doubt import ImageDoubt, doubts_of
from labelloop.budget.effort import EffortModel, Minutes, Work
from labelloop.budget.expected_edits import EditRates
from labelloop.budget.strategies import Pick
from labelloop.budget.timed_tasks import edit_records, timed_tasks
from labelloop.distill.runs import load_model
from labelloop.evaluating import predict_known_images, to_project_classes
from labelloop.instances import Instances
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord, Project
from labelloop.review.choice import Choice, confidence
from labelloop.review.tiles import MAX_SIDE_PX, TileView, review_tiles, whole_view

QUERY_OBJECTS = 40  # a task shows so many at most: what a person can look at in one go
UNKNOWN_OBJECTS = 10.0  # in an image, where nothing was labelled yet
NO_MODEL_MIN_SCORE = 0.5

Floats = npt.NDArray[np.float64]


class Proposer:
    """What would be proposed in each of n images, by a model or by none.

    Args:
        project: Whose ledger.
        images: The pool.
        run: Whose model; None for the newest finished run's promoted one, or none where no run has finished.
        device: Where to predict.
        progress: Who watches.
    """

    def __init__(
        self,
        project: Project,
        images: Sequence[ImageRecord],
        *,
        run: str | None,
        device: str,
        progress: Progress,
    ) -> None:
        self._project, self._images, self._progress = project, images, progress
        self._effort = EffortModel.fit(timed_tasks(project))
        finished = any(record.state == "finished" for record in project.runs())
        self._loaded = load_model(project, run, device=device) if finished or run is not None else None
        if self._loaded is None:
            self._doubts: list[ImageDoubt] | None = None
            self._rates = EditRates.prior()
            self._objects_per_image = _objects_per_image(project)
        else:
            self._doubts = doubts_of(project, self._loaded, images, progress=progress)
            self._rates = EditRates.fit(edit_records(project))
        self._views = self._cut()
        self.minutes = [self._minutes_of(i) for i in range(len(images))]

    @property
    def run(self) -> str | None:
        """Whose model it is."""
        return self._loaded.run if self._loaded else None

    @property
    def which(self) -> str | None:
        """Guided or supervised."""
        return self._loaded.which if self._loaded else None

    @property
    def min_score(self) -> float:
        """Objects scored lower are not shown."""
        return self._loaded.min_score if self._loaded else NO_MODEL_MIN_SCORE

    @property
    def shown(self) -> npt.NDArray[np.int64]:
        """int64 (n,), objects that would be shown of each image."""
        if self._doubts is None:
            return np.zeros(len(self._images), np.int64)
        return np.array([doubt.shown(self.min_score) for doubt in self._doubts], np.int64)

    @property
    def doubt(self) -> Floats | None:
        """float64 (n,), decisions that are expected to be wrong in each image; None without a model."""
        if self._doubts is None:
            return None
        return np.array([doubt.total(self.min_score) for doubt in self._doubts])

    @property
    def tasks(self) -> npt.NDArray[np.int64]:
        """int64 (n,), how many tasks each image would be."""
        return np.array([len(each) for each in self.minutes], np.int64)

    def choices(self, picks: Sequence[Pick]) -> list[Choice]:
        """What was picked, as it goes into a round."""
        images = [self._images[pick.index] for pick in picks]
        predicted = self._predicted(images)
        chosen = []
        for pick, image, seen in zip(picks, images, predicted, strict=True):
            proposed = seen.above(self.min_score)
            views = self._views.get(pick.index) or (whole_view(proposed),)
            chosen.append(
                Choice(
                    image=image,
                    proposed=proposed,
                    views=views,
                    confidence=confidence(seen, self.min_score),
                    chosen=tuple(_for_the_ledger(pick, m) for m in self.minutes[pick.index]),
                )
            )
        return chosen

    def _cut(self) -> dict[int, tuple[TileView, ...]]:
        """The tiles of the images that are more than one task, by index."""
        shown = self.shown
        large = [
            i
            for i, image in enumerate(self._images)
            if max(image.size_hw) > MAX_SIDE_PX or shown[i] > QUERY_OBJECTS
        ]
        predicted = self._predicted([self._images[i] for i in large])
        return {
            i: review_tiles(seen.above(self.min_score), max_objects=QUERY_OBJECTS)
            for i, seen in zip(large, predicted, strict=True)
        }

    def _predicted(self, images: Sequence[ImageRecord]) -> list[Instances]:
        if self._loaded is None:
            nothing = np.zeros(0, np.float32)
            return [Instances(size_hw=image.size_hw, scores=nothing) for image in images]
        classes = self._project.config.classes
        seen = predict_known_images(self._project, self._loaded, images, self._progress)
        return [to_project_classes(found, self._loaded.classes, classes) for found in seen]

    def _minutes_of(self, i: int) -> tuple[Minutes, ...]:
        """Of each task that the image would be."""
        work = self._expected(i)
        views = self._views.get(i)
        if views is None:
            return (self._effort.predict(work),)
        # An image's work is shared out by the objects that belong to each tile.
        owned = np.array([1.0 + int(view.owned.sum()) for view in views])
        return tuple(self._effort.predict(work.part(share)) for share in (owned / owned.sum()).tolist())

    def _expected(self, i: int) -> Work:
        """What a person is expected to do in the whole image."""
        if self._doubts is None:
            return Work(objects=0.0, edits={"added": self._objects_per_image})
        return self._rates.expect(self._doubts[i].scores, self.min_score)


def _objects_per_image(project: Project) -> float:
    labels = project.labels([image.id for image in project.images(split="train", labelled=True)])
    counts = [int((~instances.crowd).sum()) for instances in labels.values()]
    return float(np.mean(counts)) if counts else UNKNOWN_OBJECTS


def _for_the_ledger(pick: Pick, minutes: Minutes) -> dict[str, Any]:
    span = {"value": round(minutes.value, 4), "low": round(minutes.low, 4), "high": round(minutes.high, 4)}
    return {"arm": pick.arm, "why": pick.why, "minutes": span}
