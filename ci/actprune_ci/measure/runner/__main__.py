"""`python -m runner SUITE`."""

import sys
from pathlib import Path

from .serve import serve

if __name__ == "__main__":
    serve(Path(sys.argv[1]))
