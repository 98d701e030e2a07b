"""The page in a real browser, without a network."""

import re
import subprocess
from pathlib import Path

import pytest

from actprune_bench.report.page import write_page
from tests.samples import SPECS, sample

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
]


@pytest.mark.browser
def test_the_page_draws_itself(tmp_path: Path, chromium: str) -> None:
    page = tmp_path / "index.html"
    write_page(sample(), page)
    done = subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    dom = done.stdout
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    assert len(re.findall(r'<svg class="main-svg"', dom)) >= 4
    for name in ("pareto", "speed"):
        drawn = re.search(rf'id="{name}".*?(?=<p class="soft")', dom, re.DOTALL)
        assert drawn is not None
        assert drawn[0].count('class="point"') == len(SPECS)
    assert dom.count("heatmaplayer") >= 1
    assert len(re.findall(r"<tr><td class=\"spec\">", dom)) >= len(SPECS) * 3
