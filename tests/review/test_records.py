"""What reviews leave in the labels, whatever becomes of their tasks: a field of 36 discs, cut into tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, LabelRow, now
from labelloop.review import records
from labelloop.review.choice import Choice
from labelloop.review.edits import KeyedInstances
from labelloop.review.known import minutes_spent
from labelloop.review.partly import partly_reviewed
from labelloop.review.pulled import PulledAnnotation, PulledTask, PullReport, ReadReview
from labelloop.review.records import store_pull
from labelloop.review.rounds import plan_round
from labelloop.review.tasks import TaskRecord, round_tasks
from labelloop.review.tiles import TileView, cut_to_box, review_tiles, whole_view
from made_records import pulled_annotation

SIDE = 320
Circle = tuple[float, float, float]  # y, x and radius, px
EARLY, LATE, LATEST = (f"2024-01-0{day}T00:00:00Z" for day in (1, 2, 3))


def discs(*circles: Circle) -> Instances:
    y, x = np.mgrid[:SIDE, :SIDE]
    masks = np.array([(y - cy) ** 2 + (x - cx) ** 2 < r * r for cy, cx, r in circles])
    return Instances.from_dense(masks, scores=[0.9] * len(circles))


TRUTH = discs(*[(y, x, 14.0) for y in range(30, SIDE, 52) for x in range(30, SIDE, 52)])


def annotation(
    number: int = 1,
    when: str = EARLY,
    *,
    skipped: bool = False,
    deleting: Iterable[str] = (),
    drawing: Iterable[Circle] = (),
    moving: Mapping[str, Circle] | None = None,
) -> PulledAnnotation:
    """One that leaves all objects as they were shown, but for some; circles are the image's."""
    drawn = {f"new {i}": circle for i, circle in enumerate(drawing)} | dict(moving or {})
    return pulled_annotation(
        {"deleted": list(deleting), "drawn": drawn},
        server_id=number,
        created_at=when,
        updated_at=when,
        skipped=skipped,
    )


def read(task: TaskRecord, result: Any, shown: KeyedInstances) -> ReadReview:
    drawn = result["drawn"]
    kept = [i for i, key in enumerate(shown.keys) if key not in result["deleted"] and key not in drawn]
    keys = tuple(shown.keys[i] for i in kept)
    objects = replace(shown.instances.select(kept), scores=None)
    if drawn:
        new = cut_to_box(discs(*map(tuple, drawn.values())), task.tile.box)
        objects = Instances.from_dense(np.concatenate([objects.to_dense(), new.to_dense()]))
    return ReadReview(
        objects=KeyedInstances(keys=(*keys, *drawn), instances=objects), untouched=frozenset(keys)
    )


@dataclass
class Field:
    """A project with one image."""

    project: Project

    def ask(self, proposed: Instances, views: Sequence[TileView], *, known: int = 0) -> list[TaskRecord]:
        """The tasks of a new round, in the order of their tiles."""
        return self._plan(proposed, views, known, "random")

    def ask_suspects(self, proposed: Instances, views: Sequence[TileView], known: int) -> list[TaskRecord]:
        return self._plan(proposed, views, known, "suspects")

    def ask_again(self, which: slice = slice(None)) -> list[TaskRecord]:
        """A round about what is left of the field."""
        partly = partly_reviewed(self.project, "s")[1]
        proposed = partly.together(TRUTH)
        views = partly.worth_asking(tiles(proposed))[which]
        return self.ask(proposed, views, known=len(partly.known))

    def _plan(
        self, proposed: Instances, views: Sequence[TileView], known: int, strategy: str
    ) -> list[TaskRecord]:
        (image,) = self.project.images()
        choice = Choice(
            image=image,
            proposed=proposed,
            known=known,
            views=tuple(views),
            confidence=0.5,
            chosen=tuple({"arm": "x"} for _ in views),
        )
        record = plan_round(
            self.project, [choice], run=None, which=None, server="s", min_score=0.0, strategy=strategy
        )
        return round_tasks(self.project, record.id)

    def pull(
        self,
        *reviews: tuple[TaskRecord, Sequence[PulledAnnotation]],
        deleted: Sequence[TaskRecord] = (),
        read_again: bool = False,
    ) -> PullReport:
        tasks = [PulledTask(key=task.key, server_id=7, annotations=tuple(a)) for task, a in reviews]
        gone = [task.key for task in deleted]
        return store_pull(self.project, tasks, read=read, deleted=gone, read_again=read_again)

    def add_labels(self, labels: Instances) -> None:
        with self.project.ledger.write() as session:
            session.add(
                LabelRow(
                    image_id=1,
                    revision=1 + self.project.newest_label_revisions([1]).get(1, 0),
                    source="coco:labels.json",
                    n_objects=len(labels),
                    instances=encode_instances(replace(labels, scores=None)),
                )
            )

    @property
    def labels(self) -> Instances:
        return self.project.labels([1])[1]

    @property
    def objects(self) -> list[bytes]:
        return sorted(self.labels.select(~self.labels.crowd).rles)

    @property
    def unknown(self) -> float:
        """The share of the image that is unknown."""
        crowd = self.labels.select(self.labels.crowd).to_dense()
        return float(crowd.any(axis=0).mean()) if len(crowd) else 0.0


def together(one: Instances, other: Instances) -> Instances:
    return Instances.from_dense(
        np.concatenate([one.to_dense(), other.to_dense()]), scores=[0.9] * (len(one) + len(other))
    )


def tiles(proposed: Instances) -> tuple[TileView, ...]:
    return review_tiles(proposed, max_objects=20)


@pytest.fixture
def field(tmp_path: Path) -> Field:
    project = Project.init(tmp_path / "field", ProjectConfig(name="field", classes=("cell",)))
    with project.ledger.write() as session:
        row = ImageRow(id=1, sha256="a", path="a.png", file_name="a.png", height=SIDE, width=SIDE)
        session.add(row)
    return Field(project)


def test_a_reviewed_tile_stays_in_the_labels_when_its_task_is_deleted(field: Field) -> None:
    first, *others = field.ask(TRUTH, tiles(TRUTH))
    field.pull((first, [annotation()]))
    field.pull(deleted=[first])
    field.pull(*((task, [annotation()]) for task in others))
    assert field.objects == sorted(TRUTH.rles)
    assert field.unknown == 0


@pytest.mark.parametrize(
    "then",
    [
        pytest.param([], id="deleted"),
        pytest.param([annotation(when=LATE, skipped=True)], id="skipped"),
        pytest.param([annotation(2, LATE, skipped=True)], id="deleted and skipped anew"),
    ],
)
def test_an_annotation_that_was_deleted_or_skipped_later_takes_nothing_back(
    field: Field, then: list[PulledAnnotation]
) -> None:
    first, *others = field.ask(TRUTH, tiles(TRUTH))
    gone = sorted(first.owned)[0]
    field.pull((first, [annotation(deleting=[gone])]))
    field.pull((first, then))
    field.pull(*((task, [annotation()]) for task in others))
    assert len(field.objects) == len(TRUTH) - 1
    assert field.unknown == 0


def test_of_annotations_that_are_all_gone_the_last_one_that_counted_does(field: Field) -> None:
    first, *others = field.ask(TRUTH, tiles(TRUTH))
    one, two, three = sorted(first.owned)[:3]
    early = annotation(1, EARLY, deleting=[one])
    field.pull((first, [early, annotation(2, LATEST, deleting=[one, two, three])]))
    field.pull((first, [early]))
    field.pull(deleted=[first])
    field.pull(*((task, [annotation()]) for task in others))
    assert len(field.objects) == len(TRUTH) - 1


def test_a_field_is_asked_about_again_as_far_as_it_is_unknown_though_a_reviewed_task_is_gone(
    field: Field,
) -> None:
    (first,) = field.ask(TRUTH, tiles(TRUTH)[:1])
    field.pull((first, [annotation()]))
    field.pull((first, []))
    field.pull(deleted=[first])
    field.pull(*((task, [annotation()]) for task in field.ask_again()))
    assert field.objects == sorted(TRUTH.rles)
    assert field.unknown == 0


def test_a_reviewed_task_that_was_deleted_is_told_once_and_stays_reviewed(field: Field) -> None:
    task, *_ = field.ask(TRUTH, tiles(TRUTH))
    field.pull((task, [annotation()]))
    assert field.pull(deleted=[task]).tasks_deleted == 1
    assert field.pull(deleted=[task]).tasks_deleted == 0
    (after,) = [each for each in round_tasks(field.project, 1) if each.key == task.key]
    assert (after.state, after.server_id) == ("reviewed", None)
    field.pull((task, [annotation()]))
    assert field.pull(deleted=[task]).tasks_deleted == 1


def test_labels_that_were_added_stay_where_a_suspects_tile_does_not_come_back(field: Field) -> None:
    field.add_labels(TRUTH)
    missed = discs((160.0, 100.0, 9.0), (262.0, 210.0, 9.0))
    shown = together(TRUTH, missed)
    first, *others = field.ask_suspects(shown, tiles(shown), known=len(TRUTH))
    gone = sorted(first.owned)[0]
    field.pull(
        (first, [annotation(deleting=[gone])]), *((task, [annotation(skipped=True)]) for task in others)
    )
    place = int(gone.split("known")[1])
    assert field.objects == sorted(TRUTH.rles[:place] + TRUTH.rles[place + 1 :])
    assert field.unknown == 0


@pytest.mark.parametrize("known", [pytest.param(0, id="an older version's round"), len(TRUTH)])
def test_labels_from_review_stay_where_a_suspects_tile_does_not_come_back(field: Field, known: int) -> None:
    (whole,) = field.ask(TRUTH, [whole_view(TRUTH)])
    field.pull((whole, [annotation()]))
    shown = replace(field.labels, scores=np.ones(len(TRUTH), np.float32))
    first, second, *_ = field.ask_suspects(shown, tiles(shown), known=known)
    field.pull((first, [annotation()]))
    assert field.objects == sorted(TRUTH.rles)
    assert field.unknown == 0
    field.pull((second, [annotation(deleting=[sorted(second.owned)[0]])]))
    assert len(field.objects) == len(TRUTH) - 1
    assert field.unknown == 0


def test_an_object_that_a_suspects_tile_misses_comes_into_the_labels_with_that_tile(field: Field) -> None:
    labels = TRUTH.select(range(1, len(TRUTH)))
    field.add_labels(labels)
    shown = together(labels, TRUTH.select([0]))
    first, *_ = field.ask_suspects(shown, tiles(shown), known=len(labels))
    field.pull((first, [annotation()]))
    assert field.objects == sorted(TRUTH.rles)


@pytest.fixture
def two_rounds(field: Field) -> tuple[TaskRecord, TaskRecord]:
    """A tile that was reviewed, and one of a later round that waits."""
    (first,) = field.ask(TRUTH, tiles(TRUTH)[:1])
    field.pull((first, [annotation()]))
    (second,) = field.ask_again(slice(1))
    return first, second


@pytest.mark.parametrize("correct_first", [True, False])
def test_a_correction_in_an_earlier_round_counts_whenever_a_later_round_comes_back(
    field: Field, two_rounds: tuple[TaskRecord, TaskRecord], *, correct_first: bool
) -> None:
    first, second = two_rounds
    known = len(field.objects)
    gone = sorted(first.owned)[:3]
    correction, later = (first, [annotation(when=LATE, deleting=gone)]), (second, [annotation()])
    reports = [
        field.pull(pulled) for pulled in ([correction, later] if correct_first else [later, correction])
    ]
    new = len([key for key in second.owned if "known" not in key])
    assert len(field.objects) == known - 3 + new
    deleted = {TRUTH.rles[int(key.split("-o")[1])] for key in gone}
    assert not deleted & set(field.objects)
    assert not any(report.unusable for report in reports)


def test_an_object_that_an_earlier_round_adds_meanwhile_is_there_once_though_a_later_round_draws_it_too(
    field: Field, two_rounds: tuple[TaskRecord, TaskRecord]
) -> None:
    first, second = two_rounds
    top, left, bottom, right = (
        np.maximum(first.tile.box, second.tile.box)[:2].tolist()
        + np.minimum(first.tile.box, second.tile.box)[2:].tolist()
    )
    circle = ((top + bottom) / 2, (left + right) / 2, 7.0)
    field.pull((first, [annotation(when=LATE, drawing=[circle])]))
    before = len(field.objects)
    field.pull((second, [annotation(drawing=[circle])]))
    new = len([key for key in second.owned if "known" not in key])
    assert len(field.objects) == before + new


def test_of_two_rounds_that_change_one_object_the_later_one_counts(field: Field) -> None:
    (whole,) = field.ask(TRUTH, [whole_view(TRUTH)])
    field.pull((whole, [annotation()]))
    shown = replace(field.labels, scores=np.ones(len(TRUTH), np.float32))
    (again,) = field.ask_suspects(shown, [whole_view(shown)], known=len(shown))
    one, other = (30.0, 30.0, 16.0), (30.0, 32.0, 17.0)
    field.pull((whole, [annotation(when=LATE, moving={whole.shown[0]: one})]))
    assert discs(one).rles[0] in field.objects
    field.pull((again, [annotation(moving={again.shown[0]: other})]))
    assert discs(other).rles[0] in field.objects
    assert len(field.objects) == len(TRUTH)


def test_reading_all_anew_changes_and_tells_nothing_where_nothing_is_new(
    field: Field, two_rounds: tuple[TaskRecord, TaskRecord]
) -> None:
    _, second = two_rounds
    field.pull((second, [annotation()]))
    revision = field.project.newest_label_revisions([1])
    report = field.pull(read_again=True)
    assert (report.images, report.unusable) == (0, [])
    assert field.project.newest_label_revisions([1]) == revision


def test_labels_added_between_two_rounds_are_what_the_later_one_starts_from(field: Field) -> None:
    (whole,) = field.ask(TRUTH, [whole_view(TRUTH)])
    field.pull((whole, [annotation()]))
    added = TRUTH.select(range(4, len(TRUTH)))
    field.add_labels(added)
    first, *_ = field.ask_suspects(added, tiles(added), known=len(added))
    field.pull((first, [annotation()]))
    assert field.objects == sorted(added.rles)


@pytest.mark.parametrize("deleted", [False, True])
def test_a_tile_that_was_declined_is_not_asked_about_again(field: Field, *, deleted: bool) -> None:
    first, second, *others = field.ask(TRUTH, tiles(TRUTH)[:3])
    done = [(task, [annotation()]) for task in (first, *others)]
    if deleted:
        field.pull(*done, deleted=[second])
    else:
        field.pull(*done, (second, [annotation(skipped=True)]))
    (last,) = field.ask_again()
    assert last.tile.box == tiles(TRUTH)[3].tile.box
    field.pull((last, [annotation()]))
    assert field.unknown > 0
    assert partly_reviewed(field.project, "s") == {}


def test_the_time_of_a_changed_annotation_counts_as_far_as_it_was_not_counted_before(field: Field) -> None:
    task, *_ = field.ask(TRUTH, tiles(TRUTH))

    def minutes(when: str, seconds: float | None, number: int = 1) -> float:
        return field.pull((task, [replace(annotation(number, when), lead_time_s=seconds)])).minutes

    assert minutes(EARLY, 60.0) == 1.0
    assert minutes(LATE, 90.0) == 0.5
    assert minutes(LATEST, 30.0) == 0.0
    assert minutes("2024-01-04T00:00:00Z", 36.0, number=2) == 0.6


# --- labels that `add labels` brought after a review: rows y = 30, 82, ... of six discs each


CORRECTED = TRUTH.select(range(3, len(TRUTH)))


def test_a_skip_after_labels_were_added_does_not_bring_older_review_back(field: Field) -> None:
    (whole,) = field.ask(TRUTH, [whole_view(TRUTH)])
    field.pull((whole, [annotation()]))
    field.add_labels(CORRECTED)
    report = field.pull((whole, [annotation(), annotation(2, LATE, skipped=True)]))
    assert (report.annotations_new, report.images) == (1, 0)
    assert field.objects == sorted(CORRECTED.rles)


def test_what_was_imported_elsewhere_after_labels_were_added_does_not_bring_older_review_back(
    field: Field,
) -> None:
    (whole,) = field.ask(TRUTH, [whole_view(TRUTH)])
    field.pull((whole, [annotation(1, EARLY)]))
    field.add_labels(CORRECTED)
    spent = minutes_spent(field.project)
    imported = replace(annotation(40, LATE), created_at=LATE)  # made anew, with another number
    assert field.pull((whole, [imported])).images == 0
    assert field.objects == sorted(CORRECTED.rles)
    assert minutes_spent(field.project) == spent > 0
    longer = replace(imported, updated_at=LATEST, lead_time_s=90.0)
    field.pull((whole, [longer]))
    assert minutes_spent(field.project) == 1.5


def test_a_review_counts_though_this_machines_clock_was_set_back_since_labels_were_added(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = field.ask(TRUTH, [whole_view(TRUTH)])
    field.add_labels(TRUTH)
    monkeypatch.setattr(records, "now", lambda: now() - timedelta(minutes=2))
    field.pull((whole, [annotation(deleting=whole.shown[:10])]))
    assert len(field.objects) == len(TRUTH) - 10


@pytest.mark.parametrize("left", [1, 2])
def test_deleting_one_of_two_annotations_after_labels_were_added_does_not_bring_older_review_back(
    field: Field, left: int
) -> None:
    (whole,) = field.ask(TRUTH, [whole_view(TRUTH)])
    both = [annotation(1, EARLY), annotation(2, LATE, deleting=whole.shown[:10])]
    field.pull((whole, both))
    field.add_labels(CORRECTED)
    report = field.pull((whole, [a for a in both if a.server_id == left]))
    assert (report.annotations_gone, report.images) == (1, 0)
    assert field.objects == sorted(CORRECTED.rles)


def test_a_tile_that_comes_back_after_the_whole_field_was_added_takes_nothing_away(field: Field) -> None:
    first, second, third, *_ = field.ask(TRUTH, tiles(TRUTH))
    field.pull((first, [annotation(deleting=sorted(first.owned)[:1])]))
    field.add_labels(TRUTH)
    report = field.pull((second, [annotation()]))
    assert (report.images, field.objects, field.unknown) == (0, sorted(TRUTH.rles), 0)
    gone = sorted(third.owned)[0]
    field.pull((third, [annotation(deleting=[gone])]))
    place = int(gone.split("-o")[1])
    assert field.objects == sorted(TRUTH.rles[:place] + TRUTH.rles[place + 1 :])
    assert field.unknown == 0
    field.pull((third, [annotation(deleting=[gone])]), (second, [annotation(2, LATE)]))
    assert len(field.objects) == len(TRUTH) - 1


def test_labels_added_while_a_suspects_round_is_open_stay_where_its_reviewer_left_them_alone(
    field: Field,
) -> None:
    field.add_labels(TRUTH.select(range(30)))
    shown = replace(field.labels, scores=np.ones(30, np.float32))
    (whole,) = field.ask_suspects(shown, [whole_view(shown)], known=30)
    field.add_labels(CORRECTED)  # without three of those shown, with six that were not
    field.pull((whole, [annotation(deleting=[whole.shown[9]])]))
    assert field.objects == sorted(TRUTH.rles[3:9] + TRUTH.rles[10:])


def test_reading_all_anew_leaves_labels_that_were_added_between_two_tiles(field: Field) -> None:
    first, second, *_ = field.ask(TRUTH, tiles(TRUTH))
    field.pull((first, [annotation(deleting=sorted(first.owned)[:1])]))
    field.add_labels(TRUTH)
    gone = sorted(second.owned - first.owned)[:1]
    field.pull((second, [annotation(deleting=gone)]))
    assert field.pull(read_again=True).images == 0
    assert len(field.objects) == len(TRUTH) - 1


def test_the_star_of_ground_truth_that_was_moved_and_taken_away_counts_as_the_server_has_it(
    field: Field,
) -> None:
    (whole,) = field.ask(TRUTH, [whole_view(TRUTH)])
    plain, other = annotation(1, EARLY), annotation(2, LATE, deleting=whole.shown[:10])
    field.pull((whole, [replace(plain, ground_truth=True), other]))
    assert field.objects == sorted(TRUTH.rles)
    # The server takes the star off one without saying that it was changed.
    field.pull((whole, [plain, replace(other, ground_truth=True, updated_at=LATEST)]))
    assert field.objects == sorted(TRUTH.rles[10:])
    field.pull((whole, [plain, replace(other, updated_at=LATEST)]))
    assert field.objects == sorted(TRUTH.rles[10:])
    field.pull((whole, [replace(plain, ground_truth=True), replace(other, updated_at=LATEST)]))
    assert field.objects == sorted(TRUTH.rles)


def test_accepting_in_bulk_later_does_not_outrank_what_somebody_looked_at(field: Field) -> None:
    (whole,) = field.ask(TRUTH, [whole_view(TRUTH)])
    looked = annotation(1, EARLY, deleting=whole.shown[:10])
    bulk = replace(annotation(2, LATE), bulk=True, lead_time_s=None)
    field.pull((whole, [bulk]))
    assert field.objects == sorted(TRUTH.rles)
    field.pull((whole, [looked, bulk]))
    assert field.objects == sorted(TRUTH.rles[10:])
