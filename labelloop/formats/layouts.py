"""Where published data sets keep the images of their labels: in a folder of another name."""

from __future__ import annotations

from pathlib import Path


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
