"""Evaluation of two COCO JSON files, matched by file name: any tool's predictions, no project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from labelloop.errors import FormatError
from labelloop.formats.coco import as_id, is_crowd, load_json
from labelloop.formats.outlines import Unusable, rasterise
from labelloop.instances import Instances
from labelloop.metrics.coco_json import CocoFile, Picture, check_entries, parse_dataset, plain_name
from labelloop.metrics.panel import Panel, evaluate
from labelloop.metrics.protocols import Protocol, ProtocolResult, evaluate_protocol
from labelloop.plurals import plural

_LARGEST_SCORE = float(np.finfo(np.float32).max)  # what they are kept as
_NO_MASK = "without a usable mask of their image's size"


@dataclass(frozen=True, kw_only=True, eq=False)
class FilePair:
    """Truth and predictions of the same images, out of two files.

    Attributes:
        names: File names of the images, as the labels have them; in the order of their ids.
        truth: One per image.
        predicted: One per image.
        class_names: The index is the label.
        notes: What could not be used, one sentence each.
    """

    names: tuple[str, ...]
    truth: tuple[Instances, ...]
    predicted: tuple[Instances, ...]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def evaluate_pair(pair: FilePair, *, min_score: float) -> Panel:
    """All metrics of a pair of files.

    Args:
        pair: From ``read_pair``.
        min_score: The score threshold of every metric but ``coco_ap*`` and ``detection_ece``.
    """
    panel = evaluate(
        pair.truth,
        pair.predicted,
        n_classes=len(pair.class_names),
        min_score=min_score,
        class_names=pair.class_names,
    )
    return replace(panel, notes=(*panel.notes, *pair.notes))


def evaluate_pair_by(protocol: Protocol, pair: FilePair, *, min_score: float) -> ProtocolResult:
    """The numbers of a protocol of a pair of files; arguments as those of ``evaluate_pair``."""
    return evaluate_protocol(
        protocol,
        pair.truth,
        pair.predicted,
        n_classes=len(pair.class_names),
        min_score=min_score,
        class_names=pair.class_names,
    )


def read_pair(predictions: Path, labels: Path) -> FilePair:
    """The predictions in one file beside the labels in another.

    Images are matched by file name (by its last part where folders differ), classes by name, or by id where
    the files share no name. Every image of the labels counts, with or without predictions. What has no
    partner in the labels is left out, and the panel's notes say so. Predictions may also be a bare list of
    COCO results, whose ``image_id`` and ``category_id`` are those of the labels. Where all scores are missing
    or null, there are none; where some are, those predictions count as 1. Scores are kept as float32, so
    those that differ by less are equal; of equal scores the image with the lesser id comes first in COCO AP,
    as in pycocotools.

    Args:
        predictions: A COCO dataset with scores, or a list of COCO results.
        labels: A COCO dataset; crowds, as ``add labels`` knows them, are neither hits nor misses.

    Raises:
        FormatError: A file cannot be read as that, the two share no image, or there are predictions, but none
            with a usable mask.
    """
    true = parse_dataset(labels, load_json(labels))
    for picture in true.pictures.values():
        if picture.size_hw is None:
            raise FormatError(
                "an image has no height or width",
                value=f"{labels}, {picture.file_name}",
                way_out="Add them to the labels.",
            )
    classes = _number_classes(true.categories)
    truth = _Reading(path=labels, pictures=true.pictures, classes=classes)
    found = _reading_of_predictions(predictions, true, classes)
    truth_of = truth.instances(true.annotations, drawn_with_crowds=true.drawn_with_crowds, scored=False)
    predicted_of = found.reading.instances(found.annotations)
    if not predicted_of and (maskless := found.reading.unused[_NO_MASK]):
        several = f"none of the {maskless} predictions for the labels' images has a usable mask"
        raise FormatError(
            several if maskless > 1 else "the only prediction for the labels' images has no usable mask",
            value=predictions,
            way_out="Give each a segmentation, polygons or run lengths of its image's size; boxes alone are"
            " not measured.",
        )
    pictures = list(true.pictures.values())
    if len({type(picture.id) for picture in pictures}) == 1:
        pictures.sort(key=attrgetter("id"))
    without = len(pictures) - len(predicted_of)
    of_all = plural(len(pictures), "image has", "images have")
    left_out = found.reading.left_out("predictions")
    notes = [f"{without} of {of_all} no {'usable ' if left_out else ''}predictions"] if without else []
    notes += [*found.notes, *truth.left_out("labels"), *left_out]
    return FilePair(
        names=tuple(picture.file_name for picture in pictures),
        truth=tuple(truth_of.get(picture.id, _nothing(picture)) for picture in pictures),
        predicted=tuple(predicted_of.get(picture.id, _nothing(picture)) for picture in pictures),
        class_names=tuple(_class_names(true.categories, classes)),
        notes=tuple(notes),
    )


def _number_classes(categories: Mapping[Hashable, str | None]) -> dict[Hashable, int]:
    """A class index for each category id; categories of one name are one class."""
    numbers: dict[Hashable, int] = {}
    return {
        id_: numbers.setdefault(("id", id_) if name is None else name, len(numbers))
        for id_, name in categories.items()
    }


def _class_names(categories: Mapping[Hashable, str | None], classes: Mapping[Hashable, int]) -> list[str]:
    """What each class index is called: the category's name, or its id where it has none."""
    names = ["0"] * (1 + max(classes.values(), default=0))
    for id_, label in classes.items():
        names[label] = categories[id_] or str(id_)
    return names


class _Reading:
    """Turns a file's annotations into Instances of the labels' images, and counts what it cannot use.

    Args:
        path: The file, for messages.
        pictures: The labels' picture by the file's own image id.
        classes: The class index by the file's own category id.
    """

    def __init__(
        self, *, path: Path, pictures: Mapping[Hashable, Picture], classes: Mapping[Hashable, int]
    ) -> None:
        self.path = path
        self.pictures = pictures
        self.classes = classes
        self.unused: Counter[str] = Counter()
        self.unscored = 0

    def instances(
        self, annotations: list[dict[str, Any]], *, drawn_with_crowds: bool = False, scored: bool = True
    ) -> dict[Hashable, Instances]:
        """By the labels' image id; images without a usable object are not in it.

        Args:
            annotations: As in the file.
            drawn_with_crowds: What the file's ``CocoFile`` says; of predictions it does not matter.
            scored: Whether scores are read; those of labels do not matter.
        """
        scored = scored and any(annotation.get("score") is not None for annotation in annotations)
        objects: dict[Hashable, list[tuple[bytes, int, float, bool]]] = {}
        for annotation in annotations:
            picture = self.pictures.get(as_id(annotation.get("image_id")))
            label = self.classes.get(as_id(annotation.get("category_id")))
            if picture is None or picture.size_hw is None:
                self.unused["in images that the labels do not hold"] += 1
            elif label is None:
                self.unused["of classes that the labels do not hold"] += 1
            elif (rle := _outline(annotation, picture.size_hw)) is None:
                self.unused[_NO_MASK] += 1
            else:
                crowd = is_crowd(annotation, drawn_with_crowds=drawn_with_crowds)
                score = self._score(annotation) if scored else 1.0
                objects.setdefault(picture.id, []).append((rle, label, score, crowd))
        size_of = {picture.id: picture.size_hw for picture in self.pictures.values()}
        return {id_: _joined(size_of[id_] or (0, 0), found, scored=scored) for id_, found in objects.items()}

    def left_out(self, kind: str) -> list[str]:
        """One sentence for each reason why something could not be used, and one on missing scores."""
        notes = [f"{kind}: left out {count} {why}" for why, count in self.unused.items()]
        if self.unscored:
            several = "without a score among others count"
            notes.append(f"{kind}: {plural(self.unscored, several + 's', several)} as 1")
        return notes

    def _score(self, annotation: dict[str, Any]) -> float:
        score = annotation.get("score")
        if score is None:
            self.unscored += 1
            return 1.0
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not is_number or not abs(score) <= _LARGEST_SCORE:
            raise FormatError(
                "a score is not a finite number", value=f"{self.path}, {score}", way_out="Correct the file."
            )
        return float(score)


@dataclass(frozen=True, kw_only=True)
class _Predictions:
    reading: _Reading
    annotations: list[dict[str, Any]]
    notes: list[str]


def _reading_of_predictions(path: Path, true: CocoFile, classes: dict[Hashable, int]) -> _Predictions:
    document = load_json(path)
    if isinstance(document, list):
        check_entries(path, "the list of results", document)
        used = {as_id(entry.get("image_id")) for entry in document}
        if used and not used & true.pictures.keys():
            raise _no_common_image(path, true.path, "image_id")
        reading = _Reading(path=path, pictures=true.pictures, classes=classes)
        return _Predictions(reading=reading, annotations=document, notes=[])
    other = parse_dataset(path, document)
    pictures = _same_pictures(other, true)
    if other.pictures and not pictures:
        raise _no_common_image(path, true.path, "file name")
    unknown = [p.file_name for id_, p in other.pictures.items() if id_ not in pictures]
    are = plural(len(unknown), "predicted image is", "predicted images are")
    notes = [f"{are} not in the labels: {_some(unknown)}"] if unknown else []
    same = _same_classes(other, true, classes)
    notes += _renamed(other, true, classes, same)
    reading = _Reading(path=path, pictures=pictures, classes=same)
    return _Predictions(reading=reading, annotations=other.annotations, notes=notes)


def _same_pictures(other: CocoFile, true: CocoFile) -> dict[Hashable, Picture]:
    """The labels' picture of each picture of ``other`` that has one: same name, else same last part of it."""
    by_name = {plain_name(picture.file_name): picture for picture in true.pictures.values()}
    shorts = Counter(_last_part(name) for name in by_name)
    others = Counter(_last_part(plain_name(p.file_name)) for p in other.pictures.values())
    by_short = {_last_part(n): p for n, p in by_name.items() if shorts[_last_part(n)] == 1}
    same: dict[Hashable, Picture] = {}
    for id_, picture in other.pictures.items():
        name = plain_name(picture.file_name)
        short = _last_part(name)
        partner = by_name.get(name) or (by_short.get(short) if others[short] == 1 else None)
        if partner is None:
            continue
        if picture.size_hw is not None and picture.size_hw != partner.size_hw:
            raise FormatError(
                f"an image is {picture.size_hw} (h, w) in the predictions, {partner.size_hw} in the labels",
                value=picture.file_name,
                way_out="Predict at the size of the labelled image.",
            )
        same[id_] = partner
    return same


def _same_classes(other: CocoFile, true: CocoFile, classes: Mapping[Hashable, int]) -> dict[Hashable, int]:
    """The class index of each category of ``other``: by name, else by id, else the only one there is."""
    by_name = {name: classes[id_] for id_, name in true.categories.items() if name is not None}
    named = {id_: by_name[name] for id_, name in other.categories.items() if name in by_name}
    same = named or {id_: classes[id_] for id_ in other.categories if id_ in classes}
    if not same and len(other.categories) == 1 and len(set(classes.values())) == 1:
        return dict.fromkeys(other.categories, 0)
    return same


def _renamed(
    other: CocoFile, true: CocoFile, classes: Mapping[Hashable, int], same: Mapping[Hashable, int]
) -> list[str]:
    """A sentence where both files name their classes, but none alike, and yet some were matched."""
    true_name = {classes[id_]: name for id_, name in true.categories.items()}
    pairs = [(other.categories[id_], true_name[label]) for id_, label in same.items()]
    named = [(seen, name) for seen, name in pairs if seen is not None and name is not None]
    if not named or any(seen in true.categories.values() for seen, _ in named):
        return []
    how = "by their ids" if same.keys() <= true.categories.keys() else "the only ones"
    with_names = _some([f"{seen} with {name}" for seen, name in named])
    return [f"the two files share no class name: matched as {with_names}, {how}"]


def _joined(
    size_hw: tuple[int, int], objects: list[tuple[bytes, int, float, bool]], *, scored: bool
) -> Instances:
    rles, labels, scores, crowd = zip(*objects, strict=True)
    return Instances(
        size_hw=size_hw,
        rles=rles,
        labels=np.asarray(labels, np.int64),
        scores=np.asarray(scores, np.float32) if scored else None,
        crowd=np.asarray(crowd, np.bool_),
    )


def _nothing(picture: Picture) -> Instances:
    return Instances(size_hw=picture.size_hw or (0, 0))


def _last_part(name: str) -> str:
    return PurePosixPath(name).name


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _no_common_image(predictions: Path, labels: Path, by: str) -> FormatError:
    return FormatError(
        "the predictions and the labels share no image",
        value=f"{predictions}, {labels}",
        way_out=f"Images are matched by their {by}.",
    )


def _outline(annotation: Mapping[str, Any], size_hw: tuple[int, int]) -> bytes | None:
    try:
        return rasterise(annotation.get("segmentation"), size_hw)
    except Unusable:
        return None
