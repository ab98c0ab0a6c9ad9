"""Synthetic micrographs as files, with their truth as COCO JSON, as a lab would have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from labelloop.data.synthetic import SyntheticConfig, organoid_micrograph
from labelloop.errors import OutputError
from labelloop.formats.coco import coco_dataset
from labelloop.instances import Instances
from labelloop.progress import Progress, Silent, stage
from labelloop.whole_files import replacing

CLASS_NAME = "organoid"


def write_micrographs(
    folder: Path,
    count: int,
    *,
    seed: int,
    labels: Path | None = None,
    size_hw: tuple[int, int] = (256, 256),
    config: SyntheticConfig | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes micrographs as ``folder``/NAME.png; repeated or continued, it gives the same files.

    Args:
        folder: Made if missing; its name begins the files' names.
        count: How many micrographs.
        seed: Other seeds give other micrographs.
        labels: COCO JSON to write the truth into, if any; written last.
        size_hw: Height and width of a micrograph, px.
        config: How hard they are.
        progress: Told of each micrograph.

    Raises:
        OutputError: A file cannot be written.
    """
    truths: list[tuple[str, Instances]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with stage(progress or Silent(), f"drawing {folder.name} micrographs", count) as shown:
            for i in range(count):
                pixels, truth = organoid_micrograph(
                    np.random.default_rng([seed, i]), size_hw=size_hw, config=config
                )
                path = folder / f"{folder.name}-{i + 1:03}.png"
                if not path.exists():
                    with replacing(path) as partial:
                        Image.fromarray(pixels).save(partial, format="PNG")
                truths.append((path.name, truth))
                shown.advance()
        if labels is not None:
            images = [(name, truth.size_hw) for name, truth in truths]
            document = coco_dataset(images, [truth for _, truth in truths], (CLASS_NAME,))
            with replacing(labels) as partial:
                partial.write_text(json.dumps(document), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the micrographs cannot be written ({error.strerror or error})",
            value=folder,
            way_out="Choose a folder that can be written, on a disk with free space.",
        ) from error
