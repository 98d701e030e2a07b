"""The dashboard: its data, its pages in a browser without a network, and asv's site beside them."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from actprune_ci.cli import app
from actprune_ci.judge.policy import Policy
from actprune_ci.model.runs import Key, Measurement, Run
from actprune_ci.publish.commits import Repository
from actprune_ci.publish.dashboard import asv_site, data, libraries, site
from actprune_ci.publish.dashboard.board import Board, board
from actprune_ci.store.store import write
from actprune_ci.triage.analysis import analysed
from actprune_ci.triage.entries import Triage
from actprune_common.errors import InputError
from tests.actprune_bench.report.test_page_in_browser import FLAGS
from tests.actprune_ci.history.test_history import _commits as commits_of

SPECS = {"dense": (10, 81, 1.0), "csr:sparsity=0.9": (16, 80.9, 0.65), "bsr:<b>": (8, 79, 0.6)}
NIGHTS = 20
LINKS = "airspeed-velocity|//github.com/someone/thing/"
"""What people may click: asv's own page, commits of a test's repository."""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A repository of 20 commits, and their nights on two machines; bsr is slower from the 12th."""
    folder = tmp_path_factory.mktemp("publish")
    repo, store = folder / "repo", folder / "store"
    repo.mkdir()
    commits = commits_of(repo, NIGHTS)
    rng = np.random.default_rng(1)
    for machine in ("box", "a <runner>"):
        for night, commit in enumerate(commits):
            write(run_of(machine, commit, night, rng), store)
    return repo, store, commits


def run_of(machine: str, commit: str, night: int, rng: np.random.Generator) -> Run:
    figures = []
    for spec, (milliseconds, accuracy, saved) in SPECS.items():
        slower = 1.2 if spec.startswith("bsr") and night >= 12 else 1.0
        samples = slower * milliseconds / 1000 * np.exp(rng.normal(0, 0.01, 3))
        layer = (("spec", spec), ("layer", "fc1"))
        figures.append(Measurement(Key("suite.Kernels.time_linear", layer), tuple(samples)))
        for seed in range(2):
            params = (("spec", spec), ("model", "resmlp_tiny"), ("seed", str(seed)))
            value = (accuracy + seed,)
            figures.append(Measurement(Key("training", params, "accuracy", "%"), value))
            key = Key("training", params, "saved_ratio", "ratio")
            figures.append(Measurement(key, (saved,)))
    date = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=night)
    environment = {"cpu": "a CPU", "torch": "2.13.0" if night > 5 else "2.12.0"}
    of_the_run = {"ab": f"{night}", "command": f"x {night}", "commit_date": date.isoformat()}
    environment |= of_the_run
    return Run("asv", commit, False, date.isoformat(), machine, environment, tuple(figures))


def board_of(nights: tuple[Path, Path, list[str]]) -> Board:
    repo, store, _ = nights
    made = analysed(str(store), repo, "main", "", Policy(), Triage())
    return board(store, made, Repository(repo))


def publish(nights: tuple[Path, Path, list[str]], out: Path, *more: str) -> Result:
    words = ["publish", str(nights[1]), "--out", str(out), "--repo", str(nights[0]), *more]
    return CliRunner().invoke(app(), words)


def test_the_data_are_the_store_s(nights: tuple[Path, Path, list[str]]) -> None:
    commits = nights[2]
    shown = board_of(nights)
    groups = data.over_commits(shown)
    times = [group for group in groups if group["metric"] == "time"]
    assert [group["machine"] for group in times] == ["a <runner>", "box"]
    assert times[0]["title"] == "suite.Kernels.time_linear(layer=fc1)"
    assert set(times[0]["series"]) == set(SPECS)
    assert all(len(series) == NIGHTS for series in times[0]["series"].values())
    (training,) = [group for group in data.pareto(shown) if group["machine"] == "box"]
    assert training["title"] == "training(model=resmlp_tiny)"
    last = [p for p in training["points"] if p["row"] == NIGHTS - 1 and p["spec"] == "dense"]
    wanted = {"accuracy": 81.5, "spread": 0.5, "seeds": 2, "saved": 1.0}
    assert last == [{"spec": "dense", "row": NIGHTS - 1, **wanted}]
    assert {found.figure.machine for found in shown.lasting} == {"box", "a <runner>"}
    box = next(machine for machine in shown.machines if machine.name == "box")
    assert (box.runs, box.commit) == (NIGHTS, commits[-1])
    assert box.environment == {"cpu": "a CPU", "torch": "2.13.0"}
    assert box.changes == [("2026-01-07 00:00", "torch", "2.12.0", "2.13.0")]


def test_what_is_not_finite_is_null(nights: tuple[Path, Path, list[str]]) -> None:
    shown = board_of(nights)
    shown.history.values[3, :] = np.nan
    text = site.script(shown)
    assert "NaN" not in text
    drawn = json.loads(text.removeprefix("window.DATA = ").rstrip(";\n"))
    assert all(s[3] is None for group in drawn["formats"] for s in group["series"].values())


def test_only_the_newest_commits_are_drawn(
    nights: tuple[Path, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = nights[2]
    monkeypatch.setattr(data, "COMMITS", 7)
    shown = board_of(nights)
    drawn = json.loads(site.script(shown).removeprefix("window.DATA = ").rstrip(";\n"))
    assert drawn["commits"] == [commit[:10] for commit in commits[-7:]]
    assert {len(s) for group in drawn["formats"] for s in group["series"].values()} == {7}
    assert shown.findings  # over all commits


def without_network(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("ACTPRUNE_CI_CACHE", str(cache))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")


def test_without_the_registry_our_own_pages_are_there(
    nights: tuple[Path, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_network(monkeypatch, tmp_path / "cache")
    done = publish(nights, tmp_path / "site")
    assert done.exit_code == 0, done.output
    assert "asv's site is left out: jquery 3.3.1: cannot be fetched" in done.output
    assert not (tmp_path / "site/asv").exists()
    index = (tmp_path / "site/index.html").read_text("utf-8")
    assert "asv's site is left out: jquery 3.3.1: cannot be fetched" in index
    assert "2 regressions still hold" in index
    assert "<strong>2 figures are worse since " in index
    assert "a &lt;runner&gt;" in index
    assert "<runner>" not in index
    refused = publish(nights, tmp_path / "other", "--require-asv")
    assert isinstance(refused.exception, InputError)
    assert not (tmp_path / "other/index.html").exists()


def test_a_gate_stands_first(
    nights: tuple[Path, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_network(monkeypatch, tmp_path / "cache")
    gate = tmp_path / "gate.json"
    report = {"code": 1, "verdict": "regression", "base": "a" * 40, "head": "b" * 40}
    gate.write_text(json.dumps({**report, "machine": "box", "findings": []}))
    assert publish(nights, tmp_path / "site", "--gate", str(gate)).exit_code == 0
    index = (tmp_path / "site/index.html").read_text("utf-8")
    assert "gate: regression, aaaaaaaaaa → bbbbbbbbbb on box" in index
    gate.write_text("[]")
    refused = publish(nights, tmp_path / "site", "--gate", str(gate))
    assert "gate.json: expected the gate's report, got something else" in str(refused.exception)


def test_a_damaged_run_is_left_out_and_named(
    nights: tuple[Path, Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_network(monkeypatch, tmp_path / "cache")
    store = tmp_path / "store"
    shutil.copytree(nights[1], store)
    path = sorted((store / "runs").iterdir())[7]
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    done = publish((nights[0], store, nights[2]), tmp_path / "site")
    assert done.exit_code == 0, done.output
    assert f"left out: {path}: digest: the bytes have " in done.stderr


def test_a_store_without_this_branch_is_no_data(
    nights: tuple[Path, Path, list[str]], tmp_path: Path
) -> None:
    done = publish(nights, tmp_path / "site", "--benchmarks", "^nothing")
    assert done.exit_code == 3
    assert not (tmp_path / "site").exists()


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_library_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed({"a.js": b"1;"})
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    good = libraries.Library("a", "1.0", digest, {"a.js": "https://elsewhere/a.js"})
    fetches: list[str] = []

    def fetched(library: libraries.Library) -> bytes:
        fetches.append(library.name)
        return archive

    monkeypatch.setattr(libraries, "fetched", fetched)
    assert libraries.files(good, tmp_path) == {"a.js": b"1;"}
    assert libraries.files(good, tmp_path) == {"a.js": b"1;"}
    assert fetches == ["a"]  # the second time from the cache
    (tmp_path / "a-1.0.tgz").write_bytes(b"cut off")
    assert libraries.files(good, tmp_path) == {"a.js": b"1;"}
    assert fetches == ["a", "a"]
    with pytest.raises(InputError, match=r"a 1\.0: refused: its SHA-512 is not the pinned one"):
        libraries.files(replace(good, sha512="else"), tmp_path)


def test_what_no_library_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<script src="https://elsewhere/new.js"></script>')
    with pytest.raises(
        InputError, match=r"loads https://elsewhere/new\.js, which no pinned library"
    ):
        asv_site.made_local(tmp_path, [])


@pytest.fixture(scope="module")
def pages(nights: tuple[Path, Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "with spaces & <more>"
    done = publish(nights, out)
    assert done.exit_code == 0, done.output
    return out


def opened(chromium: str, page: str, profile: Path) -> str:
    """The page's DOM after its scripts, no request having left for a network."""
    rules = "--host-resolver-rules=MAP * ~NOTFOUND"
    words = [chromium, *FLAGS, rules, f"--user-data-dir={profile}", "--dump-dom", page]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    elsewhere = re.findall(r"(?:src|href)=\"(https?:[^\"]+)\"", done.stdout)
    assert [url for url in elsewhere if not re.search(LINKS, url)] == []
    return done.stdout


@pytest.mark.browser
def test_our_pages_draw_and_filter_from_files(pages: Path, chromium: str, tmp_path: Path) -> None:
    formats = opened(chromium, (pages / "formats.html").as_uri(), tmp_path)
    assert formats.count('class="point"') == len(SPECS) * NIGHTS
    pareto = opened(chromium, (pages / "pareto.html").as_uri(), tmp_path)
    assert pareto.count('class="point"') == len(SPECS) * NIGHTS
    typed = pages / "typed.html"
    script = (
        "const f = document.getElementById('filter'); f.value = 'box worse';"
        "f.dispatchEvent(new Event('input'));"
    )
    (pages / "typed.js").write_text(script)
    text = (pages / "regressions.html").read_text("utf-8")
    typed.write_text(text.replace("</body>", '<script src="typed.js"></script></body>'))
    changes = opened(chromium, typed.as_uri(), tmp_path)
    assert re.search(r'id="count">1 of 2<', changes)
    assert changes.count('hidden=""') == 1
    for name in ("index", "machines"):
        assert "a &lt;runner&gt;" in opened(chromium, (pages / f"{name}.html").as_uri(), tmp_path)


EVIL = "<img src=x onerror=document.documentElement.id='owned'>"


@pytest.mark.browser
def test_no_name_is_markup_in_asv_s_site(
    nights: tuple[Path, Path, list[str]], chromium: str, tmp_path: Path
) -> None:
    repo, _, commits = nights
    attribute = EVIL.replace("<img", '"><img')
    name = f"suite{EVIL}.Group{EVIL}.time_{attribute}"
    params = (("spec" + EVIL, EVIL), ("n", attribute))
    escaped = EVIL.replace("<", "&lt;").replace(">", "&gt;")
    for night, commit in enumerate(commits):
        figures = [
            Measurement(Key(name, params, "time", "s"), (1.0 + (night > 10),)),
            Measurement(Key(escaped, (), EVIL, EVIL), (1.0 + (night > 10),)),
        ]
        date = f"2026-01-{night + 1:02}T00:00:00+00:00"
        environment = {"cpu": EVIL, "env_name": EVIL, "python": EVIL}
        run = Run("asv", commit, False, date, EVIL, environment, tuple(figures))
        write(run, tmp_path / "store")
    done = publish((repo, tmp_path / "store", commits), tmp_path / "site")
    assert done.exit_code == 0, done.output
    if not (tmp_path / "site/asv").exists():
        pytest.skip("npm's registry cannot be reached, and no cache has its packages")
    index = (tmp_path / "site/asv/index.html").as_uri()
    drawn = json.loads((tmp_path / "site/asv/index.json").read_text("utf-8"))
    places = ["", *(f"#{quote(each)}" for each in drawn["benchmarks"]), "#regressions"]
    for place in [*places, "#summarylist?sort=0&dir=asc"]:
        page = opened(chromium, index + place, tmp_path)
        assert "owned" not in page.partition(">")[0] + page.partition("<html")[2].partition(">")[0]
        assert "<img" not in page.replace('<img src="swallow', "")
        assert "‹img src=x" in page


@pytest.mark.browser
def test_asv_s_site_draws_from_files(pages: Path, chromium: str, tmp_path: Path) -> None:
    if not (pages / "asv").exists():
        pytest.skip("npm's registry cannot be reached, and no cache has its packages")
    grid = opened(chromium, (pages / "asv/index.html").as_uri(), tmp_path)
    assert "Kernels.time_linear" in grid
    assert grid.count("<canvas") >= 2
    one = (pages / "asv/index.html").as_uri() + "#suite.Kernels.time_linear"
    graph = opened(chromium, one, tmp_path)
    assert "fc1" in graph
    assert graph.count("<canvas") >= 2
