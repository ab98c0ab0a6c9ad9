"""The images that measure a run, and what its models see in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from labelloop.distill.trainer import Trainer
from labelloop.evaluating import predict_known_images
from labelloop.instances import Instances
from labelloop.plurals import plural
from labelloop.progress import Progress
from labelloop.project.project import ImageRecord, Project, RunRecord
from labelloop.runs.loading import LoadedModel, restore_model
from labelloop.runs.scoring import OUT_OF_FOLD, ScoredImages


def scored_images_of(
    project: Project, config: Mapping[str, Any], progress: Progress | None = None
) -> ScoredImages | None:
    """The run's own images where it has folds; else validation images, else test images, else none.

    An image that the run has learnt, and that was moved to another split since, is none of the latter.

    Args:
        project: Whose images, as they are now.
        config: Of the run.
        progress: Told how many images were left out for that.
    """
    drawn, learnt = set(config["val_images"]), set(config["train_images"])
    own = learnt if config.get("folds") else ()  # older runs have no folds
    choices: list[tuple[str, list[ImageRecord]]] = [
        (OUT_OF_FOLD, [i for i in project.images() if i.id in own]),
        ("val", project.images(split="val", labelled=True)),
        ("val", [i for i in project.images(split="train") if i.id in drawn]),
        ("test", project.images(split="test", labelled=True)),
    ]
    for split, choice in choices:
        images = choice if split == OUT_OF_FOLD else [i for i in choice if i.id not in learnt]
        if progress is not None and len(images) < len(choice):
            left_out = len(choice) - len(images)
            images_do = plural(
                left_out,
                f"{split} image does not measure this run, as it has learnt it",
                f"{split} images do not measure this run, as it has learnt them",
            )
            progress.note(f"note: {images_do}")
        if images:
            labels: dict[int, Instances] = project.labels([i.id for i in images])
            return ScoredImages(
                split=split,
                images=tuple(images),
                truth=tuple(labels[i.id] for i in images),
                pixel_size_um=project.config.pixel_size_um,
            )
    return None


def seen_by_models(
    project: Project,
    record: RunRecord,
    trainer: Trainer,
    images: Sequence[ImageRecord],
    progress: Progress,
    *,
    fold: str = "",
) -> dict[str, list[Instances]]:
    """What each model that a trainer has made sees in images; nothing but in the leading process.

    Args:
        project: Holds the run.
        record: The run.
        trainer: Has run all its stages.
        images: Of the project.
        progress: Told of every image.
        fold: Name of the fold whose models these are; empty for the run's own.
    """
    team = trainer.team
    team.wait()  # until the weights are there
    seen: dict[str, list[Instances]] = {}
    for which in ["supervised"] if record.method == "supervised" else ["supervised", "guided"]:
        seen[which] = []
        if images:
            loaded = LoadedModel(
                network=partial(
                    restore_model,
                    trainer.files,
                    which,
                    model=trainer.model,
                    stats=trainer.stats,
                    device=trainer.device,
                ),
                stats=trainer.stats,
                classes=trainer.stats.classes,
                min_score=0.5,
                run=record.name,
                which=f"{which}/{fold}" if fold else which,
            )
            seen[which] = predict_known_images(project, loaded, images, progress, team=team)
    team.wait()  # the leader has all of it, and the others may end
    return seen
