"""Regions that labelloop cannot use: of a class that the project lacks, or damaged. No server is needed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from labelloop.instances import Instances
from labelloop.integrations.label_studio.brush import encode_brush
from labelloop.integrations.label_studio.labelling_config import ControlNames
from labelloop.integrations.label_studio.regions import to_regions
from labelloop.integrations.label_studio.reviews import Reader
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project
from labelloop.project.tables import EditRow, ImageRow
from labelloop.review.choice import Choice
from labelloop.review.packing import pack_json
from labelloop.review.pulled import PulledTask, PullReport
from labelloop.review.records import store_pull
from labelloop.review.rounds import plan_round
from labelloop.review.tasks import TaskRecord, mark_sent, proposals, round_tasks, shown_by
from labelloop.review.tiles import review_tiles
from made_records import pulled_annotation

CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")
SIZE_HW = (96, 192)


def discs(n: int) -> Instances:
    """Discs in two rows, from the left; the fifth and sixth lie on the seam of two tiles."""
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    middles = [(24 + 48 * (i % 2), 20 + 36 * (i // 2)) for i in range(n)]
    return Instances.from_dense(
        np.asarray([(rows - y) ** 2 + (columns - x) ** 2 < 14**2 for y, x in middles]), scores=[0.9] * n
    )


class Review:
    """An image with ten discs that were proposed, in one task or in two."""

    def __init__(self, root: Path, *, side_px: int = 192) -> None:
        self.proposed = discs(10)
        self.project = Project.init(root, ProjectConfig(name="screen", classes=("cell",)))
        with self.project.ledger.write() as session:
            session.add(ImageRow(sha256="a", path="a", file_name="a", height=SIZE_HW[0], width=SIZE_HW[1]))
        [image] = self.project.images()
        views = review_tiles(self.proposed, max_objects=40, max_side_px=side_px)
        choice = Choice(
            image=image,
            proposed=self.proposed,
            views=views,
            confidence=0.5,
            chosen=tuple({"arm": "random"} for _ in views),
        )
        record = plan_round(
            self.project, [choice], run=None, which=None, server="s", min_score=0.0, strategy="random"
        )
        with self.project.ledger.read() as session:
            proposed = proposals(session, record.id, [image.id])[image.id]
        for number, task in enumerate(round_tasks(self.project, record.id), 1):
            shown = shown_by(task, proposed)
            regions = to_regions(shown.instances, shown.keys, ("cell",), CONTROLS)
            mark_sent(self.project, [(task.key, number, pack_json(regions))])
        self.tasks = round_tasks(self.project, record.id, with_sent=True)

    def pull(self, *results: Any, read_again: bool = False) -> PullReport:
        pulled = []
        for number, (task, result) in enumerate(zip(self.tasks, results, strict=False), 1):
            reviewed = pulled_annotation(result, server_id=number)
            pulled.append(PulledTask(key=task.key, server_id=number, annotations=(reviewed,)))
        return store_pull(self.project, pulled, read=Reader(self.project), read_again=read_again)

    @property
    def labels(self) -> Instances | None:
        [image] = self.project.images()
        return self.project.labels([image.id]).get(image.id)

    def edits(self) -> Counter[str]:
        with self.project.ledger.read() as session:
            return Counter(session.scalars(select(EditRow.kind)))


def as_cysts(task: TaskRecord, keys: set[str]) -> list[dict[str, Any]]:
    """What the task was sent with, these objects of it relabelled."""
    result = json.loads(json.dumps(task.sent))
    for region in result:
        if region["id"] in keys:
            region["value"][region["type"]] = ["cyst"]
    return list(result)


def key_of(task: TaskRecord, number: int) -> str:
    return next(key for key in task.shown if key.endswith(f"-o{number}"))


def test_objects_of_a_class_that_the_project_lacks_are_unknown_area_and_no_edit(tmp_path: Path) -> None:
    review = Review(tmp_path / "p")
    [task] = review.tasks
    result = as_cysts(task, {key_of(task, 0), key_of(task, 3)})
    [drawn] = to_regions(discs(10).select([9]), ["drawn"], ("cyst",), CONTROLS)
    result = [region for region in result if region["id"] != key_of(task, 9)] + [drawn]
    report = review.pull(result)
    assert len(report.unusable) == 3
    assert all("cyst is not a class" in reason for reason in report.unusable)
    labels = review.labels
    assert labels is not None
    assert int((~labels.crowd).sum()) == 7
    unknown = labels.select(labels.crowd).to_dense().any(axis=0)
    cysts = review.proposed.select([0, 3, 9]).to_dense().any(axis=0)
    assert (unknown & cysts).sum() > 0.97 * cysts.sum()
    assert (unknown & ~cysts).sum() < 0.03 * cysts.sum()
    assert review.edits() == {"accepted": 7}
    review.project.set_classes(("cell", "cyst"))
    again = review.pull(read_again=True)
    assert again.images == 1
    labels = review.labels
    assert labels is not None
    assert (int((labels.labels == 1).sum()), len(labels), labels.crowd.any()) == (3, 10, False)
    assert review.edits() == {"accepted": 7, "relabelled": 3}


def test_an_unknown_object_on_a_seam_is_unknown_on_both_sides(tmp_path: Path) -> None:
    review = Review(tmp_path / "p", side_px=128)
    owner = next(t for t in review.tasks if any(key.endswith("-o4") for key in t.owned))
    key = key_of(owner, 4)
    review.pull(*[as_cysts(task, {key} if task is owner else set()) for task in review.tasks])
    labels = review.labels
    assert labels is not None
    assert int((~labels.crowd).sum()) == 9
    unknown = labels.select(labels.crowd).to_dense().any(axis=0)
    assert unknown[review.proposed.mask(4)].all()


def test_a_tile_of_which_nothing_can_be_used_is_as_one_that_has_not_come_back(tmp_path: Path) -> None:
    review = Review(tmp_path / "p", side_px=128)
    good, bad = review.tasks
    report = review.pull(good.sent, {"oops": 1})
    assert sum("gives no labels" in reason for reason in report.unusable) == 1
    labels = review.labels
    assert labels is not None
    assert int((~labels.crowd).sum()) == len(good.owned)
    unknown = labels.select(labels.crowd).to_dense().any(axis=0)
    seen_by_bad = np.zeros(SIZE_HW, np.bool_)
    for task, value in ((bad, True), (good, False)):
        top, left, bottom, right = task.tile.box
        seen_by_bad[top:bottom, left:right] = value
    assert unknown[seen_by_bad].all()


@pytest.mark.parametrize(
    "damaged", [{"oops": 1}, "[]", [1, "x"], [{"id": "x", "type": "polygonlabels"}]], ids=str
)
def test_a_damaged_annotation_gives_no_labels_and_no_edits_and_is_said(tmp_path: Path, damaged: Any) -> None:
    review = Review(tmp_path / "p")
    report = review.pull(damaged)
    assert (report.images, review.labels, review.edits()) == (0, None, {})
    assert any("gives no labels" in reason for reason in report.unusable)


def test_an_image_of_which_all_is_of_an_unknown_class_has_labels_when_the_class_is_known(
    tmp_path: Path,
) -> None:
    review = Review(tmp_path / "p")
    [task] = review.tasks
    report = review.pull(as_cysts(task, set(task.shown)))
    assert (report.images, review.labels, review.edits()) == (0, None, {})
    assert "gives no labels" in report.unusable[-1]
    review.project.set_classes(("cell", "cyst"))
    assert review.pull(read_again=True).images == 1
    labels = review.labels
    assert labels is not None
    assert labels.labels.tolist() == [1] * 10
    assert review.edits() == {"relabelled": 10}


def test_an_image_in_which_a_person_left_nothing_is_empty_whatever_else_they_answered(tmp_path: Path) -> None:
    review = Review(tmp_path / "p")
    report = review.pull([{"id": "q", "type": "choices", "value": {"choices": ["blurred"]}}])
    assert report.images == 1
    assert review.labels == Instances(size_hw=SIZE_HW)
    assert review.edits() == {"deleted": 10}


def _drawn(kind: str, **more: Any) -> dict[str, Any]:
    height, width = SIZE_HW
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    return {"id": "drawn", "type": kind, **size, "value": {kind: ["cell"]}, **more}


@pytest.mark.parametrize(
    "other",
    [
        _drawn("bitmasklabels"),
        _drawn("vectorlabels"),
        _drawn("polygonlabels", image_rotation=90),
        _drawn("a tool of next year"),
        "damaged",
    ],
    ids=lambda other: "damaged" if other == "damaged" else other["type"],
)
def test_where_an_object_may_lie_that_cannot_be_read_nothing_is_background(
    tmp_path: Path, other: Any
) -> None:
    review = Review(tmp_path / "p", side_px=128)
    first, second = review.tasks
    assert first.sent is not None
    review.pull([*first.sent[:-1], other], second.sent)
    labels = review.labels
    assert labels is not None
    objects = labels.select(~labels.crowd)
    gone = review.proposed.rles[first_number(first)]
    assert Counter(objects.rles) == Counter(review.proposed.rles) - Counter([gone])
    unknown = labels.select(labels.crowd).to_dense().any(axis=0)
    top, left, bottom, right = first.tile.box
    unsure = np.zeros(SIZE_HW, np.bool_)
    unsure[top:bottom, left:right] = True
    top, left, bottom, right = second.tile.box
    unsure[top:bottom, left:right] = False  # the other tile shows what is there
    kept = objects.to_dense().any(axis=0)
    assert (unknown == (unsure & ~kept)).all()
    assert review.pull([*first.sent[:-1], other], second.sent, read_again=True).images == 0


def first_number(task: TaskRecord) -> int:
    """Of the object that the task was sent with last."""
    assert task.sent is not None
    return int(task.sent[-1]["id"].split("-o")[1])


def test_an_annotation_that_holds_nothing_but_an_unreadable_shape_is_no_empty_image(tmp_path: Path) -> None:
    review = Review(tmp_path / "p")
    report = review.pull([_drawn("bitmasklabels")])
    assert (report.images, review.labels, review.edits()) == (0, None, {})
    assert "gives no labels" in report.unusable[-1]


@pytest.mark.parametrize(
    "kind", ["choices", "textarea", "rating", "number", "datetime", "taxonomy", "keypointlabels"]
)
def test_what_is_no_object_makes_nothing_unknown(tmp_path: Path, kind: str) -> None:
    review = Review(tmp_path / "p")
    [task] = review.tasks
    assert task.sent is not None
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    review.pull([*task.sent, _drawn(kind), relation])
    assert review.labels == replace(review.proposed, scores=None)


def test_a_mask_that_was_painted_and_erased_again_makes_nothing_unknown(tmp_path: Path) -> None:
    review = Review(tmp_path / "p")
    [task] = review.tasks
    assert task.sent is not None
    rle = list(encode_brush(np.zeros(SIZE_HW, np.bool_)))
    review.pull(
        [*task.sent, _drawn("brushlabels", value={"format": "rle", "rle": rle, "brushlabels": ["cell"]})]
    )
    assert review.labels == replace(review.proposed, scores=None)
