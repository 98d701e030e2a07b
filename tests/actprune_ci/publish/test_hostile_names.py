"""Names from anybody's pull request: pasted into a shell, shown by GitHub, printed into a log."""

import html
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from actprune_ci.cli import app
from actprune_ci.cli.ab import printed
from actprune_ci.cli.options import echo, tell
from actprune_ci.judge.gate import gate
from actprune_ci.judge.policy import Policy
from actprune_ci.judge.report import Report
from actprune_ci.model.runs import Key, Note, Pairs
from actprune_ci.model.serialise import to_json
from actprune_ci.publish.reports import FORMATS, formatting, markdown
from actprune_ci.publish.reports import json as gate_json
from actprune_common.printable import printable, visible
from tests.actprune_ci.judge.test_gate import run

TOUCH = ("$(touch canary)", "`touch canary`", "';touch canary;'", "\ntouch canary\n")
ACTING = (*"'\"`$!\\-|&; \n\r\t", "```", "~~~~", "!!", "--out=x", "\rtouch canary\r")
UNSEEN = (*"\a\x85\u202e\u2066\u200b\u2028\u3164\ufe0f", "\x1b[201~", "\x1b[2J")
LINKING: tuple[str, ...] = (
    "@all",
    "&commat;all",
    "&#64;all",
    "a/b@c",
    "#1",
    "GH-1",
    "gh-12",
    "a/b#3",
    ":tada:",
)
LINKING += ("https://e.example/x", "www.e.example", "ftp://e", "a@b.example", "mailto:a@b.example")
MARKED: tuple[str, ...] = (
    "<img/src=x/onerror=y>",
    "</script><script>",
    "<!--",
    "-->",
    "[x](y)",
    "![x](y)",
    "<a:b>",
)
MARKED += ("*x*", "_x_", "~~x~~", "$x$", "[^1]", "&lt;", "[x]: y", "> ", "===", "---", "|---|")
LOGGED: tuple[str, ...] = (
    "x\n::error::boo",
    "::add-mask::x",
    "a\r::add-mask::x",
    "##[group]",
    " ::error::",
)
LOGGED += ("##vso[task]", "###[x]")
PIECES = (*TOUCH, *ACTING, *UNSEEN, *LINKING, *MARKED, *LOGGED, "1. ", "- ", "é", "名", "suite.a")
NAMES = st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(exclude_characters="\0"), max_size=3),
    min_size=1,
    max_size=6,
).map("".join)
SHELLS = (("sh",), ("bash",), ("bash", "-o", "history", "-o", "histexpand"))
COMMANDS = re.compile(r"^\s*::|##\w*\[")


def judged(*names: str) -> Report:
    """A report in which each of these benchmarks is worse."""
    pairs = [Pairs(Key(n, (("p", n),), "saved_bytes", "bytes"), (1.0,), (2.0,)) for n in names]
    made = gate(Policy(), [run(*pairs)])
    findings = tuple(replace(each, unconfirmed=True) for each in made.findings)
    return replace(made, findings=findings, notes=(*made.notes, Note("other", names[0])))


def blocks(page: str) -> list[str]:
    """The code blocks of a page, as GitHub's button copies them."""
    return [each.content for each in MarkdownIt("commonmark").parse(page) if each.type == "fence"]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing in it but an actprune-ci that writes down how it was called."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "bin").mkdir()
    stub = folder / "bin/actprune-ci"
    stub.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >>{folder}/argv\n")
    stub.chmod(0o755)
    (folder / "here").mkdir()
    return folder


def pasted(block: str, words: tuple[str, ...], shell: Path) -> list[str]:
    """What a shell calls actprune-ci with; nothing else may have come of it."""
    (shell / "argv").unlink(missing_ok=True)
    path = f"{shell / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
    environment = {"PATH": path, "HISTFILE": "/dev/null", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        words, input=block.encode(), cwd=shell / "here", env=environment, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list((shell / "here").iterdir()) == [], "something else ran"
    return (shell / "argv").read_bytes().decode().split("\0")[:-1]


@given(names=st.lists(NAMES, min_size=1, max_size=2, unique=True))
def test_a_pasted_command_calls_what_was_meant(shell: Path, names: list[str]) -> None:
    report = judged(*names)
    commands = blocks(markdown.render(report))
    figures = [str(finding.key) for finding in report.findings]
    assert len(commands) == len(names) + 1  # each alert's, and the one that confirms all
    for block in commands:
        assert block.count("\n") == 1
        assert visible(block[:-1]) == block[:-1]
        for words in SHELLS:
            *first, fitting = pasted(block, words, shell)
            assert first == ["ab", "aaaa", "bbbb", "--benchmarks"]
            if block == commands[-1]:  # that one is of the figures, the others of benchmarks
                assert all(re.match(fitting, figure) for figure in figures)
                meant = figures
            else:
                meant = [name for name in names if re.match(fitting, name)]
            assert meant
            for name in meant:
                assert (found := re.match(fitting, name))
                assert len(names) > 1 or found[0] == name
    said = json.loads(gate_json.render(report))["repeat"]["command"]
    assert commands[-1] == f"{said}\n"
    assert f"<pre>{said}</pre>" in html.unescape(FORMATS["html"][1](report)).splitlines()
    assert f"repeat: {said}" in FORMATS["text"][1](report).splitlines()


@pytest.mark.parametrize(
    "sides", [("--out=x", "bbbb"), ("aaaa", "$(x)"), ("aaaa", "main"), ("", "b")]
)
def test_a_side_that_is_no_commit_is_in_no_command(sides: tuple[str, str]) -> None:
    report = replace(judged("suite.time"), base=sides[0], head=sides[1])
    assert formatting.command(report, "suite.time") == ""
    assert "actprune-ci ab" not in markdown.render(report)


def test_a_command_that_no_shell_takes_is_not_shown() -> None:
    assert formatting.command(judged("a"), "a" * 200_000) == ""
    assert formatting.pasted("git", "log", "a'`\\b") == "git log 'a'\"'\"'`\\b'"
    assert formatting.pasted("git", "log", "a\u202eb") == formatting.pasted("git", "\n") == ""


def test_a_block_is_not_ended_from_within() -> None:
    said = "```\n# no heading\n`````\n~~~\n\x1b[31mred\n"
    page = "\n".join(["before", *markdown.code(said), "after"])
    assert blocks(page) == [said.replace("\x1b", "\\x1b") + "\n"]


def rendered(page: str) -> str:
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(page))


def texts(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page))


LINKS = re.compile(r"@\w|#\d|\bGH-\d|https?://|ftp://|\bwww\.|(?<!\w):[\w+-]+:", re.IGNORECASE)
"""What GitHub makes a link, a mention or an emoji of, wherever it stands in what is shown."""


@given(name=NAMES)
def test_nothing_comes_of_a_name_in_markdown(name: str) -> None:
    check_markdown(name)


@pytest.mark.parametrize("name", [*LINKING, *MARKED, *LOGGED, "1. x", "1)", "- x", "+", "-", "1. "])
def test_nothing_comes_of_a_piece_in_markdown(name: str) -> None:
    check_markdown(name)


def check_markdown(name: str) -> None:
    shown = markdown.text(name)
    plain = texts(rendered(f"x {shown} x")).strip()
    whole = visible(" ".join(["x", *name.split(), "x"]))
    assert plain.replace(markdown.BREAK, "").replace("  ", " ") == whole
    assert not LINKS.search(plain)
    for before, tags in (("", "p"), ("x\n", "p"), ("- ", "ul li"), ("### ", "h3")):
        made = rendered(f"{before}{shown}\n")
        assert set(re.findall(r"<(\w+)", made)) <= set(tags.split())
    cells = rendered("\n".join(markdown.table(["a", "b"], [(name, "x"), ("y", name)])))
    assert (cells.count("<tr>"), cells.count("<td>")) == (3, 4)
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td)>)", cells)
    assert not LINKS.search(markdown.unlinked(name))  # a title


@pytest.mark.parametrize("name", LOGGED)
def test_no_line_is_a_command_to_the_job(name: str) -> None:
    for text in (name, visible(name), f"first\n{name}\nlast", f"{name}{name}"):
        for line in printable(text).splitlines():
            assert not COMMANDS.search(line), line
            assert visible(line) == line


@pytest.mark.parametrize("padding", range(0, 40, 3))
def test_a_cell_that_is_folded_begins_no_command(padding: int) -> None:
    name = "x" * padding + "::error::boo" * 12 + "\x1b[2J" + LOGGED[0] + "##[group]"
    for width in (60, 120):
        for line in FORMATS["text"][1](judged(name)).splitlines() + printable(name).split("\n"):
            assert not COMMANDS.search(line), (width, line)
            assert "\x1b" not in line


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_log_of_a_trusted_job(tmp_path: Path, encoding: str) -> None:
    path, policy = tmp_path / "ab.json", tmp_path / "policy.yml"
    policy.write_text("{}\n", "utf-8")
    notes = tuple(Note("other", name) for name in LOGGED)
    pairs = [Pairs(Key(n, (), "time", "s"), (), (), "failed", n) for n in (*LOGGED, *UNSEEN)]
    path.write_text(to_json(replace(run(*pairs), notes=notes, machine="::error::m")), "utf-8")
    words = [sys.executable, "-m", "actprune_ci", "gate", "--policy", str(policy)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}

    def logged(file: Path) -> list[str]:
        done = subprocess.run([*words, "--ab", str(file)], env=environment, capture_output=True)
        assert b"Traceback" not in done.stderr
        return (done.stdout + done.stderr).decode().split("\n")

    lines = logged(path)
    assert any("failed" in line for line in lines)
    bad = path.read_text("utf-8").replace('"schema": 1', '"schema": "\\n::error::x \\ud800"')
    other = tmp_path / "\n::error::.json"
    other.write_text(bad, "utf-8")
    for line in [*lines, *logged(other)]:
        assert not COMMANDS.search(line), line
        assert visible(line) == line


def test_every_command_prints_names_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [*LOGGED, *UNSEEN]
    for name in names:
        tell(name)
    pairs = [Pairs(Key(n, (), "saved_bytes", "bytes"), (1.0,), (2.0,)) for n in names]
    echo(printed(run(*pairs)), nl=False)
    path = tmp_path / "gate.json"
    path.write_text(gate_json.render(gate(Policy(), [run(*pairs)])), "utf-8")
    with capsys.disabled():
        done = CliRunner().invoke(app(), ["issues", "--dry-run", "--gate", str(path)])
    assert done.exit_code == 0
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == len(names)
    assert len(out.splitlines()) == len(names) + 1
    for line in [*out.split("\n"), *err.split("\n"), *done.output.split("\n")]:
        assert not COMMANDS.search(line), line
        assert visible(line) == line


def test_a_lone_surrogate_is_written_by_every_report() -> None:
    report = judged("a\ud800")
    for name, (_, render) in FORMATS.items():
        assert "\\ud800" in render(report).encode().decode(), name
    assert json.loads(gate_json.render(report))["findings"][0]["benchmark"] == "a\ud800"


def test_what_is_seen_stays_as_it_is() -> None:
    plain = "suite.Kernels.time_it(spec=bsr:block=1x32, layer='fc1') é 名 → ±0 ▁▂█ ✅ µs −∞"
    assert visible(plain) == printable(plain) == plain
    assert markdown.unlinked(plain) == plain
    assert visible("a\nb\tc\\n\u202e\U000e0001") == "a\\nb\\tc\\n\\u202e\\U000e0001"
