"""Label Studio's JSON export as labels: for each task the annotation that counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from labelloop.errors import FormatError
from labelloop.formats.catalog import LabelReader
from labelloop.formats.coco import load_json
from labelloop.formats.outlines import Unusable
from labelloop.formats.records import LabelledImage, LabelSet, SkippedFile
from labelloop.instances import Instances
from labelloop.integrations.label_studio.pictures import MAX_SIDE_PX, Picture, task_picture
from labelloop.integrations.label_studio.regions import read_regions, shape_facts
from labelloop.integrations.label_studio.shapes import crop_to_rle

NAME = "label-studio"

_SHOWN_FAULTS = 3
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A task with the result that counts."""

    place: str
    picture: Picture
    result: list[Any]


@dataclass(kw_only=True, eq=False)
class _Image:
    """One image while the objects of its tasks are collected."""

    name: str
    size_hw: tuple[int, int] | None
    rles: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def record(self) -> LabelledImage:
        """Its labels, of the size that was found, or of any where none was."""
        objects = Instances(
            size_hw=self.size_hw or (0, 0), rles=tuple(self.rles), labels=np.asarray(self.labels, np.int64)
        )
        return LabelledImage(image=self.name, instances=objects, any_size=self.size_hw is None)


def is_export(path: Path) -> bool:
    """Whether a file may be an export: a JSON file that holds a list."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(1024).lstrip()[:1] == b"["
    except OSError:
        return False  # whoever reads it says why


def read_export(path: Path) -> LabelSet:
    """Reads what Label Studio exports as JSON (not JSON-MIN).

    A task without an annotation, or with skipped ones only, is left out; drafts and predictions are not
    looked at. Of several annotations the one marked as ground truth counts, else the one changed last. An
    annotation without regions says that the image is empty. An image all of whose regions are unusable is
    skipped, since it is not known to be empty.

    Tiles that labelloop made of an image are put together again, if all of it was looked at. Their objects
    are not joined: one that a seam cuts, or that two tiles show, is two here. ``labelloop pull`` joins them.

    Classes are in the order in which regions name them.

    Raises:
        FormatError: It is not such an export.
    """
    tasks = _tasks(load_json(path), path)
    skipped: list[SkippedFile] = []
    answers = list(_answers(tasks, skipped))
    facts = (fact for answer in answers for fact in shape_facts(answer.result))
    classes = tuple(dict.fromkeys(name for name, _ in facts if name is not None))
    records = [
        record
        for together in _by_image(answers, skipped)
        if (record := _record(together, classes, skipped)) is not None
    ]
    return LabelSet(format=NAME, records=tuple(records), classes=classes, skipped=tuple(skipped))


READER = LabelReader(
    name=NAME, form="a JSON export of Label Studio, a list of tasks", recognises=is_export, read=read_export
)


def _tasks(document: object, path: Path) -> list[Any]:
    entries = document if isinstance(document, list) else []
    if any(isinstance(entry, dict) and "annotation_id" in entry for entry in entries):
        raise FormatError(
            "this is Label Studio's JSON-MIN, which does not say which annotation counts",
            value=path,
            way_out="Export the project in the format JSON.",
        )
    if not isinstance(document, list) or (document and not any(map(_is_task, document))):
        raise FormatError(
            "the JSON file is not a Label Studio export",
            value=path,
            way_out="It needs a list of tasks with data and annotations: export in the format JSON.",
        )
    return document


def _is_task(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("data"), dict)
        and isinstance(entry.get("annotations"), list)
    )


def _answers(tasks: Sequence[Any], skipped: list[SkippedFile]) -> Iterator[_Answer]:
    """The tasks that were annotated."""
    for number, task in enumerate(tasks):
        named = task.get("id") if isinstance(task, dict) else None
        place = f"tasks[{number}]" if named is None else f"task {named}"
        try:
            if not _is_task(task):
                raise Unusable("it is not a task with data and annotations")
            annotation = _that_counts(task["annotations"], place, skipped)
            if annotation is not None:
                picture = task_picture(task["data"])
                yield _Answer(place=place, picture=picture, result=annotation["result"])
        except Unusable as fault:
            skipped.append(SkippedFile(path=place, reason=str(fault)))


def _that_counts(
    annotations: Sequence[Any], place: str, skipped: list[SkippedFile]
) -> Mapping[str, Any] | None:
    if not all(isinstance(annotation, dict) for annotation in annotations):
        raise Unusable("its annotations are not in the file")
    made = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    if not made:
        return None
    best: Mapping[str, Any] = max(made, key=_rank)
    why = "is the ground truth" if best.get("ground_truth") else "was changed later"
    for other in made:
        if other is not best:
            reason = f"annotation {best.get('id')} of the same task {why}"
            skipped.append(SkippedFile(path=f"{place}, annotation {other.get('id')}", reason=reason))
    if not isinstance(best.get("result"), list):
        raise Unusable("its annotation has no result")
    return best


def _rank(annotation: Mapping[str, Any]) -> tuple[bool, datetime]:
    """Higher counts more."""
    return bool(annotation.get("ground_truth")), _time(
        annotation.get("updated_at") or annotation.get("created_at")
    )


def _time(text: object) -> datetime:
    try:
        when = datetime.fromisoformat(text) if isinstance(text, str) else _LONG_AGO
    except ValueError:
        return _LONG_AGO
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _by_image(answers: Sequence[_Answer], skipped: list[SkippedFile]) -> Iterator[list[_Answer]]:
    """Answers about one image: a task each, but tiles of one image together, if they cover it."""
    tiled: dict[str, list[_Answer]] = {}
    for answer in answers:
        if answer.picture.tile is None:
            yield [answer]
        else:
            tiled.setdefault(answer.picture.name, []).append(answer)
    for name, together in tiled.items():
        tiles = [answer.picture.tile for answer in together if answer.picture.tile is not None]
        if len({tile.of for tile in tiles}) > 1:
            reason = "several images, pages or channels have this name; labelloop pull tells them apart"
        elif not tiles[0].is_covered_by(tiles):
            reason = "only a part of the image was annotated; annotate all its tiles, or use labelloop pull"
        else:
            yield together
            continue
        skipped.append(SkippedFile(path=name, reason=reason))


def _record(
    answers: Sequence[_Answer], classes: Sequence[str], skipped: list[SkippedFile]
) -> LabelledImage | None:
    """The labels of an image, or None where none of its regions can be used."""
    picture = answers[0].picture
    image = _Image(name=picture.name, size_hw=None if picture.tile is None else picture.tile.image_hw)
    faults: list[str] = []
    for answer in answers:
        size_hw = _size(answer)
        if size_hw is None:
            faults += ["its regions do not say the image's size"] if answer.result else []
            continue
        image.size_hw = image.size_hw or size_hw
        read = read_regions(answer.result, size_hw, classes)
        for key, reason in read.unusable:
            skipped.append(SkippedFile(path=f"{picture.name}, {answer.place}, region {key}", reason=reason))
            faults.append(reason)
        rles = tuple(region.rle for region in read.regions)
        labels = np.asarray([region.label for region in read.regions], np.int64)
        image.rles += _placed(Instances(size_hw=size_hw, rles=rles, labels=labels), answer.picture)
        image.labels += labels.tolist()
    if faults and not image.rles:
        reasons = "; ".join(list(dict.fromkeys(faults))[:_SHOWN_FAULTS])
        skipped.append(SkippedFile(path=picture.name, reason=f"none of its regions can be used ({reasons})"))
        return None
    return image.record()


def _size(answer: _Answer) -> tuple[int, int] | None:
    """Height and width of a task's picture, px: of its tile, else as its first region says it."""
    if answer.picture.tile is not None:
        return answer.picture.tile.size_hw
    sizes = (size_hw for _, size_hw in shape_facts(answer.result) if size_hw is not None)
    return next((size_hw for size_hw in sizes if max(size_hw) <= MAX_SIDE_PX), None)


def _placed(objects: Instances, picture: Picture) -> list[bytes]:
    """The masks of a task's objects in the coordinates of the image."""
    if picture.tile is None:
        return list(objects.rles)
    tile, masks = picture.tile, []
    for i in range(len(objects)):
        crop, top, left = objects.crop(i)
        masks.append(crop_to_rle(crop, top + tile.top, left + tile.left, tile.image_hw))
    return masks
