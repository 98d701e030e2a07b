"""How a program starts where the packages of its extra may not be installed."""

import sys
from importlib import import_module

_USAGE = 2


def start(program: str, module: str, extra: str) -> None:
    """Run `main` of a module; where a package is not installed, name the extra that brings it.

    A module of our own that is not there is a mistake of ours, and no extra would bring it.
    """
    try:
        import_module(module).main()
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        if not package or package.startswith("actprune"):
            raise
        sys.stderr.write(
            f"{program}: error: the package {package} is missing; the command line needs "
            f"pip install 'actprune[{extra}]'\n"
        )
        sys.exit(_USAGE)
