"""Synthetic micrographs as files, with their truth as COCO JSON, as a lab would have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labelloop.data.synthetic import SyntheticConfig, organoid_micrograph
from labelloop.errors import OutputError
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
            with replacing(labels) as partial:
                partial.write_text(json.dumps(coco_document(truths)), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"the micrographs cannot be written ({error.strerror or error})",
            value=folder,
            way_out="Choose a folder that can be written, on a disk with free space.",
        ) from error


def coco_document(truths: list[tuple[str, Instances]]) -> dict[str, Any]:
    """COCO JSON with compressed run lengths of images of one class.

    Args:
        truths: File name and objects of each image.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, truth) in enumerate(truths, 1):
        height, width = truth.size_hw
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for counts, area, box in zip(truth.rles, truth.areas, truth.boxes_xywh, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "segmentation": {"size": [height, width], "counts": counts.decode("ascii")},
                    "area": int(area),
                    "bbox": box.tolist(),
                    "iscrowd": 0,
                }
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": CLASS_NAME}]}
