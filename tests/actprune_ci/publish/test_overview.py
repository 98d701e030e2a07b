"""The first page and the feed: what is worse, since when, by which commit."""

import json
import re
from datetime import date
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5
from xml.etree import ElementTree as Xml

import pytest
import yaml
from typer.testing import CliRunner, Result

from actprune_ci.cli import app
from actprune_ci.history.finding import HistoryFinding
from actprune_ci.model.runs import Key, Pairs
from actprune_ci.model.serialise import to_json
from actprune_ci.publish.causes import percent
from actprune_ci.publish.dashboard.feed import ATOM
from actprune_ci.publish.reports.formatting import number
from tests.actprune_ci.history.test_coverage import git
from tests.actprune_ci.judge.test_gate import run as ab_run
from tests.actprune_ci.publish.test_publish import opened
from tests.actprune_ci.triage.test_triage import BAD, Branch, entry

Nights = Branch


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    made = Branch(tmp_path_factory.mktemp("nights"))
    git(made.repo, "remote", "add", "origin", "git@github.com:someone/thing.git")
    return made


@pytest.fixture(autouse=True)
def without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACTPRUNE_CI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")


def publish(nights: Nights, out: Path, *more: str, repo: Path | None = None) -> Result:
    words = ["publish", str(nights.store), "--out", str(out), "--repo", str(repo or nights.repo)]
    done = CliRunner().invoke(app(), [*words, *more])
    assert done.exit_code in (0, 3), (done.output, done.exception)
    return done


def plain(page: Path) -> str:
    """What a page shows, without its tags."""
    return " ".join(re.sub("<[^>]*>", " ", page.read_text("utf-8")).split())


def test_the_first_line_says_what_since_when_and_by_whom(nights: Nights, tmp_path: Path) -> None:
    done = publish(nights, tmp_path / "site")
    assert done.exit_code == 0, done.output
    page = tmp_path / "site/index.html"
    (line,) = re.findall(r'(?s)<p class="lead bad">(.*?)</p>', page.read_text("utf-8"))
    commit = nights.commits[BAD]
    assert f'<a href="https://github.com/someone/thing/commit/{commit}">' in line
    shown = " ".join(re.sub("<[^>]*>", " ", line).split())
    assert re.match(r"2 figures are worse since \d{4}-\d\d-\d\d , by ", shown)
    assert f"“&lt;b&gt;Change&lt;/b&gt; {BAD}” (a, " in shown
    assert "track_nbytes(bsr) nbytes +20 %" in shown
    assert "time_it(10) +20 %" in shown
    assert "2 figures are worse since" in done.stdout


def test_its_figures_have_graphs_with_the_threshold(nights: Nights, tmp_path: Path) -> None:
    publish(nights, tmp_path / "site")
    text = (tmp_path / "site/index.html").read_text("utf-8")
    (cause,) = re.findall(r'(?s)<section class="cause".*?</section>', text)
    assert cause.count('<svg class="spark"') == cause.count('<svg class="graph"') == 2
    assert cause.count('class="limit" x1') == 4
    assert f"actprune-ci ab {nights.commits[BAD - 1]} {nights.commits[BAD]}" in cause
    changes = (tmp_path / "site/regressions.html").read_text("utf-8")
    assert changes.count('<svg class="spark"') == 2


def test_a_clone_that_lacks_commits_gives_no_verdict(nights: Nights, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{nights.repo}", str(shallow))
    done = publish(nights, tmp_path / "site", repo=shallow)
    assert done.exit_code == 3
    assert "this clone lacks 29 of them" in done.output
    assert not (tmp_path / "site").exists()
    done = publish(nights, tmp_path / "site", "--allow-missing", repo=shallow)
    assert done.exit_code == 0
    page = plain(tmp_path / "site/index.html")
    assert "no regression holds" in page
    assert "29 measured commits are not in this clone and were not looked at" in page


def test_the_policy_and_what_was_decided_count(nights: Nights, tmp_path: Path) -> None:
    policy, triage = tmp_path / "policy.yml", tmp_path / "triage.yml"
    policy.write_text("rules: [{metric: time, severity: info}]\n", "utf-8")
    publish(nights, tmp_path / "site", "--policy", str(policy))
    assert "1 figure is worse" in plain(tmp_path / "site/index.html")
    said = entry(action="expected", change=nights.range, metric="nbytes", reason="<i>as meant</i>")
    over = entry(action="expected", change=nights.commits[2], date=date(2026, 1, 2))
    triage.write_text(yaml.safe_dump({"entries": [said, over]}), "utf-8")
    publish(nights, tmp_path / "site", "--policy", str(policy), "--triage", str(triage))
    page = plain(tmp_path / "site/index.html")
    assert "no regression holds" in page
    assert "expected: &lt;i&gt;as meant&lt;/i&gt; (A, 2026-01-01)" in page
    assert "fits no change any more, and can go" in page


def test_the_culprit_of_a_bisection_is_named(nights: Nights, tmp_path: Path) -> None:
    found = {"name": "suite.time_it(size=10)", "machine": "box", "good": "a", "bad": "b"}
    place = tmp_path / "culprits.json"
    place.write_text(json.dumps({"bisections": [{**found, "suspects": [nights.commits[BAD]]}]}))
    publish(nights, tmp_path / "site", "--culprits", str(place))
    assert ", as a bisection found" in plain(tmp_path / "site/index.html")


def test_what_the_gate_alone_knows_is_a_cause_too(nights: Nights, tmp_path: Path) -> None:
    ab, key = tmp_path / "ab.json", Key("suite.<b>track_other", (), "nbytes", "bytes")
    run = ab_run(Pairs(key, (10.0,), (15.0,)), base=nights.commits[28], head=nights.commits[29])
    ab.write_text(to_json(run), "utf-8")
    words = ["gate", "--ab", str(ab), "--repo", str(nights.repo), "--out", str(tmp_path / "gate")]
    assert CliRunner().invoke(app(), words).exit_code == 1
    publish(nights, tmp_path / "site", "--gate", str(tmp_path / "gate/gate.json"))
    page = plain(tmp_path / "site/index.html")
    assert "1 figure is worse since" in page
    assert "and 1 older cause of regressions that still hold" in page
    assert "suite.&lt;b&gt;track_other nbytes box +50 % 10 → 15 bytes by the gate" in page
    assert len(feed_of(tmp_path / "site")) == 2


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        ("suspected", "Suspected: the next nights settle it"),
        ("shared", "Of the machine: nearly all its figures moved alike"),
    ],
)
def test_what_is_not_sure_stands_apart(
    nights: Nights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standing: str, said: str
) -> None:
    monkeypatch.setattr(HistoryFinding, "standing", standing)
    done = publish(nights, tmp_path / "site")
    assert "no regression holds" in done.stdout
    page = plain(tmp_path / "site/index.html")
    assert "no regression holds" in page
    assert said in page
    assert f"worse, {standing}" in page
    assert "2 regressions still hold (2 " in page
    out = tmp_path / "history.json"
    words = ["history", str(nights.store), "--repo", str(nights.repo), "--out", str(out)]
    assert CliRunner().invoke(app(), words).exit_code == 0
    words = ["issues", "--history", str(out), "--repo", str(nights.repo), "--dry-run"]
    assert CliRunner().invoke(app(), words).stdout == "nothing to be done\n"


def feed_of(folder: Path) -> dict[str, tuple[str, str]]:
    """The entries of a feed: when each was updated, and its title, by its identity."""
    feed = Xml.parse(folder / "feed.xml").getroot()
    assert feed.tag == f"{{{ATOM}}}feed"
    date = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")
    made = {}
    for each in (feed, *feed.iterfind(f"{{{ATOM}}}entry")):
        for name in ("id", "title", "updated"):
            assert len(each.findall(f"{{{ATOM}}}{name}")) == 1, name
        said = {
            name: str(each.findtext(f"{{{ATOM}}}{name}")) for name in ("id", "title", "updated")
        }
        assert said["id"].startswith("urn:uuid:")
        assert date.fullmatch(said["updated"])
        links = each.findall(f"{{{ATOM}}}link")
        assert {link.get("rel") for link in links} >= {"alternate"}
        made[said["id"]] = said["updated"], said["title"]
    assert feed.findtext(f"{{{ATOM}}}author/{{{ATOM}}}name")
    del made[str(feed.findtext(f"{{{ATOM}}}id"))]
    return made


def test_the_feed_has_an_entry_per_cause_that_keeps_its_identity(
    nights: Nights, tmp_path: Path
) -> None:
    out = tmp_path / "site"
    publish(nights, out)
    first = feed_of(out)
    (one,) = first
    assert "<b>Change</b>" in first[one][1]
    told = json.loads((out / "causes.json").read_text("utf-8"))
    told["causes"][0]["updated"] = "2026-01-01T00:00:00+00:00"
    (out / "causes.json").write_text(json.dumps(told), "utf-8")
    publish(nights, out)
    assert feed_of(out)[one][0] == "2026-01-01T00:00:00+00:00"  # nothing is new
    told["causes"][0]["id"] = "f" * 16  # of another first night
    told["causes"][0] |= {"good": nights.commits[10], "bad": nights.commits[20]}
    elsewhere = tmp_path / "ledger.json"
    elsewhere.write_text(json.dumps(told), "utf-8")
    publish(nights, out, "--causes", str(elsewhere))
    other = uuid5(NAMESPACE_URL, f"actprune-ci cause {'f' * 16}").urn
    assert list(feed_of(out)) == [other]  # the range has narrowed
    assert feed_of(out)[other][0] > "2026-01-01T00:00:00+00:00"
    page = (out / "index.html").read_text("utf-8")
    entry_ = Xml.parse(out / "feed.xml").getroot().find(f"{{{ATOM}}}entry")
    assert entry_ is not None
    link = entry_.find(f"{{{ATOM}}}link")
    assert link is not None
    name = str(link.get("href")).partition("#")[2]
    assert f'id="{name}"' in page


def test_a_feed_of_nothing_is_one_too(nights: Nights, tmp_path: Path) -> None:
    triage = tmp_path / "triage.yml"
    said = entry(action="baseline", since=nights.commits[BAD])
    triage.write_text(yaml.safe_dump({"entries": [said]}), "utf-8")
    publish(nights, tmp_path / "site", "--triage", str(triage))
    assert feed_of(tmp_path / "site") == {}


def test_percent_and_numbers() -> None:
    assert [percent(x) for x in (0.0444, 0.2, -0.05, 14.01)] == ["+4.44 %", "+20 %", "-5 %", "×15"]
    times = [number(x, "s") for x in (2.2412e-07, 1.5e-5, 0.0123, 2.5, 0.0, 0.99999)]
    assert times == ["224.1 ns", "15 µs", "12.3 ms", "2.5 s", "0 s", "1 s"]
    assert number(82317045.3, "bytes") == "82,317,045 bytes"


@pytest.mark.browser
def test_the_pages_draw_in_a_browser(nights: Nights, chromium: str, tmp_path: Path) -> None:
    out = tmp_path / "the site"
    publish(nights, out)
    profile = tmp_path / "profile"
    index = opened(chromium, (out / "index.html").as_uri(), profile)
    assert index.count("<polyline") == 4
    assert "<b>Change" not in index
    figures = opened(chromium, (out / "figures.html").as_uri() + "#1", profile)
    assert "suite.time_it(size=10)" in figures  # it has no spec
    assert figures.count('class="point"') == 30
    assert figures.count("stroke-dasharray: 3px") >= 1 or "shapelayer" in figures
    opened(chromium, (out / "regressions.html").as_uri(), profile)
