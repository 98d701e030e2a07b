"""Our own pages."""

import json
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from actprune_ci.publish.dashboard import data, feed, graphs, ledger
from actprune_ci.publish.dashboard.board import Board
from actprune_ci.publish.reports import formatting, html
from actprune_ci.publish.story import MOST_COMMITS, levels
from actprune_common.files import write_whole

PAGES = {
    "index": "Overview",
    "figures": "Figures over time",
    "formats": "Formats over time",
    "pareto": "Accuracy against bytes",
    "regressions": "Changes",
    "machines": "Machines",
}
MOST_CAUSES, MOST_FIGURES, MOST_ROWS = 12, 12, 1000
"""Causes on the overview, figures of each with a graph; changes with a small one."""
_HERE = "actprune_ci.publish.dashboard"


def write(board: Board, out: Path, asv: str) -> str:
    """Write every page into the folder `out`; `asv` says why its site is not there, or nothing.

    Returns the ledger of what is told now, which is causes.json there.
    """
    environment = html.templates(_HERE, "templates")
    now = datetime.now(timezone.utc)
    stamp = now.isoformat(timespec="seconds")
    groups, numbers = data.figures(board)
    environment.globals.update(board=board, pages=PAGES, asv=asv, numbers=numbers)
    environment.globals.update(made=now.strftime("%Y-%m-%d %H:%M UTC"))
    environment.globals.update(number=formatting.number, levels=levels, graphs=graphs)
    most = {"causes": MOST_CAUSES, "figures": MOST_FIGURES, "rows": MOST_ROWS}
    environment.globals.update(most={**most, "commits": MOST_COMMITS})
    write_whole(out / "plotly.js", get_plotlyjs())
    for name in ("dashboard.css", "dashboard.js"):
        write_whole(out / name, resources.files(_HERE).joinpath(name).read_text("utf-8"))
    write_whole(out / "data.js", script(board))
    write_whole(out / "figures.js", _assigned("FIGURES", groups))
    for name in PAGES:
        text = environment.get_template(f"{name}.html.j2").render(page=name)
        write_whole(out / f"{name}.html", text + "\n")
    told = ledger.entered(board.ledger, board.stories, stamp)
    write_whole(out / "feed.xml", feed.atom(board.stories, told, board.branch, stamp))
    write_whole(out / "causes.json", told.text)
    return told.text


def script(board: Board) -> str:
    """The data of the drawings, as a script: a page opened from a file may load no JSON."""
    drawings = {
        "commits": [commit[:10] for commit in board.history.commits[-data.COMMITS :]],
        "formats": data.over_commits(board),
        "pareto": data.pareto(board),
    }
    return _assigned("DATA", drawings)


def _assigned(name: str, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"window.{name} = {text};\n"
