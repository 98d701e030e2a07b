"""A run that is killed, stopped or damaged and then resumed ends as if nothing had happened."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from actprune import InputError
from actprune_bench.data import load_data
from actprune_bench.training import TrainConfig, Trainer, run_training
from actprune_bench.training.checkpoint import open_directory

CONFIG: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "limit_train": 64,
    "limit_test": 20,
    "checkpoint_every": 3,
    "threads": 1,
    "augment": "crop-flip",
}

# Runs the training in argv[1] into argv[2]; kills itself at the n-th time it comes to a place.
CHILD = """
import json, os, signal, sys
from pathlib import Path
from actprune_bench.training import TrainConfig, run_training

config, directory, place, n = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
left = [int(n)]

def deadly(function):
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            if place == "half written":
                args[0].write(args[1][:1000])
                args[0].flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

if place == "step":  # the model is half way through an update
    import torch
    torch.optim.AdamW.step = deadly(torch.optim.AdamW.step)
elif place == "rename":  # a file is whole but not yet in its place
    Path.replace = deadly(Path.replace)
elif place == "half written":
    from actprune_common import files
    whole = files.os.fsync
    opened = Path.open
    class Deadly:
        def __init__(self, file): self.file = file
        def __enter__(self): self.file.__enter__(); return self
        def __exit__(self, *error): return self.file.__exit__(*error)
        def __getattr__(self, name): return getattr(self.file, name)
        def write(self, content): return deadly(type(self.file).write)(self.file, content)
    def open(self, mode="r", *args, **kwargs):
        file = opened(self, mode, *args, **kwargs)
        return Deadly(file) if mode == "wb" else file
    Path.open = open
run_training(TrainConfig(**config), directory, resume=True)
"""


@pytest.fixture(autouse=True)
def one_thread(fixed_torch: None) -> None:
    """Small steps; two threads on a busy machine wait for each other."""
    torch.set_num_threads(1)


def child(config: dict[str, Any], directory: Path, place: str = "", n: int = 0) -> tuple[int, str]:
    """Exit status and standard error of the run in a process of its own."""
    command = [sys.executable, "-c", CHILD, json.dumps(config), str(directory), place, str(n)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr


def final_state(directory: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(directory / "checkpoint.pt", weights_only=True)
    return state


def assert_equal_runs(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours["step"] == theirs["step"] == 12
    assert ours["history"] == theirs["history"]
    assert len(ours["samples_ms"]) == len(theirs["samples_ms"]) == 12
    for name, tensor in theirs["model"].items():
        assert torch.equal(ours["model"][name], tensor), name
    for index, moments in theirs["optimizer"]["state"].items():
        for key, tensor in moments.items():
            assert torch.equal(ours["optimizer"]["state"][index][key], tensor), (index, key)


def test_killed_at_any_point_and_resumed_is_bit_equal(tmp_path: Path) -> None:
    config = {**CONFIG, "spec": "bsr:block=1x32,sparsity=0.9,select=priority"}
    run_training(TrainConfig(**config), tmp_path / "whole")
    chance = random.Random(5)
    for place, most in (("half written", 3), ("step", 5), ("rename", 6)):
        status, error = child(config, tmp_path / "killed", place, chance.randint(1, most))
        assert status == -signal.SIGKILL, error
    status, error = child(config, tmp_path / "killed")
    assert status == 0, error
    assert_equal_runs(final_state(tmp_path / "killed"), final_state(tmp_path / "whole"))
    assert not list((tmp_path / "killed").glob("*.tmp"))


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    config = {**CONFIG, "epochs": 1000}
    command = [sys.executable, "-c", CHILD, json.dumps(config), str(tmp_path / "run"), "", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as run:
        while not (tmp_path / "run" / "checkpoint.pt").exists():
            assert run.poll() is None, run.communicate()[1]
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        out, error = run.communicate(timeout=120)
    assert run.returncode == 130, error
    assert "Traceback" not in error
    last = out.strip().splitlines()[-1]
    step = final_state(tmp_path / "run")["step"]
    assert last == (
        f"stopped at step {step} of 4000; saved {tmp_path / 'run' / 'checkpoint.pt'}: "
        "run the same command with --resume to go on"
    )
    data = load_data("embedded", 32, 64, 20)
    trainer = Trainer(TrainConfig(**config), data, tmp_path / "run")
    assert trainer.restore()
    assert trainer.step == step


def interrupted(directory: Path) -> TrainConfig:
    """A run with checkpoints at steps 3 and 4, and no more."""
    config = TrainConfig(**CONFIG)
    open_directory(directory, config, resume=False)
    Trainer(config, load_data("embedded", 32, 64, 20), directory).advance(4)
    return config


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_damaged_checkpoint_is_named_and_the_one_before_goes_on(
    tmp_path: Path, damage: str
) -> None:
    config = interrupted(tmp_path / "run")
    run_training(config, tmp_path / "whole")
    path = tmp_path / "run" / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    replaced = {"truncated": bytes(content[:-1000]), "empty": b"", "text": b"hello"}
    path.write_bytes(replaced.get(damage, bytes(content)))
    files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    message = r"not a readable checkpoint \(.*\); remove it to go on from checkpoint.previous.pt$"
    with pytest.raises(InputError, match=f"^{path}: {message}"):
        run_training(config, path.parent, resume=True)
    assert files == {file.name: file.read_bytes() for file in path.parent.iterdir()}
    path.unlink()
    run_training(config, path.parent, resume=True)
    assert_equal_runs(final_state(path.parent), final_state(tmp_path / "whole"))


def test_without_one_before_a_damaged_checkpoint_says_start_again(tmp_path: Path) -> None:
    config = interrupted(tmp_path / "run")
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / "run" / name).write_bytes(b"")
    (tmp_path / "run" / "checkpoint.pt").unlink()
    message = r"checkpoint.previous.pt: not a readable .*; start again in another folder$"
    with pytest.raises(InputError, match=message):
        run_training(config, tmp_path / "run", resume=True)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    config = interrupted(tmp_path / "run")
    torch.save({"schema": 1, "evil": print}, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint.pt: not a readable checkpoint"):
        run_training(config, tmp_path / "run", resume=True)
    torch.save({"schema": 1, "step": 4}, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(InputError, match=r"\(it lacks config, data_digest, history"):
        run_training(config, tmp_path / "run", resume=True)


def test_resuming_a_finished_run_does_nothing(tmp_path: Path) -> None:
    config = TrainConfig(**CONFIG)
    first = run_training(config, tmp_path / "run")
    content = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    again = run_training(config, tmp_path / "run", resume=True)
    assert again.done
    assert again.history == first.history
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == content
