"""The wheel holds the program and nothing else, and adds one name."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = SETTINGS["tool"]["setuptools"]


def _folders_with_init(mapped: str, folder: Path) -> set[str]:
    found = set()
    for place, folders, files in os.walk(folder):  # does not follow the two links
        folders[:] = [name for name in folders if not (Path(place) / name).is_symlink()]
        if "__init__.py" in files:
            inside = Path(place).relative_to(folder).parts
            found.add(".".join((mapped, *inside)))
    return found


def test_every_package_folder_is_listed_and_nothing_else() -> None:
    there: set[str] = set()
    for mapped, folder in SETUPTOOLS["package-dir"].items():
        there |= _folders_with_init(mapped, ROOT / folder)
    assert set(SETUPTOOLS["packages"]) == there


@pytest.mark.parametrize("name", ["cli", "integrations"])
def test_static_tools_find_the_folders_beside_the_core(name: str) -> None:
    link = ROOT / "labelloop" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"


def _imported(folders: Iterable[str]) -> set[str]:
    """First names of what the modules of these folders import anywhere."""
    names: set[str] = set()
    files = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    for file in files:
        if file.name == "inside_server.py":  # runs in Label Studio's own environment
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    return names - {"labelloop", "detectron2"} - sys.stdlib_module_names


def _named(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[^\w.-]", each)[0].lower().replace("_", "-") for each in requirements}


def test_whatever_is_imported_is_a_dependency_by_itself() -> None:
    project = SETTINGS["project"]
    declared = _named(chain(project["dependencies"], *project["optional-dependencies"].values()))
    of_module = packages_distributions()
    missing = {
        name
        for name in _imported(["labelloop", "cli", "integrations"])
        if not declared & _named(of_module.get(name, [name]))
    }
    assert missing == set()


def test_no_module_hides_the_command_line_package() -> None:
    assert not (ROOT / "labelloop" / "cli.py").exists()
    assert not (ROOT / "labelloop" / "integrations.py").exists()


def test_version_is_the_same_everywhere() -> None:
    from labelloop import __version__

    assert SETTINGS["project"]["version"] == __version__


def test_wheel_adds_one_name_and_holds_every_module(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy, so that the build leaves nothing behind here
    source.mkdir()
    for name in ("labelloop", "cli", "integrations"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    script = f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})"
    built = subprocess.run(
        [sys.executable, "-c", script], cwd=source, capture_output=True, text=True, timeout=120, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"labelloop"}
    expected = {
        f"{mapped.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}"
        for mapped, folder in SETUPTOOLS["package-dir"].items()
        for path in (ROOT / folder).rglob("*.py")
        if not (mapped == "labelloop" and path.relative_to(ROOT / folder).parts[0] in {"cli", "integrations"})
    }
    assert expected <= set(names)
    assert "labelloop/py.typed" in names
