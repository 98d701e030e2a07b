"""What git says of a checkout, and programs like it."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actprune_common.errors import InputError, last_line


def uncommitted(repo: Path) -> bool:
    """Whether tracked files differ from the last commit."""
    return bool(git(repo, "status", "--porcelain", "--untracked-files=no"))


def git(repo: Path, *words: str, named: str = "") -> str:
    """What git answers, in English. Raises InputError with its last line where it refuses."""
    command, environment = ("git", "-C", str(repo), *words), {**os.environ, "LC_ALL": "C"}
    return answer(command, named or f"git {words[0]}", env=environment).strip()


def answer(command: Sequence[str], named: str, **options: Any) -> str:
    """What a program prints; `options` are of subprocess.run.

    Raises InputError where it cannot be run, and with its last line where it refuses.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    except OSError as problem:
        raise InputError(f"{command[0]}: cannot be run: {problem.strerror}") from None
    if done.returncode:
        raise InputError(f"{named}: {last_line(done.stderr, f'code {done.returncode}')}")
    return str(done.stdout)
