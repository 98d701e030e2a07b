"""What git says of a checkout."""

import os
import subprocess
from pathlib import Path

from actprune_common.errors import InputError, last_line


def uncommitted(repo: Path) -> bool:
    """Whether tracked files differ from the last commit."""
    return bool(git(repo, "status", "--porcelain", "--untracked-files=no"))


def git(repo: Path, *words: str, named: str = "") -> str:
    """What git answers, in English. Raises InputError with its last line where it refuses."""
    try:
        done = subprocess.run(
            ("git", "-C", str(repo), *words),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as problem:
        raise InputError(f"git: cannot be run: {problem.strerror}") from None
    if done.returncode:
        told = last_line(done.stderr, f"code {done.returncode}")
        raise InputError(f"{named or f'git {words[0]}'}: {told}")
    return done.stdout.strip()
