"""Proposer: what a model would show of each image of a pool, how it is cut, and what that would cost.

Most images are one task, and their numbers of objects, doubts and minutes follow from the scores that the
ledger keeps; masks are read only of those that have to be cut, and of those that were chosen. Of a field that
is cut each tile is asked about by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from labelloop.budget.doubt import ImageDoubt, doubts_of, image_doubt
from labelloop.budget.effort import EffortModel, Minutes
from labelloop.budget.expected_edits import EditRates
from labelloop.budget.pool_rates import objects_known, pool_rates
from labelloop.budget.strategies import Pick
from labelloop.budget.timed_tasks import timed_tasks
from labelloop.budget.work import Work
from labelloop.evaluating import predict_known_images, to_project_classes
from labelloop.instances import Instances
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord, Project
from labelloop.review.choice import Choice, confidence
from labelloop.review.partly import PartlyReviewed
from labelloop.review.tiles import MAX_OBJECTS, MAX_SIDE_PX, TileView, review_tiles, whole_view
from labelloop.runs.loading import load_model

SIDE_VARIES = 1.25  # of tiles of a field that is cut anew: overlaps differ
UNKNOWN_OBJECTS = 10.0  # in an image, where nothing was labelled yet
NO_MODEL_MIN_SCORE = 0.5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """One task that could be asked: an image, or a tile of one.

    Attributes:
        image: Which.
        view: The tile; None for the whole image.
        work: What a person is expected to do in it.
        minutes: That it should cost.
        shown: Objects in it.
        doubt: Decisions of the model in it that are expected to be wrong.
    """

    image: ImageRecord
    view: TileView | None
    work: Work
    minutes: Minutes
    shown: int
    doubt: float


class Proposer:
    """What would be proposed in images, by a model or by none.

    Args:
        project: Whose ledger.
        images: The pool.
        partly: Fields of it that were reviewed in part, by image id.
        run: Whose model; None for the newest finished run's promoted one, or none where no run has finished.
        twice: The model looks at every image more than once, to tell how sure it is; else the ``doubt`` of
            units says nothing, and the pool costs a third.
        progress: Where progress is reported.

    Attributes:
        units: All that could be asked, image by image.
        unreadable: Images that a model has to look at and that cannot be read; they have no units.
    """

    def __init__(
        self,
        project: Project,
        images: Sequence[ImageRecord],
        partly: Mapping[int, PartlyReviewed],
        *,
        run: str | None,
        twice: bool,
        progress: Progress,
    ) -> None:
        self._project, self._partly, self._progress = project, partly, progress
        self._effort = EffortModel.fit(timed_tasks(project))
        self.unreadable: list[ImageRecord] = []
        finished = bool(project.finished_runs())
        self._loaded = load_model(project, run) if finished or run is not None else None
        if self._loaded is None:
            nothing = image_doubt(Instances(size_hw=(1, 1)), [])
            doubts = [nothing] * len(images)
            self._rates = EditRates.prior()
            known = objects_known(project)
            self._drawn = float(np.mean(known)) if known else UNKNOWN_OBJECTS
            self._likely = self._drawn if known else 0.0
        else:
            found = doubts_of(project, self._loaded, images, twice=twice, progress=progress)
            self.unreadable = [image for image in images if image.id not in found]
            images = [image for image in images if image.id in found]
            doubts = [found[image.id] for image in images]
            self._rates = pool_rates(project, self._loaded.run, doubts, self.min_score)
        self.units = self._units(images, doubts)

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

    def choices(self, picks: Sequence[Pick]) -> list[Choice]:
        """What was picked, as it goes into a round: by image, with the tiles of it that were picked."""
        by_image: dict[int, list[Pick]] = {}
        for pick in picks:
            by_image.setdefault(self.units[pick.index].image.id, []).append(pick)
        images = [self.units[of_image[0].index].image for of_image in by_image.values()]
        choices = []
        for image, seen in zip(images, self._predicted(images), strict=True):
            of_image = by_image[image.id]
            units = [self.units[pick.index] for pick in of_image]
            proposed, known = self._shown(image, seen)
            choices.append(
                Choice(
                    image=image,
                    proposed=proposed,
                    known=known,
                    views=tuple(unit.view or whole_view(proposed) for unit in units),
                    confidence=confidence(seen, self.min_score),
                    chosen=tuple(map(_for_the_ledger, of_image, units)),
                )
            )
        return choices

    def _units(self, images: Sequence[ImageRecord], doubts: Sequence[ImageDoubt]) -> list[Unit]:
        large = [
            i
            for i, (image, doubt) in enumerate(zip(images, doubts, strict=True))
            if max(image.size_hw) > MAX_SIDE_PX
            or doubt.shown(self.min_score) + self._unseen(doubt) > MAX_OBJECTS
            or image.id in self._partly
        ]
        cut = {
            i: self._tiles(images[i], seen, doubts[i])
            for i, seen in zip(large, self._predicted([images[i] for i in large]), strict=True)
        }
        return [
            unit
            for i, (image, doubt) in enumerate(zip(images, doubts, strict=True))
            for unit in (cut[i] if i in cut else [self._whole(image, doubt)])
        ]

    def _unseen(self, doubt: ImageDoubt) -> float:
        """How many objects of an image are not shown, as a model misses them or as there is none."""
        if self._loaded is None:
            return self._likely
        shown = doubt.shown(self.min_score)
        return self._rates.expect_missed(doubt.unshown(self.min_score), float(doubt.unmatched.sum()), shown)

    def _whole(self, image: ImageRecord, doubt: ImageDoubt) -> Unit:
        work = self._work(
            doubt.scores[doubt.scores >= self.min_score],
            doubt.unshown(self.min_score),
            unmatched=float(doubt.unmatched.sum()),
            outline_px=doubt.outline_px,
        )
        return Unit(
            image=image,
            view=None,
            work=work,
            minutes=self._effort.predict(work),
            shown=doubt.shown(self.min_score),
            doubt=doubt.total(self.min_score),
        )

    def _tiles(self, image: ImageRecord, seen: Instances, doubt: ImageDoubt) -> list[Unit]:
        """The tiles of a field that can be asked about; of one that was reviewed in part what is left."""
        proposed, known = self._shown(image, seen)
        partly = self._partly.get(image.id)
        asked_px = MAX_SIDE_PX if partly is None or partly.tile_side_px is None else partly.tile_side_px
        views = review_tiles(
            proposed,
            max_side_px=min(round(SIDE_VARIES * asked_px), MAX_SIDE_PX),
            unseen=self._unseen(doubt),
        )
        if partly is not None:
            views = partly.worth_asking(views)
        boxes = seen.boxes_xyxy
        middles = ((boxes[:, :2] + boxes[:, 2:]) / 2).tolist()
        wrong = doubt.per_object(self.min_score)
        shown, scores = _scores(proposed), _scores(seen)
        low = np.where(scores < self.min_score, scores, 0)
        units = []
        for view in views:
            inside = np.array([view.tile.owns(y, x) for x, y in middles], np.bool_)
            top, left, bottom, right = view.tile.core
            share = (bottom - top) * (right - left) / (image.size_hw[0] * image.size_hw[1])
            work = self._work(
                shown[view.shown[view.shown >= known]].astype(np.float64),
                float(low[inside].sum()),
                unmatched=share * float(doubt.unmatched.sum()),
                labels=int((view.shown < known).sum()),
                share=share,
                outline_px=doubt.outline_px,
            )
            units.append(
                Unit(
                    image=image,
                    view=view,
                    work=work,
                    minutes=self._effort.predict(work),
                    shown=len(view.shown),
                    doubt=float(wrong[inside].sum() + share * doubt.unmatched.sum()),
                )
            )
        return units

    def _shown(self, image: ImageRecord, seen: Instances) -> tuple[Instances, int]:
        """What is shown of an image, and how many of it, the first, are labels already."""
        proposed = seen.above(self.min_score)
        if image.id not in self._partly:
            return proposed, 0
        field = self._partly[image.id]
        return field.together(proposed), len(field.known)

    def _work(
        self,
        shown: Floats,
        unshown: float,
        *,
        unmatched: float,
        outline_px: float | None,
        labels: int = 0,
        share: float = 1.0,
    ) -> Work:
        """What a person is expected to do in a task.

        Args:
            shown: Scores of the model's objects that it shows, whole or in part.
            unshown: As in ``EditRates.expect_task``.
            unmatched: Likewise.
            outline_px: Likewise.
            labels: Likewise.
            share: Of the image's area, that is the task's own.
        """
        if self._loaded is None:
            return Work(objects=float(labels), edits={"added": share * self._drawn})
        return self._rates.expect_task(
            shown, unshown, unmatched=unmatched, labels=labels, outline_px=outline_px
        )

    def _predicted(self, images: Sequence[ImageRecord]) -> list[Instances]:
        if self._loaded is None:
            nothing = np.zeros(0, np.float32)
            return [Instances(size_hw=image.size_hw, scores=nothing) for image in images]
        classes = self._project.config.classes
        seen = predict_known_images(self._project, self._loaded, images, self._progress)
        return [to_project_classes(found, self._loaded.classes, classes) for found in seen]


def _scores(instances: Instances) -> npt.NDArray[np.float32]:
    assert instances.scores is not None  # a model saw them, or they are labels shown beside its objects
    return instances.scores


def _for_the_ledger(pick: Pick, unit: Unit) -> dict[str, Any]:
    return {"arm": pick.arm, "why": pick.why, "minutes": unit.minutes.as_dict()}
