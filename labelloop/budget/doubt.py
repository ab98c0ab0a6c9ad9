"""Doubt: how unsure a model is of what it sees in an image, object by object.

A model that was trained on few labels is sure of many things that are wrong, but it seldom errs twice in the
same way: what the supervised model of the same run says of the image, and what the model itself says of the
image turned round, agree where it is right. Each object is certain as its score times how well the others
agree with its mask (after Blok et al. 2022, arXiv 2112.06586, equation 4: semantic, spatial and occurrence
certainty of Mask R-CNN multiplied). Both are computed once per model and image and kept in the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from labelloop.budget.work import mean_outline_px
from labelloop.errors import ImageError
from labelloop.evaluating import predict_readable_images
from labelloop.formats.rle import counts_to_runs, runs_to_counts
from labelloop.instances import Instances
from labelloop.progress import Progress, stage
from labelloop.project.project import ImageRecord, Project
from labelloop.project.recorded import read_recorded
from labelloop.project.tables import DoubtRow
from labelloop.runs.loading import LoadedModel, load_model

LIKELY = 0.5  # score of the objects whose outlines tell how long drawing takes
SAME_OBJECT_IOU = 0.5  # an object of another look without such a partner is one that this look misses
STORE_EVERY = 16  # images; what an interruption may cost
DIGITS = 4

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageDoubt:
    """What is known of a model's doubt of one image.

    Attributes:
        scores: float64 (n,), of the model's n detections, 0.05 and up, best first.
        agreement: float64 (n,), mean over the other looks of the best IoU with one of their objects, 0..1.
        unmatched: float64 (m,), for each object that only another look sees: its score times how little the
            model's own objects cover it, divided by the number of other looks.
        outline_px: Mean length of the outlines of the model's likelier objects; None where it sees none.
    """

    scores: Floats
    agreement: Floats
    unmatched: Floats
    outline_px: float | None

    def shown(self, min_score: float) -> int:
        """How many objects are shown to a person at this score threshold."""
        return int((self.scores >= min_score).sum())

    def unshown(self, min_score: float) -> float:
        """The sum of the scores of those that are not shown."""
        return float(self.scores[self.scores < min_score].sum())

    def per_object(self, min_score: float) -> Floats:
        """float64 (n,), 0..1: the chance that showing (or not showing) each detection is wrong."""
        shown = self.scores >= min_score
        return np.where(shown, 1 - self.scores * self.agreement, self.scores * self.agreement)

    def total(self, min_score: float) -> float:
        """The decisions in this image that are expected to be wrong."""
        return float(self.per_object(min_score).sum() + self.unmatched.sum())


def image_doubt(predicted: Instances, others: Sequence[Instances]) -> ImageDoubt:
    """Compares what a model sees with what other looks at the same image see.

    Args:
        predicted: n objects with scores.
        others: What other looks saw; without any, every object agrees with itself.
    """
    scores = np.zeros(0) if predicted.scores is None else predicted.scores.astype(np.float64)
    agreement = np.ones((max(len(others), 1), len(predicted)))
    unmatched: list[Floats] = [np.zeros(0)]
    for k, other in enumerate(others):
        iou = predicted.iou(other)
        agreement[k] = iou.max(axis=1) if len(other) else 0.0
        best = iou.max(axis=0) if len(predicted) else np.zeros(len(other))
        lone = best < SAME_OBJECT_IOU
        other_scores = np.ones(len(other)) if other.scores is None else other.scores.astype(np.float64)
        unmatched.append(other_scores[lone] * (1 - best[lone]) / len(others))
    likely = predicted.above(LIKELY) if bool((scores >= LIKELY).any()) else predicted
    return ImageDoubt(
        scores=scores,
        agreement=agreement.mean(axis=0),
        unmatched=np.concatenate(unmatched),
        outline_px=mean_outline_px(likely),
    )


def turn_round(instances: Instances) -> Instances:
    """The objects in the image turned by 180 degrees: their run lengths backwards."""
    height, width = instances.size_hw
    rles = []
    for counts in instances.rles:
        runs = counts_to_runs(counts)
        if len(runs) % 2 == 0:  # it ends with ones, so the turned mask begins with them
            runs = np.append(runs, 0)
        rles.append(runs_to_counts(runs[::-1], (height, width)))
    return replace(instances, rles=tuple(rles))


def doubts_of(
    project: Project,
    loaded: LoadedModel,
    images: Sequence[ImageRecord],
    *,
    twice: bool = True,
    progress: Progress,
) -> dict[int, ImageDoubt]:
    """The doubt of a run's model about images, by image id; what was computed before is from the ledger.

    An image that has to be looked at and cannot be read is not in it.

    It reports itself as the stages ``evaluating ...`` (predictions) and ``looking twice``.

    Args:
        project: Whose ledger.
        loaded: The model that will propose.
        images: Which.
        twice: Without it one look is enough, and an object's agreement is 1 where no other look is known.
        progress: Where progress is reported.
    """
    known = known_doubts(project, loaded.run, loaded.which, twice=twice)
    missing = [image for image in images if image.id not in known]
    if missing:
        models = [loaded, *(_other_models(project, loaded) if twice else [])]
        seen = [predict_readable_images(project, model, missing, progress) for model in models]
        with stage(progress, "looking twice", len(missing)):
            for start in range(0, len(missing), STORE_EVERY):
                fresh = {}
                for image in missing[start : start + STORE_EVERY]:
                    looks = [look[image.id] for look in seen if image.id in look]
                    with suppress(ImageError):
                        turned = [_turned(loaded, image)] if twice else []
                        if len(looks) == len(seen):
                            fresh[image.id] = _to_json(image_doubt(looks[0], [*looks[1:], *turned]), twice)
                    progress.advance()
                _store(project, loaded, fresh)
                known |= {image_id: _from_json(stored) for image_id, stored in fresh.items()}
    return {image.id: known[image.id] for image in images if image.id in known}


def _turned(loaded: LoadedModel, image: ImageRecord) -> Instances:
    """What the model sees in the image turned round, turned back.

    Raises:
        ImageError: It cannot be read.
    """
    from labelloop.predict.field import predict_array  # which loads torch

    pixels = read_recorded(image).pixels
    turned = np.ascontiguousarray(pixels[::-1, ::-1])
    return turn_round(predict_array(loaded.model, turned, stats=loaded.stats))


def _other_models(project: Project, loaded: LoadedModel) -> list[LoadedModel]:
    """The supervised model beside a guided one."""
    if loaded.which != "guided":
        return []
    device = next(loaded.model.module().parameters()).device
    return [load_model(project, loaded.run, which="supervised", device=str(device))]


def known_doubts(project: Project, run: str, which: str, *, twice: bool) -> dict[int, ImageDoubt]:
    """What the ledger has of ``doubts_of``, by image id.

    Args:
        project: Whose ledger.
        run: Whose model.
        which: Guided or supervised.
        twice: Only of images that it looked at more than once.
    """
    statement = select(DoubtRow.image_id, DoubtRow.doubts).where(DoubtRow.run == run, DoubtRow.which == which)
    with project.ledger.read() as session:
        return {
            image_id: _from_json(stored)
            for image_id, stored in session.execute(statement)
            if stored.get("twice", True) or not twice
        }


def _store(project: Project, loaded: LoadedModel, fresh: dict[int, dict[str, Any]]) -> None:
    with project.ledger.write() as session:
        for image_id, doubt in fresh.items():
            session.merge(DoubtRow(run=loaded.run, which=loaded.which, image_id=image_id, doubts=doubt))


def _to_json(doubt: ImageDoubt, twice: bool) -> dict[str, Any]:
    fields = {"scores": doubt.scores, "agreement": doubt.agreement, "unmatched": doubt.unmatched}
    outline = None if doubt.outline_px is None else round(doubt.outline_px, 1)
    numbers = {name: np.round(values, DIGITS).tolist() for name, values in fields.items()}
    return {**numbers, "outline": outline, "twice": twice}


def _from_json(stored: dict[str, Any]) -> ImageDoubt:
    columns = {name: np.asarray(stored[name], np.float64) for name in ("scores", "agreement", "unmatched")}
    return ImageDoubt(**columns, outline_px=stored["outline"])
