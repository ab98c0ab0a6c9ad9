"""What each step sees: a pure function of the seed, the stage and the step."""

from __future__ import annotations

import math
import queue
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from labelloop.data.objects import SoftObjects
from labelloop.data.parts import image_of
from labelloop.data.pool import ImageLoader
from labelloop.data.view_settings import GeometryConfig, PhotometryConfig
from labelloop.data.views import Geometry, change_photometry, draw_geometry, view_image, view_objects
from labelloop.models.protocol import InstanceModel, Target, grid_scale

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The images of one step, or of a part of it.

    Attributes:
        part: Which one.
        labelled: Images and targets from annotations.
        weak: Unlabelled images as a teacher sees them; empty where pseudo-labels are cached.
        strong: The same unlabelled images as the student sees them.
        pseudo: Cached pseudo-labels of the strong views; empty where a teacher makes them in the step.
        image_ids: Of all images of the step, labelled first, for messages.
        scale: Of the plan.
    """

    part: int
    labelled: tuple[tuple[Tensor, Target], ...]
    weak: tuple[Tensor, ...]
    strong: tuple[Tensor, ...]
    pseudo: tuple[Target, ...]
    image_ids: tuple[int, ...]
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """How the batches of a stage are made.

    Attributes:
        seed: Of the run.
        stage: Name of the stage; part of every draw.
        labelled: Objects of the labelled images, by image id.
        labelled_ids: What a pass shuffles; an image that is named twice is seen twice as often.
        labelled_batch: Labelled images per step.
        unlabelled_ids: Parts of images without labels; with ``pseudo``, those that have pseudo-labels.
        unlabelled_batch: Unlabelled images per step.
        pseudo: Cached pseudo-labels by part, or None.
        geometry: Shared by both views.
        known_views: Views of labelled images are drawn in proportion to what is known in them.
        weak: Photometry of the weak view.
        strong: Photometry of the strong view, on top of the weak.
        parts: A step's images are seen in so many parts, one after the other or by several processes.
        scale: Views are resized by this, which a model that sees a coarse grid is told.
        block: Up to so many unlabelled parts of one image are seen one after the other.
    """

    seed: int
    stage: str
    labelled: Mapping[int, SoftObjects]
    labelled_ids: Sequence[int]
    labelled_batch: int
    unlabelled_ids: Sequence[int]
    unlabelled_batch: int
    pseudo: Mapping[int, SoftObjects] | None
    geometry: GeometryConfig
    weak: PhotometryConfig
    strong: PhotometryConfig
    known_views: bool = True
    parts: int = 1
    scale: float = 1.0
    block: int = 1


def fitted(plan: BatchPlan, model: InstanceModel, load: ImageLoader) -> BatchPlan:
    """The plan with views as coarse as a model sees them, in an order in which they are read fast."""
    parted = any(i != image_of(i) for i in plan.unlabelled_ids)
    at_hand = not parted or load.fits({*plan.labelled, *plan.unlabelled_ids})
    return replace(plan, scale=grid_scale(model), block=1 if at_hand else PARTS_AT_ONCE)


def rng_for(seed: int, stage: str, step: int, slot: int = 0) -> np.random.Generator:
    """The random numbers of one slot of one step; nothing else decides them, so a run can go on anywhere."""
    return np.random.default_rng([seed, zlib.crc32(stage.encode()), step, slot])


def epoch_order(
    ids: Sequence[int], *, seed: int, stage: str, start: int, count: int, block: int = 1
) -> list[int]:
    """``count`` ids from position ``start`` of an endless sequence of shuffled passes over ``ids``.

    Args:
        ids: Of images, or of parts of images.
        seed: Of the run.
        stage: What is drawn, in the run.
        start: Position of the first one.
        count: How many.
        block: Up to so many parts of one image come one after the other.
    """
    chosen: list[int] = []
    while len(chosen) < count:
        epoch, position = divmod(start + len(chosen), len(ids))
        rng = rng_for(seed, f"{stage}-order", epoch)
        order = rng.permutation(len(ids))
        if block > 1:
            order = _in_blocks(order, np.array([image_of(i) for i in ids]), block, rng)
        chosen += [ids[i] for i in order[position : position + count - len(chosen)]]
    return chosen


def _in_blocks(
    order: npt.NDArray[np.int64], images: npt.NDArray[np.int64], block: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """An order of parts, changed so that up to ``block`` parts of one image come one after the other."""
    by_image = order[np.argsort(images[order], kind="stable")]
    _, first, counts = np.unique(images[by_image], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, counts)  # among the parts of the image
    number = np.cumsum(rank % block == 0) - 1  # of the block
    return by_image[np.argsort(rng.permutation(number[-1] + 1)[number], kind="stable")]


PARTS_AT_ONCE = 32  # of a field, where fields are read again and again: a reading takes as long as some steps
_EIGHTHS = 8  # repeat factors are rounded to these
_MOST_DRAWS = 20  # of a view that shows enough of what is known


def repeated_ids(
    labelled: Mapping[int, SoftObjects], *, threshold: float, by_known: bool, empty_too: bool = True
) -> list[int]:
    """Ids of the labelled images, those with rare classes named more often.

    An image's repeat factor is the largest over its classes of max(1, sqrt(threshold / share of images with
    that class)) (Gupta et al. 2019, LVIS, section 4); each is named as often as its factor is larger than the
    smallest, in eighths.

    Args:
        labelled: Objects by image id.
        threshold: 0 names every image alike; with another one images without objects are left out, unless all
            are without.
        by_known: Images of which a part is ignored are named less often, by how much of them is not.
        empty_too: Otherwise images without objects, or with ignored ones alone, are left out whatever the
            threshold, as detectron2 does, unless all are such.
    """
    if not empty_too:
        labelled = {i: objects for i, objects in labelled.items() if not objects.ignore.all()} or labelled
    known = {i: labelled[i].known_share() if by_known else 1.0 for i in sorted(labelled)}
    if threshold == 0:
        return _named(dict.fromkeys(known, 1.0), known)
    classes = {i: set(labelled[i].labels.tolist()) for i in sorted(labelled)}
    ids = [i for i in classes if classes[i]] or list(classes)
    images_with = Counter(c for present in classes.values() for c in present)
    factors = {
        i: max([math.sqrt(threshold * len(ids) / images_with[c]) for c in classes[i]] + [1.0]) for i in ids
    }
    smallest = min(factors.values())
    return _named({i: factors[i] / smallest for i in ids}, known)


def _named(factors: Mapping[int, float], known: Mapping[int, float]) -> list[int]:
    """Each id as often as its factor and what is known of its image say, in eighths; once at least."""
    times = {i: max(1, round(_EIGHTHS * factor * known[i])) for i, factor in factors.items()}
    shared = math.gcd(*times.values())
    return [i for i in times for _ in range(times[i] // shared)]


def draw_known(
    rng: np.random.Generator, objects: SoftObjects, config: GeometryConfig, *, scale: float = 1.0
) -> Geometry:
    """Draws a view of a labelled image; where a part of it is unknown, in proportion to what is known in it.

    A view of unknown area teaches nothing. Where all is known this is ``draw_geometry``.
    """
    geometry = draw_geometry(rng, objects.size_hw, config, scale=scale)
    if objects.ignore.any():
        for _ in range(_MOST_DRAWS):
            if rng.random() < objects.known_share(geometry.window):
                break
            geometry = draw_geometry(rng, objects.size_hw, config, scale=scale)
    return geometry


def make_batch(plan: BatchPlan, load: ImageLoader, step: int, part: int = 0) -> Batch:
    """A part of the batch of a step. Safe to call from any thread.

    Images are dealt out to the parts by turns, labelled ones first; what an image looks like does not depend
    on the part that it is in.
    """
    labelled_ids = epoch_order(
        plan.labelled_ids,
        seed=plan.seed,
        stage="labelled",
        start=step * plan.labelled_batch,
        count=plan.labelled_batch,
    )
    labelled = []
    for slot, image_id in enumerate(labelled_ids):
        if slot % plan.parts != part:
            continue
        rng = rng_for(plan.seed, plan.stage, step, slot)
        objects = plan.labelled[image_id]
        geometry = (
            draw_known(rng, objects, plan.geometry, scale=plan.scale)
            if plan.known_views
            else draw_geometry(rng, objects.size_hw, plan.geometry, scale=plan.scale)
        )
        view = change_photometry(rng, view_image(load(image_id, geometry.window), geometry), plan.weak)
        labelled.append((view, view_objects(objects, geometry, least_visible=plan.geometry.least_visible)))
    pool = plan.unlabelled_ids
    unlabelled_ids = (
        epoch_order(
            pool,
            seed=plan.seed,
            stage="pool",
            start=step * plan.unlabelled_batch,
            count=plan.unlabelled_batch,
            block=plan.block,
        )
        if plan.unlabelled_batch and pool
        else []
    )
    weak, strong, pseudo = [], [], []
    for slot, image_id in enumerate(unlabelled_ids):
        if (len(labelled_ids) + slot) % plan.parts != part:
            continue
        rng = rng_for(plan.seed, plan.stage, step, 1000 + slot)
        geometry = draw_geometry(rng, load.size_hw(image_id), plan.geometry, scale=plan.scale)
        view = change_photometry(rng, view_image(load(image_id, geometry.window), geometry), plan.weak)
        strong.append(change_photometry(rng, view, plan.strong))
        if plan.pseudo is None:
            weak.append(view)
        else:
            pseudo.append(
                view_objects(plan.pseudo[image_id], geometry, least_visible=plan.geometry.least_visible)
            )
    return Batch(
        part=part,
        labelled=tuple(labelled),
        weak=tuple(weak),
        strong=tuple(strong),
        pseudo=tuple(pseudo),
        image_ids=(*labelled_ids, *map(image_of, unlabelled_ids)),
        scale=plan.scale,
    )


def make_batches(plan: BatchPlan, load: ImageLoader, step: int, parts: Sequence[int] = (0,)) -> list[Batch]:
    """Some parts of the batch of a step, without those that hold no image."""
    made = (make_batch(plan, load, step, part) for part in parts)
    return [batch for batch in made if batch.labelled or batch.strong]


def prefetched(make: Callable[[int], T], start: int, stop: int) -> Iterator[T]:
    """What ``make`` makes of the steps ``start`` to ``stop``, in order, made ahead by one background thread.

    Raises:
        Whatever ``make`` raises, at the step that raised it.
    """
    ready: queue.Queue[T | BaseException] = queue.Queue(maxsize=2)
    stopped = threading.Event()

    def put(item: T | BaseException) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        for step in range(start, stop):
            if stopped.is_set():
                return
            try:
                put(make(step))
            except BaseException as error:  # handed to the consumer, which raises it
                put(error)
                return

    thread = threading.Thread(target=work, name="labelloop-batches", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
