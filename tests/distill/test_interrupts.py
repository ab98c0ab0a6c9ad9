"""What an interrupted training says."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from labelloop.distill.recipe import find_recipe
from labelloop.distill.train import TrainRequest, train
from labelloop.progress import Silent

CORE_NET = Path(__file__).parents[2] / "examples" / "extending" / "core_net.py"


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


def test_the_same_command_goes_on_where_model_and_recipe_are_files_of_the_folder(
    project, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(CORE_NET, "net.py")
    Path("quick.toml").write_text('base = "one_view.toml"\n')
    Path("one_view.toml").write_text("[pseudo]\nviews = 1\n")
    request = TrainRequest(iterations=4, name="run", model="net.py", recipe="quick.toml")
    with pytest.raises(KeyboardInterrupt):
        train(project, request, Interrupting("teacher"))
    assert train(project, dataclasses.replace(request, resume=True))["run"] == "run"
    monkeypatch.chdir("/")  # a loop that trains as this run was trained finds them from anywhere
    assert find_recipe(project.run("run").config["request"]["recipe"]).pseudo.views == 1


@pytest.mark.parametrize("stage", ["teacher", "pseudo-labels", "distillation", "evaluating guided"])
def test_afterwards_it_names_the_run_to_go_on_with(project, stage):
    request = TrainRequest(iterations=4, name="my run")
    with pytest.raises(KeyboardInterrupt, match=r"-C \S+ train --resume --name 'my run' continues it"):
        train(project, request, Interrupting(stage))
    assert train(project, dataclasses.replace(request, resume=True))["run"] == "my run"
