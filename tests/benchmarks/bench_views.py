"""What a view for training costs where objects are large: in image pixels, and as the network sees it.

    python tests/benchmarks/bench_views.py [--diameters 52 300 500]

Made fields of 6000 px with discs of a diameter, and `mask-rcnn-lite` as it fits itself to them. For each
diameter one labelled view is made in both ways, in turn, with its strong view, the masks of its objects, and
the network's losses with their gradients: CPU seconds of one thread, and the masks' megabytes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from labelloop.data.objects import SoftObjects
from labelloop.data.view_settings import STRONG, GeometryConfig
from labelloop.data.views import change_photometry, draw_geometry, view_image, view_objects
from labelloop.models.catalog import build_model, training_view_px
from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import InstanceModel, grid_scale, loss_of

MODEL, SIDE_PX, LEAST_VISIBLE = "mask-rcnn-lite", 6000, 0.15


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one view: CPU seconds, and megabytes of masks."""

    view_s: float
    loss_s: float
    masks_mb: float


def field(diameter: int) -> tuple[DataStats, SoftObjects]:
    """A field of discs in rows, and what a model is told of it."""
    stats = DataStats(
        classes=("organoid",),
        image_size_hw=(SIDE_PX, SIDE_PX),
        diameter_px=(0.6 * diameter, float(diameter), 1.4 * diameter),
        box_side_px=(0.66 * diameter, 1.08 * diameter, 1.5 * diameter),
        objects_per_image=(60.0, 100.0),
    )
    y, x = np.mgrid[:diameter, :diameter] - diameter / 2
    disc = np.where(y**2 + x**2 < (diameter / 2) ** 2, 255, 0).astype(np.uint8)
    places = np.arange(50, SIDE_PX - diameter, int(1.6 * diameter))
    offsets = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
    n = len(offsets)
    objects = SoftObjects(
        size_hw=(SIDE_PX, SIDE_PX),
        labels=np.zeros(n, np.int64),
        weights=np.ones(n, np.float32),
        ignore=np.zeros(n, np.bool_),
        crops=(disc,) * n,
        offsets_yx=offsets,
    )
    return stats, objects


def cost(stats: DataStats, objects: SoftObjects, model: InstanceModel, *, scale: float) -> Cost:
    """Makes a view at this scale, and learns from it."""
    config = GeometryConfig(crop_px=training_view_px(MODEL, stats))
    geometry = draw_geometry(np.random.default_rng(0), objects.size_hw, config, scale=scale)
    pixels = np.random.default_rng(1).random((1, *geometry.window[2:]), np.float32).repeat(3, axis=0)

    def make() -> None:
        made.append(view_image(pixels, geometry))
        change_photometry(np.random.default_rng(2), made[0], STRONG)
        made.append(view_objects(objects, geometry, least_visible=LEAST_VISIBLE))

    made: list[Any] = []
    view_s = seconds(make)
    view, target = made

    def learn() -> None:
        torch.stack([*loss_of(model, [view], [target], resized_by=scale).values()]).sum().backward()

    loss_s = seconds(learn)
    return Cost(view_s=view_s, loss_s=loss_s, masks_mb=target.masks.numel() / 2**20)


def seconds(work: Callable[[], None]) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--diameters", type=int, nargs="+", default=[52, 300, 500], help="px")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| objects | view, s | losses and gradients, s | masks, MB |\n|---|---|---|---|")
    for diameter in arguments.diameters:
        stats, objects = field(diameter)
        model = build_model(MODEL, stats, pretrained=False)
        model.module().train()
        cost(stats, objects, model, scale=grid_scale(model))  # the first time costs more
        whole, coarse = (cost(stats, objects, model, scale=scale) for scale in (1.0, grid_scale(model)))
        pairs = [(getattr(whole, name), getattr(coarse, name)) for name in ("view_s", "loss_s", "masks_mb")]
        cells = [f"{before:.2f}, {after:.2f} ({before / after:.0f}x)" for before, after in pairs]
        print(f"| {diameter} px | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
