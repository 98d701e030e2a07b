"""`python -m actprune_ci.cli`."""

from actprune_ci.cli import main

if __name__ == "__main__":
    main()
