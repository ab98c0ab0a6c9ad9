"""Prediction over many images: read ahead, batched, resumable, with the outputs written meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelloop.errors import UsageError
from labelloop.formats.records import SkippedFile
from labelloop.instances import Instances
from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import InstanceModel
from labelloop.plurals import plural
from labelloop.predict.items import PredictItem
from labelloop.predict.reading import Outputs, Reader
from labelloop.predict.sharing import Shares, left_to_do, predict_shares
from labelloop.predict.store import PredictionStore, model_key
from labelloop.predict.tiles import TileLayout, tile_layout
from labelloop.predict.work import Work
from labelloop.predict.writers import (
    FORMATS,
    PREDICTIONS_NAME,
    output_error,
    write_coco,
)
from labelloop.progress import Progress, Silent
from labelloop.team import ALONE, Team


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
    team: Team = ALONE,
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
        team: The processes that share the images; the others are in ``help_predict``.

    Raises:
        UsageError: A format is unknown.
        OutputError: The results cannot be written.
    """
    started = time.monotonic()
    require_formats(formats)
    make_folder(out)
    layout = layout or tile_layout(stats, model)
    key = model_key(model, stats, layout)
    outputs = Outputs(out=out, formats=tuple(formats), min_score=min_score, model=key)
    with PredictionStore(out, key) as store:
        store.absorb_parts()
        work = Work(
            store=store,
            model=model,
            reader=Reader(store=store, stats=stats, layout=layout, outputs=outputs),
            progress=progress or Silent(),
        )
        elsewhere = 0
        if team.size > 1:
            shares = Shares(
                images=images, left=left_to_do(work.reader, images), outputs=outputs, layout=layout
            )
            elsewhere = predict_shares(shares, model, stats, work.progress, team)
            store.absorb_parts()
        work.run(images)
        kept = [(item, work.keys[i]) for i, item in enumerate(images) if i in work.keys]
        objects, changed = _collect(store, kept, outputs, classes, {"run": run, "which": which})
        store.forget_other_models()
        if others := store.made_by_others():
            work.progress.note(_of_other_models(out, others))
    return PredictReport(
        images=len(kept),
        objects=objects,
        skipped=tuple(work.skipped[i] for i in sorted(work.skipped)),
        out=out,
        run=run,
        which=which,
        min_score=min_score,
        seconds=time.monotonic() - started,
        predicted=elsewhere + work.predicted,
        changed=changed or elsewhere > 0 or work.written > 0,
    )


def _of_other_models(out: Path, names: Sequence[str]) -> str:
    """They are not removed: a person may have corrected them."""
    files = plural(len(names), "file is of another model", "files are of another model")
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"note: {files} and not of these results, in {out}: {some}; delete what is not needed, or choose"
        " another --out"
    )


def make_folder(out: Path) -> None:
    """Makes the output folder.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error


def require_formats(formats: Sequence[str]) -> None:
    """Refuses what is not in ``FORMATS``.

    Raises:
        UsageError: A format is unknown, or none is given.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(
            "there is no such output format" if unknown else "no output format is named",
            value=", ".join(unknown),
            way_out=f"Formats: {', '.join(FORMATS)}.",
        )


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
