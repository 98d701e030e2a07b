"""The one exception a user's mistake raises."""


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
