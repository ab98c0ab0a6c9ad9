"""Images through readers, model and writers, one batch after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from labelloop.formats.records import SkippedFile
from labelloop.instances import Instances
from labelloop.models.protocol import InstanceModel
from labelloop.predict.field import BATCH_IMAGES, BATCH_PX, predict_array, predict_whole
from labelloop.predict.items import PredictItem
from labelloop.predict.names import output_stems
from labelloop.predict.reading import Reader, ReadImage, places_for, read_ahead
from labelloop.predict.store import PredictionStore
from labelloop.predict.writers import write_label_tiff, write_overlay
from labelloop.progress import Progress, stage

READERS = 2  # threads that read, decode and normalise
WRITERS = 2  # threads that write label TIFFs and overlays


@dataclass(kw_only=True, eq=False)
class Work:
    """Prediction under way: the readers feed it, the model works in it, it feeds the writers.

    Attributes:
        store: What is known, and where what is new goes.
        model: Any InstanceModel, on its device.
        reader: Reads items and knows which files are missing.
        progress: Told about every image.
        keys: Of the images that have a prediction, by item.
        skipped: Files that could not be used, by item.
        predicted: Images that the model looked at.
        objects: Of these, scored ``min_score`` or more.
        written: Files.
        writing: Files on their way.
    """

    store: PredictionStore
    model: InstanceModel
    reader: Reader
    progress: Progress
    keys: dict[int, str] = field(default_factory=dict)
    skipped: dict[int, SkippedFile] = field(default_factory=dict)
    predicted: int = 0
    objects: int = 0
    written: int = 0
    writing: deque[tuple[Future[None], Path, str]] = field(default_factory=deque)

    def run(self, images: Sequence[PredictItem], only: Iterable[int] | None = None) -> None:
        """Goes through all images, or through some of them, those of equal size one after the other."""
        stems = output_stems([item.name for item in images])
        chosen = range(len(images)) if only is None else only
        order = sorted(chosen, key=lambda i: images[i].size_hw or (0, 0))
        readers = ThreadPoolExecutor(READERS, "labelloop-read")
        writers = ThreadPoolExecutor(WRITERS, "labelloop-write")
        try:
            with stage(self.progress, "predict", len(order)):
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
            predicted = predict_whole(self.model, tensors)
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
    """Whether these images make one batch: not too many, not too large, and of one size.

    A network sees the padding of a smaller one, so that what it finds there would depend on the others.
    """
    sizes = [read.micrograph.size_hw for read in batch if read.micrograph is not None]
    height, width = sizes[0]
    return len(set(sizes)) == 1 and len(sizes) <= BATCH_IMAGES and len(sizes) * height * width <= BATCH_PX
