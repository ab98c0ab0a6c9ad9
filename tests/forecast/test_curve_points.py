"""Points of a project's curve: which subsets, measured on what, and computed once."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import func, select

from labelloop.data.synthetic import organoid_micrograph
from labelloop.forecast.curve_points import MeasuredPoint, curve_points, point_key
from labelloop.forecast.subsets import CurveSettings, plan_points, subset_sizes, why_no_plan
from labelloop.formats.coco import coco_dataset
from labelloop.instances import Instances
from labelloop.progress import Silent
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import CurvePointRow, LabelRow

SETTINGS = CurveSettings(base_steps=1, share=0.0, least_steps=1, seeds=1, device="cpu")


@pytest.fixture
def labelled_project(tmp_path):
    """Makes a project with so many labelled images in each split; in groups if asked."""

    def make(train: int, *, val: int = 0, test: int = 0, groups: int = 0) -> Project:
        project = Project.init(tmp_path / "project", ProjectConfig(name="few", classes=("organoid",)))
        rng = np.random.default_rng(0)
        for split, count in (("train", train), ("val", val), ("test", test)):
            images, instances = [], []
            for i in range(count):
                pixels, objects = organoid_micrograph(rng, size_hw=(64, 64), n_objects=2)
                group = f"g{i % groups}" if groups and split == "train" else split
                (tmp_path / split / group).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / split / group / f"{split}{i}.png")
                images.append((f"{group}/{split}{i}.png", (64, 64)))
                instances.append(objects)
            if count:
                file = tmp_path / f"{split}.json"
                file.write_text(json.dumps(coco_dataset(images, instances, ("organoid",))))
                by = "folder" if groups else None
                add_labels(
                    project,
                    LabelSource(path=str(file), images=str(tmp_path / split)),
                    split=split,
                    group_by=by,
                )
        return project

    return make


class Watched(Silent):
    """Counts stages and steps; interrupts at a step if asked."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.stages: list[tuple[str, int]] = []
        self.steps = 0
        self._interrupt_at = interrupt_at

    def start(self, stage: str, total: int) -> None:
        self.stages.append((stage, total))

    def advance(self, steps: int = 1, **facts: float | str) -> None:
        self.steps += steps
        if self.steps == self._interrupt_at:
            raise KeyboardInterrupt


def stored_points(project: Project) -> int:
    with project.ledger.read() as session:
        return session.execute(select(func.count()).select_from(CurvePointRow)).scalar_one()


@given(st.integers(0, 2000), st.integers(4, 6))
def test_sizes_rise_to_all_that_is_available_within_their_range(available, count):
    sizes = subset_sizes(available, count)
    if available < 7:
        assert sizes == []
        return
    assert 4 <= len(sizes) <= count
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == available
    assert sizes[0] >= max(4, round(available / 8))


def test_subsets_of_a_seed_are_nested_and_apart_from_the_images_that_measure_them(labelled_project):
    plans = plan_points(labelled_project(16), CurveSettings())
    assert {(plan.seed, len(plan.train)) for plan in plans} == {
        (s, n) for s in range(2) for n in (4, 6, 8, 12)
    }
    for _, of_seed in itertools.groupby(plans, key=lambda plan: plan.seed):
        chain = list(of_seed)
        assert len({plan.measured for plan in chain}) == 1
        for small, large in itertools.pairwise(chain):
            assert set(small.train) < set(large.train)
        assert {plan.base for plan in chain} == {chain[0].train}
        assert not set(chain[-1].train) & set(chain[-1].measured)
        assert len(chain[-1].measured) == 4
    assert len({plan.train for plan in plans}) == len(plans)


def test_steps_follow_those_of_training_and_grow_with_the_labels():
    settings = CurveSettings()
    assert settings.base_steps + settings.steps(4) == settings.base_steps + settings.steps(15) == 400
    assert settings.base_steps + settings.steps(75) == 800
    assert settings.steps(20) < settings.steps(40) < settings.steps(75)


def test_each_labelled_image_measures_one_of_four_seeds(labelled_project):
    plans = plan_points(labelled_project(16), CurveSettings(seeds=4))
    measured = [image for plan in plans if len(plan.train) == 4 for image in plan.measured]
    assert len(measured) == len(set(measured)) == 16


def test_groups_are_never_on_both_sides(labelled_project):
    for plan in plan_points(labelled_project(16, groups=5), CurveSettings()):
        assert plan.measured
        assert not {image.group for image in plan.train} & {image.group for image in plan.measured}


def test_validation_images_measure_where_there_are_some_and_test_images_never(labelled_project):
    project = labelled_project(12, val=3, test=3)
    plans = plan_points(project, CurveSettings())
    assert {plan.split for plan in plans} == {"val"}
    assert {image.split for plan in plans for image in plan.measured} == {"val"}
    assert max(len(plan.train) for plan in plans) == 12
    assert "test" not in {image.split for plan in plans for image in plan.train}


@pytest.mark.parametrize(
    ("side_px", "crowd"),
    [
        pytest.param(None, False, id="nothing"),
        pytest.param(20, True, id="a crowd"),
        pytest.param(0, False, id="an empty mask"),
    ],
)
def test_a_subset_without_objects_is_not_planned(labelled_project, side_px, crowd):
    masks = np.zeros((0 if side_px is None else 1, 64, 64), bool)
    masks[:, :side_px, :side_px] = True
    labels = dataclasses.replace(Instances.from_dense(masks), crowd=np.full(len(masks), crowd))
    drawn = encode_instances(labels)
    project = labelled_project(16)
    with project.ledger.write() as session:
        for image in project.images(split="train"):
            session.add(LabelRow(image_id=image.id, revision=2, source="x", n_objects=0, instances=drawn))
    assert plan_points(project, CurveSettings()) == []
    assert "none of the 16 labelled images holds an object" in why_no_plan(project, CurveSettings())


def test_too_few_labels_are_no_plan(labelled_project):
    assert plan_points(labelled_project(9), CurveSettings()) == []


@pytest.mark.parametrize(
    ("labelled", "reason"),
    [
        pytest.param({"train": 0}, "no training image has labels", id="none"),
        pytest.param({"train": 1}, "only one image is labelled", id="one"),
        pytest.param({"train": 9, "groups": 1}, "all 9 labelled images are of one group", id="one group"),
        pytest.param({"train": 6, "val": 2}, "7 labelled images to learn from, and there are 6", id="few"),
        pytest.param({"train": 8, "groups": 2}, "and there are 4 beside those", id="two groups"),
    ],
)
def test_where_no_curve_can_be_made_there_is_no_plan_and_the_reason(labelled_project, labelled, reason):
    project = labelled_project(**labelled)
    assert plan_points(project, CurveSettings()) == []
    assert reason in why_no_plan(project, CurveSettings())


def test_one_group_makes_a_curve_where_validation_images_measure(labelled_project):
    project = labelled_project(9, val=2, groups=1)
    assert plan_points(project, CurveSettings())
    assert why_no_plan(project, CurveSettings()) is None


def test_points_are_trained_once_and_are_no_runs(labelled_project):
    project = labelled_project(10)
    first, again = Watched(), Watched()
    points = curve_points(project, SETTINGS, first)
    assert [(p.seed, p.n_images) for p in points] == [(0, n) for n in (4, 5, 6, 7)]
    assert first.stages == [("training small models", 1 + 4)]
    assert {"coco_ap", "coco_ap50", "pq"} <= set(points[0].metrics)
    assert points[0].split == "out of fold"
    assert curve_points(project, SETTINGS, again) == points
    assert again.stages == []
    assert project.runs() == []
    assert [p for p in (project.cache_dir / "curve-points").iterdir() if p.is_dir()] == []


def test_an_interrupted_curve_goes_on_where_it_was(labelled_project):
    project = labelled_project(10)
    with pytest.raises(KeyboardInterrupt):
        curve_points(project, SETTINGS, Watched(interrupt_at=3))
    assert stored_points(project) == 1
    rest = Watched()
    assert len(curve_points(project, SETTINGS, rest)) == 4
    assert rest.stages == [("training small models", 1 + 3)]


def test_new_labels_and_other_settings_are_other_points(labelled_project):
    project = labelled_project(10)
    plan = plan_points(project, SETTINGS)[0]
    before = point_key(project, plan, SETTINGS)
    assert point_key(project, plan, dataclasses.replace(SETTINGS, least_steps=2)) != before
    with project.ledger.write() as session:
        old = session.scalars(select(LabelRow).where(LabelRow.image_id == plan.train[0].id)).one()
        row = LabelRow(image_id=old.image_id, revision=2, source="x", n_objects=2, instances=old.instances)
        session.add(row)
    assert point_key(project, plan, SETTINGS) != before


def test_a_point_tells_its_metric_and_standard_error_or_nothing():
    made = MeasuredPoint(
        n_images=6,
        seed=1,
        split="val",
        metrics={"pq": {"value": 0.5, "low": 0.402, "high": 0.598}, "sq": {"value": None}},
    )
    pq = made.of_metric("pq")
    assert pq is not None
    assert (pq.n_images, pq.value, pq.seed) == (6, 0.5, 1)
    assert pq.se == pytest.approx(0.05)
    assert pq.measured == dataclasses.replace(made, seed=2).of_metric("pq").measured
    folded = dataclasses.replace(made, split="out of fold")
    assert folded.of_metric("pq").measured != dataclasses.replace(folded, seed=2).of_metric("pq").measured
    assert made.of_metric("sq") is None
    assert made.of_metric("unheard of") is None
