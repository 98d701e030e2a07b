"""Limits of a plan, as a person gives them."""

from actprune_common.errors import InputError, expected
from actprune_common.sizes import parse_bytes

Limit = int | float | str | None
"""Bytes, or a share where it is a float, or a text of either: 0.1, "64MiB"."""
_WHAT = "bytes such as 64MiB, or a share such as 0.1"


def limit_of(name: str, given: Limit) -> int | float | None:
    """Return a limit as bytes, or a float as a share.

    Raises InputError where it is neither; `name` is what the text calls it.
    """
    if given is None:
        return None
    limit = _number(name, given) if isinstance(given, str) else given
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise expected(name, _WHAT, repr(given))
    if isinstance(limit, float) and not 0 < limit <= 1:
        raise expected(name, "a share above 0 and up to 1.0, or bytes such as 64MiB", repr(given))
    if limit == 1 and isinstance(limit, int):
        raise expected(name, "1.0 for all that dense keeps, or bytes such as 64MiB", repr(given))
    if limit <= 0:
        raise expected(name, _WHAT, repr(given))
    return limit


def limit_text(name: str, given: str) -> str:
    """Return the text of a limit in its one form: 0.1 for 0.10, 64MiB as it came.

    Raises InputError where it is none.
    """
    limit = limit_of(name, given)
    return str(limit) if isinstance(limit, float) else "".join(given.split())


def _number(name: str, text: str) -> int | float:
    """Digits alone are bytes; any other number is a share."""
    if not text.strip().isdecimal():
        try:
            return float(text)
        except ValueError:
            pass
    try:
        return parse_bytes(text, name)
    except InputError:
        raise expected(name, _WHAT, repr(text)) from None
