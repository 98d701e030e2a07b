"""The harness's command line as a whole."""

import os
import re
import subprocess
import sys
from importlib import import_module, metadata
from inspect import signature
from pathlib import Path
from pkgutil import iter_modules

import pytest
import typer
from typer.testing import CliRunner

from actprune_ci import cli
from actprune_ci.cli import CODES, app

APP = app()
BUILT = typer.main.get_command(APP)
ROOT = Path(__file__).parents[2]
COMMANDS = {
    name: module.command
    for name, module in (
        (found.name, import_module(f"{cli.__name__}.{found.name}"))
        for found in iter_modules(cli.__path__)
    )
    if hasattr(module, "command")
}
REQUIRED = {"ab": ["a", "b"], "bisect": ["a", "b", "--benchmark", "c"], "record": ["x"]}
PATHS = [
    (name, parameter.name)
    for name, command in COMMANDS.items()
    for parameter in signature(command).parameters.values()
    if "Path" in str(parameter.annotation) or parameter.name in ("store", "suite", "python")
]


def test_the_version_is_the_package_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda package: f"1.2 of {package}")
    done = CliRunner().invoke(app(), ["--version"])
    assert (done.exit_code, done.output) == (0, "actprune-ci 1.2 of actprune\n")


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    done = CliRunner().invoke(app(), ["--version"])
    assert (done.exit_code, done.output) == (
        0,
        "actprune-ci of a checkout that is not installed\n",
    )


@pytest.mark.parametrize(("command", "name"), PATHS)
def test_no_path_may_be_an_empty_text(command: str, name: str) -> None:
    made = BUILT.commands[command.replace("_", "-")]  # type: ignore[attr-defined]
    option = next(parameter for parameter in made.params if parameter.name == name).opts[0]
    words = [*REQUIRED.get(command, []), option, ""] if option.startswith("-") else [""] * 3
    if command == "export":
        words[0] = "csv"
    done = CliRunner().invoke(APP, [command, *words])
    assert done.exit_code == 2
    assert "expected a path, got an empty text" in " ".join(done.stderr.replace("│", "").split())


def test_there_are_paths_to_be_tried() -> None:
    assert len(PATHS) >= 30
    assert {name for name, _ in PATHS} >= {"gate", "history", "publish", "query", "record"}


def test_help_lists_every_exit_code_that_a_command_names() -> None:
    done = CliRunner().invoke(app(), ["--help"])
    table = done.output.partition("Exit codes:")[2]
    for code, meaning, by in CODES:
        assert re.search(rf"^ *{code}  {re.escape(meaning)} +{by}$", table, re.MULTILINE)
    told = {str(code): by.split(", ") for code, _, by in CODES}
    for name, command in COMMANDS.items():
        for code in re.findall(r"(?:code |; )(\d+)[: ]", command.__doc__ or ""):
            assert name in told[code] or told[code] == ["every command"], (name, code)


def run(code: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(ROOT / "ci"), str(ROOT / "impl")])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )


MISTAKE = """
import sys
from actprune_ci import __main__
from actprune_ci.cli import query
def sql(*words):
    raise {problem}
query.sql = sql
sys.argv = ["actprune-ci", "query", "store", "SELECT 1"]
__main__.main()
"""


@pytest.mark.parametrize(
    "problem", ["ZeroDivisionError('ours')", "MemoryError('ours')", "OSError(5, 'ours')"]
)
def test_a_mistake_of_ours_is_never_the_code_of_a_regression(problem: str) -> None:
    done = run(MISTAKE.format(problem=problem))
    assert done.returncode == 70
    assert "Traceback (most recent call last):" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"actprune-ci: a mistake of its own: {problem.partition('(')[0]}: ")


def test_a_reader_that_goes_away_is_no_regression() -> None:
    done = run(MISTAKE.format(problem="BrokenPipeError(32, 'Broken pipe')"))
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_is_no_regression() -> None:
    assert run(MISTAKE.format(problem="KeyboardInterrupt")).returncode == 130


def test_a_name_that_git_would_take_for_an_option_is_none(tmp_path: Path) -> None:
    made = tmp_path / "made"
    words = ["history", str(tmp_path), "--repo", str(ROOT), f"--branch=--output={made}"]
    assert isinstance(CliRunner().invoke(app(), words).exception, ValueError)
    assert not made.exists()
