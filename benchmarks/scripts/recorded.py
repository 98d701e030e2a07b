"""What `actprune advise` knows: the settings of some results.json, written into the package.

python -m benchmarks.scripts.recorded docs/results/*.json
"""

from pathlib import Path

import typer

from actprune_bench.advise.advice import RECORDED, dumped, settings_of
from actprune_common import results
from actprune_common.files import write_whole


def main(files: list[Path]) -> None:
    """Write RECORDED from `files`."""
    found = [setting for file in files for setting in settings_of(results.read(file))]
    write_whole(RECORDED, dumped(found).encode())


if __name__ == "__main__":
    typer.run(main)
