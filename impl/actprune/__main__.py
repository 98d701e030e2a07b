"""`python -m actprune`."""

from actprune.cli import main

main()
