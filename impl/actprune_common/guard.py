"""Becomes the command that it is given, as a child that ends when its parent does.

    python guard.py PARENT COMMAND...

Run by its path: it imports nothing of a package, which would take long. What it sets survives exec:
the kernel kills the process when the thread that started it ends.
"""

import ctypes
import os
import signal
import sys

_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


def main() -> None:
    """Set it, then become the command; exit code 1 where there is no such command, or no parent."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != int(parent):  # it ended before it could be asked for
            sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as problem:
        sys.exit(f"{command[0]}: cannot be run ({problem.strerror})")


if __name__ == "__main__":
    main()
