"""OrgaSegment (doi 10.1038/s42003-024-05966-4): ``<id>_img.jpg`` and ``<id>_masks_organoid.png``.

The masks are label images, so no object overlaps another; the one class is called after the files.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from labelloop.errors import FormatError
from labelloop.formats.label_image import image_files, read_label_files
from labelloop.formats.records import LabelSet

NAME = "orgasegment"
CLASSES = ("organoid",)

_ENDING = "_masks_organoid.png"


def read_orgasegment(path: Path) -> LabelSet:
    """Reads all masks of organoids under a folder (``train``, ``val`` or ``eval``), or one file of them.

    Raises:
        FormatError: There are none.
    """
    files = [path] if path.is_file() else [file for file in image_files(path) if file.name.endswith(_ENDING)]
    if not files:
        raise FormatError("there are no masks of OrgaSegment", value=path, way_out=f"They end in {_ENDING}.")
    root = path if path.is_dir() else path.parent
    labels = read_label_files({file: file.relative_to(root).as_posix() for file in files})
    return replace(labels, format=NAME, classes=CLASSES)
