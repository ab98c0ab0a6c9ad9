"""What an interrupted training says."""

import dataclasses

import pytest

from labelloop.distill.train import TrainRequest, train
from labelloop.progress import Silent


class Interrupting(Silent):
    """A progress at whose first sign of a stage a person presses Ctrl-C."""

    def __init__(self, stage):
        self.stage = stage

    def start(self, stage, total):
        if stage == self.stage:
            raise KeyboardInterrupt

    def note(self, message):
        if self.stage == "before the run":
            raise KeyboardInterrupt


def test_before_the_run_exists_it_does_not_speak_of_resuming(project):
    request = TrainRequest(iterations=4, labels="100", name="run")  # more than there are, which is noted
    with pytest.raises(KeyboardInterrupt, match="Nothing was started yet"):
        train(project, request, Interrupting("before the run"))
    assert project.runs() == []
    assert train(project, request)["run"] == "run"


@pytest.mark.parametrize("stage", ["teacher", "pseudo-labels", "distillation", "evaluating guided"])
def test_afterwards_it_names_the_run_to_go_on_with(project, stage):
    request = TrainRequest(iterations=4, name="my run")
    with pytest.raises(KeyboardInterrupt, match=r"labelloop -C \S+ train --resume --name 'my run' goes on"):
        train(project, request, Interrupting(stage))
    assert train(project, dataclasses.replace(request, resume=True))["run"] == "my run"
