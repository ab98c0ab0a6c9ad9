"""Reads images ahead of the model, in threads: content key, pixels, normalised tensor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from labelloop.errors import ImageError
from labelloop.formats.records import SkippedFile
from labelloop.images import Micrograph, black_and_white, normalise, read_image
from labelloop.models.data_stats import DataStats
from labelloop.predict.field import BATCH_IMAGES
from labelloop.predict.items import PredictItem
from labelloop.predict.store import FileStamp, PredictionStore, image_key
from labelloop.predict.tiles import TileLayout, plan_tiles
from labelloop.project.recorded import file_sha256

AHEAD_PX = 8_000_000  # of images read ahead, and of images waiting to be written
AHEAD_IMAGES = 2 * BATCH_IMAGES


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where the files of an image go and what they are made from.

    Attributes:
        out: The output folder.
        formats: As asked for.
        min_score: What the files are cut at.
        model: Key of the model.
    """

    out: Path
    formats: tuple[str, ...]
    min_score: float
    model: str

    def of(self, stem: str) -> dict[str, Path]:
        """The files of one image, by format."""
        places = {
            "label-tiff": self.out / "label-tiff" / f"{stem}.tif",
            "overlay": self.out / "overlay" / f"{stem}.png",
        }
        return {name: places[name] for name in self.formats if name in places}

    def made_from(self, key: str) -> str:
        """What decides the content of an image's files."""
        return f"{self.model} {key} {self.min_score}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadImage:
    """What a reader found out about one item.

    Attributes:
        index: Of the item.
        item: The item.
        file: Path, stamp and SHA-256 of the file.
        key: Of the image in the store.
        missing: The files that are still to be written, by format.
        micrograph: The pixels, or None where nothing is left to do with them.
        tensor: float32 (3, h, w), normalised, where the image is to be predicted whole.
    """

    index: int
    item: PredictItem
    file: tuple[Path, FileStamp, str]
    key: str
    missing: dict[str, Path]
    micrograph: Micrograph | None
    tensor: Tensor | None

    @property
    def pixels(self) -> int:
        """How many are held."""
        return 0 if self.micrograph is None else self.micrograph.size_hw[0] * self.micrograph.size_hw[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """Reads one item; many threads may use it at once.

    Attributes:
        store: Only looked into.
        stats: What the model was fitted to.
        layout: How large images are cut.
        outputs: What is to be written.
    """

    store: PredictionStore
    stats: DataStats
    layout: TileLayout
    outputs: Outputs

    def read(self, index: int, item: PredictItem, stem: str) -> ReadImage | SkippedFile:
        """One item, or why it cannot be used. Pixels are read only where something is left to do."""
        try:
            stamp = FileStamp.of(item.path)
            sha256 = self.store.known_hash(item.path, stamp) or file_sha256(item.path)
            key = image_key(sha256, item.page, item.channel)
            missing = self.missing(stem, key)
            known = key in self.store.images
            micrograph = None
            if missing or not known:
                micrograph = read_image(item.path, page=item.page, channel=item.channel)
        except ImageError as error:
            return SkippedFile(path=str(item.path), reason=error.what)
        except OSError as error:
            return SkippedFile(path=str(item.path), reason=error.strerror or str(error))
        return ReadImage(
            index=index,
            item=item,
            file=(item.path, stamp, sha256),
            key=key,
            missing=missing,
            micrograph=micrograph,
            tensor=None if micrograph is None or known else self._tensor(micrograph),
        )

    def missing(self, stem: str, key: str) -> dict[str, Path]:
        """The files of an image that are still to be written, by format."""
        made_from = self.outputs.made_from(key)
        files = self.outputs.of(stem)
        return {name: path for name, path in files.items() if not self.store.is_made(path, made_from)}

    def _tensor(self, micrograph: Micrograph) -> Tensor | None:
        """The image as a model takes it; None where it is predicted by tiles."""
        if len(plan_tiles(micrograph.size_hw, self.layout)) > 1:
            return None
        low, high = black_and_white(micrograph.pixels, self.stats.intensity_percentile)
        return torch.from_numpy(normalise(micrograph.pixels, low, high))


def read_ahead(
    threads: ThreadPoolExecutor,
    calls: Sequence[tuple[int, PredictItem, str]],
    read: Callable[[int, PredictItem, str], ReadImage | SkippedFile],
) -> Iterator[tuple[int, ReadImage | SkippedFile]]:
    """What ``read`` gives for each call, in order, with its index.

    As many images are read ahead as fit ``AHEAD_PX``, by the size of the last one.
    """
    waiting: deque[tuple[int, Future[ReadImage | SkippedFile]]] = deque()
    ahead, upcoming = 2, iter(calls)
    while True:
        while len(waiting) < ahead and (call := next(upcoming, None)) is not None:
            waiting.append((call[0], threads.submit(read, *call)))
        if not waiting:
            return
        index, future = waiting.popleft()
        result = future.result()
        yield index, result
        ahead = places_for(result.pixels if isinstance(result, ReadImage) else 0)


def places_for(pixels: int) -> int:
    """How many images of so many pixels may wait at once; 1 or more."""
    return AHEAD_IMAGES if pixels == 0 else max(1, min(AHEAD_IMAGES, AHEAD_PX // pixels))
