"""A saved plan, read back: what a person edited is checked, and each error says its line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from actprune.formats import FORMATS, Dense, Derivative, parse_saved
from actprune.graph.cells import EMPTY, GRAPH, cells, value
from actprune.graph.plan import (
    COLUMNS,
    FIELDS,
    KEEP,
    TITLE,
    VERSION,
    WAYS,
    Entry,
    GraphPlan,
    Plan,
)
from actprune_common.errors import InputError, check_one_of, expected
from actprune_common.files import contents

_NOTHING: dict[type, Any] = {str: "", tuple: (), int: 0, float: 0.0}
_BINDING = "tensor", "choice"


class _Line(NamedTuple):
    number: int
    cells: list[str]


def load(path: str | Path) -> Plan:
    """Return the plan that a file holds, which `Plan.save` wrote and a person may have edited.

    Its bytes, seconds and errors are those of the file, whatever choice stands beside them.

    Args:
        path: of the file.

    Returns:
        The plan, without timelines.

    Raises:
        InputError: the file cannot be read, or holds no plan; the text names file and line.

    Example:
        >>> from actprune.graph import Plan, load
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "plan.txt"
        ...     Plan().save(path)
        ...     load(path)
        Plan(graphs=())
    """
    try:
        text = contents(Path(path)).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: expected UTF-8 text ({problem.reason})") from None
    return parse_plan(text, str(path))


def parse_plan(text: str, where: str = "plan") -> Plan:
    """Return the plan that a text says, as `Plan.text` writes it.

    Spaces, empty lines and comments (from a # on) do not matter, nor the order of the columns. What
    a line or a graph does not say, but for a tensor's name and choice, is 0 or empty. A choice is
    read to its one form: `codes` is `codes:bits=4`, and `dense` is `keep`.

    Args:
        text: of the whole file.
        where: what an error calls it.

    Returns:
        The plan, without timelines.

    Raises:
        InputError: the text is no plan, or says a thing twice; the error names the line.

    Example:
        >>> plan = parse_plan('''
        ... actprune graph plan 1
        ... graph 8c1f
        ... tensor   choice
        ... addmm_1  codes
        ... ''')
        >>> [(entry.name, entry.choice) for entry in plan.graphs[0].entries]
        [('addmm_1', 'codes:bits=4')]
    """
    lines = list(_lines(text, where))
    title = f"{' '.join(TITLE)} {VERSION}"
    if not lines:
        raise expected(where, f"{title!r} in the first line", "an empty text")
    with _at(where, lines[0]):
        _check_title(lines[0].cells, title)
    graphs: dict[str, list[_Line]] = {}
    begins: dict[str, int] = {}
    key = None
    for line in lines[1:]:
        with _at(where, line):
            if line.cells[0] == GRAPH:
                key = _key(line.cells)
                _once("graph", key, begins, line.number)
                graphs[key] = []
            elif key is None:
                raise expected("line", "graph and its key", f"{line.cells[0]!r:.60}")
            else:
                graphs[key].append(line)
    return Plan(tuple(_graph(key, within, where) for key, within in graphs.items()))


def _lines(text: str, where: str) -> Iterator[_Line]:
    """The lines that say something."""
    for number, line in enumerate(text.split("\n"), 1):
        with _at(where, _Line(number, [])):
            found = cells(line)
        if found:
            yield _Line(number, found)


@contextmanager
def _at(where: str, line: _Line) -> Iterator[None]:
    """Errors within name the line."""
    try:
        yield
    except InputError as problem:
        raise InputError(f"{where}:{line.number}: {problem}") from None


def _check_title(found: list[str], title: str) -> None:
    *words, version = found
    if tuple(words) != TITLE:
        raise expected("first line", repr(title), f"{' '.join(found)!r:.60}")
    if version != VERSION:
        raise expected("version", VERSION, repr(version))


def _key(found: list[str]) -> str:
    key = value(found[1]) if len(found) == 2 else ""
    if not key:
        raise expected("graph", "one key", f"{' '.join(found[1:])!r:.60}")
    return key


def _once(what: str, name: str, seen: dict[str, int], number: int) -> None:
    """Note the line of a name. Raises InputError where another had it."""
    if name in seen:
        raise InputError(f"{what}: {name!r} is given twice, first in line {seen[name]}")
    seen[name] = number


def _graph(key: str, lines: list[_Line], where: str) -> GraphPlan:
    facts: dict[str, Any] = dict.fromkeys(FIELDS, 0) | {"budget": None}
    said: dict[str, int] = {}
    columns: list[str] = []
    entries: list[Entry] = []
    names: dict[str, int] = {}
    for line in lines:
        with _at(where, line):
            if columns:
                entries.append(_entry(line.cells, columns))
                _once("tensor", entries[-1].name, names, line.number)
            elif "tensor" in line.cells:
                columns = _columns(line.cells)
            else:
                name, fact = _fact(line.cells)
                _once("graph", name, said, line.number)
                facts[name] = fact
    return GraphPlan(key, tuple(entries), **facts)


def _fact(found: list[str]) -> tuple[str, Any]:
    """What a line says of a graph."""
    name, *values = found
    if name not in FIELDS:
        what = f"{', '.join(FIELDS)}, or the heading {' '.join(COLUMNS)}"
        raise expected("line", what, f"{name!r:.60}")
    if len(values) != 1:
        raise expected(name, "one number", f"{' '.join(values)!r:.60}")
    if name == "budget" and values[0] == EMPTY:
        return name, None
    return name, _read(name, values[0], FIELDS[name])


def _columns(found: list[str]) -> list[str]:
    for heading in found:
        check_one_of("heading", heading, COLUMNS)
        if found.count(heading) > 1:
            raise InputError(f"heading: {heading!r} is given twice")
    for heading in _BINDING:
        if heading not in found:
            raise expected("heading", f"{' and '.join(_BINDING)} among it", f"{' '.join(found)!r}")
    return found


def _entry(found: list[str], columns: list[str]) -> Entry:
    """What a line says of a tensor."""
    if len(found) > len(columns):
        raise expected("line", f"{len(columns)} cells or less", len(found))
    values = {name: _NOTHING[kind] for name, kind in COLUMNS.values()}
    for heading, text in zip(columns, found, strict=False):
        name, kind = COLUMNS[heading]
        values[name] = _choice(text) if name == "choice" else _read(heading, text, kind)
    for heading in _BINDING:
        if not values[COLUMNS[heading][0]]:
            raise expected(heading, "a word", "nothing")
    return Entry(**values)


def _choice(text: str) -> str:
    if text in WAYS:
        return text
    if text.partition(":")[0] not in FORMATS | {Derivative.name: Derivative}:
        formats = ", ".join([*FORMATS, Derivative.name])
        what = f"one of {', '.join(WAYS)}, or a format of {formats}"
        raise expected("choice", what, f"{text!r:.60}")
    format = parse_saved(text)
    return KEEP if isinstance(format, Dense) else format.spec


def _read(what: str, text: str, kind: type) -> Any:
    """What a cell holds. Raises InputError naming `what`."""
    if kind is str:
        return value(text)
    if kind is tuple:
        return tuple(part for part in value(text).split(",") if part)
    try:
        found = kind(text)
    except ValueError:
        number = "whole bytes" if kind is int else "a number"
        raise expected(what, number, f"{text!r:.60}") from None
    if kind is int and found < 0:
        raise expected(what, "whole bytes", repr(text))
    if what == "error" and not found >= 0:
        raise expected(what, "0 or more", repr(text))
    return found
