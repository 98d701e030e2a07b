"""Where a result comes from: the code, the machine, the libraries."""

import hashlib
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

import actprune


def environment(command: str) -> dict[str, object]:
    """A flat description of this process for results.json; `command` repeats the run."""
    commit, dirty = _git()
    cpu, cores, memory = _cpu(), os.cpu_count() or 1, _memory_bytes()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = f"{cpu}|{cores}|{memory >> 30}|{gpu}|{platform.machine()}"
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "commit": commit,
        "dirty": dirty,
        "fingerprint": hashlib.sha256(machine.encode()).hexdigest()[:12],
        "platform": platform.platform(),
        "cpu": cpu,
        "cores": cores,
        "memory_bytes": memory,
        "isa": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "driver": version("nvidia-driver") if gpu else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "actprune": actprune.__version__,
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "triton": version("triton"),
    }


def version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout this code runs from; None where it is not one."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *words],
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    tracked = ask("ls-files", "--error-unmatch", __file__)
    if tracked is None:
        return None, None
    return ask("rev-parse", "HEAD"), bool(ask("status", "--porcelain", "--untracked-files=no"))


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
