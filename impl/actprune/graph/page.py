"""A plan as one page of HTML: the bytes alive over a step, and what each tensor is kept as.

It needs no network, runs no script, and shows whatever a name holds as text.
"""

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from actprune.graph.chart import chart
from actprune.graph.plan import ABSENT, KEEP, OFFLOAD, RECOMPUTE, Entry, GraphPlan, Plan, mib, share
from actprune.saved.stores import Bits, Narrow
from actprune_common.files import write_whole
from actprune_common.printable import visible

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
POLICY += "form-action 'none'"
_UNDRAWN = '<p class="soft">No chart: the plan has no timelines. One read from a file has none.</p>'
_COLOURS = {KEEP: "keep", RECOMPUTE: "again", OFFLOAD: "away", ABSENT: "absent"}
_COLOURS |= dict.fromkeys((Bits.name, Narrow.name), "exact")
"""The class of a choice's colour; a store's is `store`."""
_STYLE = """\
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2128; --soft: #656d76; --line: #8883;
  --card: #f6f8fa; --dense: #8c96a3; --planned: #0969da; --keep: #57606a; --store: #0969da;
  --again: #9a5b00; --away: #8250df; --exact: #0b7a75; --absent: #8c96a3; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1318; --ink: #e6edf3; --soft: #9aa4af;
  --card: #181d24; --dense: #7d8895; --planned: #58a6ff; --keep: #aab4bf; --store: #58a6ff;
  --again: #e3a33c; --away: #bc8cff; --exact: #3fc1b9; --absent: #7d8895; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 70rem; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0 0 .75rem; }
h2 { border-top: 1px solid var(--line); font-size: 1.15rem; margin: 2.5rem 0 .75rem;
  padding-top: 1.25rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 .25rem; }
code { font: .9em ui-monospace, monospace; } h2 code { overflow-wrap: anywhere; }
a { color: var(--planned); }
.soft, caption { color: var(--soft); }
dl { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
dl div { background: var(--card); border-radius: 6px; padding: .5rem .8rem; }
dt, dd.soft { font-size: .85rem; } dt { color: var(--soft); } dd { margin: 0; }
dd b { font-size: 1.2rem; font-variant-numeric: tabular-nums; font-weight: 600; }
figure { margin: 1.25rem 0 0; } figcaption { display: flex; flex-wrap: wrap; gap: 0 1.5rem; }
figcaption i { border-radius: 2px; display: inline-block; height: .7em; margin-right: .45em;
  width: .7em; }
i.dense { background: var(--dense); } i.planned { background: var(--planned); }
svg { display: block; height: auto; width: 100%; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
.grid { stroke: var(--line); } .between { stroke: var(--soft); stroke-dasharray: 4 4; }
.dense { --own: var(--dense); } .planned { --own: var(--planned); }
.area { fill: var(--own); opacity: .16; }
.line { fill: none; stroke: var(--own); stroke-linejoin: round; stroke-width: 1.25; }
.mark { fill: var(--own); stroke: var(--paper); stroke-width: 1.5; }
svg .peak { font-weight: 600; paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
svg .peak.planned { fill: var(--planned); } svg .peak.dense { fill: var(--soft); }
.scroll { overflow-x: auto; } summary { cursor: pointer; margin-top: 1.75rem; font-weight: 600; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: .5rem;
  width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; }
thead th { color: var(--soft); font-size: .85rem; font-weight: 500; }
.figure { text-align: right; white-space: nowrap; }
tr.module th { background: var(--card); font-weight: 500; } tfoot td { font-weight: 600; }
.choice { border: 1px solid var(--own); border-radius: 1em; color: var(--own);
  display: inline-block; font: .85em ui-monospace, monospace; padding: 0 .6em;
  white-space: nowrap; }
.keep { --own: var(--keep); } .store { --own: var(--store); } .again { --own: var(--again); }
.away { --own: var(--away); } .exact { --own: var(--exact); } .absent { --own: var(--absent); }
.bar { min-width: 6rem; width: 12%; }
.bar span { background: color-mix(in srgb, var(--dense) 30%, #0000);
  border-radius: 2px; display: block; height: .6rem; min-width: 1px; }
.bar i { background: var(--own); border-radius: 2px; display: block; height: 100%; }
"""


def page(plan: Plan) -> str:
    """Return a page of HTML that shows a plan: a section for each of its graphs.

    Args:
        plan: any; one that was read from a file has no timelines, and its page no chart.

    Returns:
        The page, which stands alone: no scripts, nothing from elsewhere.

    Example:
        >>> made = page(Plan((GraphPlan("8c1f", (), None, 8, 4, 12, 9, 0.0, (3, 9, 1), (), 2),)))
        >>> "Graph <code>8c1f</code>" in made, made.count("<svg"), "<script" in made
        (True, 1, False)
    """
    graphs = [_section(place, graph) for place, graph in enumerate(plan.graphs, 1)]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>Graph plan</title>
<style>
{_STYLE}</style>
</head>
<body>
<h1>What is kept between forward and backward</h1>
{_overview(plan)}
{"".join(graphs)}</body>
</html>
"""


def write_page(plan: Plan, path: str | Path) -> None:
    """Write the page of a plan to a file, whole or not at all. Raises InputError where that fails.

    Args:
        plan: any.
        path: of the file.
    """
    write_whole(Path(path), page(plan))


def _overview(plan: Plan) -> str:
    """What all graphs hold, and a line for each where there are several."""
    facts = [
        ("held", f"{mib(plan.held)} MiB", f"{share(plan.held, plan.dense)} of dense"),
        ("dense", f"{mib(plan.dense)} MiB", "by torch's own partitioner"),
        ("cost", f"{plan.seconds * 1e3:.3g} ms", "of a step, predicted"),
        ("graphs", str(len(plan.graphs)), f"{sum(len(g.entries) for g in plan.graphs)} tensors"),
    ]
    if len(plan.graphs) < 2:
        return "" if plan.graphs else "<p>No graphs.</p>"
    rows = [
        [
            f'<a href="#graph-{place}"><code>{_text(graph.key)}</code></a>',
            str(len(graph.entries)),
            *map(mib, (graph.dense, graph.held)),
            share(graph.held, graph.dense),
            *map(mib, (graph.dense_peak, graph.peak)),
            f"{graph.seconds * 1e3:.3g}",
            f"{graph.error:.3f}",
        ]
        for place, graph in enumerate(plan.graphs, 1)
    ]
    sizes = "dense MiB", "held MiB", "held / dense", "dense peak", "peak"
    titles = ("graph", "tensors", *sizes, "ms", "error")
    body = "".join(_row(row, first=1) for row in rows)
    return _facts(facts) + _table(titles, body, first=1)


def _section(place: int, graph: GraphPlan) -> str:
    budget = "no limit" if graph.budget is None else f"budget {mib(graph.budget)} MiB"
    facts = [
        ("held", f"{mib(graph.held)} MiB", budget),
        ("of dense", share(graph.held, graph.dense), f"of {mib(graph.dense)} MiB"),
        ("peak", f"{mib(graph.peak)} MiB", f"dense {mib(graph.dense_peak)} MiB"),
        ("cost", f"{graph.seconds * 1e3:.3g} ms", "of a step, predicted"),
        ("gradient error", f"{graph.error:.3f}", "relative, predicted"),
        ("gap", f"{graph.gap:.3f}", "at most, to the best"),
    ]
    drawn = chart(graph)
    figure = f"<figure>\n{_legend()}\n{drawn}\n</figure>" if drawn else _UNDRAWN
    return f"""<h2 id="graph-{place}">Graph <code>{_text(graph.key)}</code></h2>
{_facts(facts)}
{figure}
{_by_choice(graph)}
{_by_module(graph)}
"""


def _legend() -> str:
    return (
        "<figcaption><b>Bytes alive over the step, beside parameters and inputs</b>"
        '<span><i class="dense"></i>dense: torch\'s own partitioner</span>'
        '<span><i class="planned"></i>this plan</span></figcaption>'
    )


def _by_choice(graph: GraphPlan) -> str:
    entries: dict[str, list[Entry]] = {}
    for entry in graph.entries:
        entries.setdefault(entry.choice, []).append(entry)
    entries = dict(sorted(entries.items(), key=lambda item: -_nbytes(item[1])))
    most = max(map(_nbytes, entries.values()), default=0)
    body = "".join(
        _row([_choice(choice), str(len(each)), *_figures(each, most)], first=1)
        for choice, each in entries.items()
    )
    total = _row(["all", str(len(graph.entries)), *_figures(graph.entries, 0)], first=1)
    titles = ("choice", "tensors", "MiB", "held", "", "ms", "error")
    return f"<h3>By choice</h3>\n{_table(titles, body, total, first=1)}"


def _by_module(graph: GraphPlan) -> str:
    """A row for each tensor, below the module that made it."""
    modules: dict[str, list[Entry]] = {}
    for entry in graph.entries:
        modules.setdefault(entry.module, []).append(entry)
    most = max((entry.nbytes for entry in graph.entries), default=0)
    rows = []
    for module, entries in modules.items():
        name = _name(module) if module else "the model itself"
        rows.append(f'<tr class="module"><th colspan="9">{name}</th></tr>\n')
        for entry in entries:
            names = _name(entry.name), _name(entry.producer), _text(", ".join(entry.kinds))
            cells = [*names, _choice(entry.choice), *_figures([entry], most)]
            rows.append(_row(cells, first=4))
    titles = ("tensor", "producer", "needed for", "choice", "MiB", "held", "", "ms", "error")
    table = _table(titles, "".join(rows), first=4)
    return f"<details open><summary>By module</summary>\n{table}\n</details>"


def _nbytes(entries: Iterable[Entry]) -> int:
    return sum(entry.nbytes for entry in entries)


def _figures(entries: Sequence[Entry], most: int) -> list[str]:
    """Cells of what tensors take, are held in and cost, with a bar whose full width is `most`."""
    nbytes, held = _nbytes(entries), sum(entry.held for entry in entries)
    seconds, error = sum(e.seconds for e in entries), sum(e.error for e in entries)
    bar = ""
    if most:
        kept = f"{min(held / nbytes, 1) * 100 if nbytes else 0:.1f}%"
        part = f'<i class="{_colour(entries[0].choice)}" style="width:{kept}"></i>'
        bar = f'<span style="width:{nbytes / most * 100:.1f}%">{part}</span>'
    return [mib(nbytes), mib(held), bar, f"{seconds * 1e3:.3f}", f"{math.sqrt(error):.3f}"]


def _facts(facts: Iterable[tuple[str, str, str]]) -> str:
    told = (
        f'<div><dt>{name}</dt><dd><b>{value}</b></dd><dd class="soft">{more}</dd></div>'
        for name, value, more in facts
    )
    return f"<dl>{''.join(told)}</dl>"


def _table(titles: Sequence[str], body: str, foot: str = "", *, first: int) -> str:
    """A table whose columns from place `first` on are figures."""
    head = "".join(
        f'<th class="figure">{title}</th>' if place >= first and title else f"<th>{title}</th>"
        for place, title in enumerate(titles)
    )
    ends = f"<tfoot>{foot}</tfoot>" if foot else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody>{ends}</table></div>"
    )


def _row(cells: Sequence[str], first: int) -> str:
    """Cells of HTML, those from place `first` on figures, or bars."""
    made = (
        f"<td>{cell}</td>"
        if place < first
        else f'<td class="{"bar" if cell.startswith("<span") else "figure"}">{cell}</td>'
        for place, cell in enumerate(cells)
    )
    return f"<tr>{''.join(made)}</tr>\n"


def _choice(choice: str) -> str:
    shown = "not needed" if choice == ABSENT else _text(choice)
    return f'<span class="choice {_colour(choice)}">{shown}</span>'


def _colour(choice: str) -> str:
    return _COLOURS.get(choice, "store")


def _name(name: str) -> str:
    """A name of parts, between which a narrow column may break it."""
    parts = re.sub("(?=[._])", "<wbr>", _text(name))
    return f"<code>{parts}</code>"


def _text(text: str) -> str:
    """A name, as text that HTML shows and does not read."""
    return escape(visible(text))
