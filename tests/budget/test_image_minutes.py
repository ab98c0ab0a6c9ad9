"""Minutes of an image, from annotations whose times are known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from labelloop.budget import image_minutes
from labelloop.budget.effort import EffortModel
from labelloop.budget.image_minutes import minutes_per_image
from labelloop.budget.work import Work
from labelloop.instances import Instances
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import (
    AnnotationRow,
    EditRow,
    ImageRow,
    LabelRow,
    PredictionRow,
    ProposalRow,
    ReviewTaskRow,
    RoundRow,
    RunRow,
    now,
)
from labelloop.simulation.annotator_time import reported_seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """One state of one annotation."""

    image: int
    seconds: float | None
    task: str = ""
    number: int = 0
    skipped: bool = False
    bulk: bool = False
    gone: bool = False
    core: tuple[int, int, int, int] = (0, 0, 9, 9)
    added: int = 0
    maybe_twice: bool | None = False


@pytest.fixture
def project(tmp_path):
    return Project.init(tmp_path / "timed", ProjectConfig(name="timed", classes=("a",)))


def review(project, looks, strategy="random"):
    with project.ledger.write() as session:
        facts = {"run": None, "which": None, "model_version": "", "server": "s", "strategy": strategy}
        session.add(RoundRow(id=1, min_score=0.5, **facts))
        for image in {look.image for look in looks}:
            session.add(ImageRow(id=image, sha256=str(image), path="x", file_name="x", height=9, width=9))
        session.flush()
        nothing = encode_instances(Instances(size_hw=(9, 9)))
        for image in {look.image for look in looks}:
            session.add(ProposalRow(round_id=1, image_id=image, keys=[], instances=nothing))
        for task, image, core in {(look.task or str(look.image), look.image, look.core) for look in looks}:
            tile = {"box": (0, 0, 9, 9), "core": core, "inner": (0, 0, 9, 9), "shown": [], "owned": []}
            row = ReviewTaskRow(
                key=task, round_id=1, image_id=image, tile=tile, confidence=1.0, state="reviewed"
            )
            session.add(row)
        session.flush()
        for i, look in enumerate(looks):
            annotation = AnnotationRow(
                task_key=look.task or str(look.image),
                server_id=look.number or look.image,
                created_at="",
                updated_at=str(i),
                who="ann",
                lead_time_s=look.seconds,
                maybe_twice=look.maybe_twice,
                skipped=look.skipped,
                ground_truth=False,
                bulk=look.bulk,
                result=b"",
                gone_at=now() if look.gone else None,
            )
            session.add(annotation)
            session.flush()
            drawn = {"kind": "added", "before": [], "after": [], "outline_px": 100.0}
            session.add_all(EditRow(annotation_id=annotation.id, **drawn) for _ in range(look.added))


def test_the_mean_of_the_images_with_an_interval_around_it(project):
    spent = (120, 180, 240, 150, 210, 180)
    review(project, [Look(image=i, seconds=seconds) for i, seconds in enumerate(spent, 1)])
    cost = minutes_per_image(project)
    assert cost.value == pytest.approx(3.0, rel=0.02)
    assert cost.n == 6
    assert 2 < cost.low < 3 < cost.high < 4.5


def test_tiles_of_an_image_add_up_and_only_the_last_state_of_an_annotation_counts(project):
    halves = {1: (0, 0, 9, 4), 2: (0, 4, 9, 9)}
    looks = [
        Look(image=i, seconds=60, task=f"{i}-{half}", number=10 * i + half, core=core)
        for i in range(1, 6)
        for half, core in halves.items()
    ]
    before = [dataclasses.replace(look, seconds=999.0) for look in looks]
    review(project, [*before, *looks])
    assert minutes_per_image(project).value == pytest.approx(2.0, rel=0.02)


def test_skipped_bulk_deleted_and_untimed_annotations_do_not_count(project):
    looks = [Look(image=i, seconds=120.0) for i in range(1, 6)]
    odd = [
        Look(image=6, seconds=900.0, skipped=True),
        Look(image=7, seconds=900.0, bulk=True),
        Look(image=8, seconds=900.0, gone=True),
        Look(image=9, seconds=None),
    ]
    review(project, looks + odd)
    cost = minutes_per_image(project)
    assert (cost.value, cost.n) == (pytest.approx(2.0, rel=0.02), 5)


def test_a_field_of_which_some_tiles_were_reviewed_is_one_image_at_what_these_took(project):
    ninth = (3, 3, 6, 6)
    skipped = Look(image=1, seconds=900.0, task="1-other", number=50, skipped=True, core=(0, 0, 3, 3))
    looks = [Look(image=i, seconds=60.0, core=ninth) for i in range(1, 4)]
    looks += [
        Look(image=i, seconds=60.0, task=f"{i}-{tile}", number=10 * i + tile, core=core)
        for i in (4, 5)
        for tile, core in enumerate([ninth, (0, 3, 3, 6)])
    ]
    review(project, [*looks, skipped])
    cost = minutes_per_image(project)
    assert (cost.value, cost.n) == (pytest.approx((3 * 1 + 2 * 2) / 5, rel=0.02), 5)


def test_of_several_people_at_one_tile_each_costs_their_time(project):
    looks = [Look(image=i, seconds=60.0, number=i, core=(0, 0, 9, 3)) for i in range(1, 6)]
    review(project, [*looks, *(dataclasses.replace(look, number=look.number + 10) for look in looks)])
    assert minutes_per_image(project).value == pytest.approx(2.0, rel=0.02)


def test_an_image_left_open_over_night_counts_what_its_work_takes(project):
    review(project, [*(Look(image=i, seconds=60.0) for i in range(1, 10)), Look(image=10, seconds=40_000.0)])
    assert minutes_per_image(project).value == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("idle_share", "doubled_share", "known"),
    [
        pytest.param(0.0, 0.0, None, id="clean"),
        pytest.param(0.1, 0.0, None, id="idle"),
        pytest.param(0.0, 0.3, None, id="doubled"),
        pytest.param(0.1, 0.3, None, id="both"),
        pytest.param(0.0, 1.0, True, id="all doubled"),
    ],
)
def test_minutes_are_of_worked_time_whatever_the_server_counts(project, idle_share, doubled_share, known):
    rng = np.random.default_rng(1)
    added = rng.poisson(6, 40)
    worked = (20 + 15 * added) * rng.lognormal(0, 0.2, 40)
    looks = []
    for i, (count, seconds) in enumerate(zip(added.tolist(), worked.tolist(), strict=True), 1):
        said = reported_seconds(seconds, rng, idle_share=idle_share, doubled_share=doubled_share)
        twice = known if known is not None else said.maybe_twice
        looks.append(Look(image=i, seconds=said.seconds, added=count, maybe_twice=twice))
    review(project, looks)
    cost = minutes_per_image(project)
    assert cost.value == pytest.approx(worked.mean() / 60, rel=0.08)
    assert cost.low < (20 + 15 * 6) * math.exp(0.02) / 60 < cost.high  # what such images take on average
    assert cost.high / cost.low < 1.5


def test_without_times_and_labels_nobody_knows(project):
    cost = minutes_per_image(project)
    assert cost.value is None
    assert "0 are known" in cost.reason


def label(project, n_objects, images, *, unknown_rows=0, n_classes=1):
    """Labelled images of so many discs each; the last rows are unknown, to every class."""
    rows, columns = np.mgrid[:64, :64]
    discs = [(rows - 20) ** 2 + (columns - 12 * i) ** 2 <= 25 for i in range(n_objects)]
    masks = [*discs, *[rows >= 64 - unknown_rows] * (n_classes if unknown_rows else 0)]
    dense = Instances.from_dense(np.array(masks), size_hw=(64, 64))
    instances = dataclasses.replace(dense, crowd=np.arange(len(masks)) >= n_objects)
    with project.ledger.write() as session:
        for image in images:
            session.add(ImageRow(id=image, sha256=str(image), path="x", file_name="x", height=64, width=64))
            session.flush()
            stored = encode_instances(instances)
            session.add(
                LabelRow(image_id=image, revision=1, source="x", n_objects=n_objects, instances=stored)
            )


def test_before_reviews_were_timed_an_image_costs_what_drawing_its_objects_does(project):
    label(project, 5, range(1, 4))
    cost = minutes_per_image(project)
    model = EffortModel.prior()
    by_hand = model.predict(Work(objects=0, edits={"added": 5.0}, outline_px=2 * np.pi * 5))
    assert cost.value == pytest.approx(by_hand.value, rel=0.05)
    assert (cost.n, cost.reliable) == (0, False)
    assert cost.low < by_hand.low < by_hand.high < cost.high  # 95 % is wider than 80 %


def test_rounds_that_look_labels_through_do_not_say_what_an_image_costs(project):
    label(project, 5, range(21, 24))
    by_hand = minutes_per_image(project).value
    review(project, [Look(image=i, seconds=15.0) for i in range(1, 8)], strategy="suspects")
    cost = minutes_per_image(project)
    assert (cost.n, cost.reliable) == (0, False)
    assert cost.value > by_hand / 2


def test_an_image_that_is_known_by_half_costs_what_drawing_the_objects_of_this_half_does(project):
    label(project, 5, range(1, 4))
    whole = minutes_per_image(project).value
    label(project, 5, range(4, 100), unknown_rows=32, n_classes=2)
    assert minutes_per_image(project).value == pytest.approx(whole, rel=1e-6)


def test_images_of_the_whole_pool_stand_for_it_and_not_those_that_were_added_first(project, monkeypatch):
    monkeypatch.setattr(image_minutes, "LOOKED_AT", 10)
    label(project, 1, range(1, 51))
    cheap = minutes_per_image(project).value
    label(project, 5, range(51, 101))
    dear = minutes_per_image(project).value
    model, px = EffortModel.prior(), 2 * np.pi * 5
    five = model.predict(Work(objects=0, edits={"added": 5.0}, outline_px=px)).value
    assert dear == pytest.approx((cheap + five) / 2, rel=0.05)


def predict_in_pool(project, result=None):
    """An image of the pool in which a finished run saw five discs."""
    rows, columns = np.mgrid[:64, :64]
    discs = [(rows - 20) ** 2 + (columns - 12 * i) ** 2 <= 25 for i in range(5)]
    seen = Instances.from_dense(np.array(discs), scores=np.full(5, 0.97), size_hw=(64, 64))
    with project.ledger.write() as session:
        session.add(ImageRow(id=9, sha256="9", path="x", file_name="x", height=64, width=64))
        session.add(
            RunRow(
                name="r",
                state="finished",
                method="guided",
                model="m",
                seed=0,
                promoted="guided",
                config={},
                result=result,
            )
        )
        session.flush()
        stored = encode_instances(seen)
        session.add(PredictionRow(run="r", which="guided", image_id=9, instances=stored))


def test_what_a_model_has_seen_is_corrected_and_not_drawn(project):
    label(project, 5, range(1, 4))
    by_hand = minutes_per_image(project).value
    predict_in_pool(project)
    assert minutes_per_image(project).value < 0.7 * by_hand


def test_where_labelled_images_are_known_by_half_half_of_an_image_of_the_pool_is_corrected(project):
    predict_in_pool(project)
    label(project, 5, range(1, 4))
    whole = minutes_per_image(project).value
    label(project, 5, range(11, 14), unknown_rows=64)  # of these nothing is known
    task = EffortModel.prior().predict(Work(objects=0)).value  # the same for however little there is to see
    half = minutes_per_image(project).value
    assert half - task == pytest.approx((whole - task) / 2, rel=0.1)


def test_before_five_images_were_timed_an_image_costs_what_a_push_expects_of_it(project):
    predict_in_pool(project, result={"min_score": {"guided": 0.98}})  # nothing of it would be shown
    label(project, 12, range(21, 41))  # the model is blind to most of such images
    [work] = image_minutes._corrections(project)
    assert work.objects == 0
    assert work.edits["added"] > 8
    cost = minutes_per_image(project)
    assert cost.value == pytest.approx(EffortModel.prior().predict(work).value, rel=0.01)
