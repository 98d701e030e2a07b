"""`actprune-ci` and `python -m actprune_ci`: the command line of the harness."""

from actprune_common.entry import start


def main() -> None:
    """Run the command line; where what it needs is not installed, say how to install it."""
    start("actprune-ci", "actprune_ci.cli", "ci")


if __name__ == "__main__":
    main()
