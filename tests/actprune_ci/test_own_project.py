"""docs/own-project.md, followed in an empty project of one function."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actprune_ci.cli import app
from actprune_common.errors import InputError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/own-project.md"
SUITE = """
from fastsum import total

class Sums:
    params = [1000]
    param_names = ["n"]

    def track_size(self, n):
        return total(n).bit_length() * n

    track_size.unit = "bytes"
"""
BENCH = """
from fastsum import total

def test_total(benchmark):
    benchmark.pedantic(total, (1000,), rounds=3)
"""
POLICY = re.search(r"```yaml\n(defaults:.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "pyproject.toml": '[build-system]\nrequires = ["hatchling"]\n'
        'build-backend = "hatchling.build"\n[project]\nname = "fastsum"\nversion = "1.0"\n',
        "fastsum/__init__.py": "def total(n):\n    return sum(range(n))\n",
        "benchmarks/__init__.py": "",
        "benchmarks/bench.py": SUITE,
        "tests/bench/test_bench.py": BENCH,
        ".gitignore": "*.json\nperf\nreport\nsite\n",
    }
    for name, text in files.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    said(tmp_path / "project", "git", "init", "-q", "-b", "main")
    commit(tmp_path / "project", "first")
    return tmp_path / "project"


def said(project: Path, *words: str, code: int = 0) -> str:
    # pytest-benchmark measures nothing where it finds itself in a worker of xdist
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(words, cwd=project, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def commit(project: Path, subject: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    said(project, "git", "add", "-A")
    said(project, "git", *who, "commit", "-q", "--allow-empty", "-m", subject)
    return said(project, "git", "rev-parse", "HEAD").strip()


def ci(project: Path, *words: str, code: int = 0) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        done = CliRunner().invoke(app(), words)
    error = str(done.exception) if isinstance(done.exception, InputError) else ""
    assert (2 if error else done.exit_code) == code, done.output + error
    return done.output + error


def test_from_record_to_gate_to_publish(project: Path) -> None:
    bench = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/bench")
    for number in range(4):
        grown = "n" if number < 2 else "n + 10**9"
        code = f"def total(n):\n    return sum(range(n)) * (1 + ({grown}) // 10**9)\n"
        (project / "fastsum/__init__.py").write_text(code, "utf-8")
        commit(project, f"change {number}")
        said(project, *bench, "--benchmark-json", "bench.json")
        ci(project, "record", "bench.json", "--store", "perf", "--machine", "my-box")
    good, bad = "HEAD~3", "HEAD~2"  # neither has grown
    ci(project, "ab", good, bad, "--out", "ab1.json", "--pairs", "2:2")
    told = ci(project, "gate", "--ab", "ab1.json", "--out", "report", code=0)
    assert told.startswith("good: 1 same (1 of 1 judged)"), told
    ci(project, "ab", "HEAD", "HEAD", "--out", "aa.json", "--pairs", "2:2")
    assert "no noisy figure" in ci(project, "calibrate", "--ab", "aa.json", code=2)
    assert "1 figures over 4 commits" in ci(project, "history", "perf")
    ci(project, "publish", "perf", "--out", "site")
    assert (project / "site/index.html").exists()
    assert json.loads((project / "report/gate.json").read_text("utf-8"))["code"] == 0


def test_the_policy_of_the_page_is_one_and_judges(project: Path) -> None:
    assert POLICY
    (project / "ci").mkdir()
    (project / "ci/policy.yml").write_text(POLICY[1], "utf-8")
    base = commit(project, "policy")
    text = "def total(n):\n    return sum(range(n)) * 10**1000\n"
    (project / "fastsum/__init__.py").write_text(text, "utf-8")
    head = commit(project, "grow")
    ci(project, "ab", base, head, "--out", "ab1.json", "--pairs", "2:2")
    told = ci(project, "gate", "--ab", "ab1.json", code=1)
    assert told.startswith("regression: 1 over budget, 1 worse (1 of 1 judged)"), told
