"""Where data sets keep the images of their labels: in a folder of another name."""

from __future__ import annotations

import os
from pathlib import Path

_IMAGES = frozenset(("images", "image", "imgs", "img", "raw"))
_LABELS = frozenset(("masks", "mask", "labels", "label", "gt"))


def sibling_folder(path: Path, names: dict[str, str]) -> Path | None:
    """The folder that has another name in the place of the last one which is in ``names``, if it is there.

    With ``{"labels": "images"}``, ``set/labels/train`` becomes ``set/images/train``.

    Args:
        path: A folder of labels, or a file in one.
        names: The folder of the images by the folder of the labels.
    """
    folder = path if path.is_dir() else path.parent
    parts = folder.parts
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] in names:
            found = Path(*parts[:place], names[parts[place]], *parts[place + 1 :])
            return found if found.is_dir() else None
    return None


def images_and_labels(folder: Path) -> tuple[Path, list[Path]] | None:
    """The folder of images and those of labels in a folder that has both, as ``images`` and ``masks``.

    Args:
        folder: What they lie in.
    """
    with os.scandir(folder) as entries:  # it knows of most files what they are without another look
        inside = sorted(Path(entry.path) for entry in entries if entry.is_dir())
    images = [child for child in inside if child.name.lower() in _IMAGES]
    labels = [child for child in inside if child.name.lower() in _LABELS]
    return (images[0], labels) if len(images) == 1 and labels else None


def images_of_labels(folder: Path) -> Path | None:
    """The folder of the images whose labels a folder holds, as ``images_and_labels`` of the one above says.

    Args:
        folder: It need not hold labels, nor be a folder.
    """
    if folder.name.lower() not in _LABELS:
        return None
    try:
        paired = images_and_labels(folder.parent)
    except OSError:  # the one above may be entered, but not listed
        return None
    return paired[0] if paired is not None and folder in paired[1] else None
