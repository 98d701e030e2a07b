"""Becomes the command that it is given, as a child that ends when its parent does.

    python guard.py PARENT COMMAND...

Run by its path: it imports nothing of the package, which would take seconds. What it sets survives
exec: the kernel kills the process when the thread that started it ends, and, where memory runs
out, kills it first.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


def main() -> None:
    """Set both, then become the command; exit code 127 where there is no such command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != int(parent):  # it ended before it could be asked for
            sys.exit(1)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        sys.exit(f"{command[0]}: cannot be run ({problem.strerror})")


if __name__ == "__main__":
    main()
