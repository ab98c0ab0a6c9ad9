"""``check --labels``: the suspects of a project, with the names and places that a person needs."""

from __future__ import annotations

from typing import Any

from labelloop.label_errors.find import find_label_errors
from labelloop.label_errors.out_of_fold import OutOfFold, OutOfFoldSettings, out_of_fold
from labelloop.label_errors.suspects import Suspect
from labelloop.progress import Progress
from labelloop.project.project import Project


def suspects_of(
    project: Project, progress: Progress, *, settings: OutOfFoldSettings | None = None
) -> list[dict[str, Any]]:
    """Every labelled object, and every place where one may be missed, the most suspicious first.

    Args:
        project: Whose labelled training images.
        progress: Where progress is reported.
        settings: How the models are trained that say so.

    Returns:
        For each what ``Suspect.as_dict`` gives, with ``file_name``, ``image_id`` and ``at_xy``, the middle of
        the object's box in px.

    Raises:
        ProjectError: Fewer than two images, or groups, have labels.
    """
    seen = out_of_fold(project, settings, progress)
    found = find_label_errors(seen.truth, seen.predicted, n_classes=len(project.config.classes))
    return [_named(suspect, seen) for suspect in found]


def _named(suspect: Suspect, seen: OutOfFold) -> dict[str, Any]:
    image = seen.images[suspect.image]
    if suspect.labels:
        box = seen.truth[suspect.image].boxes_xyxy[suspect.labels[0]]
    else:
        box = seen.predicted[suspect.image].boxes_xyxy[suspect.predictions[0]]
    left, top, right, bottom = box.tolist()
    named = {"file_name": image.file_name, "image_id": image.id}
    return {**suspect.as_dict(), **named, "at_xy": [(left + right) / 2, (top + bottom) / 2]}
