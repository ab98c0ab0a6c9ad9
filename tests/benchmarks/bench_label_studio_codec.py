"""How long it takes to say masks in Label Studio's words and to read them back.

    python tests/benchmarks/bench_label_studio_codec.py [--tasks 20] [--side 1024]

Two tables, ms per mask on one core: tasks of 30 irregular blobs 20 to 60 px wide, as regions and back, with
the points and the lowest IoU of their polygons; and discs in a 2048 x 2048 image as brush masks and polygons.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from labelloop.instances import Instances
from labelloop.integrations.label_studio.brush import decode_brush, encode_brush
from labelloop.integrations.label_studio.labelling_config import ControlNames
from labelloop.integrations.label_studio.polygons import mask_to_polygon, polygon_to_mask
from labelloop.integrations.label_studio.regions import is_untouched, read_regions, to_regions

OBJECTS = 30
RADII = (20, 60, 400, 900)
CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")
Mask = npt.NDArray[np.bool_]


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    tasks = [_blobs(rng, arguments.side) for _ in range(arguments.tasks)]
    _print_tasks(tasks, arguments.repeats)
    print(
        "\n2048 x 2048, ms   brush enc  brush dec  region enc  region dec  polygon enc  polygon dec  points"
    )
    for radius in RADII:
        _print_disc(radius, arguments.repeats)


def _print_tasks(tasks: list[Instances], repeats: int) -> None:
    keys = [f"object-{i}" for i in range(OBJECTS)]
    results = [to_regions(task, keys, ["cell"], CONTROLS) for task in tasks]
    n = len(tasks) * OBJECTS
    rows: dict[str, Callable[[], object]] = {
        "crop": lambda: [task.crop(i) for task in tasks for i in range(OBJECTS)],
        "polygon": lambda: [mask_to_polygon(task, i) for task in tasks for i in range(OBJECTS)],
        "to regions": lambda: [to_regions(task, keys, ["cell"], CONTROLS) for task in tasks],
        "read regions": lambda: [
            read_regions(result, task.size_hw, ["cell"]) for result, task in zip(results, tasks, strict=True)
        ],
        "is untouched": lambda: [is_untouched(region, region) for result in results for region in result],
        "to JSON": lambda: [json.dumps(result) for result in results],
    }
    print(f"{len(tasks)} tasks of {OBJECTS} objects, ms per mask")
    for name, run in rows.items():
        print(f"  {name:<13}{_ms(run, repeats) / n:8.4f}")
    ious, points = [], []
    for task, result in zip(tasks, results, strict=True):
        for i, region in enumerate(read_regions(result, task.size_hw, ["cell"]).regions):
            read, own = ({"size": list(task.size_hw), "counts": rle} for rle in (region.rle, task.rles[i]))
            ious.append(float(coco_mask.iou([read], [own], [0])[0, 0]))
            points += [len(region.value["points"])] if region.kind == "polygon" else []
    print(f"  {len(points)} of {n} are polygons, of {np.mean(points):.1f} points; "
          f"IoU {np.mean(ious):.4f}, {min(ious):.4f} at the lowest")  # fmt: skip


def _print_disc(radius: int, repeats: int) -> None:
    side = 2048
    rows, columns = np.ogrid[:side, :side]
    mask = (rows - 1000) ** 2 + (columns - 1010) ** 2 <= radius**2
    disc = Instances.from_dense(mask[None])
    ring = Instances.from_dense((mask & ((rows - 1000) ** 2 + (columns - 1010) ** 2 >= 25))[None])
    code = encode_brush(mask)
    regions = to_regions(ring, ["a"], ["cell"], CONTROLS)  # it has a hole: a brush mask
    points = mask_to_polygon(disc, 0)
    assert points is not None
    times = [
        _ms(lambda: encode_brush(mask), repeats),
        _ms(lambda: decode_brush(code, (side, side)), repeats),
        _ms(lambda: to_regions(ring, ["a"], ["cell"], CONTROLS), repeats),
        _ms(lambda: read_regions(regions, (side, side), ["cell"]), repeats),
        _ms(lambda: mask_to_polygon(disc, 0), repeats),
        _ms(lambda: polygon_to_mask(points, (side, side)), repeats),
    ]
    columns_of = "".join(
        f"{ms:{width}.2f}" for ms, width in zip(times, (10, 11, 12, 12, 13, 13), strict=True)
    )
    print(f"  radius {radius:>4}     {columns_of}{len(points):>8}")


def _blobs(rng: np.random.Generator, side: int) -> Instances:
    """Turned ellipses with wavy edges, 20 to 60 px wide."""
    masks = np.stack([_blob(rng, side, rng.uniform(10, 30)) for _ in range(OBJECTS)])
    return Instances.from_dense(masks, None, rng.uniform(0.3, 1, OBJECTS).tolist())


def _blob(rng: np.random.Generator, side: int, radius: float) -> Mask:
    x, y = rng.uniform(0, side, 2)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    along = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    across = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
    angle = np.arctan2(across, along)
    edge = 1 + 0.08 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.04 * np.sin(7 * angle + rng.uniform(0, 6))
    long, short = radius * rng.uniform(0.8, 1.2, 2)
    inside = (along / long) ** 2 + (across / short) ** 2 < edge**2
    inside[int(y) % side, int(x) % side] = True
    return np.asarray(inside)


def _ms(run: Callable[[], object], repeats: int) -> float:
    """Processor time of the fastest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1000 * min(times)


if __name__ == "__main__":
    main()
