"""Arrows run one way: cli -> labelloop <- integrations."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEVER_IN_CORE = {
    "typer", "click", "rich", "label_studio_sdk", "detectron2",
    "requests", "httpx", "urllib3", "aiohttp", "http", "fastapi",
}  # fmt: skip


def _modules(folder: str) -> list[Path]:
    links = {"cli", "integrations"} if folder == "labelloop" else set()
    return [
        path
        for path in (ROOT / folder).rglob("*.py")
        if path.relative_to(ROOT / folder).parts[0] not in links
    ]


def _imports(path: Path) -> Iterator[str]:
    """Full dotted names of everything that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _under(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


# __main__ is the program's other entry, so it stands above the arrows.
CORE = [path for path in _modules("labelloop") if path.name != "__main__.py"]


@pytest.mark.parametrize("path", CORE, ids=_identify)
def test_core_knows_neither_shell_nor_network_nor_integrations(path: Path) -> None:
    wrong = [
        name
        for name in _imports(path)
        if name.split(".")[0] in NEVER_IN_CORE
        or _under(name, "labelloop.cli")
        or _under(name, "labelloop.integrations")
    ]
    assert wrong == []


@pytest.mark.parametrize("path", _modules("integrations"), ids=_identify)
def test_integrations_do_not_know_the_command_line(path: Path) -> None:
    assert [name for name in _imports(path) if _under(name, "labelloop.cli")] == []


@pytest.mark.parametrize("path", _modules("cli"), ids=_identify)
def test_command_line_loads_the_core_only_inside_functions(path: Path) -> None:
    """Errors, durations and the Progress protocol are light; all else waits until a command runs."""
    light = (
        "labelloop.cli",
        "labelloop.errors",
        "labelloop.durations",
        "labelloop.progress",
        "labelloop.__version__",
    )
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_top = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    heavy = [
        name
        for node in at_top
        for name in (f"{node.module}.{alias.name}" for alias in node.names)
        if _under(name, "labelloop") and not any(_under(name, allowed) for allowed in light)
    ]
    assert heavy == []
