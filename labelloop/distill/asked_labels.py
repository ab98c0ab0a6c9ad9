"""What ``--labels`` asks for: a share or a number of the labels, or the images that a list names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labelloop.data.label_draw import parse_label_budget
from labelloop.data.label_lists import list_request, listed_images, read_label_list
from labelloop.errors import UsageError
from labelloop.formats.coco import NAME as COCO
from labelloop.plurals import plural
from labelloop.project.project import ImageRecord, Project


@dataclass(frozen=True, kw_only=True)
class AskedLabels:
    """Which labels a run may draw.

    Attributes:
        image_ids: The labelled images to draw from: those of the list, or all.
        budget: How many to draw; None for all of them.
        facts: What the run keeps of a list: ``list_sha256`` and ``notes``.
    """

    image_ids: set[int]
    budget: int | None
    facts: dict[str, Any] = field(default_factory=dict)


def asked_labels(project: Project, text: str, images: Sequence[ImageRecord], *, seed: int) -> AskedLabels:
    """Reads ``--labels``.

    Args:
        project: Holds the images.
        text: ``5%``, ``15``, ``all``, ``FILE`` or ``FILE@5%``.
        images: The train split.
        seed: Which of a list's draws, where it holds several.

    Raises:
        UsageError: It cannot be understood, or the list does not fit the project.
        FormatError: A list counts the images of a COCO file that cannot be read.
    """
    labelled = set(project.newest_label_revisions([image.id for image in images]))
    request = list_request(text)
    if request is None:
        return AskedLabels(image_ids=labelled, budget=parse_label_budget(text, pool=len(images)))
    labels = read_label_list(request, seed=seed, coco_file=lambda: _coco_file(project))
    listed = listed_images(images, labels)
    files = {image.sha256 for image in images if image.id in listed & labelled}
    without = {image.id for image in images if image.id in listed - labelled and image.sha256 not in files}
    if without:
        have = plural(len(listed), "image of the list has", "images of the list have")
        raise UsageError(
            f"{len(without)} of {have} no labels",
            value=request.path,
            way_out="Add their labels, or take them out of the list.",
        )
    facts = {"list_sha256": labels.sha256, "notes": list(labels.notes)}
    return AskedLabels(image_ids=listed & labelled, budget=len(listed & labelled), facts=facts)


def word_for(text: str) -> str:
    """``--labels`` as a part of a run's name: ``5pc``, ``perc_5``, ``COCO_supervision-1pc``."""
    name = text.replace("\\", "/").rpartition("/")[2].replace("%", "pc").replace(".txt", "")
    return re.sub(r"[^\w.+=-]+", "-", name)


def _coco_file(project: Project) -> Path:
    """The one COCO file that labels of the train split came from."""
    sources = (source.partition(":") for source in project.label_sources(split="train"))
    files = [place for name, _, place in sources if name == COCO]
    if len(files) != 1:
        raise UsageError(
            "the list counts the images of one COCO file, but the labels do not come from exactly one",
            value=", ".join(files) or "none",
            way_out="List the names of the images in a text file, one per line.",
        )
    return Path(files[0])
