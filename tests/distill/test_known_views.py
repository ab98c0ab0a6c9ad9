"""Which stages see partly known images less often, by the recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from labelloop.data.objects import SoftObjects, objects_of
from labelloop.distill.assembly import trainer_of
from labelloop.distill.schedule import Schedule
from labelloop.distill.train import TrainRequest
from labelloop.instances import Instances
from labelloop.progress import Silent

CORE_NET = str(Path(__file__).parents[2] / "examples" / "extending" / "core_net.py")


def objects(*, known: int) -> SoftObjects:
    """An object, and so many of eight columns that are known."""
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[0, :2, :2] = masks[1, :, known:] = 1
    return objects_of(dataclasses.replace(Instances.from_dense(masks), crowd=np.array([False, True])))


@pytest.mark.parametrize(("recipe", "times"), [("default", [2, 1]), ("reference", [1, 1])])
def test_teacher_and_student_see_images_in_proportion_to_what_is_known_but_in_the_reference(
    project, interrupted, recipe: str, times: list[int]
) -> None:
    interrupted(project, TrainRequest(model=CORE_NET, recipe=recipe, iterations=8, name="begun"), "teacher")
    config = project.run("begun").config
    trainer = trainer_of(project, config, Schedule(**config["schedule"]), "begun", Silent(), parts=1)
    trainer = dataclasses.replace(trainer, labelled={1: objects(known=8), 2: objects(known=4)})
    for batches in (trainer.labels_plan(4).batches, trainer.student_plan("fine-tuning").batches):
        assert [batches.labelled_ids.count(i) for i in (1, 2)] == times
        assert batches.known_views == (recipe == "default")
