"""Prediction over many images: read ahead, batched, resumable, with the outputs written meanwhile."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from labelloop.errors import UsageError
from labelloop.formats.records import SkippedFile
from labelloop.instances import Instances
from labelloop.models.protocol import DataStats, InstanceModel
from labelloop.predict.field import BATCH_IMAGES, BATCH_PX, MIN_SCORE, predict_array, predict_whole
from labelloop.predict.items import PredictItem
from labelloop.predict.names import output_stems
from labelloop.predict.reading import Outputs, Reader, ReadImage, places_for, read_ahead
from labelloop.predict.store import PredictionStore, model_key
from labelloop.predict.tiles import TileLayout, tile_layout
from labelloop.predict.writers import (
    FORMATS,
    PREDICTIONS_NAME,
    output_error,
    write_coco,
    write_label_tiff,
    write_overlay,
)
from labelloop.progress import Progress, Silent, stage

READERS = 2  # threads that read, decode and normalise
WRITERS = 2  # threads that write label TIFFs and overlays
PADDED_RATIO = 1.25  # images go into one batch while padding them alike costs no more than this


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """What a prediction did.

    Attributes:
        images: Images with a prediction, found now or before.
        objects: Their objects scored ``min_score`` or more.
        skipped: Files that could not be used, with the reason.
        out: The output folder.
        run: Name of the run, as given.
        which: guided or supervised, as given.
        min_score: What label TIFFs, overlays and ``objects`` were cut at.
        seconds: Wall time.
        predicted: Images that the model looked at in this call; 0 when all was known.
        changed: Whether any output was written.
    """

    images: int
    objects: int
    skipped: tuple[SkippedFile, ...]
    out: Path
    run: str
    which: str
    min_score: float
    seconds: float
    predicted: int
    changed: bool

    def as_dict(self) -> dict[str, Any]:
        """As ``predict --json`` prints it."""
        return {**asdict(self), "out": str(self.out), "skipped": [asdict(file) for file in self.skipped]}


def predict_images(
    model: InstanceModel,
    images: Sequence[PredictItem],
    *,
    out: Path,
    formats: Sequence[str] = ("coco",),
    min_score: float = 0.5,
    stats: DataStats,
    classes: Sequence[str],
    run: str = "",
    which: str = "",
    layout: TileLayout | None = None,
    progress: Progress | None = None,
) -> PredictReport:
    """Predicts images and writes the results below ``out``.

    Every finished image is kept at once: a call that was killed goes on where it was, and a repeated call
    changes nothing. Files that cannot be read are reported, and the others are predicted.

    Args:
        model: Any InstanceModel, on its device.
        images: What to predict, names unique.
        out: Output folder; made if missing.
        formats: Of ``FORMATS``: predictions.json, ``label-tiff/NAME.tif``, ``overlay/NAME.png``.
        min_score: For label TIFFs, overlays and the count; predictions.json holds all from 0.05 on.
        stats: What the model was fitted to.
        classes: Class names.
        run: Noted in the results.
        which: Noted in the results.
        layout: How large images are cut; from ``stats`` if None.
        progress: Told about every image.

    Raises:
        UsageError: A format is unknown.
        OutputError: The results cannot be written.
    """
    started = time.monotonic()
    require_formats(formats)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    layout = layout or tile_layout(stats, model)
    key = model_key(model, stats, layout)
    outputs = Outputs(out=out, formats=tuple(formats), min_score=min_score, model=key)
    with PredictionStore(out, key) as store:
        work = _Work(
            store=store,
            model=model,
            reader=Reader(store=store, stats=stats, layout=layout, outputs=outputs),
            progress=progress or Silent(),
        )
        work.run(images)
        kept = [(item, work.keys[i]) for i, item in enumerate(images) if i in work.keys]
        objects, changed = _collect(store, kept, outputs, classes, {"run": run, "which": which})
        store.forget_other_models()
    return PredictReport(
        images=len(kept),
        objects=objects,
        skipped=tuple(work.skipped[i] for i in sorted(work.skipped)),
        out=out,
        run=run,
        which=which,
        min_score=min_score,
        seconds=time.monotonic() - started,
        predicted=work.predicted,
        changed=changed or work.written > 0,
    )


def require_formats(formats: Sequence[str]) -> None:
    """Refuses what is not in ``FORMATS``.

    Raises:
        UsageError: A format is unknown, or none is given.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(
            "there is no such output format",
            value=", ".join(unknown) or "none",
            way_out=f"Known are: {', '.join(FORMATS)}.",
        )


@dataclass(kw_only=True, eq=False)
class _Work:
    """One call of ``predict_images``: the readers feed it, the model works in it, it feeds the writers."""

    store: PredictionStore
    model: InstanceModel
    reader: Reader
    progress: Progress
    keys: dict[int, str] = field(default_factory=dict)  # of the images that have a prediction, by item
    skipped: dict[int, SkippedFile] = field(default_factory=dict)
    predicted: int = 0
    objects: int = 0  # predicted in this call
    written: int = 0
    writing: deque[tuple[Future[None], Path, str]] = field(default_factory=deque)

    def run(self, images: Sequence[PredictItem]) -> None:
        """Goes through all images, those of equal size one after the other."""
        stems = output_stems([item.name for item in images])
        order = sorted(range(len(images)), key=lambda i: images[i].size_hw or (0, 0))
        readers = ThreadPoolExecutor(READERS, "labelloop-read")
        writers = ThreadPoolExecutor(WRITERS, "labelloop-write")
        try:
            with stage(self.progress, "predict", len(images)):
                calls = [(i, images[i], stems[i]) for i in order]
                for batch in self._batches(read_ahead(readers, calls, self.reader.read)):
                    self._predict(batch, writers)
                self._note_written(leave=0)
        finally:
            for threads in (readers, writers):
                threads.shutdown(wait=True, cancel_futures=True)

    def _batches(self, found: Iterator[tuple[int, ReadImage | SkippedFile]]) -> Iterator[list[ReadImage]]:
        """Images that go through the model at once; those predicted by tiles or before come alone."""
        batch: list[ReadImage] = []
        for index, read in found:
            if isinstance(read, SkippedFile):
                self.skipped[index] = read
                self.progress.note(f"skipped {read.path}: {read.reason}")
                self.progress.advance(1)
            elif read.tensor is None:
                yield [read]
            elif batch and not _fits([*batch, read]):
                yield batch
                batch = [read]
            else:
                batch.append(read)
        if batch:
            yield batch

    def _predict(self, batch: Sequence[ReadImage], writers: ThreadPoolExecutor) -> None:
        """Predicts what is new, stores it, and hands the missing files to the writers."""
        new = {read.key: read for read in batch if read.key not in self.store.images}
        found = self._look(list(new.values()))
        self.store.put(found.items())
        self.store.put_files(read.file for read in batch)
        self.predicted += len(new)
        self.objects += sum(len(i.above(self.reader.outputs.min_score)) for i in found.values())
        for read in batch:
            self.keys[read.index] = read.key
            if read.missing:
                instances = found[read.key] if read.key in found else self.store.get(read.key)
                self._write(read, instances, writers)
        self._note_written(leave=places_for(max(read.pixels for read in batch)))
        self.progress.advance(len(batch), objects=self.objects)

    def _look(self, new: Sequence[ReadImage]) -> dict[str, Instances]:
        """What the model sees, by the image's key."""
        if not new:
            return {}
        tensors = [read.tensor for read in new if read.tensor is not None]
        if tensors:
            predicted = predict_whole(self.model, tensors, min_score=MIN_SCORE)
            return {read.key: instances for read, instances in zip(new, predicted, strict=True)}
        (large,) = new
        assert large.micrograph is not None  # it was read, as its key is not in the store
        instances = predict_array(
            self.model,
            large.micrograph.pixels,
            stats=self.reader.stats,
            layout=self.reader.layout,
            progress=self.progress,
        )
        return {large.key: instances}

    def _write(self, read: ReadImage, instances: Instances, writers: ThreadPoolExecutor) -> None:
        image, min_score = read.micrograph, self.reader.outputs.min_score
        assert image is not None  # it was read, as files are missing
        writing = {
            "label-tiff": partial(
                write_label_tiff, pixel_size_um=image.pixel_size_um or read.item.pixel_size_um
            ),
            "overlay": partial(write_overlay, pixels=image.pixels),
        }
        for name, path in read.missing.items():
            call = partial(writing[name], path, instances=instances, min_score=min_score)
            self.writing.append((writers.submit(call), path, self.reader.outputs.made_from(read.key)))

    def _note_written(self, *, leave: int) -> None:
        """Notes which files are finished; waits until no more than ``leave`` are on their way."""
        made: list[tuple[Path, str]] = []
        while self.writing and (len(self.writing) > leave or self.writing[0][0].done()):
            future, path, made_from = self.writing.popleft()
            future.result()
            made.append((path, made_from))
        self.written += len(made)
        self.store.put_outputs(made)


def _fits(batch: Sequence[ReadImage]) -> bool:
    """Whether these images make one batch: not too many, not too large, not too different."""
    sizes = [read.micrograph.size_hw for read in batch if read.micrograph is not None]
    padded = len(sizes) * max(height for height, _ in sizes) * max(width for _, width in sizes)
    given = sum(height * width for height, width in sizes)
    return len(sizes) <= BATCH_IMAGES and padded <= min(BATCH_PX, PADDED_RATIO * given)


def _collect(
    store: PredictionStore,
    kept: Sequence[tuple[PredictItem, str]],
    outputs: Outputs,
    classes: Sequence[str],
    info: dict[str, str],
) -> tuple[int, bool]:
    """Counts the objects and writes predictions.json; also whether that file changed."""
    objects = 0

    def found(index: int) -> Instances:
        nonlocal objects
        instances = store.get(kept[index][1])
        objects += len(instances.above(outputs.min_score))
        return instances

    if "coco" not in outputs.formats:
        for index in range(len(kept)):
            found(index)
        return objects, False
    images = [(item.name, store.size_hw(key)) for item, key in kept]
    info = {"description": "labelloop predictions", **info}
    changed = write_coco(outputs.out / PREDICTIONS_NAME, images, found, classes=classes, info=info)
    return objects, changed
