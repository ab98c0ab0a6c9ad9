"""A pool of 100,000 images is listed, split and sampled in seconds, without opening one of them.

python tests/benchmarks/bench_pool.py --images 100000
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from pathlib import Path

from labelloop.data.label_draw import draw_labels
from labelloop.distill.batches import epoch_order
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow
from labelloop.status import project_status


def main() -> None:
    """Fills a ledger with entries and times what training and status do with them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        project = Project.init(Path(folder) / "p", ProjectConfig(name="pool", classes=("organoid",)))
        rows = [
            {
                "sha256": hashlib.sha256(str(i).encode()).hexdigest(),
                "path": f"/plates/{i // 384}/{i}.tif",
                "file_name": f"{i}.tif",
                "height": 1024,
                "width": 1024,
                "group": f"plate {i // 384}",
            }
            for i in range(count)
        ]
        with timed(f"{count} entries stored"), project.ledger.write() as session:
            session.bulk_insert_mappings(ImageRow, rows)
        with timed("listed"):
            images = project.images(split="train")
        with timed("labels drawn from all, 5 %"):
            draw = draw_labels(
                images, {i.id for i in images}, budget=count // 20, seed=0, validation_share=0.2
            )
        with timed("one step's unlabelled images chosen"):
            epoch_order([i.id for i in draw.pool], seed=0, stage="pool", start=50_000, count=8)
        with timed("status"):
            project_status(project)
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


class timed:
    """Prints how long its block took."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        print(f"{self.what}: {time.perf_counter() - self.begun:.2f} s")


if __name__ == "__main__":
    main()
