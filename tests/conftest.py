"""What every test needs: few threads, versions in the header, a listener, published data sets in small."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from labelloop.progress import Silent

# Read by the OpenMP runtime when torch loads it, and by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("MPLBACKEND", "Agg")

SHOWN = ("torch", "torchvision", "timm", "numpy", "lightning-fabric", "SQLAlchemy", "pycocotools", "typer")


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)
    # How long an example takes says how busy the machine is, not whether the code is right.
    settings.register_profile("labelloop", deadline=None)
    settings.load_profile("labelloop")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What is made once is made in one process: a file's tests stay together, and all that share a server."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.rpartition("/")[0]
            return folder if folder.endswith("label_studio") else file

    return Together(config, log)


def pytest_report_header() -> list[str]:
    return [f"{platform.platform()}", ", ".join(f"{name} {version(name)}" for name in SHOWN)]


@pytest.fixture
def lstat_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The paths that were looked at with ``os.lstat``, as what resolves links does."""
    paths: list[Any] = []
    lstat = os.lstat

    def counted(path: Any, **options: Any) -> os.stat_result:
        paths.append(path)
        return lstat(path, **options)

    monkeypatch.setattr(os, "lstat", counted)
    return paths


class Watching(Silent):
    """Keeps what a person who watches is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, message: str) -> None:
        self.told.append(message)


@pytest.fixture
def watching() -> Watching:
    """A progress that keeps what it is told in ``told``."""
    return Watching()


Disc = tuple[np.ndarray, int]  # bool (h, w), and a class index


def _discs(rng: np.random.Generator, size_hw: tuple[int, int], n_classes: int) -> list[Disc]:
    """Four discs that do not touch, one in each quarter of the image."""
    height, width = size_hw
    rows, columns = np.mgrid[:height, :width]
    discs = []
    for quarter in range(4):
        row = height * (1 + 2 * (quarter // 2)) / 4 + rng.integers(-3, 4)
        column = width * (1 + 2 * (quarter % 2)) / 4 + rng.integers(-3, 4)
        radius = min(size_hw) * rng.uniform(0.12, 0.17)
        discs.append(((rows - row) ** 2 + (columns - column) ** 2 <= radius**2, quarter % n_classes))
    return discs


def _picture(rng: np.random.Generator, discs: Sequence[Disc]) -> Image.Image:
    """Noise in which each disc has the brightness of its class."""
    pixels = rng.integers(0, 60, (*discs[0][0].shape, 3))
    for mask, label in discs:
        pixels[mask] += np.array([90 + 60 * label, 140, 180 - 60 * label])
    return Image.fromarray(pixels.astype(np.uint8))


def _save(path: Path, image: Image.Image | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def _cityscapes(root: Path, parts: dict[str, list[list[Disc]]], rng: np.random.Generator) -> None:
    for split, frames in parts.items():
        city = {"train": "aachen", "test": "frankfurt"}[split]
        folder = {"train": "train", "test": "val"}[split]
        for number, discs in enumerate(frames):
            ids = np.full(discs[0][0].shape, 7, np.uint16)  # road
            ids[-4:] = 1  # ego vehicle
            for place, (mask, label) in enumerate(discs):
                ids[mask] = (24, 26)[label] * 1000 + place
            frame = f"{folder}/{city}/{city}_{number:06}_000019"
            _save(root / "gtFine" / f"{frame}_gtFine_instanceIds.png", ids)
            _save(root / "leftImg8bit" / f"{frame}_leftImg8bit.png", _picture(rng, discs))


def _coco_file(path: Path, frames: list[list[Disc]], names: Sequence[str], classes: Sequence[str]) -> None:
    from labelloop.formats.coco import coco_dataset
    from labelloop.instances import Instances

    instances = [Instances.from_dense(np.stack([m for m, _ in f]), [c for _, c in f]) for f in frames]
    sizes = [discs[0][0].shape for discs in frames]
    document = coco_dataset(list(zip(names, sizes, strict=True)), instances, classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def _coco(root: Path, parts: dict[str, list[list[Disc]]], rng: np.random.Generator) -> None:
    for split, frames in parts.items():
        folder = {"train": "train2017", "test": "val2017"}[split]
        names = [f"{9 + 16 * number:012}.jpg" for number in range(len(frames))]
        for name, discs in zip(names, frames, strict=True):
            _save(root / folder / name, _picture(rng, discs))
        _coco_file(root / "annotations" / f"instances_{folder}.json", frames, names, ("person", "car"))


def _ade20k(root: Path, parts: dict[str, list[list[Disc]]], rng: np.random.Generator) -> None:
    for split, frames in parts.items():
        folder, word = {"train": ("training", "train"), "test": ("validation", "val")}[split]
        for number, discs in enumerate(frames, start=1):
            labels = np.zeros((*discs[0][0].shape, 3), np.uint8)
            for place, (mask, label) in enumerate(discs, start=1):
                labels[mask] = ((4, 9)[label], place, 0)
            name = f"{folder}/ADE_{word}_{number:08}"
            _save(root / "annotations_instance" / f"{name}.png", labels)
            _save(root / "images" / f"{name}.jpg", _picture(rng, discs))


def _orgasegment(root: Path, parts: dict[str, list[list[Disc]]], rng: np.random.Generator) -> None:
    for split, frames in parts.items():
        folder = {"train": "train", "val": "val", "test": "eval"}[split]
        for number, discs in enumerate(frames):
            labels = np.zeros(discs[0][0].shape, np.uint8)
            for place, (mask, _) in enumerate(discs, start=1):
                labels[mask] = place
            _save(root / folder / f"{number}_masks_organoid.png", labels)
            _save(root / folder / f"{number}_img.jpg", _picture(rng, discs))


def _m_orgaquant(root: Path, parts: dict[str, list[list[Disc]]], rng: np.random.Generator) -> None:
    for split, frames in parts.items():
        subset = {"train": "2_450x450", "val": "3_450x450", "test": "1_450x450"}[split]
        names = [f"Subset_{subset}_{number:03}.jpg" for number in range(len(frames))]
        if split == "train":
            names[-1] = "Subset_1_300x300_001.jpg"
        for name, discs in zip(names, frames, strict=True):
            _save(root / split / name, _picture(rng, discs))
        _coco_file(root / "annotations" / f"instances_{split}.json", frames, names, ("organoids",))


# How each is written, its classes, and whether it has images for validation.
_MINIATURES: dict[str, tuple[Any, int, bool]] = {
    "cityscapes": (_cityscapes, 2, False),
    "coco": (_coco, 2, False),
    "ade20k": (_ade20k, 2, False),
    "orgasegment": (_orgasegment, 1, True),
    "m-orgaquant": (_m_orgaquant, 1, True),
}


@pytest.fixture(scope="session")
def miniature() -> Callable[..., list[list[Disc]]]:
    """Writes made images in the exact layout of a data set; returns the discs of those for training."""

    def write(
        name: str, root: Path, *, train: int = 5, test: int = 2, size_hw: tuple[int, int] = (64, 96)
    ) -> list[list[Disc]]:
        writer, n_classes, has_val = _MINIATURES[name]
        rng = np.random.default_rng(0)
        counts = {"train": train, "val": 2 * has_val, "test": test}
        parts = {part: [_discs(rng, size_hw, n_classes) for _ in range(n)] for part, n in counts.items() if n}
        writer(root, parts, rng)
        return parts["train"]

    return write
