"""Tables as text: cells in aligned columns, and a line's cells read back."""

import json
import re
from collections.abc import Collection, Sequence

from actprune_common.errors import expected
from actprune_common.printable import visible

EMPTY, GRAPH = "-", "graph"
_CELL = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*"|[^\s"#]+)(?=\s|#|$)|#.*|$)')


def cell(text: str) -> str:
    """Return a text as one cell: `-` where it is empty, in JSON's quotes where it would mislead.

    Example:
        >>> cell("blocks.0.fc1"), cell(""), cell("two words"), cell("-")
        ('blocks.0.fc1', '-', '"two words"', '"-"')
    """
    plain = re.fullmatch(r'[^\s"#]+', text) and text not in (EMPTY, GRAPH) and visible(text) == text
    return text if plain else json.dumps(text) if text else EMPTY


def cells(line: str) -> list[str]:
    """Return the cells of a line as they stand there, without its comment. Raises InputError.

    Example:
        >>> cells('blocks.0.fc1   "two words"  # both of them')
        ['blocks.0.fc1', '"two words"']
    """
    found, place = [], 0
    while place < len(line):
        match = _CELL.match(line, place)
        if match is None:
            got = f"{line[place:].strip()!r:.60}"
            raise expected("cell", "a word, or text between two quotes", got)
        if match[1]:
            found.append(match[1])
        place = match.end()
    return found


def value(found: str) -> str:
    """Return the text that a cell holds, as `cell` wrote it. Raises InputError."""
    if not found.startswith('"'):
        return "" if found == EMPTY else found
    try:
        text: str = json.loads(found)
    except ValueError:
        raise expected("cell", "text in JSON's quotes", f"{found!r:.60}") from None
    return text


def aligned(rows: Sequence[Sequence[str]], right: Collection[int], least: int = 0) -> list[str]:
    """Return a line for each row, the columns `right` (places) to the right, others to the left.

    No column is narrower than `least`.

    Example:
        >>> print("\\n".join(aligned([("choice", "bytes"), ("keep", "40")], right=(1,))))
        choice  bytes
        keep       40
    """
    widths = [max(least, *map(len, column)) for column in zip(*rows, strict=True)]
    padded = (
        "  ".join(
            text.rjust(width) if place in right else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return [line.rstrip() for line in padded]
