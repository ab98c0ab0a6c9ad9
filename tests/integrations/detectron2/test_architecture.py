"""What the catalogue says of detectron2, whether it is installed or not."""

from __future__ import annotations

import sys
import tomllib
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from labelloop.doctor import examine
from labelloop.errors import ModelError
from labelloop.integrations.detectron2 import architecture

ROOT = Path(__file__).parent.parent.parent.parent


def _installed(monkeypatch: pytest.MonkeyPatch, folder: Path | None, *lacking: str) -> None:
    def find(name: str) -> ModuleSpec | None:
        if name in lacking or (name == "detectron2" and folder is None):
            return None
        spec = ModuleSpec(name, None, origin=f"{folder}/__init__.py", is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec

    monkeypatch.setattr(architecture, "find_spec", find)


def test_without_detectron2_the_command_that_installs_it_is_named(monkeypatch, stats):
    _installed(monkeypatch, None)
    assert "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2@" in (
        architecture.missing()
    )
    with pytest.raises(ModelError, match="cannot be built here") as error:
        architecture.build(stats, variant="any.yaml", pretrained=True)
    assert error.value.way_out == architecture.missing()


def test_packages_that_detectron2_lacks_are_named(monkeypatch, tmp_path):
    _installed(monkeypatch, tmp_path, "hydra", "fvcore")
    assert architecture.missing() == "detectron2 needs more packages: pip install fvcore hydra-core"


def test_the_c_extension_is_told_from_its_file(monkeypatch, tmp_path):
    _installed(monkeypatch, tmp_path)
    assert architecture.missing() == ""
    assert "no C extension" in architecture.note()
    (tmp_path / "_C.cpython-311-x86_64-linux-gnu.so").touch()
    assert "has its C extension" in architecture.note()


def test_a_detectron2_that_cannot_be_imported_is_named_with_one_that_can(monkeypatch, stats, tmp_path):
    _installed(monkeypatch, tmp_path)
    monkeypatch.setitem(sys.modules, "labelloop.integrations.detectron2.model", None)
    with pytest.raises(ModelError, match="cannot be imported") as error:
        architecture.build(stats, variant="any.yaml", pretrained=True)
    assert architecture.INSTALL in error.value.way_out


def test_a_clone_beside_the_project_is_not_taken_for_a_package(monkeypatch, tmp_path):
    (tmp_path / "detectron2_clone_of_ours").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    spec = find_spec("detectron2_clone_of_ours")
    assert spec is not None  # Python would import the folder, and find nothing in it
    monkeypatch.setattr(architecture, "find_spec", lambda name: spec)
    assert "not installed" in architecture.missing()


def test_doctor_says_whether_it_is_there_and_is_content_either_way():
    if "detectron2" not in entry_points(group="labelloop.architectures").names:
        pytest.skip("labelloop was installed before it offered detectron2: install it again")
    (line,) = (finding for finding in examine() if finding.name == "model detectron2")
    assert line.state == "ok"
    assert ("not ready" in line.found) == bool(architecture.missing())


def test_the_extra_names_what_detectron2_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["detectron2"] == list(architecture.SATELLITES.values())
