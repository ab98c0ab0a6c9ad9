"""Supervised models beside a project's runs: what learning curves and out-of-fold predictions are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from labelloop.data.objects import objects_of
from labelloop.data.pool import data_stats
from labelloop.distill.files_there import require_files
from labelloop.distill.recipe import OptimiserConfig, find_recipe
from labelloop.distill.schedule import supervised_schedule
from labelloop.distill.stages import Learner
from labelloop.distill.trainer import Trainer
from labelloop.instances import Instances
from labelloop.models.catalog import training_view_px
from labelloop.models.precision import fabric_precision
from labelloop.predict.field import predict_array
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord
from labelloop.project.recorded import read_recorded
from labelloop.runs.checkpoint import fitting, load_tensors
from labelloop.runs.files import RunFiles
from labelloop.runs.loading import choose_device, restore_model


@dataclass(frozen=True, kw_only=True)
class SmallTraining:
    """How a small model is trained.

    Attributes:
        model: A name of ``list_models``.
        steps: Of the training.
        seed: Of everything random.
        device: auto, cpu or cuda.
        start: Files of a supervised model whose weights it starts from; None for ImageNet's, as every run.
    """

    model: str
    steps: int
    seed: int
    device: str
    start: RunFiles | None = None


def small_trainer(
    images: Sequence[ImageRecord],
    labels: Mapping[int, Instances],
    training: SmallTraining,
    *,
    classes: tuple[str, ...],
    files: RunFiles,
    progress: Progress,
) -> Trainer:
    """A supervised trainer with the default recipe, its views and statistics as ``train`` has them.

    Args:
        images: To learn from.
        labels: Of these images at least, by image id.
        training: How.
        classes: Names; the index is the label.
        files: Where checkpoints and weights go.
        progress: Where progress is reported.

    Raises:
        TrainingError: A file is gone.
        ImageError: A file has changed since it was added.
    """
    require_files(images)
    drawn = [labels[image.id] for image in images]
    crop_px = training_view_px(training.model, data_stats(drawn, classes))
    recipe = find_recipe(None)
    recipe = replace(recipe, geometry=replace(recipe.geometry, crop_px=crop_px))
    device = choose_device(training.device)
    return _Continuing(
        files=files,
        begun=training.start,
        model=training.model,
        stats=data_stats(drawn, classes, geometry=recipe.geometry),
        recipe=recipe,
        schedule=supervised_schedule(recipe, iterations=training.steps, n_labels=len(drawn)),
        seed=training.seed,
        device=device,
        precision=fabric_precision(device),
        labelled={image.id: objects_of(labels[image.id]) for image in images},
        images=images,
        pool=(),
        progress=progress,
    )


def predictions_of(trainer: Trainer, images: Sequence[ImageRecord]) -> Iterator[Instances]:
    """What the supervised model that a trainer has made sees in images, one after the other."""
    model = restore_model(
        trainer.files, "supervised", model=trainer.model, stats=trainer.stats, device=trainer.device
    )
    require_files(images)
    for image in images:
        pixels = read_recorded(image).pixels
        yield predict_array(model, pixels, stats=trainer.stats)


@dataclass
class _Continuing(Trainer):
    """Learns on from weights that are there; without, from ImageNet's."""

    begun: RunFiles | None

    def labels_learner(self, optimiser: OptimiserConfig | None = None) -> Learner:
        """A model as the base left it.

        Raises:
            TrainingError: The weights of the base are missing, damaged, or of another network.
        """
        learner = super().labels_learner(optimiser)
        if self.begun is not None:
            path = self.begun.weights("supervised")
            weights = load_tensors(path, device=self.device)["model"]
            with fitting(path):
                learner.student.module().load_state_dict(weights)
                learner.average.module().load_state_dict(weights)
        return learner
