"""A night of tiny steps: what it survives, what it resumes, and what it says."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from actprune_ci.cli import app
from actprune_ci.measure import machine
from actprune_ci.measure.machine import facts
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.nightly import config, night, state, step, summary
from actprune_ci.nightly.config import MissingError, expand
from actprune_ci.store import store
from actprune_common import processes
from actprune_common.errors import InputError
from actprune_common.files import write_whole
from tests.actprune_ci.measure.test_ab import git

COUNTED = """
  - name: {name}
    run: [sh, -c, "echo said; echo {name} >> $COUNT; {then}"]
"""
GOOD = COUNTED.format(name="gate", then="exit 0") + "    verdict: true\n"


class Nights:
    """A repository of two commits, a store, and a config that is written for each test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repo, self.out = folder, folder / "repo", folder / "out"
        git(folder, "init", "-q", "-b", "main", "repo")
        self.commits = [self.commit(), self.commit()]
        self.config, self.count = folder / "night.yml", folder / "count"

    def commit(self) -> str:
        git(self.repo, "commit", "-q", "--allow-empty", "-m", "a change")
        return git(self.repo, "rev-parse", "HEAD")

    def words(self, steps: str, *more: str, top: str = "") -> list[str]:
        self.config.write_text(f"{top}\nsteps:{steps}", "utf-8")
        places = ("--config", self.config, "--repo", self.repo, "--store", self.folder / "store")
        return ["nightly", "--out", str(self.out), *map(str, places), *more]

    def run(self, steps: str, *more: str, top: str = "") -> Result:
        return CliRunner().invoke(app(), self.words(steps, *more, top=top))

    def counted(self) -> list[str]:
        return self.count.read_text("utf-8").split() if self.count.exists() else []

    def state(self) -> Any:
        return json.loads((self.out / "nightly.json").read_text("utf-8"))

    def steps(self) -> dict[str, str]:
        return {name: done["status"] for name, done in self.state()["steps"].items()}


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    made = Nights(tmp_path)
    monkeypatch.setenv("COUNT", str(made.count))
    monkeypatch.setattr(step, "GRACE", 1.0)
    for name in (*night.TOKENS, "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return made


def script(name: str, then: str = "exit 0", more: str = "") -> str:
    return COUNTED.format(name=name, then=then) + (f"    {more}\n" if more else "")


def program(folder: Path, name: str, text: str) -> None:
    """A program on the PATH, in front of all others."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    (folder / name).chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for programs that stand before all others, this interpreter's own apart."""
    monkeypatch.setenv("PATH", os.environ["PATH"])
    return tmp_path / "bin"


def test_a_good_night(nights: Nights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    done = nights.run(script("one") + GOOD)
    assert done.exit_code == 0, done.output
    first = next(line for line in done.stdout.splitlines() if line.startswith("good"))
    assert first.startswith(f"good: {nights.commits[1][:10]}, machine {facts()['fingerprint']}, ")
    assert nights.counted() == ["one", "gate"]
    assert (nights.out / "logs/one.log").read_text("utf-8") == "said\n"
    assert page.read_text("utf-8").startswith("# ✅ good: ")
    assert "| one | ok | 0 s |  |" in page.read_text("utf-8")
    one = nights.state()["steps"]["one"]
    assert (one["code"], one["attempts"], one["log"]) == (0, 1, "logs/one.log")
    assert one["seconds"] > 0
    assert {"at", "load"} <= set(one["before"])
    assert {"at", "load"} <= set(one["after"])


def test_the_gates_code_is_the_nights(nights: Nights) -> None:
    steps = GOOD + script("again", "exit 4", "verdict: true") + script("after")
    done = nights.run(steps)
    assert done.exit_code == 4
    assert "inconclusive: " in done.stdout
    assert nights.steps() == {"gate": "ok", "again": "ok", "after": "ok"}


@pytest.mark.parametrize(
    ("steps", "code", "said"),
    [
        (script("one"), 3, "no data: no verdict: "),
        (script("gate", "exit 2", "verdict: true"), 3, "no data: no verdict; failed: gate: "),
        (script("tests", "exit 1") + GOOD, 1, "failed: tests; the gate is good: "),
        (script("tests", "exit 1", "failure: warning") + GOOD, 0, "good: "),
        (script("gate", "exit 5", "verdict: true"), 5, "broken machine: "),
        (
            script("tests", "exit 1") + script("gate", "exit 1", "verdict: true"),
            1,
            "regression; failed: tests: ",
        ),
    ],
)
def test_exit_codes(nights: Nights, steps: str, code: int, said: str) -> None:
    done = nights.run(steps)
    assert done.exit_code == code
    assert any(line.startswith(said) for line in done.stdout.splitlines()), done.stdout


def test_a_crash_is_its_own(nights: Nights) -> None:
    crash = script("crash", "echo why; kill -SEGV $$") + script("next", "exit 0", "needs: [crash]")
    done = nights.run(crash + script("other") + GOOD)
    assert done.exit_code == 1
    assert nights.steps() == {"crash": "failed", "next": "skipped", "other": "ok", "gate": "ok"}
    steps = nights.state()["steps"]
    assert steps["crash"]["reason"] == "killed by SIGSEGV"
    assert steps["crash"]["tail"] == "said\nwhy\n"
    assert steps["next"]["reason"] == "needs crash"
    assert "    why" in done.stdout


def test_lack_of_memory_is_said(nights: Nights) -> None:
    nights.run(script("big", "kill -KILL $$") + script("shell", "exit 137") + GOOD)
    reasons = {nights.state()["steps"][name]["reason"] for name in ("big", "shell")}
    assert reasons == {"killed by SIGKILL, as a rule because memory ran out"}


def test_the_kernel_would_end_the_step_and_not_the_night(nights: Nights) -> None:
    nights.run(script("score", "sleep 0.3; cat /proc/self/oom_score_adj") + GOOD)
    assert (nights.out / "logs/score.log").read_text("utf-8").split() == ["said", "1000"]


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def alive(marker: str) -> bool:
    """Whether a process has this word in its command."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def test_a_hang_is_ended_with_all_that_it_started(nights: Nights) -> None:
    marker = f"31.{os.getpid()}"
    hang = f"(sleep {marker}) & setsid sleep {marker} & trap '' TERM; sleep {marker}"
    done = nights.run(script("hang", hang, "timeout: 0.5") + GOOD)
    assert done.exit_code == 1
    hung = nights.state()["steps"]["hang"]
    assert hung["reason"] == "ended after its time limit of 0.5 s"
    assert hung["seconds"] < 20
    assert not alive(marker)


def test_a_hang_may_write_what_it_has(nights: Nights) -> None:
    words = """[sh, -c, "trap 'echo kept; exit' TERM; echo ready; sleep 60 & wait"]"""
    nights.run(f"\n  - name: slow\n    run: {words}\n    timeout: 1\n" + GOOD)
    assert nights.state()["steps"]["slow"]["tail"] == "ready\nkept\n"


def test_what_a_step_leaves_running_is_ended(nights: Nights) -> None:
    marker = f"32.{os.getpid()}"
    nights.run(script("leaves", f"sleep {marker} & exit 0") + GOOD)
    assert nights.steps()["leaves"] == "ok"
    assert not alive(marker)


def test_retries(nights: Nights) -> None:
    flaky = script("flaky", "test $(wc -l < $COUNT) -eq 3", "retries: 4")
    assert nights.run(flaky + GOOD).exit_code == 0
    assert nights.counted() == ["flaky"] * 3 + ["gate"]
    done = nights.state()["steps"]["flaky"]
    assert (done["attempts"], done["reason"], done["tail"]) == (3, "", "")


def test_a_program_that_is_not_there(nights: Nights) -> None:
    assert nights.run("\n  - name: none\n    run: [no-such-program]\n" + GOOD).exit_code == 1
    reason = "no-such-program: cannot be run: No such file or directory"
    assert nights.state()["steps"]["none"]["reason"] == reason


def started(nights: Nights, steps: str) -> "subprocess.Popen[bytes]":
    words = (sys.executable, "-m", "actprune_ci", *nights.words(steps, "--resume"))
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(nights: Nights, name: str) -> None:
    wait_until(lambda: name in nights.counted())


def test_a_killed_night_goes_on_where_it_stopped(nights: Nights) -> None:
    marker = f"33.{os.getpid()}"
    waits = f"test $(grep -c two $COUNT) -gt 1 || sleep {marker}"
    steps = script("one") + script("two", waits) + script("three") + GOOD
    process = started(nights, steps)
    wait_for(nights, "two")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert nights.steps() == {"one": "ok", "two": "running"}
    wait_until(lambda: alive(marker))  # nobody ended what the night had started
    done = nights.run(steps, "--resume")
    assert done.exit_code == 0, done.output
    assert not alive(marker)
    assert nights.counted() == ["one", "two", "two", "three", "gate"]
    assert nights.steps() == dict.fromkeys(("one", "two", "three", "gate"), "ok")
    assert nights.run(steps, "--resume").exit_code == 0  # a night that is over says so again
    assert len(nights.counted()) == 5


def test_an_interrupted_night_ends_its_step(nights: Nights) -> None:
    marker = f"34.{os.getpid()}"
    process = started(nights, script("one") + script("two", f"sleep {marker}") + GOOD)
    wait_for(nights, "two")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 130
    assert not alive(marker)
    assert nights.steps() == {"one": "ok", "two": "running"}


def test_ctrl_c_at_the_start_of_a_step_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = f"35.{os.getpid()}"
    words = ["sh", "-c", f"sleep {marker}; true"]
    begin, started = processes.start, []

    def interrupted(*given: Any, **options: Any) -> Any:
        started.append(begin(*given, **options))
        wait_until(lambda: alive(marker))
        raise KeyboardInterrupt  # before anybody knows the process

    monkeypatch.setattr(processes, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        step.run(words, tmp_path / "log", 60, tmp_path, {**os.environ, processes.MARK: "a-token"})
    with started[0] as process:
        process.wait(5)
    assert not alive(marker)


def test_only_one_night_in_a_folder(nights: Nights) -> None:
    process = started(nights, script("one", "sleep 60") + GOOD)
    wait_for(nights, "one")
    done = nights.run(GOOD, "--resume")
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == f"{nights.out}: another night is running in it"


def test_a_night_that_is_there_is_not_begun_again(nights: Nights) -> None:
    nights.run(GOOD)
    done = nights.run(GOOD)
    wanted = f"{nights.out / 'nightly.json'}: is there already; --resume goes on with it"
    assert str(done.exception) == wanted
    was = nights.commits[-1][:12]
    now = nights.commit()[:12]
    done = nights.run(GOOD, "--resume")
    wanted = f"{nights.out / 'nightly.json'}: a night of commit {was}, and this is {now}"
    assert str(done.exception) == wanted


def test_a_changed_tree_is_not_measured(nights: Nights) -> None:
    (nights.repo / "file").write_text("one", "utf-8")
    git(nights.repo, "add", "file")
    done = nights.run(GOOD)
    wanted = f"{nights.repo}: has uncommitted changes, and a night measures a commit"
    assert str(done.exception) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", ": expected a night's state with schema 1"),
        ('{"schema": 2}', ": expected a night's state with schema 1"),
        ('{"schema": 1, "commit": 3}', ": commit: expected a valid string, got 3"),
        ("{", ": not JSON (Expecting property name enclosed in double quotes"),
    ],
)
def test_a_state_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "nightly.json").write_text(text, "utf-8")
    with pytest.raises(InputError) as raised:
        state.load(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'nightly.json'}{said}")


def test_a_full_disk_ends_the_night_with_its_state_readable(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = script("one") + script("two") + GOOD
    full = [False]

    def writes(path: Path, content: str) -> None:
        full[0] = full[0] or '"two"' in content
        if full[0]:
            raise InputError(f"{path}: cannot be written (No space left on device)")
        write_whole(path, content)

    monkeypatch.setattr(state, "write_whole", writes)
    done = nights.run(steps)
    assert done.exit_code == 5
    wanted = f"broken machine: {nights.out / 'nightly.json'}: cannot be written (No space left"
    assert wanted in done.stderr
    assert "the same command with --resume goes on" in done.stderr
    assert nights.steps() == {"one": "ok"}
    monkeypatch.undo()
    monkeypatch.setenv("COUNT", str(nights.count))
    assert nights.run(steps, "--resume").exit_code == 0
    assert nights.counted() == ["one", "two", "gate"]


def test_a_log_that_cannot_be_written_is_only_noted(nights: Nights) -> None:
    (nights.out).mkdir()
    (nights.out / "logs").mkdir()
    (nights.out / "logs/one.log").symlink_to("/dev/full")
    done = nights.run(script("one") + GOOD)
    assert done.exit_code == 0
    note = "one.log: the log cannot be written: No space left on device"
    assert nights.state()["steps"]["one"]["notes"] == [note]
    assert note in done.stdout


def test_a_step_whose_own_files_are_refused_fails_alone(nights: Nights) -> None:
    limited = "ulimit -f 1; head -c 100000 /dev/zero > $COUNT.big"
    done = nights.run(script("writes", limited) + GOOD)
    assert done.exit_code == 1
    assert nights.steps() == {"writes": "failed", "gate": "ok"}


def test_a_clock_that_jumps_is_noted(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = time.time, []

    class Clock:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def time() -> float:
            calls.append(1)
            return real() + (3600 if len(calls) > 1 else 0)

    monkeypatch.setattr(machine, "time", Clock)
    assert nights.run(script("one") + GOOD).exit_code == 0
    one = nights.state()["steps"]["one"]
    assert one["notes"][0] == "clock jumped by +3600 s"
    assert one["seconds"] < 60


SMI = """
case "$*" in *clocks_throttle_reasons*) ;; *) echo 'not a valid field to query'; exit 2 ;; esac
cat {gpus} 2>/dev/null || exit 9
"""
H200 = "NVIDIA H200, 1980, 0x0000000000000004, 41, 123.45\n"


@pytest.fixture
def gpus(path: Path, tmp_path: Path) -> Path:
    """A file with what a fake nvidia-smi of an old driver says; without it, it fails."""
    program(path, "nvidia-smi", SMI.format(gpus=tmp_path / "gpus"))
    (tmp_path / "gpus").write_text(H200, "utf-8")
    return tmp_path / "gpus"


def test_clocks_and_throttling_are_recorded(nights: Nights, gpus: Path) -> None:
    done = nights.run(script("train", more="when: cuda") + GOOD)
    assert done.exit_code == 0
    train = nights.state()["steps"]["train"]
    assert train["status"] == "ok"
    read = {"name": "NVIDIA H200", "clock_mhz": "1980", "slowed_by": "0x0000000000000004"}
    assert train["after"]["gpus"] == [{**read, "celsius": "41", "watts": "123.45"}]
    assert "GPU 0 is slowed down: power limit (reasons 0x4)" in train["notes"]
    page = (nights.out / "summary.md").read_text("utf-8")
    assert "1980 MHz, 41 °C, 123.45 W, slowed by 0x0000000000000004" in page


def test_a_gpu_that_disappears_ends_the_night(nights: Nights, gpus: Path) -> None:
    steps = script("one") + script("two", f"mv {gpus} {gpus}.gone") + script("three") + GOOD
    done = nights.run(steps)
    assert done.exit_code == 5
    reason = "device lost: nvidia-smi lists 0 of 1 GPUs"
    assert f"broken machine: {reason}, at two: " in done.stdout
    assert nights.steps() == {"one": "ok", "two": "lost"}
    assert nights.run(steps, "--resume").exit_code == 5  # it is still not there
    assert nights.counted() == ["one", "two"]
    gpus.write_text(H200, "utf-8")
    done = nights.run(steps.replace(f"mv {gpus} {gpus}.gone", "exit 0"), "--resume")
    assert done.exit_code == 0
    assert nights.counted() == ["one", "two", "two", "three", "gate"]


def test_a_gpu_that_was_never_there(nights: Nights, path: Path) -> None:
    program(path, "nvidia-smi", "exit 9")
    cuda = script("train", more="when: cuda")
    assert nights.run(cuda + GOOD).exit_code == 0
    assert nights.state()["steps"]["train"]["reason"] == "no CUDA device"
    nights.out = nights.folder / "second"
    done = nights.run(cuda + GOOD, top="gpus: 2")
    assert done.exit_code == 5
    assert nights.state()["steps"]["train"]["reason"] == (
        "device lost: nvidia-smi lists 0 of 2 GPUs"
    )


def test_an_nvidia_smi_that_hangs(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(path, "nvidia-smi", "exec sleep 60")
    monkeypatch.setattr(machine, "ANSWER", 0.2)
    assert machine.gpus() == ()


def test_when_github(nights: Nights, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path, "gh", "exit 0")
    steps = script("issues", more="when: github") + GOOD
    nights.run(steps)
    assert nights.state()["steps"]["issues"]["reason"] == "no gh with a token (GH_TOKEN)"
    nights.out = nights.folder / "second"
    monkeypatch.setenv("GH_TOKEN", "secret")
    nights.run(steps)
    assert nights.steps()["issues"] == "ok"
    assert "secret" not in (nights.out / "nightly.json").read_text("utf-8")


def recorded(nights: Nights, commit: str, name: str = "") -> None:
    figure = Measurement(Key("suite.it", (), "saved_bytes", "bytes"), (1.0,))
    date = "2026-11-23T00:00:00+00:00"
    name = name or facts()["fingerprint"]
    store.write(Run("asv", commit, False, date, name, {}, (figure,)), nights.folder / "store")


BASED = "\n  - name: ab\n    run: [echo, '{base}', '{commit}', '{short}', '{machine}']\n"


def test_last_nights_commit(nights: Nights) -> None:
    done = nights.run(BASED + GOOD)
    assert nights.state()["steps"]["ab"]["reason"] == "no earlier commit in the store"
    assert done.exit_code == 0
    old, new = nights.commits
    git(nights.repo, "checkout", "-q", "-b", "other", old)
    elsewhere = nights.commit()
    git(nights.repo, "checkout", "-q", "main")
    for commit in (elsewhere, new, old):
        recorded(nights, commit)
    head = nights.commit()
    recorded(nights, head)
    nights.out = nights.folder / "second"
    nights.run(BASED + GOOD)
    assert nights.state()["base"] == new
    said = (nights.out / "logs/ab.log").read_text("utf-8").split()
    assert said == [new, head, head[:8], facts()["fingerprint"]]
    nights.out = nights.folder / "third"
    nights.run(BASED + GOOD, "--base", "HEAD~2")
    assert nights.state()["base"] == old


def test_another_machines_nights_do_not_count(nights: Nights) -> None:
    recorded(nights, nights.commits[0], "another")
    name = facts()["fingerprint"]
    assert night.last_night(nights.folder / "store", nights.repo, nights.commits[1], name) == ""


REPEATED = "\n  - name: again\n    run: [echo, '{repeat}']\n"


def test_what_the_gate_wants_repeated(nights: Nights) -> None:
    def with_gate(*benchmarks: str) -> str:
        text = json.dumps({"repeat": {"benchmarks": benchmarks}})
        gate = f"mkdir -p {nights.out}/gate; echo '{text}' > {nights.out}/gate/gate.json"
        (nights.folder / "gate.sh").write_text(gate, "utf-8")
        return f"\n  - name: gate\n    run: [sh, {nights.folder}/gate.sh]\n    verdict: true\n"

    assert nights.run(with_gate("suite.time_a", "suite.time_b") + REPEATED).exit_code == 0
    said = (nights.out / "logs/again.log").read_text("utf-8")
    assert said == "^suite\\.time_a|^suite\\.time_b\n"
    nights.out = nights.folder / "second"
    nights.run(with_gate() + REPEATED)
    assert nights.state()["steps"]["again"]["reason"] == "nothing to repeat"
    nights.out = nights.folder / "third"
    nights.run(GOOD + REPEATED)
    reason = "no gate/gate.json to repeat anything of"
    assert nights.state()["steps"]["again"]["reason"] == reason


def test_what_a_step_makes_is_not_left_of_an_earlier_try(nights: Nights) -> None:
    makes = 'makes: ["{out}/made"]'
    steps = script("one", f"test -e {nights.out}/made && echo left; exit 0", makes) + GOOD
    nights.out.mkdir()
    (nights.out / "made").touch()
    assert nights.run(steps).exit_code == 0
    assert (nights.out / "logs/one.log").read_text("utf-8") == "said\n"
    (nights.out / "made").mkdir()  # what cannot be removed
    (nights.out / "nightly.json").unlink()
    assert nights.run(steps).exit_code == 1
    reason = f"{nights.out / 'made'}: Is a directory"
    assert nights.state()["steps"]["one"]["reason"] == reason


def test_words_that_go_together(tmp_path: Path) -> None:
    tmp_path = tmp_path / "night [1]"
    tmp_path.mkdir()
    for name in ("b.json", "a.json", "c.txt"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).touch()
    values = {"out": str(tmp_path), "repo": "/", "commit": "abc"}
    words = ["gate", ["--ab", "{out}/in/*.json"], ["--base", "{base}"], ["--head", "{commit}"]]
    files = [str(tmp_path / "in" / name) for name in ("a.json", "b.json")]
    assert expand(words, values, {}) == [
        *("gate", "--ab", files[0], "--ab", files[1]),
        *("--head", "abc"),
    ]
    assert expand(["x", ["{out}/no/*"]], values, {}) == ["x"]
    assert expand(["x", ["in/*.txt"]], values | {"repo": str(tmp_path)}, {}) == [
        *("x", str(tmp_path / "in/c.txt")),
    ]
    with pytest.raises(MissingError, match=r"^no earlier commit$"):
        expand(["x", "{base}"], values, {"base": "no earlier commit"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: []\n", "1: steps: Tuple should have at least 1 item after validation, not 0"),
        ("steps:\n  - name: a\n", "2: steps[0].run: this key is required"),
        (
            "steps:\n  - {name: a, run: [x], what: 1}\n",
            "2: steps[0].what: unknown key; known are name, run, makes, timeout, retries, needs,"
            " when, failure, verdict",
        ),
        (
            "steps:\n  - name: a\n    run: [x, '{outt}']\n",
            "3: steps[0].run[1]: unknown placeholder {outt}; known are {out}, {store}, {repo},"
            " {commit}, {short}, {branch}, {base}, {machine}, {python}, {repeat}",
        ),
        ("steps:\n  - name: a\n    run: [[x]]\n", "3: steps[0].run: expected a program first, got"),
        (
            "steps:\n  - name: a\n    run: [x]\n    makes: ['{out}/../b']\n",
            "4: steps[0].makes: expected files in {out}/, got '{out}/../b'",
        ),
        (
            "steps:\n  - {name: a, run: [x]}\n  - {name: a, run: [x]}\n",
            "1: steps: the name a is given twice",
        ),
        (
            "steps:\n  - {name: a, run: [x], needs: [b]}\n",
            "1: steps: a needs b, which is no step before it",
        ),
        (
            "steps:\n  - name: a\n    run: [x]\n    timeout: 0\n",
            "4: steps[0].timeout: expected greater than 0, got 0",
        ),
        (
            "steps:\n  - name: a\n    run: [x]\n    when: gpu\n",
            "4: steps[0].when: expected 'any', 'cuda' or 'github', got 'gpu'",
        ),
        ("steps:\n  - name: a b\n    run: [x]\n", "2: steps[0].name: String should match pattern"),
    ],
)
def test_a_bad_config_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "night.yml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as raised:
        config.read(path)
    assert str(raised.value).startswith(f"{path}:{said}")


@pytest.mark.parametrize("name", ["nightly.yml", "nightly-small.yml", "pr.yml"])
def test_our_own_nights(name: str) -> None:
    made = config.read(Path(__file__).parents[3] / "ci" / name)
    assert any(each.verdict for each in made.steps)


def test_texts_are_escaped(tmp_path: Path) -> None:
    done = state.Done("failed", reason="<img src=x> @all | `x`", attempts=1, tail="```\n<b>")
    steps = (config.NightStep(name="one", run=("x",)),)
    made = state.NightState(
        "c" * 40, "", "box", "t", "now", steps={"one": done}, code=1, verdict="bad"
    )
    page = summary.markdown(config.Night(steps=steps), made, tmp_path)
    assert r"\<img src=x\> @" + "\u200b" + r"all \| \`x\`" in page
    assert "\n````sh\n```\n<b>\n````\n" in page
