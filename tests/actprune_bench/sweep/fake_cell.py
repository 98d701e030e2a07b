"""A cell of a sweep that trains nothing: what it does stands in a plan, by cell and attempt.

    python fake_cell.py PLAN.json CELL_DIR

The plan says for each cell id what its attempts do, the last of them for good: ok, crash, hang,
eat (memory), oom (an error that says so), sigkill, silent (no record), wait (for a file "go" beside
the plan, then ok) or a number of seconds before ok; trained-ACT leaves the record first. Every
start is a line in starts.txt beside the plan.
Imports nothing but the standard library.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def record(cell: dict[str, Any]) -> dict[str, Any]:
    accuracy = 80.0 - len(cell["spec"]) / 10 + cell["seed"]
    return {
        **{key: cell[key] for key in ("spec", "model", "data", "seed", "epochs", "batch_size")},
        "data_digest": "sha256:" + "0" * 64,
        "steps": 3,
        "step_ms": 100.0,
        "step_samples_ms": [100.0] * 3,
        "saved_bytes": 1000,
        "predicted_peak_bytes": 2000,
        "measured_peak_bytes": 2000,
        "accuracy": accuracy,
        "accuracy_per_epoch": [accuracy],
        "grad_cosine": 1.0,
        "layers": [],
        "command": "actprune train",
    }


def main() -> None:
    plan_path, folder = map(Path, sys.argv[1:])
    plan = json.loads(plan_path.read_text())
    attempt = len(list((folder / "attempts").glob("*.log")))
    with (plan_path.parent / "starts.txt").open("a") as starts:
        starts.write(f"{folder.name} {attempt} {os.getpid()}\n")
    todo = plan["cells"].get(folder.name, ["ok"])
    act = todo[min(attempt, len(todo)) - 1]
    if str(act).startswith("trained-"):
        act = act.removeprefix("trained-")
        leave_record(folder, plan, measured_peak_bytes=None, grad_cosine=None)
    if act == "crash":
        sys.exit("the injected crash")
    if act == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
    if act == "eat":
        eaten = b"x" * (200 << 20)
        time.sleep(3600 + len(eaten))
    if act == "oom":
        raise MemoryError("the injected one")
    if act == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    while act == "wait" and not (plan_path.parent / "go").exists():
        time.sleep(0.02)
    if isinstance(act, int | float):
        time.sleep(act)
    if act != "silent":
        leave_record(folder, plan)


def leave_record(folder: Path, plan: dict[str, Any], **lacking: None) -> None:
    made = record(json.loads((folder / "cell.json").read_text()))
    made |= {"environment": plan["environment"], **lacking}
    (folder / "record.json").write_text(json.dumps(made))


if __name__ == "__main__":
    main()
