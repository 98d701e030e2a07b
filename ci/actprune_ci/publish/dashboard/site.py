"""Our own pages."""

import json
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path

from plotly.offline import get_plotlyjs

from actprune_ci.publish.dashboard import data
from actprune_ci.publish.dashboard.data import Board
from actprune_ci.publish.reports import formatting, html
from actprune_common.files import write_whole

PAGES = {
    "index": "Overview",
    "formats": "Formats over time",
    "pareto": "Accuracy against bytes",
    "regressions": "Changes",
    "machines": "Machines",
}
_HERE = "actprune_ci.publish.dashboard"


def write(board: Board, out: Path, asv: str) -> None:
    """Write every page into the folder `out`; `asv` says why its site is not there, or nothing."""
    environment = html.templates(_HERE, "templates")
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    environment.globals.update(board=board, pages=PAGES, made=made, asv=asv)
    environment.globals.update(number=formatting.number)
    write_whole(out / "plotly.js", get_plotlyjs())
    for name in ("dashboard.css", "dashboard.js"):
        write_whole(out / name, resources.files(_HERE).joinpath(name).read_text("utf-8"))
    write_whole(out / "data.js", script(board))
    for name in PAGES:
        text = environment.get_template(f"{name}.html.j2").render(page=name)
        write_whole(out / f"{name}.html", text + "\n")


def script(board: Board) -> str:
    """The data of the drawings, as a script: a page opened from a file may load no JSON."""
    drawings = {
        "commits": [commit[:10] for commit in board.history.commits[-data.COMMITS :]],
        "formats": data.over_commits(board),
        "pareto": data.pareto(board),
    }
    text = json.dumps(drawings, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"window.DATA = {text};\n"
