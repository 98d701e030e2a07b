"""The one exception a user's mistake raises, and its words."""

import re
from collections.abc import Collection


class InputError(ValueError):
    """Bad input of any kind: an option, a shape, a file, a configuration key.

    The message is one line that says which argument, what was expected and what came. The command
    line prints it without a traceback and exits with code 2.

    Example:
        >>> try:
        ...     actprune.parse("bsr:sparsity=1.2")
        ... except actprune.InputError as problem:
        ...     print(problem)
        sparsity: expected 0 <= s < 1, got 1.2
    """


def expected(argument: str, what: str, got: object) -> InputError:
    """The error of an argument in its usual words: what was expected, and what came."""
    return InputError(f"{argument}: expected {what}, got {got}")


def check_one_of(argument: str, value: object, known: Collection[object]) -> None:
    """Raise InputError unless `value` is one of the known ones."""
    if value not in known:
        raise expected(argument, f"one of {', '.join(map(str, known))}", repr(value))


def check_at_least(argument: str, value: int, least: int) -> None:
    """Raise InputError where `value` is below the least."""
    if value < least:
        raise expected(argument, f"{least} or more", value)


def last_line(text: str, otherwise: str) -> str:
    """The last line of what a program said that tells of an error, without the prefix of git, pip.

    Where none does, its last line; where it said nothing, `otherwise`.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if re.search(r"error|fatal", line, re.IGNORECASE)] or lines
    return re.sub(r"^(error|fatal): ", "", told[-1], flags=re.IGNORECASE) if told else otherwise
