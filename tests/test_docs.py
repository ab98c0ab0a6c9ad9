"""The documentation says what the program does: every command, every example, no flag by accident."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from labelloop.cli.app import app
from labelloop.metrics.matched import METRICS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
WALKS = sorted((ROOT / "examples").rglob("*.md"))

# A new flag is a promise to scripts of labs: it is added here on purpose or not at all.
FLAGS = {
    "demo": {"--time"},
    "init": {"--name", "--classes", "--pixel-size"},
    "add images": {"--group-by", "--channel", "--page"},
    "add labels": {"--format", "--images", "--split", "--group-by", "--channel", "--page"},
    "check": {"--labels"},
    "train": {
        "--labels", "--model", "--method", "--time", "--iterations", "--recipe", "--data", "--seed",
        "--device", "--devices", "--accumulate", "--folds", "--name", "--resume",
    },
    "evaluate": {
        "--run", "--split", "--predictions", "--labels", "--min-score", "--protocol", "--report",
    },
    "predict": {"--out", "--run", "--format", "--min-score", "--devices"},
    "server up": {"--port", "--database"},
    "server down": set(),
    "server status": set(),
    "connect": {"--ls-project"},
    "push": {"--budget", "--strategy", "--run", "--suspects", "--new-round"},
    "pull": set(),
    "loop": {"--every", "--retrain-after"},
    "forecast": {"--target", "--minutes"},
    "simulate": {
        "--strategy", "--rounds", "--budget", "--labels", "--annotator", "--seed", "--seeds", "--time",
    },
    "export": {"--format", "--out"},
    "status": set(),
    "report": {"--run", "--out", "--open"},
    "models": set(),
    "recipes": set(),
    "doctor": set(),
}  # fmt: skip
OF_EVERY_COMMAND = {"--project", "--json"}


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(_commands(get_command(app)))


def _examples(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return [
        line.removeprefix(".venv/bin/")
        for line in lines
        if line.removeprefix(".venv/bin/").startswith("labelloop ")
    ]


def _parse(line: str) -> dict[str, Any]:
    """What a command would be called with; nothing runs."""
    command, arguments = get_command(app), shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    parameters: dict[str, Any] = command.make_context(command.name, arguments).params
    return parameters


def test_flags_are_those_of_the_contract() -> None:
    found = {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for name, command in COMMANDS.items()
    }
    assert found == {name: flags | OF_EVERY_COMMAND for name, flags in FLAGS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_that_parses(name: str) -> None:
    text = " ".join((COMMANDS[name].help or "").split())
    examples = re.findall(r"`(labelloop [^`]*)`", text)
    assert examples
    for example in examples:
        assert example.startswith(f"labelloop {name}")
        _parse(example)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_says_what_it_does(name: str) -> None:
    silent = [p.opts[0] for p in COMMANDS[name].params if not getattr(p, "help", None)]
    assert silent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert f"`labelloop {name}" in README
    assert f"\n## {name}\n" in REFERENCE
    assert any(example.startswith(f"labelloop {name}") for example in _examples(REFERENCE))


def _sections(text: str) -> dict[str, str]:
    titles = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(titles[1::2], titles[2::2], strict=True))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_named_in_the_section_of_its_command(name: str) -> None:
    section = _sections(REFERENCE)[name]
    missing = [flag for flag in sorted(FLAGS[name]) if not re.search(rf"{flag}(?![\w-])", section)]
    assert missing == []


def test_flags_of_the_program_and_of_every_command_are_documented_before_the_first_of_them() -> None:
    options = OF_EVERY_COMMAND.union(*(parameter.opts for parameter in get_command(app).params))
    beginning = REFERENCE.split("\n## ")[0]
    assert [option for option in sorted(options) if option not in beginning] == []


def test_every_metric_is_defined_in_a_row_of_its_own() -> None:
    document = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", document, re.MULTILINE)) == sorted(METRICS)


def test_documentation_names_no_command_that_is_not_there() -> None:
    named = set(re.findall(r"^## ([a-z ]+)$", REFERENCE, re.MULTILINE))
    assert named == set(COMMANDS)


@pytest.mark.parametrize(
    "line",
    [
        line
        for text in (README, REFERENCE, *(p.read_text("utf-8") for p in WALKS))
        for line in _examples(text)
    ],
)
def test_documented_commands_parse(line: str) -> None:
    assert "as_json" in _parse(line)


@pytest.mark.parametrize(
    "document", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *WALKS]), ids=lambda p: p.name
)
def test_links_inside_the_repository_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert broken == []


def _modules_with_examples() -> list[str]:
    names = []
    for folder, package in (("labelloop", "labelloop"), ("cli", "labelloop.cli")):
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            if inside[0] not in {"cli", "integrations"} and ">>>" in path.read_text(encoding="utf-8"):
                names.append(".".join((package, *inside)))
    return sorted(names)


@pytest.mark.parametrize("name", _modules_with_examples())
def test_examples_in_docstrings_give_what_they_show(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0
