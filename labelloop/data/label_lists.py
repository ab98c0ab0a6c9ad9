"""Published lists of which training images are labelled, so that a run sees the very images of a paper.

Two kinds: a text file with the name of an image, or of its labels, on each line; and the JSON of Unbiased
Teacher (Liu et al. 2021), ``{percent: {seed: [index]}}``, whose indices count the images of a COCO file in
the order of their ids, those without any single object left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from labelloop.errors import UsageError
from labelloop.formats.coco import is_coco, load_json
from labelloop.formats.label_image import bare_stem
from labelloop.plurals import plural
from labelloop.project.project import ImageRecord

_SHARE = re.compile(r"(.+)@(\d+(?:\.\d+)?)\s*%")
_NUMBER = re.compile(r"\d+(?:\.\d+)?\s*%?")
_LABEL_ENDING = re.compile(r"_(?:gtFine|gtCoarse|leftImg8bit)(?:_\w+)?$")
_SHOWN = 3

# How many images the published files name, and how their SHA-256 begins.
_PUBLISHED = {
    "perc_5.txt": (144, "da09a92a"),
    "perc_10.txt": (296, "53fa4fda"),
    "perc_20.txt": (592, "19d9af1a"),
    "perc_30.txt": (888, "94a4ad58"),
}
_LEAKING = "COCO_organoids_supervision_1540.txt"


@dataclass(frozen=True, kw_only=True)
class ListRequest:
    """A list that ``--labels`` names.

    Attributes:
        path: The file.
        percent: Which of its shares, 0..100; None for a list of names.
    """

    path: Path
    percent: float | None


@dataclass(frozen=True, kw_only=True)
class LabelList:
    """The images that a list calls labelled.

    Attributes:
        names: As the list calls them; or, where it counts them, as the COCO file does.
        sha256: Of the list's file.
        notes: What whoever compares numbers must know.
    """

    names: tuple[str, ...]
    sha256: str
    notes: tuple[str, ...]


def list_request(text: str) -> ListRequest | None:
    """What ``--labels FILE`` or ``--labels FILE@5%`` names, or None where there is no such file."""
    if text == "all" or _NUMBER.fullmatch(text):
        return None
    share = _SHARE.fullmatch(text)
    for name, percent in ((text, None), *([(share[1], float(share[2]))] if share else [])):
        if Path(name).is_file():
            return ListRequest(path=Path(name), percent=percent)
    return None


def read_label_list(request: ListRequest, *, seed: int, coco_file: Callable[[], Path]) -> LabelList:
    """Reads a list.

    Args:
        request: Which, and which of its shares.
        seed: Which of the draws of a share, where the file holds several.
        coco_file: Finds the COCO file whose images are counted; called only if the list counts.

    Raises:
        UsageError: The list cannot be used, or not so.
        FormatError: The COCO file cannot be read.
    """
    data = _read(request.path)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            "the list of labelled images is not a text file",
            value=request.path,
            way_out="Write one image's name on each line, in UTF-8.",
        ) from error
    if text.lstrip().startswith("{"):
        names, notes = _counted(text, request, seed, coco_file)
    elif request.percent is None:
        names, notes = _named(text, request.path, sha256)
    else:
        raise UsageError(
            "a list of names has no shares", value=request.path, way_out="Leave @ and the share out."
        )
    return LabelList(names=names, sha256=sha256, notes=notes)


def listed_images(images: Sequence[ImageRecord], labels: LabelList) -> set[int]:
    """The ids of the images that a list names, by their path from its end, or by their name alone.

    A file's name means all its pages and channels.

    Raises:
        UsageError: Some are not among the images, or several files could be meant.
    """
    by_key: dict[str, list[ImageRecord]] = {}
    for image in images:
        by_key.setdefault(_key(image.path.name), []).append(image)
    found: set[int] = set()
    missing, unclear = [], []
    for name in labels.names:
        meant = by_key.get(_key(name), [])
        if len(meant) > 1:
            meant = [image for image in meant if _ends_with(image.path, name)] or meant
        if not meant:
            missing.append(name)
        elif len({image.sha256 for image in meant}) == 1:
            found.update(image.id for image in meant)
        else:
            unclear.append(name)
    if missing:
        listed = plural(len(labels.names), "image of the list is", "images of the list are")
        raise UsageError(
            f"{len(missing)} of {listed} not in the train split",
            value=_some(missing),
            way_out="Add them with their labels, or take them out of the list.",
        )
    if unclear:
        raise UsageError(
            "the list has image names that fit several images",
            value=_some(unclear),
            way_out="Write their folders too.",
        )
    return found


def _named(text: str, path: Path, sha256: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    lines = (line.strip().replace("\\", "/") for line in text.splitlines())
    names = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not names:
        raise UsageError(
            "the list of labelled images is empty",
            value=path,
            way_out="Write one image's name on each line.",
        )
    published = _PUBLISHED.get(path.name)
    if published is None or sha256.startswith(published[1]):
        return names, ()
    count, begin = published
    note = (
        f"{path.name} is not the published file: it names {plural(len(names), 'image')} instead of {count},"
        f" and its SHA-256 begins with {sha256[:8]} instead of {begin}; numbers are not comparable"
    )
    return names, (note,)


def _counted(
    text: str, request: ListRequest, seed: int, coco_file: Callable[[], Path]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    indices, percent = _indices(text, request, seed)
    names = _names_in_order(coco_file())
    if max(indices) >= len(names):
        have = plural(len(names), "image has", "images have")
        raise UsageError(
            f"the list counts to {max(indices)}, but only {have} objects",
            value=request.path,
            way_out="The list belongs to other annotations, or some annotations are missing.",
        )
    notes = []
    if len(indices) != int(percent / 100 * len(names)):
        share = 100 * len(indices) / len(names)
        counted = f"{len(indices)} of {plural(len(names), 'image')}"
        notes.append(f"the list calls {counted} {percent:g} %; they are {share:.1f} %")
    if request.path.name == _LEAKING:
        notes.append(
            "the published split of M-OrgaQuant leaks: training images of Subset_1 are pieces of test images;"
            " numbers look better than they are"
        )
    return tuple(names[i] for i in indices), tuple(notes)


def _indices(text: str, request: ListRequest, seed: int) -> tuple[list[int], float]:
    """The indices of a share, ascending, and the share in percent."""
    try:
        document = json.loads(text)
        shares = {float(key): draws for key, draws in document.items()}
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"the list is not a JSON file of shares ({error})",
            value=request.path,
            way_out="Give the published file, or a list of names, one on each line.",
        ) from error
    draws = shares.get(request.percent) if request.percent is not None else None
    if not isinstance(draws, dict):
        raise UsageError(
            "the list of labelled images has several shares, and none is chosen",
            value=request.path if request.percent is None else f"{request.path}@{request.percent:g}%",
            way_out=f"Write {request.path}@{min(shares, default=1):g}%; it has "
            f"{', '.join(f'{share:g}%' for share in sorted(shares))}.",
        )
    indices = draws.get(str(seed)) if len(draws) != 1 else next(iter(draws.values()))
    if indices is None:
        raise UsageError(
            "the list has no such draw", value=f"seed {seed}", way_out=f"Seeds are {', '.join(draws)}."
        )
    if not isinstance(indices, list) or not indices or not all(type(i) is int and i >= 0 for i in indices):
        raise UsageError(
            "the list's indices cannot be used",
            value=f"{request.path}@{request.percent:g}%",
            way_out="Each draw is a list of whole numbers from 0.",
        )
    assert request.percent is not None
    return sorted(set(indices)), request.percent


def _names_in_order(coco_file: Path) -> list[str]:
    """File names of the images with a single object, in the order of their ids (detectron2's loader)."""
    document = load_json(coco_file)
    if not is_coco(document):
        raise UsageError(
            "the list counts the images of a COCO file, and this is not one",
            value=coco_file,
            way_out="Use it with the COCO file that it was published for.",
        )
    with_objects = {
        entry.get("image_id")
        for entry in document["annotations"]
        if isinstance(entry, dict) and not entry.get("iscrowd", 0)
    }
    entries: list[dict[str, Any]] = [e for e in document["images"] if e.get("id") in with_objects]
    return [str(entry["file_name"]) for entry in sorted(entries, key=lambda e: e["id"])]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"the list cannot be read ({error.strerror})", value=path, way_out="Check the path of --labels."
        ) from error


def _key(name: str) -> str:
    """What the name of an image and those of its labels have in common."""
    return bare_stem(_LABEL_ENDING.sub("", PurePosixPath(name).stem) + ".png")


def _ends_with(path: Path, name: str) -> bool:
    """Whether the folders that a name has are the last ones of a path."""
    folders = PurePosixPath(name).parent.parts
    return not folders or path.parent.parts[-len(folders) :] == folders


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
