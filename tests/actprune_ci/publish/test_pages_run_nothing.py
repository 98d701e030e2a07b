"""No page runs what a name holds: names are escaped, and the page's policy refuses the rest."""

import json
import re
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from typer.testing import CliRunner

from actprune_ci.cli import app
from actprune_ci.judge.gate import gate
from actprune_ci.judge.policy import Policy
from actprune_ci.model.runs import Key, Measurement, Pairs, Run
from actprune_ci.publish.dashboard import asv_site
from actprune_ci.publish.dashboard.site import PAGES
from actprune_ci.publish.reports import html
from actprune_ci.publish.reports import json as gate_json
from actprune_ci.store.store import write
from tests.actprune_bench.report.test_page_in_browser import FLAGS
from tests.actprune_ci.history.test_history import _commits as commits_of
from tests.actprune_ci.judge.test_gate import run

RUN = "document.documentElement.setAttribute('data-ran', 1)"
TAG = f'<img src=x onerror="{RUN}">'
LINK = "<a href='https://e.example/'>all is well</a>"  # plotly makes links of such
NAME = f"suite.a'\"&{LINK}{TAG}</script><script>{RUN}</script>"
RAN = re.compile(r"<html[^>]* data-ran")
SPECS = ("dense", NAME)
NIGHTS = 12
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our pages and gate.html, where everything that has a name has a hostile one."""
    folder = tmp_path_factory.mktemp("hostile")
    repo, store, out = folder / "repo", folder / "store", folder / "site"
    repo.mkdir()
    for night, commit in enumerate(commits_of(repo, NIGHTS)):
        keys = [Key(NAME, (("spec", each), (NAME, NAME)), "saved_bytes", "bytes") for each in SPECS]
        training = (("spec", NAME), ("seed", "0"))
        figures = [Measurement(key, (100.0 + 50 * (night > 6),)) for key in keys]
        for metric in ("accuracy", "saved_ratio"):
            figures.append(Measurement(Key(NAME, training, metric, "1"), (0.5,)))
        date = (datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=night)).isoformat()
        environment = {"cpu": NAME, NAME: f"{NAME}{night}", "gpu": NAME}
        write(Run("asv", commit, False, date, NAME, environment, tuple(figures)), store)
    report = gate(Policy(), [run(Pairs(keys[0], (1.0,), (2.0,)))])
    verdict = {"code": 1, "verdict": NAME, "base": NAME, "head": NAME, "machine": NAME}
    document = json.loads(gate_json.render(report)) | verdict
    (folder / "gate.json").write_text(json.dumps(document), "utf-8")
    words = ["publish", str(store), "--out", str(out), "--repo", str(repo)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTPRUNE_CI_CACHE", str(folder / "cache"))  # asv's site has its own test
        patch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
        done = CliRunner().invoke(app(), [*words, "--gate", str(folder / "gate.json")])
    assert done.exit_code == 0, done.output
    (out / "gate.html").write_text(html.render(report), "utf-8")
    return out


def opened(chromium: str, page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's DOM after its scripts, and what its console says."""
    words = [chromium, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.browser
@pytest.mark.parametrize("name", [*PAGES, "gate"])
def test_a_hostile_name_is_text(pages: Path, name: str, chromium: str, tmp_path: Path) -> None:
    shown, console = opened(chromium, pages / f"{name}.html", tmp_path)
    assert console == []  # the policy had nothing to refuse
    assert not RAN.search(shown)
    assert "onerror" in shown
    assert 'href="https://e' not in shown


def injected(page: Path, *, policy: bool) -> Path:
    """The page with a script and an image of an attacker in it."""
    text = page.read_text("utf-8")
    text = text if policy else POLICY.sub("", text)
    beside = page.with_name(f"{page.stem}-{policy}.html")
    beside.write_text(text.replace("</body>", f"{TAG}<script>{RUN}</script></body>"), "utf-8")
    return beside


@pytest.fixture
def asv(tmp_path: Path) -> Path:
    """asv's own pages, as far as the policy concerns them: without figures and libraries."""
    site = tmp_path / "asv"
    site.mkdir()
    first = '<script src="jquery.flot.axislabels.js"></script>'
    body = f"<html>\n<head>\n<title>asv</title>\n{first}</head>\n<body></body></html>"
    for name in ("index", "error"):
        (site / f"{name}.html").write_text(body, "utf-8")
    asv_site.made_local(site, [])
    return site


@pytest.mark.browser
@pytest.mark.parametrize("name", ["formats.html", "gate.html", "asv/index.html", "asv/error.html"])
def test_what_is_injected_is_refused(
    pages: Path, asv: Path, name: str, chromium: str, tmp_path: Path
) -> None:
    page = (asv.parent if name.startswith("asv/") else pages) / name
    unguarded, _ = opened(chromium, injected(page, policy=False), tmp_path)
    assert RAN.search(unguarded), "the attack is one"
    guarded, console = opened(chromium, injected(page, policy=True), tmp_path)
    assert not RAN.search(guarded)
    assert any("Content Security Policy" in line for line in console)


def test_every_page_has_a_policy(pages: Path, asv: Path) -> None:
    found = [*pages.glob("*.html"), *asv.glob("*.html")]
    assert len(found) >= len(PAGES) + 3
    for page in found:
        text = page.read_text("utf-8")
        if page.stem.endswith("-False"):
            continue
        (policy,) = POLICY.findall(text)
        parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == "'none'"
        assert parts.get("script-src", "'self' file:") == "'self' file:", page
        assert "<script" not in text[: text.index("Content-Security-Policy")]
