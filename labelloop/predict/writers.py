"""What predictions become: COCO JSON, label TIFFs, overlay PNGs. Each file appears whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from labelloop.errors import OutputError
from labelloop.formats.coco import coco_annotations
from labelloop.images import render_8bit
from labelloop.instances import Instances
from labelloop.models.protocol import Prediction, to_instances
from labelloop.overlays import draw_overlay
from labelloop.whole_files import replacing

FORMATS = ("coco", "label-tiff", "overlay")
PREDICTIONS_NAME = "predictions.json"
OVERLAY_SIDE_PX = 4096  # larger images are drawn smaller, by a whole factor

_UINT16_OBJECTS = 65535


@contextmanager
def written_to(path: Path) -> Iterator[Path]:
    """A file to write in place of ``path``; it takes its name when the block ends well, else it goes.

    Raises:
        OutputError: The disk is full, the folder cannot be written, or the like.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            yield partial
    except OSError as error:
        raise output_error(path, error) from error


def output_error(path: Path, error: OSError) -> OutputError:
    """What a failed write means to a person."""
    return OutputError(
        f"the result cannot be written ({error.strerror or error})",
        value=path,
        way_out="Make room or choose another --out, and run the same command again; it continues from here.",
    )


def write_coco(
    path: Path,
    images: Sequence[tuple[str, tuple[int, int]]],
    found: Callable[[int], Instances],
    *,
    classes: Sequence[str],
    info: dict[str, Any],
) -> bool:
    """Writes a COCO data set of predictions, one image at a time, so that any number of images fits.

    Args:
        path: The JSON file.
        images: File name, and height and width, px, of each image.
        found: Gives what was predicted in the i-th image.
        classes: Class names; the category id is the class index plus 1.
        info: COCO's ``info``.

    Returns:
        Whether the file is new or changed; one that would be the same is left alone.
    """
    with written_to(path) as partial:
        with partial.open("w", encoding="utf-8") as file:
            _write_coco(file, images, found, classes, info)
        if not _same_content(partial, path):
            return True
        os.utime(partial, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        return False


def write_label_tiff(
    path: Path, instances: Instances, *, min_score: float, pixel_size_um: float | None = None
) -> None:
    """Writes a label image: 0 is background, k is the k-th of the objects scored ``min_score`` or more.

    Where objects overlap the pixel goes to the higher score; that they overlap is lost here, and only here.
    An object that others cover wholly leaves no pixel, and its number is missing. uint16, or uint32 from
    65,536 objects on; zlib-compressed.

    Args:
        path: The TIFF file.
        instances: Best score first.
        min_score: Objects scored lower are left out.
        pixel_size_um: Written as the resolution where known, µm.
    """
    resolution: dict[str, Any] = {}
    if pixel_size_um is not None:
        per_cm = 1e4 / pixel_size_um
        resolution = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    with written_to(path) as partial:
        tifffile.imwrite(
            partial,
            label_image(instances.above(min_score)),
            compression="zlib",
            photometric="minisblack",
            metadata=None,
            **resolution,
        )


def label_image(instances: Instances) -> npt.NDArray[np.uint16] | npt.NDArray[np.uint32]:
    """(h, w), 0 or the number of the object from 1; where objects overlap, the first of them."""
    dtype = np.uint16 if len(instances) <= _UINT16_OBJECTS else np.uint32
    labels = np.zeros(instances.size_hw, dtype)
    for i in reversed(range(len(instances))):
        inside, top, left = instances.crop(i)
        labels[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = i + 1
    return labels


def write_overlay(path: Path, pixels: npt.NDArray[Any], instances: Instances, *, min_score: float) -> None:
    """Draws the objects scored ``min_score`` or more over the 8-bit render, as PNG.

    Args:
        path: The PNG file.
        pixels: (h, w) or (h, w, 3), in the file's own type.
        instances: The objects of this image.
        min_score: Objects scored lower are not drawn.
    """
    step = -(-max(instances.size_hw) // OVERLAY_SIDE_PX)
    shown = instances.above(min_score)
    drawn = draw_overlay(
        render_8bit(np.ascontiguousarray(pixels[::step, ::step])), _every(shown, step), show_count=True
    )
    with written_to(path) as partial:
        Image.fromarray(drawn).save(partial, format="PNG", compress_level=3)


def _every(instances: Instances, step: int) -> Instances:
    """The objects on every ``step``-th pixel; what falls between the pixels stays as one pixel."""
    if step == 1:
        return instances
    height, width = (-(-side // step) for side in instances.size_hw)
    crops: list[npt.NDArray[np.uint8]] = []
    offsets: list[tuple[int, int]] = []
    for i in range(len(instances)):
        inside, top, left = instances.crop(i)
        small = inside[-top % step :: step, -left % step :: step]
        y, x = -(-top // step), -(-left // step)
        if not small.any():
            small, y, x = np.ones((1, 1), np.bool_), min(y, height - 1), min(x, width - 1)
        crops.append(small.astype(np.uint8) * 255)
        offsets.append((y, x))
    n = len(crops)
    return to_instances(
        Prediction(
            size_hw=(height, width),
            labels=instances.labels,
            scores=np.ones(n, np.float32) if instances.scores is None else instances.scores,
            quality=np.ones(n, np.float32),
            crops=tuple(crops),
            offsets_yx=np.asarray(offsets, np.int64).reshape(n, 2),
        )
    )


def _write_coco(
    file: IO[str],
    images: Sequence[tuple[str, tuple[int, int]]],
    found: Callable[[int], Instances],
    classes: Sequence[str],
    info: dict[str, Any],
) -> None:
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    file.write(f'{{"info": {_json(info)},\n"categories": {_json(categories)},\n"images": [')
    for i, (name, (height, width)) in enumerate(images):
        record = {"id": i + 1, "file_name": name, "width": width, "height": height}
        file.write((",\n" if i else "\n") + _json(record))
    file.write('],\n"annotations": [')
    written = 0
    for i in range(len(images)):
        for record in coco_annotations(found(i), image_id=i + 1, first_id=written + 1):
            file.write((",\n" if written else "\n") + _json(record))
            written += 1
    file.write("]}\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _same_content(a: Path, b: Path) -> bool:
    if not b.is_file() or a.stat().st_size != b.stat().st_size:
        return False
    with a.open("rb") as file_a, b.open("rb") as file_b:
        while chunk := file_a.read(1 << 20):
            if chunk != file_b.read(1 << 20):
                return False
    return True
