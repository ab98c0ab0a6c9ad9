"""A field whose tiles are asked about in several rounds, by a simulated person who knows the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from labelloop.instances import Instances
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, LabelRow
from labelloop.review.choice import Choice
from labelloop.review.partly import partly_reviewed
from labelloop.review.rounds import RoundRecord, plan_round
from labelloop.review.tasks import round_tasks
from labelloop.review.tiles import TileView, review_tiles
from labelloop.simulation.simulated_review import review_round

SIDE = 320


def discs(*circles: tuple[float, float, float]) -> Instances:
    y, x = np.mgrid[:SIDE, :SIDE]
    masks = np.array([(y - cy) ** 2 + (x - cx) ** 2 < r * r for cy, cx, r in circles])
    masks = masks.reshape(-1, SIDE, SIDE)
    return Instances.from_dense(masks, scores=[0.9] * len(circles), size_hw=(SIDE, SIDE))


GRID = [(y, x, 14.0) for y in range(30, SIDE, 52) for x in range(30, SIDE, 52)]  # some lie on seams


@dataclass
class Field:
    """The project that is reviewed, the one that knows, and what the model would show."""

    scratch: Project
    source: Project
    seen: Instances

    def views(self, proposed: Instances) -> tuple[TileView, ...]:
        return review_tiles(proposed, max_objects=20)

    def ask(self, which: list[int]) -> RoundRecord:
        """A round about some of the tiles that can be asked about now."""
        image = self.scratch.images()[0]
        partly = partly_reviewed(self.scratch, "s").get(image.id)
        proposed = self.seen if partly is None else partly.together(self.seen)
        views = self.views(proposed)
        if partly is not None:
            views = partly.worth_asking(views)
        chosen = tuple(views[i] for i in which) if which else views
        choice = Choice(
            image=image,
            proposed=proposed,
            known=0 if partly is None else len(partly.known),
            views=chosen,
            confidence=0.5,
            chosen=tuple({"arm": "random"} for _ in chosen),
        )
        return plan_round(
            self.scratch, [choice], run=None, which=None, server="s", min_score=0.5, strategy="random"
        )

    def review(self, record: RoundRecord) -> Instances:
        review_round(self.scratch, self.source, record, annotator="perfect", seed=0)
        return self.labels()

    def labels(self) -> Instances:
        (image,) = self.scratch.images()
        return self.scratch.labels([image.id])[image.id]


@pytest.fixture
def field(tmp_path: Path) -> Field:
    """Of 36 objects the model sees 30, half of them a little beside, and three that are none."""
    truth = discs(*GRID)
    rng = np.random.default_rng(0)
    seen = [
        (y + 5 * (i % 2), x, r) for i, (y, x, r) in enumerate(GRID) if i not in set(rng.choice(36, 6, False))
    ]
    made = {}
    for name in ("scratch", "source"):
        made[name] = Project.init(tmp_path / name, ProjectConfig(name=name, classes=("cell",)))
        with made[name].ledger.write() as session:
            session.add(
                ImageRow(
                    id=1,
                    sha256="a",
                    page=0,
                    channel=-1,
                    path="a.png",
                    file_name="a.png",
                    height=SIDE,
                    width=SIDE,
                )
            )
    with made["source"].ledger.write() as session:
        session.add(
            LabelRow(image_id=1, revision=1, source="truth", n_objects=36, instances=encode_instances(truth))
        )
    false = [(56.0, 56.0, 9.0), (160.0, 108.0, 9.0), (264.0, 212.0, 9.0)]
    return Field(scratch=made["scratch"], source=made["source"], seen=discs(*seen, *false))


def matched(labels: Instances, truth: Instances) -> int:
    """How many true objects the labels hold, each once."""
    found = labels.select(~labels.crowd)
    return int((truth.iou(found).max(axis=1) > 0.75).sum()) if len(found) else 0


def test_what_is_left_of_a_field_can_be_asked_about_until_all_of_it_is_known(field: Field) -> None:
    truth = discs(*GRID)
    first = field.review(field.ask([0]))
    assert first.crowd.any()
    known = matched(first, truth)
    assert 0 < known < 36
    second = field.review(field.ask([0]))
    assert known < matched(second, truth) < 36
    last = field.review(field.ask([]))
    assert not last.crowd.any()
    assert matched(last, truth) == len(last) == 36
    assert partly_reviewed(field.scratch, "s") == {}


def test_objects_of_earlier_rounds_stay_bit_for_bit(field: Field) -> None:
    first = field.review(field.ask([0]))
    last = field.review(field.ask([]))
    before = {first.rles[i] for i in range(len(first)) if not first.crowd[i]}
    assert before <= set(last.rles)


def test_the_next_round_shows_labels_and_not_the_models_objects_where_somebody_has_looked(
    field: Field,
) -> None:
    first = field.review(field.ask([0]))
    partly = partly_reviewed(field.scratch, "s")[1]
    together = partly.together(field.seen)
    n_known = int((~first.crowd).sum())
    assert together.rles[:n_known] == tuple(first.rles[i] for i in np.flatnonzero(~first.crowd))
    added = together.select(list(range(n_known, len(together))))
    assert 0 < len(added) < len(field.seen)
    assert partly.known.iou(added).max() < 0.5


def test_a_field_is_not_asked_about_again_while_a_task_of_it_waits(field: Field) -> None:
    field.review(field.ask([0]))
    field.ask([0])
    assert partly_reviewed(field.scratch, "s") == {}


def test_a_field_is_asked_about_again_on_another_server_though_a_task_of_it_waits_where_it_was(
    field: Field,
) -> None:
    field.review(field.ask([0]))
    waiting = field.ask([0])
    again = partly_reviewed(field.scratch, "another")[1]
    views = again.worth_asking(field.views(again.together(field.seen)))
    (box,) = [task.tile.box for task in round_tasks(field.scratch, waiting.id)]
    assert box in [view.tile.box for view in views]
