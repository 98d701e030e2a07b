"""`actprune-ci` and `python -m actprune_ci`: the command line of the harness."""

import sys
import traceback

from actprune_common.entry import start

EX_SOFTWARE = 70
"""Python's own code would be 1, the one of a regression."""


def main() -> None:
    """Run the command line; where what it needs is not installed, say how to install it.

    A mistake of ours is a traceback and one line, and never the exit code of a regression.
    """
    try:
        start("actprune-ci", "actprune_ci.cli", "ci")
    except Exception as problem:
        traceback.print_exc()
        name = type(problem).__name__
        sys.stderr.write(f"actprune-ci: a mistake of its own: {name}: {problem}\n")
        sys.exit(EX_SOFTWARE)


if __name__ == "__main__":
    main()
