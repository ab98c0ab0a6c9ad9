"""``labelloop forecast`` on points that are known, and where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from labelloop.data.synthetic import organoid_micrograph
from labelloop.forecast.curve_points import point_key
from labelloop.forecast.subsets import CurveSettings, plan_points
from labelloop.formats.coco import coco_dataset
from labelloop.instances import Instances
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import CurvePointRow, LabelRow


@pytest.fixture
def labelled(tmp_path: Path, project: Path, labelloop):
    """Labels so many images of the project."""

    def label(count: int) -> Path:
        folder = tmp_path / "images"
        folder.mkdir()
        rng = np.random.default_rng(0)
        images, instances = [], []
        for i in range(count):
            pixels, objects = organoid_micrograph(rng, size_hw=(48, 48), n_objects=1)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            images.append((f"{i}.png", (48, 48)))
            instances.append(objects)
        file = tmp_path / "labels.json"
        file.write_text(json.dumps(coco_dataset(images, instances, ("organoid",))))
        assert labelloop("add", "labels", file, "--images", folder, "-C", project).code == 0
        return project

    return label


def know_points(root: Path, truth) -> None:
    """Every point of the default settings, as if it had been trained."""
    project, settings = Project.open(root), CurveSettings()
    with project.ledger.write() as session:
        for plan in plan_points(project, settings):
            value = float(truth(len(plan.train)))
            metrics = {"coco_ap50": {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 6}}
            session.add(
                CurvePointRow(
                    key=point_key(project, plan, settings),
                    n_images=len(plan.train),
                    seed=plan.seed,
                    settings={"split": plan.split},
                    metrics=metrics,
                )
            )


def growing(n: int) -> float:
    return 0.95 - 1.2 * float(n) ** -0.55


def test_the_answer_to_a_target_is_the_json_of_the_contract(labelled, labelloop):
    root = labelled(24)
    know_points(root, growing)
    ran = labelloop("forecast", "--target", "coco_ap50=0.8", "-C", root, "--json")
    assert ran.code == 0, ran.err
    document = ran.document
    assert (document["metric"], document["target"], document["verdict"]) == ("coco_ap50", 0.8, "reachable")
    images = document["images"]
    assert images["low"] <= 33 <= (images["high"] or 1000)  # 45 are enough, of 57 labels
    assert (document["labelled"], document["learnt"]) == (24, 19)
    minutes = document["minutes"]  # nobody was timed yet: what the literature says, with its wide interval
    assert minutes["low"] < minutes["value"] / 1.5
    assert any("literature" in note for note in document["notes"])
    assert document["split"] == "out of fold"
    for path in document["plots"].values():
        assert Path(path).is_file()
    assert len(document["points"]) == 8


def test_people_get_sentences_and_a_plot_that_any_terminal_shows(labelled, labelloop):
    root = labelled(24)
    know_points(root, growing)
    ran = labelloop("forecast", "--target", "coco_ap50=0.8", "-C", root)
    assert ran.code == 0
    assert "coco_ap50 0.8: about" in ran.out
    assert "labelled images" in ran.out
    assert ran.out.count("o") > 12
    assert ran.out.isascii()


def test_without_options_it_says_what_twice_the_labels_would_bring(labelled, labelloop):
    root = labelled(24)
    know_points(root, growing)
    document = labelloop("forecast", "-C", root, "--json").document
    assert document["target"] is None
    assert document["images"]["value"] == 24
    assert document["expected"]["low"] <= growing(38) <= document["expected"]["high"]  # of 48 labels


def test_minutes_that_nobody_knows_the_worth_of_are_an_answer_and_no_error(labelled, labelloop):
    root = labelled(24)
    know_points(root, growing)
    ran = labelloop("forecast", "--minutes", "2h", "-C", root)
    assert ran.code == 0
    assert "cannot tell yet, because" in ran.out


def test_points_that_differ_by_chance_are_an_answer_and_no_error(labelled, labelloop):
    root = labelled(24)
    rng = np.random.default_rng(0)
    know_points(root, lambda n: rng.uniform(0.2, 0.8))
    ran = labelloop("forecast", "--target", "coco_ap50=0.85", "-C", root)
    assert ran.code == 0
    assert "cannot tell yet, because" in ran.out


def test_too_few_labels_cannot_tell_and_train_nothing(labelled, labelloop):
    ran = labelloop("forecast", "--target", "coco_ap50=0.8", "-C", labelled(5), "--json")
    assert ran.code == 0
    assert ran.document["verdict"] == "cannot tell"
    assert ran.document["images"]["value"] is None
    assert "4 sizes" in ran.document["reason"]
    assert ran.document["points"] == []


@pytest.mark.parametrize(
    ("count", "reason"),
    [(0, "labelloop add labels"), (1, "only one image is labelled")],
)
@pytest.mark.parametrize("asked", [[], ["--target", "coco_ap50=0.8"], ["--minutes", "60"]])
def test_that_nobody_can_tell_from_so_few_labels_is_an_answer_with_its_reason(
    labelled, labelloop, project, count, reason, asked
):
    root = labelled(count) if count else project
    ran = labelloop("forecast", *asked, "-C", root, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["verdict"] == "cannot tell"
    assert ran.document["images"]["value"] is None
    assert reason in ran.document["reason"]
    said = labelloop("forecast", *asked, "-C", root).out
    assert f"cannot tell yet, because {ran.document['reason']}" in said
    assert labelloop("status", "-C", root).code == 0


def test_status_lives_on_where_all_but_one_label_were_taken_away_after_a_forecast(labelled, labelloop):
    root = labelled(1)
    with Project.open(root).ledger.write() as session:
        session.add(CurvePointRow(key="old", n_images=4, seed=0, settings={"split": "val"}, metrics={}))
    ran = labelloop("status", "-C", root, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["next_hour"] is None


@pytest.mark.parametrize(
    "target", ["coco_ap50", "coco_ap50=80", "coco_ap50=0", "beauty=0.5", "count_bias=0.5"]
)
def test_a_target_that_cannot_be_forecast_is_wrong_usage(project, labelloop, target):
    assert labelloop("forecast", "--target", target, "-C", project).code == 2


def test_status_says_what_the_next_hour_buys_once_forecast_knows_and_only_then(labelled, labelloop) -> None:
    project = labelled(40)
    assert labelloop("status", "-C", project, "--json").document["next_hour"] is None
    know_points(project, growing)
    advice = labelloop("status", "-C", project, "--json").document["next_hour"]
    assert advice["metric"] == "coco_ap50"
    assert advice["expected"]["low"] < advice["expected"]["value"] < advice["expected"]["high"]
    assert advice["expected"]["value"] - advice["now"]["value"] == pytest.approx(advice["gain"]["value"])
    assert advice["stop"] is False
    assert advice["unlabelled"] == 0
    assert "No unlabelled image is left" in advice["advice"]
    assert "literature" in advice["advice"]  # nobody was timed yet
    assert "forecast" in labelloop("status", "-C", project).out


def test_status_says_to_stop_where_the_next_hour_buys_nothing(labelled, labelloop) -> None:
    project = labelled(40)
    know_points(project, lambda n: 0.8)
    advice = labelloop("status", "-C", project, "--json").document["next_hour"]
    assert advice["stop"] is True
    assert "no gain that can be told from zero" in advice["advice"]
    assert "Stop here" in labelloop("status", "-C", project).out


def test_status_says_to_forecast_again_when_labels_changed_since(labelled, labelloop) -> None:
    def steps() -> list[str]:
        return [
            step for step in labelloop("status", "-C", root, "--json").document["next"] if "forecast" in step
        ]

    root = labelled(24)
    assert steps() == []  # nobody has asked for one
    know_points(root, growing)
    assert steps() == []
    project = Project.open(root)
    with project.ledger.write() as session:
        for row in session.scalars(select(LabelRow)).all():
            changed = LabelRow(image_id=row.image_id, revision=2, source="review:round-1", n_objects=0)
            changed.instances = encode_instances(Instances(size_hw=(48, 48)))
            session.add(changed)
    [step] = steps()
    assert step.startswith("labelloop forecast   (")
