"""The scripts that stand in workflows, run as GitHub runs them: what they refuse."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.repository.test_workflows import FOLDER


def script_of(name: str, job: str, place: int) -> str:
    workflow = yaml.safe_load((FOLDER / name).read_text("utf-8"))
    return str(workflow["jobs"][job]["steps"][place]["run"])


def ran(
    script: str, folder: Path, programs: dict[str, str], environment: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    """A step's script, run as GitHub runs it, with these programs (shell scripts)."""
    (folder / "bin").mkdir(exist_ok=True)
    for name, text in programs.items():
        program = folder / "bin" / name
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    path = f"{folder / 'bin'}:/usr/bin:/bin"
    words = ["bash", "-e", "-c", script]
    whole = {"PATH": path, "HOME": str(folder), **environment}
    return subprocess.run(words, cwd=folder, env=whole, capture_output=True, text=True)


NIGHT = {
    "path": ".github/workflows/nightly-gpu.yml",
    "head_branch": "main",
    "event": "schedule",
    "conclusion": "failure",
    "head_repository": {"full_name": "us/actprune"},
}


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq on the PATH (in gh there is one)")
@pytest.mark.parametrize(
    ("other", "number", "deployed"),
    [
        ({}, "12", True),
        ({"event": "workflow_dispatch", "conclusion": "success"}, "12", True),
        ({"path": ".github/workflows/nightly-gpu.yml@refs/heads/main"}, "12", True),
        ({"path": ".github/workflows/pr-benchmark.yml"}, "12", False),
        ({"path": ".github/workflows/nightly-gpuxyml"}, "12", False),
        ({"head_branch": "main2"}, "12", False),
        ({"event": "pull_request"}, "12", False),
        ({"conclusion": "cancelled"}, "12", False),
        ({"conclusion": None}, "12", False),
        ({"head_repository": {"full_name": "foe/actprune"}}, "12", False),
        ({"head_repository": {"full_name": "us/actprunes"}}, "12", False),
        ({"head_repository": None}, "12", False),
        ({}, "12/../13", False),
        ({}, "", False),
    ],
)
def test_only_a_night_of_main_is_deployed(
    tmp_path: Path, other: dict[str, Any], number: str, deployed: bool
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**NIGHT, **other}))
    gh = f"""[[ "$*" == "api repos/us/actprune/actions/runs/12 --jq "* ]] || exit 1
jq -r "${{@: -1}}" {tmp_path}/run.json"""
    environment = {"GH_REPO": "us/actprune", "RUN": number}
    done = ran(script_of("pages.yml", "deploy", 0), tmp_path, {"gh": gh}, environment)
    assert (done.returncode == 0) == deployed, done.stderr


def test_pages_are_checked_before_they_are_fetched() -> None:
    workflow = yaml.safe_load((FOLDER / "pages.yml").read_text("utf-8"))
    first, second, *_ = workflow["jobs"]["deploy"]["steps"]
    assert first["if"] == "inputs.run != ''"  # else it is the night itself that calls
    assert second["with"]["run-id"] == "${{ inputs.run || github.run_id }}"


def artefact(folder: Path, number: str = "7\n") -> Path:
    made = folder / "untrusted"
    (made / "ab").mkdir(parents=True)
    (made / "number").write_text(number)
    (made / "ab/1 a.json").write_text("{}")
    return made


def commented(folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = {"RUNNER_TEMP": str(folder), "HEAD": "c" * 40, "FROM": "them/actprune"}
    environment["GITHUB_WORKSPACE"] = str(folder)
    program = {"actprune-ci": f"printf '%s\\n' \"$@\" >>{folder}/argv"}
    return ran(script_of("pr-comment.yml", "comment", -1), folder, program, environment)


def test_a_pull_request_s_artefact_is_judged(tmp_path: Path) -> None:
    made = artefact(tmp_path)
    assert commented(tmp_path).returncode == 0
    report = f"{tmp_path}/report"
    assert (tmp_path / "argv").read_text().splitlines() == [
        *("gate", "--ab", f"{made}/ab/1 a.json", "--out", report),
        *("comment", "--pr", "7", "--head", "c" * 40, "--from", "them/actprune"),
        *("--report", f"{report}/gate.md"),
    ]


def _linked(made: Path) -> None:
    (made / "ab/2.json").symlink_to("/etc/passwd")


def _folder_linked(made: Path) -> None:
    shutil.rmtree(made / "ab")
    (made / "ab").symlink_to("/etc")


def _large(made: Path) -> None:
    with (made / "ab/2.json").open("wb") as file:
        file.truncate(17 << 20)


def _many(made: Path) -> None:
    for i in range(30):
        (made / f"ab/{i}.json").write_text("{}")


def _number(text: str) -> Callable[[Path], object]:
    return lambda made: (made / "number").write_text(text)


@pytest.mark.parametrize(
    "spoil",
    [
        *(
            _linked,
            _folder_linked,
            _large,
            _many,
            _number("--x"),
            _number("::error::"),
            _number(""),
        ),
        *(_number("7 8"), _number("7\n8"), lambda made: (made / "number").unlink()),
    ],
)
def test_a_spoilt_artefact_is_refused(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(artefact(tmp_path))
    done = commented(tmp_path)
    assert done.returncode != 0
    assert not (tmp_path / "argv").exists()
    assert "::" not in done.stdout + done.stderr
