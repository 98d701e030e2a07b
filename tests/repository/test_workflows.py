"""The laws that every workflow keeps, and that a workflow which breaks one is caught."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from actprune_ci.cli import app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github/workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
VERSION = re.compile(r"uses: [\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$")
OURS = re.compile(r"\./\.github/workflows/[\w-]+\.yml")
UNTRUSTED = {"pull_request", "pull_request_target", "issue_comment", "issues", "workflow_run"}
Workflow = dict[Any, Any]


def triggers(workflow: Workflow) -> set[str]:
    """What starts it; YAML reads the key `on` as true."""
    on = workflow[True]
    return {on} if isinstance(on, str) else set(on)


def steps(workflow: Workflow) -> Iterator[Workflow]:
    for job in workflow["jobs"].values():
        yield from job.get("steps", ())


def writes(job: Workflow) -> set[str]:
    return {name for name, access in job.get("permissions", {}).items() if access == "write"}


def wrong(text: str) -> list[str]:
    """Which laws a workflow breaks."""
    workflow = yaml.safe_load(text)
    found = [*_of_all(workflow, text), *_of_triggers(workflow)]
    for name, job in workflow["jobs"].items():
        found += [f"{name}: {problem}" for problem in _of_job(workflow, job)]
    return found


def _of_all(workflow: Workflow, text: str) -> Iterator[str]:
    if workflow.get("permissions") != {}:
        yield "permissions at the top are not {}"
    if "group" not in workflow.get("concurrency", {}):
        yield "no concurrency group"
    for line in text.splitlines():
        if "uses: " in line and "@" in line and not VERSION.search(line):
            yield f"no version beside {line.strip()}"
    for each in steps(workflow):
        if "${{" in each.get("run", ""):
            yield f"an expression in a script: {each['run']}"
        if "uses" in each and not PINNED.fullmatch(each["uses"]):
            yield f"not pinned: {each['uses']}"
        kept = each.get("with", {}).get("persist-credentials") is not False
        if each.get("uses", "").startswith("actions/checkout@") and kept:
            yield "checkout keeps its credentials"


def _of_triggers(workflow: Workflow) -> Iterator[str]:
    if "pull_request_target" in triggers(workflow):
        yield "pull_request_target"
    cancelled = workflow.get("concurrency", {}).get("cancel-in-progress") is not False
    if cancelled and triggers(workflow) & {"schedule", "workflow_call", "workflow_run"}:
        yield "one that is running would be cancelled"


def _of_job(workflow: Workflow, job: Workflow) -> Iterator[str]:
    if "permissions" not in job:
        yield "no permissions of its own"
    if "timeout-minutes" not in job and "uses" not in job:
        yield "no time limit"
    if "uses" in job and not (OURS.fullmatch(job["uses"]) or PINNED.fullmatch(job["uses"])):
        yield f"not pinned: {job['uses']}"
    if "self-hosted" in job.get("runs-on", ()):
        if triggers(workflow) - {"schedule", "workflow_dispatch"}:
            yield "something else than the schedule reaches our own machine"
        if job.get("if") != "github.ref == 'refs/heads/main'":
            yield "another branch than the default one reaches our own machine"
        if writes(job):
            yield "our own machine has a token that writes"
    if writes(job) and "pull_request" in triggers(workflow):
        yield "a pull request's code has a token that writes"
    if writes(job):
        for each in job.get("steps", ()):
            if re.search(r"\bpip3? |\bmake\b|\bcurl\b|\bwget\b|\bnp[mx]\b", each.get("run", "")):
                yield f"a token that writes beside what has no hash: {each['run']}"
    refs = [each["with"]["ref"] for each in job.get("steps", ()) if "ref" in each.get("with", {})]
    if writes(job) and refs:
        yield f"a token that writes beside the code of {refs[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_laws_are_kept(path: Path) -> None:
    assert wrong(path.read_text("utf-8")) == []


def test_all_of_them_are_there() -> None:
    names = {"ci.yml", "nightly-gpu.yml", "pages.yml", "pr-benchmark.yml", "pr-comment.yml"}
    assert {path.name for path in WORKFLOWS} == names | {"versions.yml"}
    gpu = [p.name for p in WORKFLOWS if "self-hosted" in p.read_text("utf-8")]
    assert gpu == ["nightly-gpu.yml"]


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("ci.yml", "permissions: {}", "permissions: read-all", "permissions at the top are not {}"),
        ("ci.yml", "  group: ci-${{ github.ref }}\n", "", "no concurrency group"),
        ("ci.yml", "  # v6.0.0", "", "no version beside"),
        ("ci.yml", "run: make check", "run: make ${{ github.head_ref }}", "an expression in a"),
        ("ci.yml", "@08c6903cd8c0fde910a37f88322edcfb5dd907a8", "@v5", "not pinned"),
        ("ci.yml", "persist-credentials: false", "fetch-depth: 0", "checkout keeps its cred"),
        ("ci.yml", "  pull_request:", "  pull_request_target:", "pull_request_target"),
        ("ci.yml", "contents: read", "contents: write", "check: a pull request's code has"),
        ("ci.yml", "    timeout-minutes: 90\n", "", "check: no time limit"),
        ("nightly-gpu.yml", "cancel-in-progress: false", "cancel-in-progress: true", "one that is"),
        ("nightly-gpu.yml", "  schedule:", "  pull_request:", "night: something else than the"),
        ("nightly-gpu.yml", "refs/heads/main", "refs/heads/x", "night: another branch than the"),
        ("nightly-gpu.yml", "contents: read", "contents: write", "night: our own machine has a"),
        ("nightly-gpu.yml", "uses: ./", "uses: a/b/", "pages: not pinned: a/b/.github"),
        (
            "pr-comment.yml",
            ".github/install-harness.sh",
            "pip install .",
            "comment: a token that w",
        ),
        (
            "pr-comment.yml",
            "          run-id:",
            "          ref: x\n          run-id:",
            "comment: a t",
        ),
    ],
)
def test_a_broken_law_is_seen(name: str, old: str, new: str, said: str) -> None:
    text = (FOLDER / name).read_text("utf-8")
    assert old in text
    assert any(problem.startswith(said) for problem in wrong(text.replace(old, new)))


def test_untrusted_triggers_are_the_two_that_were_thought_about() -> None:
    found = {}
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text("utf-8"))
        if of := triggers(workflow) & UNTRUSTED:
            found[path.name] = of
    assert found == {
        "ci.yml": {"pull_request"},
        "pr-benchmark.yml": {"pull_request"},
        "pr-comment.yml": {"workflow_run"},
    }


def test_what_is_posted_on_a_pull_request_was_judged_by_our_own_code() -> None:
    workflow = yaml.safe_load((FOLDER / "pr-comment.yml").read_text("utf-8"))
    words = [str(each) for each in steps(workflow)]
    download = next(i for i, word in enumerate(words) if "download-artifact" in word)
    install = next(i for i, word in enumerate(words) if "install-harness" in word)
    assert install < download  # what is installed cannot come from the artefact
    last = list(steps(workflow))[-1]["run"]
    assert "actprune-ci gate" in last
    assert "report/gate.md" in last
    assert not re.search(r"untrusted/[\w/]*\.md", last)


def test_another_label_cancels_no_measurement() -> None:
    """Groups by GitHub's own rule: `a && b || c`; only what is in one group is cancelled."""
    concurrency = yaml.safe_load((FOLDER / "pr-benchmark.yml").read_text("utf-8"))["concurrency"]
    event = "${{ github.event.action == 'labeled' && github.event.label.name || 'benchmark' }}"
    number = "${{ github.event.pull_request.number }}"
    assert concurrency["group"].replace(" }}", "}}") == f"pr-benchmark-{number}-{event}".replace(
        " }}", "}}"
    )
    assert concurrency["cancel-in-progress"] == "${{ github.event.action == 'synchronize' }}"


def test_what_the_workflows_call_is_there() -> None:
    text = "".join(path.read_text("utf-8") for path in WORKFLOWS)
    known = {command.name for command in app().registered_commands}
    called = set(re.findall(r"actprune-ci ([a-z-]+)", text))
    assert called == {"gate", "nightly", "issues", "comment"}
    assert called <= known
    for path in re.findall(r"\b(ci/[\w.-]+\.yml)", text):
        assert (ROOT / path).is_file()
    script = ROOT / ".github/install-harness.sh"
    assert script.stat().st_mode & 0o111
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"run: make (\w+)$", text, re.MULTILINE):
        assert f"\n{target}:" in makefile
