"""How many of its labelled images a full run learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from labelloop.data.label_draw import draw_labels
from labelloop.data.synthetic import organoid_micrograph
from labelloop.distill.recipe import find_recipe
from labelloop.forecast.learnt import Learnt, learnt_of
from labelloop.formats.coco import coco_dataset
from labelloop.project.adding import LabelSource, add_labels
from labelloop.project.config import ProjectConfig
from labelloop.project.project import ImageRecord, Project
from made_records import run_record

SHARE = find_recipe(None).validation_share


def labelled(tmp_path: Path, count: int, *, groups: int = 0, val: int = 0) -> Project:
    """A project with so many labelled images to train on, in groups if asked, and to validate."""
    project = Project.init(tmp_path / "project", ProjectConfig(name="learnt", classes=("organoid",)))
    rng = np.random.default_rng(0)
    for split, n in (("train", count), ("val", val)):
        images, instances = [], []
        for i in range(n):
            pixels, objects = organoid_micrograph(rng, size_hw=(48, 48), n_objects=1)
            name = f"g{i % groups if groups else 0}/{split}{i}.png"
            (tmp_path / split / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / split / name)
            images.append((name, (48, 48)))
            instances.append(objects)
        if n:
            file = tmp_path / f"{split}.json"
            file.write_text(json.dumps(coco_dataset(images, instances, ("organoid",))))
            source = LabelSource(path=str(file), images=str(tmp_path / split))
            add_labels(project, source, split=split, group_by="folder" if groups else None)
    return project


def test_as_many_are_learnt_as_train_draws_and_no_fewer_labels_would_do():
    learnt = Learnt(share=SHARE)
    images = [
        ImageRecord(i, Path(f"{i}.png"), f"{i}.png", (9, 9), "train", None, 0, -1, None, f"{i:04}")
        for i in range(60)
    ]
    for n in range(1, 61):
        ids = {image.id for image in images[:n]}
        drawn = draw_labels(images[:n], ids, budget=None, seed=0, validation_share=SHARE)
        assert learnt.of(n) == len(drawn.train)
        assert learnt.labels(learnt.of(n), least=n) == n
        assert learnt.of(learnt.labels(n, least=20)) == n or n < 15
    assert (learnt.labels(19, least=1), learnt.labels(19, least=20)) == (19, 24)
    assert (learnt.of(40), learnt.labels(33, least=40)) == (32, 42)
    assert (Learnt().of(40), Learnt().labels(40.2, least=1)) == (40, 41)


@pytest.mark.parametrize(
    ("project_of", "learnt"),
    [
        pytest.param({"count": 19}, (19, 32), id="few"),
        pytest.param({"count": 25}, (20, 32), id="a fifth is set aside"),
        pytest.param({"count": 25, "val": 2}, (25, 40), id="validation images"),
        pytest.param({"count": 24, "groups": 2}, (12, 32 * 12 / 19), id="two groups"),
    ],
)
def test_the_newest_labels_and_more_of_them_are_learnt_as_train_would(tmp_path, project_of, learnt):
    count = project_of["count"]
    found = learnt_of(labelled(tmp_path, **project_of))
    assert (found.of(count), found.of(40)) == pytest.approx(learnt)


def test_a_run_with_folds_learns_all_labels_and_its_recipe_says_what_share_is_set_aside(tmp_path):
    project = labelled(tmp_path, 25)
    project.save_run(run_record("share", config={"recipe": {"validation_share": 0.4}}))
    assert learnt_of(project).of(25) == 15
    project.save_run(run_record("folds", config={"folds": [[1], [2]], "recipe": {"validation_share": 0.2}}))
    assert learnt_of(project).of(25) == 25
