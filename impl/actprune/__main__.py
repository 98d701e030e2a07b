"""`actprune` and `python -m actprune`: the command line of the benchmark application."""

from actprune_common.entry import start


def main() -> None:
    """Run the command line; where what it needs is not installed, say how to install it."""
    start("actprune", "actprune_bench.cli", "bench")


if __name__ == "__main__":
    main()
