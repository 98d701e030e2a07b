"""`actprune` and `python -m actprune`: the command line of the benchmark application."""

import sys


def main() -> None:
    """Run the command line; where what it needs is not installed, say how to install it."""
    try:
        from actprune_bench.cli import main as command_line
    except ModuleNotFoundError as problem:
        sys.stderr.write(
            f"actprune: error: the package {problem.name} is missing; the command line needs "
            "pip install 'actprune[bench]'\n"
        )
        sys.exit(2)
    command_line()


if __name__ == "__main__":
    main()
