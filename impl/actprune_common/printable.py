"""Text that others wrote, made fit to be shown: nothing in it acts, and nothing in it is unseen.

Names of benchmarks, notes and errors come from result files, and those from anybody's pull request.
"""

import re

_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""What Python calls printable, and shows nothing."""
_SELECTORS = re.compile("[\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_COMMAND = re.compile(r"^( *):(?=:)|#(?=#\w*\[)", re.MULTILINE)
"""What a CI system takes a line for: `::error::` where it begins, `##[error]` anywhere in it."""


def seen(character: str) -> bool:
    """Whether a reader sees it: no control, no mark of direction, no blank but the space."""
    return (
        character.isprintable()
        and character not in _UNSEEN
        and not (character > "\u1000" and _SELECTORS.match(character))
    )


def escape(character: str) -> str:
    r"""A character as Python and its regular expressions write it: `\n`, `\x1b`, `\u202e`."""
    number = ord(character)
    if character in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[character]
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def visible(text: object) -> str:
    r"""A text on one line, each character that nobody sees as its escape (`\n`, `\u202e`).

    A lone surrogate, which no file takes, is one of them.
    """
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    return "".join(each if seen(each) else escape(each) for each in plain)


def printable(text: object) -> str:
    """Lines for a log or a terminal, each of them visible and none a command to a CI system.

    Where a line of its own may come from data, pass that through `visible` first.
    """
    lines = "\n".join(map(visible, str(text).split("\n")))
    return _COMMAND.sub(lambda found: f"{found[1] or ''}\\x{ord(found[0][-1]):02x}", lines)
