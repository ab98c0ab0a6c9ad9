"""What models see in the labelled images of a project that they have not learnt: k folds, k trainings.

Each fold of the labelled training images is predicted by a supervised model of the others. Checkpoints and
predictions lie in the project's cache, under a digest of all that they depend on: an interruption costs the
steps since the last checkpoint, and asking again trains only what labels or settings have changed. No model
here is a run of the project.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from labelloop.data.folds import cut_folds
from labelloop.distill.recipe import find_recipe
from labelloop.distill.small_trainer import SmallTraining, predictions_of, small_trainer
from labelloop.distill.trainer import Trainer
from labelloop.instances import Instances
from labelloop.locks import wait_for_lock
from labelloop.progress import OneOfMany, Progress, Silent, stage
from labelloop.project.ledger import decode_instances, encode_instances
from labelloop.project.project import ImageRecord, Project
from labelloop.runs.files import RunFiles, write_whole


@dataclass(frozen=True, kw_only=True)
class OutOfFoldSettings:
    """How out-of-fold predictions are made.

    Attributes:
        folds: Parts that the labelled images are cut into; at most as many as there are images or groups.
        model: A name of ``list_models``.
        steps: Of each training.
        seed: Of the folds and the trainings.
        device: auto, cpu or cuda.
    """

    folds: int = 5
    model: str = "mask-rcnn-lite"
    steps: int = 1000
    seed: int = 0
    device: str = "auto"


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFold:
    """The labelled training images with what models say of them that have not learnt them.

    Attributes:
        images: In the order of the ledger.
        truth: Their newest labels.
        predicted: All detections of each, scored 0.05 or more.
    """

    images: tuple[ImageRecord, ...]
    truth: tuple[Instances, ...]
    predicted: tuple[Instances, ...]


def out_of_fold(
    project: Project, settings: OutOfFoldSettings | None = None, progress: Progress | None = None
) -> OutOfFold:
    """Predicts every labelled image of the train split by a model that has not learnt it.

    Args:
        project: Whose labels; validation and test images are not touched.
        settings: How; the defaults if None.
        progress: Where progress is reported: one stage over the steps of all trainings, one over the images.

    Raises:
        ProjectError: Fewer than two images, or groups, have labels.
        TrainingError: Training cannot go on.
        ImageError: An image is gone or cannot be read.
    """
    settings, progress = settings or OutOfFoldSettings(), progress or Silent()
    images = project.images(split="train", labelled=True)
    labels = project.labels([image.id for image in images])
    cuts = cut_folds(images, settings.folds, seed=settings.seed)
    folds = [_Fold.of(project, images, held, labels, settings) for held in cuts]
    if any(fold.missing() for fold in folds):
        root = project.cache_dir / "out-of-fold"
        root.mkdir(parents=True, exist_ok=True)
        with (root / ".lock").open("w") as lock:
            wait_for_lock(lock, progress, "waiting for another check of this project")
            unseen = [fold for fold in folds if fold.missing()]  # the other one may have seen some, or all
            if unseen:
                _see(project, unseen, labels, settings, progress)
    seen = {image.id: fold.seen(image) for fold in folds for image in fold.held}
    return OutOfFold(
        images=tuple(images),
        truth=tuple(labels[image.id] for image in images),
        predicted=tuple(seen[image.id] for image in images),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fold:
    """One fold: the images it holds out, those that are learnt, and where its files lie."""

    held: tuple[ImageRecord, ...]
    learnt: tuple[ImageRecord, ...]
    folder: Path

    @classmethod
    def of(
        cls,
        project: Project,
        images: Sequence[ImageRecord],
        held: Sequence[ImageRecord],
        labels: Mapping[int, Instances],
        settings: OutOfFoldSettings,
    ) -> _Fold:
        """The labels of held images are not part of the digest: the model does not know them."""
        ids = {image.id for image in held}
        learnt = tuple(image for image in images if image.id not in ids)
        document = {
            "learnt": sorted(f"{_name(i)}/{_digest(encode_instances(labels[i.id]))}" for i in learnt),
            "settings": {key: value for key, value in asdict(settings).items() if key != "folds"},
            "recipe": find_recipe(None).as_dict(),
            "classes": project.config.classes,
        }
        key = _digest(json.dumps(document, sort_keys=True).encode())
        return cls(held=tuple(held), learnt=learnt, folder=project.cache_dir / "out-of-fold" / key[:16])

    def path(self, image: ImageRecord) -> Path:
        """Where what is seen in an image lies."""
        return self.folder / "seen" / f"{_name(image)}.instances"

    def missing(self) -> list[ImageRecord]:
        """Held images that nothing is known of yet."""
        return [image for image in self.held if not self.path(image).exists()]

    def seen(self, image: ImageRecord) -> Instances:
        """What the model of this fold sees in a held image."""
        return decode_instances(self.path(image).read_bytes())


def _see(
    project: Project,
    unseen: Sequence[_Fold],
    labels: Mapping[int, Instances],
    settings: OutOfFoldSettings,
    progress: Progress,
) -> None:
    """Trains a model for each of the folds, and predicts what they hold out."""
    with stage(progress, "training on the other labels", len(unseen) * settings.steps) as bar:
        for number, fold in enumerate(unseen, 1):
            _train(project, fold, labels, settings, OneOfMany(bar, model=f"{number}/{len(unseen)}"))
    with stage(progress, "predicting labelled images", sum(len(fold.missing()) for fold in unseen)):
        for fold in unseen:
            _predict(project, fold, labels, settings, progress)


def _train(
    project: Project,
    fold: _Fold,
    labels: Mapping[int, Instances],
    settings: OutOfFoldSettings,
    progress: Progress,
) -> None:
    """Trains the fold's model, or goes on with it."""
    fold.folder.mkdir(parents=True, exist_ok=True)
    _trainer(project, fold, labels, settings, progress).run(supervised_only=True)


def _trainer(
    project: Project,
    fold: _Fold,
    labels: Mapping[int, Instances],
    settings: OutOfFoldSettings,
    progress: Progress,
) -> Trainer:
    training = SmallTraining(
        model=settings.model, steps=settings.steps, seed=settings.seed, device=settings.device
    )
    files, classes = RunFiles(folder=fold.folder), project.config.classes
    return small_trainer(fold.learnt, labels, training, classes=classes, files=files, progress=progress)


def _predict(
    project: Project,
    fold: _Fold,
    labels: Mapping[int, Instances],
    settings: OutOfFoldSettings,
    progress: Progress,
) -> None:
    """Predicts the held images that are missing; the model's files are gone afterwards."""
    trainer = _trainer(project, fold, labels, settings, Silent())
    missing = fold.missing()
    for image, seen in zip(missing, predictions_of(trainer, missing), strict=True):
        write_whole(fold.path(image), encode_instances(seen))
        progress.advance()
    for path in _besides_seen(fold.folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _besides_seen(folder: Path) -> Iterator[Path]:
    yield from [path for path in folder.iterdir() if path.name != "seen"]


def _name(image: ImageRecord) -> str:
    return f"{image.sha256}-{image.page}-{image.channel}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
