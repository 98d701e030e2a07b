"""Scripts of several ranks on the CPU, by torchrun."""

import os
import re
import subprocess
import sys
from pathlib import Path


def own(printed: str) -> str:
    """What a rank printed itself: gloo of torch 2.9 tells each connection on stdout."""
    return re.sub(r"^\[Gloo\] Rank \d+ is connected .*\n", "", printed, flags=re.MULTILINE)


def torchrun(
    ranks: int, script: Path, *words: object, environment: dict[str, str] | None = None
) -> str:
    """What `script *words` printed on all ranks together; it must succeed, and warn of nothing."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [sys.executable, *command, str(script), *map(str, words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "UserWarning" not in done.stderr, done.stderr[-3000:]
    return done.stdout
