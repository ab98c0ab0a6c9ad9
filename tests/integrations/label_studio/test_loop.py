from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.errors import ServerError
from labelloop.instances import Instances
from labelloop.integrations.label_studio import connecting
from labelloop.integrations.label_studio.answers import NoTokenError, needs_a_person, refused
from labelloop.integrations.label_studio.loop import run_loop, turn
from labelloop.integrations.label_studio.server_home import ServerSettings, keep, server_home
from labelloop.project.config import LabelStudioConfig, ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, LabelRow


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Tied to a server that nobody has started: a turn ends where it first asks it."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "none")
    server = LabelStudioConfig(url="http://127.0.0.1:9", project=1)
    return Project.init(
        tmp_path / "p", ProjectConfig(name="screen", classes=("organoid",), label_studio=server)
    )


def test_every_turn_reads_labelloop_toml_anew(project: Project) -> None:
    toml = project.root / "labelloop.toml"
    toml.write_text(toml.read_text().replace('["organoid"]', '["organoid", "cyst"]'))
    with pytest.raises(ServerError, match="reached"):
        turn(project, retrain_after=1)
    assert project.config.classes == ("organoid", "cyst")


def test_a_loop_without_a_token_ends_with_the_way_out(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    monkeypatch.setenv("LABELLOOP_SERVER_HOME", str(tmp_path / "no server"))
    monkeypatch.setattr(connecting, "_from_keyring", lambda url: "")
    monkeypatch.setattr("time.sleep", None)  # it must not wait
    with pytest.raises(NoTokenError, match="Personal Access Token"):
        run_loop(project, every_s=0.0, retrain_after=1)


def test_labelloops_own_server_that_does_not_run_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    monkeypatch.setenv("LABELLOOP_SERVER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(connecting, "_from_keyring", lambda url: "")
    keep(server_home(), ServerSettings(ready=("sqlite",)))
    with pytest.raises(ServerError, match="server up") as raised:
        connecting.find_token("http://127.0.0.1:8080")
    assert not needs_a_person(raised.value)
    with pytest.raises(NoTokenError):
        connecting.find_token("https://lab.example.org")
    with pytest.raises(NoTokenError):  # another server of this machine
        connecting.find_token("http://127.0.0.1:9090")


@pytest.mark.parametrize(
    ("status", "ends"), [(401, True), (403, True), (404, True), (500, False), (0, False)]
)
def test_a_loop_ends_at_once_only_where_waiting_is_of_no_use(status: int, ends: bool) -> None:
    error = ServerError("no answer") if status == 0 else refused(status, "", "http://127.0.0.1:9")
    assert needs_a_person(error) is ends


def test_a_labelloop_toml_that_cannot_be_read_is_said_and_the_settings_before_hold(
    project: Project, watching: Any
) -> None:
    toml = project.root / "labelloop.toml"
    toml.write_text(toml.read_text().replace('["organoid"]', '["organoid", "cy'))
    with pytest.raises(ServerError, match="reached"):
        turn(project, retrain_after=1, progress=watching)
    [told] = watching.told
    assert "not valid TOML" in told
    assert project.config.classes == ("organoid",)


def test_a_class_that_a_turn_has_taken_is_not_renamed_afterwards(project: Project, watching: Any) -> None:
    toml = project.root / "labelloop.toml"
    objects = Instances.from_dense(np.ones((2, 8, 8), np.bool_), [0, 1])
    with project.ledger.write() as session:
        session.add(ImageRow(id=1, sha256="a", path="a", file_name="a", height=8, width=8))
        session.flush()
        session.add(
            LabelRow(image_id=1, revision=1, source="x", n_objects=2, instances=encode_instances(objects))
        )
    text = toml.read_text()
    for classes in ('["organoid", "cyst"]', '["organoid", "debris"]'):
        toml.write_text(text.replace('["organoid"]', classes))
        with pytest.raises(ServerError, match="reached"):
            turn(project, retrain_after=1, progress=watching)
    [told] = watching.told
    assert "organoid, debris, not organoid, cyst" in told
    assert project.config.classes == ("organoid", "cyst")
