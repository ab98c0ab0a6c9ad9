"""The program as a whole: its start, its exit codes, its errors."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from labelloop.cli.app import Program
from labelloop.cli.options import JsonOption
from labelloop.errors import LabelloopError, ProjectError, UsageError

ROOT = Path(__file__).parents[2]
SECRET = "postgresql://u:geheim@h/db"
HEAVY = {"torch", "torchvision", "numpy", "scipy", "sqlalchemy", "pydantic", "matplotlib", "PIL", "timm"}


def _run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "labelloop", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from labelloop.cli.app import app\n"
        "try:\n    app(['--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "print('loaded:', *sorted(sys.modules))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(ran.stdout.splitlines()[-1].split()[1:])
    assert "labelloop.cli.train" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize(
    "module",
    [
        "labelloop.status", "labelloop.forecast.next_hour", "labelloop.evaluating", "labelloop.promotion",
        "labelloop.report.page", "labelloop.data.checks.check", "labelloop.doctor",
        "labelloop.integrations.label_studio.push", "labelloop.integrations.label_studio.pull",
    ],
)  # fmt: skip
def test_what_may_need_no_network_loads_torch_only_when_it_does(module: str) -> None:
    script = f"import sys, {module}\nprint('torch' in sys.modules)\n"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_help_answers_at_once() -> None:
    """Best of five; the processor's time, which a busy machine does not stretch."""
    seconds = []
    for _ in range(5):
        before = os.times()
        assert _run("--help").returncode == 0
        after = os.times()
        spent = after.children_user - before.children_user + after.children_system - before.children_system
        seconds.append(spent)
    assert 0 < min(seconds) < 0.5


def test_python_m_is_the_same_program(tmp_path: Path) -> None:
    ran = _run("init", tmp_path / "p", "--json")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["name"] == "p"
    assert _run("--version").stdout.startswith("labelloop ")


def test_waiting_threads_sleep_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import os, sys\n"
        "from labelloop.cli.app import main\n"
        "sys.argv = ['labelloop', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['GOMP_SPINCOUNT'])\n"
    )
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "PASSIVE 0"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "ACTIVE 0"


def test_failure_is_one_line_and_exit_1(tmp_path: Path) -> None:
    ran = _run("status", cwd=tmp_path)
    assert ran.returncode == 1
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert str(tmp_path) in line
    assert "labelloop init" in line


def test_failure_with_json_is_one_document(labelloop, tmp_path: Path) -> None:
    ran = labelloop("status", "-C", tmp_path, "--json")
    assert ran.code == 1
    assert ran.err == ""
    assert set(ran.document["error"]) == {"what", "value", "way_out"}
    assert ran.document["error"]["value"] == str(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["status", "--bogus"], id="unknown option"),
        pytest.param(["bogus"], id="unknown command"),
        pytest.param(["train", "--iterations", "many"], id="no number"),
        pytest.param(["train", "--method", "magic"], id="no such choice"),
        pytest.param(["train", "--time", "soon"], id="no duration"),
        pytest.param(["evaluate", "--min-score", "2"], id="no score"),
        pytest.param(["evaluate", "--predictions", "a.json"], id="half of a pair"),
        pytest.param(
            ["evaluate", "--predictions", "a.json", "--labels", "b.json", "--split", "val"],
            id="no split of a project",
        ),
        pytest.param(
            ["evaluate", "--predictions", "a.json", "--labels", "b.json", "--run", "r"], id="no run of files"
        ),
        pytest.param(["forecast", "--minutes", "soon"], id="no minutes"),
        pytest.param(["forecast", "--minutes", "30s"], id="less than a minute"),
        pytest.param(["forecast", "--minutes", "inf"], id="no end of minutes"),
        pytest.param(["push", "--suspects", "--strategy", "random"], id="no choice of suspects"),
        pytest.param(["push", "--suspects", "--run", "r"], id="no run for suspects"),
        pytest.param(["add", "labels"], id="missing argument"),
        pytest.param(["init"], id="no folder"),
        pytest.param(["init", "a", "-C", "b"], id="two folders"),
    ],
)
def test_wrong_usage_is_exit_2_in_words_and_in_json(labelloop, arguments: list[str]) -> None:
    words = labelloop(*arguments)
    assert words.code == 2
    assert words.out == ""
    assert words.err
    document = labelloop(*arguments, "--json")
    assert document.code == 2
    assert document.err == ""
    error = document.document["error"]
    assert set(error) == {"what", "value", "way_out"}
    assert error["what"]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        pytest.param(["server", "up", "--prot", "1", "--database", SECRET], "server up", id="beside"),
        pytest.param(["server", "up", f"--databas={SECRET}"], "server up", id="in a wrong flag"),
        pytest.param(["server", "up", SECRET], "server up", id="as an argument"),
        pytest.param(["push", "--strategy", SECRET], "push", id="as a value"),
        pytest.param(["connect", "https://me:geheim@host", "--wrong"], "connect", id="in an address"),
        pytest.param([SECRET], "", id="as the command"),
    ],
)
def test_wrong_usage_in_json_names_the_command_and_no_password(
    labelloop, arguments: list[str], command: str
) -> None:
    ran = labelloop(*arguments, "--json")
    assert ran.code == 2
    assert ran.document["error"]["value"] == f"labelloop {command}".strip()
    assert "geheim" not in ran.out + ran.err


def test_project_is_named_before_or_after_the_command(labelloop, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    labelloop("init", other)
    assert labelloop("-C", project, "status", "--json").document["project"] == "screen"
    assert labelloop("status", "--project", project, "--json").document["project"] == "screen"
    assert labelloop("-C", other, "status", "-C", project, "--json").document["project"] == "screen"
    assert labelloop("-C", tmp_path / "new", "init", "--json").document["name"] == "new"


def test_project_is_found_upward(labelloop, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert labelloop("status", "--json").document["root"] == str(project)


def _program_that_raises(error: BaseException) -> typer.Typer:
    """The same program with one command of its own, which fails."""
    failing = typer.Typer(cls=Program, pretty_exceptions_enable=False)

    @failing.callback()
    def _root() -> None: ...

    @failing.command("train")
    def _fail(as_json: JsonOption = False) -> None:
        raise error

    return failing


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(ProjectError("it broke", value=3, way_out="Mend it."), 1, id="could not"),
        pytest.param(UsageError("it is wrong"), 2, id="wrong usage"),
        pytest.param(LabelloopError("line one\nline two"), 1, id="stays one line"),
        pytest.param(OSError(errno.ENOSPC, "full", "/disk/x"), 1, id="disk full"),
        pytest.param(OSError(errno.EROFS, "read-only", "/disk/x"), 1, id="read-only"),
        pytest.param(KeyboardInterrupt(), 130, id="interrupted"),
    ],
)
def test_what_is_raised_on_purpose_has_its_exit_code(error: BaseException, code: int) -> None:
    failing = _program_that_raises(error)
    words = CliRunner().invoke(failing, ["train"])
    assert words.exit_code == code
    assert len(words.stderr.splitlines()) == 1
    document = CliRunner().invoke(failing, ["train", "--json"])
    assert document.exit_code == code
    assert set(json.loads(document.stdout)["error"]) == {"what", "value", "way_out"}


def test_an_interrupted_training_says_how_to_go_on() -> None:
    interrupt = KeyboardInterrupt("labelloop train --resume --name a continues it.")
    ran = CliRunner().invoke(_program_that_raises(interrupt), ["train"])
    assert ran.stderr == "error: interrupted. labelloop train --resume --name a continues it.\n"


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), OSError(errno.EBADF, "a bug")])
@pytest.mark.parametrize("arguments", [["train"], ["train", "--json"]])
def test_a_bug_keeps_its_traceback(error: Exception, arguments: list[str]) -> None:
    with pytest.raises(type(error), match="a bug"):
        CliRunner().invoke(_program_that_raises(error), arguments, catch_exceptions=False)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_exits_130_without_a_traceback() -> None:
    script = (
        "import signal, sys, time, typer\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored\n"
        "from labelloop.cli.app import Program\n"
        "app = typer.Typer(cls=Program, pretty_exceptions_enable=False)\n"
        "@app.callback()\n"
        "def root(): ...\n"
        "@app.command('wait')\n"
        "def wait():\n    print('waiting', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "app(['wait'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.readline() == "waiting\n"
        os.kill(process.pid, signal.SIGINT)
        rest = process.stderr.read()
    assert process.wait(timeout=30) == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("as_module", [True, False])
def test_ctrl_c_while_the_program_loads_exits_130_without_a_traceback(as_module: bool) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, function = settings["project"]["scripts"]["labelloop"].partition(":")
    console_script = f"from {module} import {function} as entry; sys.exit(entry())"
    start = "runpy.run_module('labelloop', run_name='__main__')" if as_module else console_script
    script = (
        "import os, runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'labelloop.cli.output':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.argv = ['labelloop', 'status', '--json']\n"
        f"{start}\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
