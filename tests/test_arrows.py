"""Arrows run one way: cli -> labelloop <- integrations, and from room to room of the core."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE_FOLDER = ROOT / "labelloop"
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
ROOMS = {path.relative_to(CORE_FOLDER).parts[0].removesuffix(".py") for path in CORE} - {"__init__"}


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


def _room(name: str) -> str:
    """The room that a dotted name is in, or the module beside the rooms; labelloop for the core itself."""
    top = f"{name}.".split(".")[1]
    return top if top in ROOMS else "labelloop"


def _arrows() -> dict[str, dict[str, list[str]]]:
    """Which rooms each room imports, and the imports, in words, that do it."""
    arrows: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in CORE:
        room = _room(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name in _imports(path):
            if _under(name, "labelloop") and _room(name) != room:
                arrows[room][_room(name)].append(f"{_identify(path)} imports {name}")
    return arrows


def _circle(arrows: Mapping[str, Collection[str]]) -> list[str]:
    """Rooms that lead back to the first of them, which comes last again; empty where no rooms do."""
    free: set[str] = set()

    def follow(room: str, above: list[str]) -> list[str]:
        if room in above:
            return [*above[above.index(room) :], room]
        if room not in free:
            for other in sorted(arrows.get(room, ())):
                if found := follow(other, [*above, room]):
                    return found
        free.add(room)
        return []

    return next((found for room in sorted(arrows) if (found := follow(room, []))), [])


def test_a_circle_is_found_and_named() -> None:
    assert _circle({"a": {"b", "d"}, "b": {"c"}, "c": {"d", "b"}}) == ["b", "c", "b"]
    assert _circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_rooms_of_the_core_do_not_import_each_other_in_a_circle() -> None:
    arrows = _arrows()
    circle = [arrows[room][other][0] for room, other in pairwise(_circle(arrows))]
    assert not circle, "\n".join(circle)


def test_rooms_import_only_what_stands_above_them_in_the_table_of_the_house() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Rooms of the core")[2].partition("| room | holds |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    row_of = {name: row for row, cell in enumerate(rows) for name in re.findall(r"`(\w+)(?:/|\.py)`", cell)}
    assert set(row_of) == ROOMS
    upwards = [
        imports[0]
        for room, others in _arrows().items()
        for other, imports in others.items()
        if row_of.get(other, -1) > row_of.get(room, -1)  # labelloop/__init__.py is below all
    ]
    assert not upwards, "\n".join(upwards)


@pytest.mark.parametrize("path", _modules("integrations"), ids=_identify)
def test_integrations_do_not_know_the_command_line(path: Path) -> None:
    assert [name for name in _imports(path) if _under(name, "labelloop.cli")] == []


@pytest.mark.parametrize("path", _modules("cli"), ids=_identify)
def test_command_line_loads_the_core_only_inside_functions(path: Path) -> None:
    """Errors, durations, plurals and the Progress protocol are light; all else waits until a command runs."""
    light = (
        "labelloop.cli",
        "labelloop.errors",
        "labelloop.durations",
        "labelloop.plurals",
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
