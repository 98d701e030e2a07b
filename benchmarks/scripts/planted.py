"""Whether `actprune-ci ab` and `gate` find a slowdown that was planted in a kernel.

``python -m benchmarks.scripts.planted OUT.json`` clones this repository's HEAD, makes the product
of the block-sparse store slower by 5 % in a commit on top of it, and compares the two in trials of
two A/B runs each, as the gate asks for. ``--slowdown 0`` plants nothing: then every alarm is false.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import typer

from actprune_common.files import write_whole

ROOT = Path(__file__).parents[2]
FILE = "kernels/actprune_kernels/bsr/cpu.py"
FIGURE = r"time_grad_weight\(spec=bsr:block=1x32,sparsity=0.9, layer=fc1, device=cpu"
PLANT = """

def _slower(call, by={slowdown}):
    from time import perf_counter

    def slowed(*given, **named):
        begin = perf_counter()
        made = call(*given, **named)
        ends = begin + (1 + by) * (perf_counter() - begin)
        while perf_counter() < ends:
            pass
        return made

    return slowed


grad_weight = _slower(grad_weight)
"""
Trial = dict[str, Any]


def clone(folder: Path, slowdown: float) -> Path:
    """This repository with one commit more, which plants the slowdown."""
    repo = folder / "repo"
    git = ("git", "-C", str(repo), "-c", "user.name=plant", "-c", "user.email=plant@localhost")
    subprocess.run(("git", "clone", "--quiet", str(ROOT), str(repo)), check=True)
    with (repo / FILE).open("a", encoding="utf-8") as file:
        file.write(PLANT.format(slowdown=slowdown) if slowdown else "# nothing is planted\n")
    subprocess.run((*git, "commit", "--quiet", "--all", "--message", "planted"), check=True)
    return repo


def trial(repo: Path, folder: Path, number: int, figure: str, seconds: float) -> Trial:
    """Two A/B runs of half of the time each, and what the gate says of every figure."""
    files = [folder / f"{number}-{half}.json" for half in (1, 2)]
    for half, file in enumerate(files):
        words = ["ab", "HEAD~1", "HEAD", "--repo", str(repo), "--benchmarks", figure]
        words += ["--budget", str(seconds / 2), "--seed", str(2 * number + half)]
        run(*words, "--out", str(file))
    given = [word for file in files for word in ("--ab", str(file))]
    report = json.loads(run("gate", *given, "--format", "json"))
    measured = [json.loads(file.read_text("utf-8")) for file in files]
    return {
        "trial": number,
        "seconds": [each["seconds"] for each in measured],
        "pairs": [len(pair["base"]) for each in measured for pair in each["pairs"]],
        "verdicts": [each["word"] for each in report["findings"]],
        "changes": [each["effect"] and each["effect"]["change"] for each in report["findings"]],
    }


def run(*words: str) -> str:
    """What a command of actprune-ci prints. Raises RuntimeError where it cannot do its work."""
    command = (sys.executable, "-m", "actprune_ci", *words)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 4):
        raise RuntimeError(f"{' '.join(words)}: code {done.returncode}: {done.stderr}")
    return done.stdout


def main(
    out: Path,
    slowdown: float = 0.05,
    trials: int = 20,
    seconds: float = 180,
    benchmarks: str = FIGURE,
) -> None:
    """Plant a slowdown and look for it; a trial's two runs have so many seconds together."""
    found: list[Trial] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        repo = clone(folder, slowdown)
        for number in range(trials):
            found.append(trial(repo, folder, number, benchmarks, seconds))
            print(found[-1], flush=True)
            about = {"command": sys.argv, "slowdown": slowdown, "trials": found}
            write_whole(out, json.dumps(about, indent=1) + "\n")
    print(Counter(word for each in found for word in each["verdicts"]))


if __name__ == "__main__":
    typer.run(main)
