"""One run over several processes: the gradients of one, restarts, and bad input on any rank."""

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from actprune import InputError
from actprune_bench.cli import app
from actprune_bench.training import TrainConfig, distributed, run_training
from actprune_bench.training.distributed import ALONE, World, joined, world_of
from actprune_bench.training.randomness import crop_flip
from actprune_bench.training.rendezvous import PATIENCE
from tests.ranks import own

RANKS = 3
SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 12,
    "limit_train": 52,
    "limit_test": 40,
    "checkpoint_every": 3,
    "threads": 1,
    "augment": "crop-flip",
}
RESTARTED = {**SMALL, "spec": "weighted+bsr:block=1x32,sparsity=0.9,select=priority"}
EXACT = [
    "dense",
    "checkpoint+dense",
    "lean+dense",
    "csr:sparsity=0",
    "csr:sparsity=0.9,scope=row",
    "checkpoint+bsr:block=1x32,sparsity=0.9,scope=row",
    "lean+bsr:block=1x32,sparsity=0.9,scope=row",
    "topk:sparsity=0.9",
    "nm:2:4",
]
DIFFERENT = [
    "csr:sparsity=0.9,scope=column",
    "csr:sparsity=0.9,scope=global",
    "csr:sparsity=0.9,scope=row,select=priority",
    "rows:sparsity=0.9,select=topk",
    "quant:bits=4",
]

# Under torchrun: what is compared with one process, and what every rank must hear of.
TOGETHER = """
import json, sys, weakref
from pathlib import Path
import torch
from torch import distributed as dist
from actprune import InputError
from actprune_bench.data import load_data
from actprune.inspect.gradients import loss_of
from actprune_bench.training import TrainConfig, Trainer
from actprune_bench.training.distributed import ALONE, joined

torch.set_num_threads(1)
specs, small, restarted = json.loads(sys.argv[1])
out = Path(sys.argv[2])
data = load_data("embedded", 32, small["limit_train"], small["limit_test"])

def gradients(spec, world):
    trainer = Trainer(TrainConfig(**small, spec=spec), data, None, world)
    loss_of(trainer.replica, *trainer.batch(1)).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])

def heard(call):
    try:
        call()
    except InputError as problem:
        return str(problem)

def wrong():
    raise InputError("some: trouble")

with joined() as world:
    found = {"gradients": {}}
    for spec in specs:
        ours, alone = gradients(spec, world), gradients(spec, ALONE)
        found["gradients"][spec] = float((ours - alone).norm() / alone.norm())
    for name, of in (("ours", world), ("alone", ALONE)):
        trainer = Trainer(TrainConfig(**small), data, None, of)
        trainer.advance(trainer.total_steps)
        found[name] = trainer.history
    (out / "whole").mkdir(exist_ok=True)
    whole = Trainer(TrainConfig(**restarted), data, out / "whole", world)
    whole.advance(whole.total_steps)
    found["errors"] = {
        "one": heard(lambda: world.together(wrong if world.rank == 1 else dict)),
        "all": heard(lambda: world.together(wrong)),
        "first": heard(lambda: world.on_first(wrong)),
        "last": heard(lambda: world.on_first(dict if world.first else wrong)),
    }
    if world.rank == 1:
        with torch.no_grad():
            whole.model.head.bias[0] += 1
    found["errors"]["drifted"] = heard(whole.save)
    group = weakref.ref(dist.group.WORLD)
found["ended"] = group() is None
(out / f"rank{world.rank}.json").write_text(json.dumps(found))
"""

# `actprune train`, of which the last rank kills itself in the 6th update of its first life.
DEADLY = """
import os, signal, sys
import torch

sys.argv = ["actprune", "train", *sys.argv[1:]]
if os.environ["RANK"] == "2" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    whole, left = torch.optim.AdamW.step, [6]
    def deadly(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*args, **kwargs)
    torch.optim.AdamW.step = deadly
from actprune_bench.cli import main
main()
"""

# Ranks started by hand, one run after the other; what each says of itself.
BY_HAND = """
import json, os, signal, sys
from pathlib import Path
import torch
from actprune import InputError
from actprune_bench.training import TrainConfig, run_training

said = []
for case in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(case["port"])
    whole = torch.optim.AdamW.step
    if case.get("stop"):
        def stopping(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            torch.optim.AdamW.step = whole
            return whole(*args, **kwargs)
        torch.optim.AdamW.step = stopping
    try:
        run_training(TrainConfig(**case["config"]), Path(case["out"]))
        said.append("done")
    except InputError as problem:
        said.append(str(problem))
    except SystemExit as end:
        said.append(end.code)
print(json.dumps(said))
"""

# A store that says where it is; what happens to it is a signal's affair.
STORE = """
import time
from datetime import timedelta
from torch import distributed as dist

store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=60), False)
print(store.port, flush=True)
time.sleep(120)
"""

# What ranks say whose run ends with an error of torch's, one after the other.
FAILING = """
import json, os, sys
from torch import distributed as dist
from actprune_bench.training.distributed import joined

said = []
for name, text, port in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    try:
        with joined():
            raise (getattr(dist, name) if name.startswith("Dist") else RuntimeError)(text)
    except (SystemExit, RuntimeError) as end:
        said.append([type(end).__name__, str(end), dist.is_initialized()])
print(json.dumps(said))
"""


@pytest.fixture(autouse=True)
def no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are not a rank themselves."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def torchrun(script: Path, *words: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)]
    return subprocess.run(
        [sys.executable, *launch, "--max-restarts", str(restarts), str(script), *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the runs under torchrun."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    """What TOGETHER's ranks found."""
    script = folder / "together.py"
    script.write_text(TOGETHER)
    given = json.dumps([EXACT + DIFFERENT, SMALL, RESTARTED])
    done = torchrun(script, given, str(folder))
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("spec", EXACT)
def test_the_ranks_gradients_are_those_of_one_process(
    found: list[dict[str, Any]], spec: str
) -> None:
    assert [of["gradients"][spec] < 1e-6 for of in found] == [True] * RANKS  # sums in fp32


@pytest.mark.parametrize("spec", DIFFERENT)
def test_what_is_chosen_over_rows_or_at_random_differs(
    found: list[dict[str, Any]], spec: str
) -> None:
    assert all(of["gradients"][spec] > 1e-3 for of in found)


def test_loss_curves_are_those_of_one_process(found: list[dict[str, Any]]) -> None:
    for of in found:
        assert of["ours"] == found[0]["ours"]  # every rank knows the whole
        assert len(of["ours"]) == SMALL["epochs"]
        for ours, alone in zip(of["ours"], of["alone"], strict=True):
            assert ours["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-4)
            assert ours["accuracy"] == pytest.approx(alone["accuracy"], abs=2.5)  # an image of 40
            assert (ours["step"], ours["lr"]) == (alone["step"], alone["lr"])


def test_no_thread_of_gloo_outlives_the_run(found: list[dict[str, Any]]) -> None:
    # one that still held a small value when the interpreter ended aborted the process
    assert [of["ended"] for of in found] == [True] * RANKS


def test_an_error_on_one_rank_is_raised_on_all(found: list[dict[str, Any]]) -> None:
    for of in found:
        errors = of["errors"]
        assert errors["one"] == "rank 1: some: trouble"
        assert errors["all"] == errors["first"] == "some: trouble"
        assert errors["last"] is None


def test_ranks_that_have_drifted_apart_save_nothing(
    found: list[dict[str, Any]], folder: Path
) -> None:
    for of in found:
        text = of["errors"]["drifted"]
        assert text.startswith("ranks: expected the same run on all, but weights is '")
        assert text.endswith("' on rank 1")
        assert "rank 2" not in text


def test_a_killed_rank_is_restarted_and_the_run_ends_bit_equal(
    found: list[dict[str, Any]], folder: Path
) -> None:
    script, config = folder / "deadly.py", folder / "config.yaml"
    script.write_text(DEADLY)
    config.write_text(json.dumps(RESTARTED))  # which is YAML too
    done = torchrun(script, str(config), "--out", str(folder / "killed"), restarts=1)
    assert done.returncode == 0, done.stderr
    assert "resumed at step 4 of 8" in done.stdout
    assert done.stdout.count("8/8") == 1  # one bar
    assert "Traceback" not in done.stderr
    assert "another rank is gone; what was saved is intact" in done.stderr
    ours, theirs = (
        torch.load(folder / name / "checkpoint.pt", weights_only=True)
        for name in ("killed", "whole")
    )
    ours.pop("samples_ms"), theirs.pop("samples_ms")
    assert (ours["step"], ours["ranks"]) == (8, RANKS)
    assert_same(ours, theirs)


def assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


def test_what_ranks_started_by_hand_say(tmp_path: Path) -> None:
    """Nothing hangs: each rank ends each run with the same line."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    dense, csr = {**SMALL, "lr": 0.01}, {**SMALL, "spec": "csr:sparsity=0.9"}
    of_ranks: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({**SMALL, "batch_size": 127}, {**SMALL, "batch_size": 127}, "odd"),
        (dense, csr, "mixed"),
        (SMALL, {**SMALL, "data": "folder:/nowhere"}, "data"),
        (SMALL, SMALL, "full"),
        (SMALL, SMALL, "stopped"),
    ]
    ports = [free_port() for _ in of_ranks]
    runs = []
    for rank in (0, 1):
        cases = [
            {"config": pair[rank], "out": str(tmp_path / pair[2]), "port": port}
            | {"stop": rank == 1 and pair[2] == "stopped"}
            for pair, port in zip(of_ranks, ports, strict=True)
        ]
        of_rank = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        runs.append(
            subprocess.Popen(
                [sys.executable, "-c", BY_HAND, json.dumps(cases)],
                env={**os.environ, **of_rank, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    printed = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], printed
    said = [json.loads(out.splitlines()[-1]) for out, _ in printed]
    assert said[0] == said[1]
    assert len(own(printed[1][0]).splitlines()) == 1  # rank 1 prints nothing of its own
    odd, mixed, data, full, stopped = said[0]
    assert odd == "batch_size: expected a multiple of the 2 ranks, got 127"
    assert mixed == (
        "ranks: expected the same run on all, but spec is 'dense' on rank 0 and "
        "'csr:sparsity=0.9' on rank 1; lr is 0.01 on rank 0 and 0.015 on rank 1"
    )
    assert data.startswith("ranks: expected the same run on all, but data is 'embedded' on rank 0")
    assert full.startswith(f"{tmp_path / 'full'}: is not empty; resume the run in it, or")
    assert stopped == 128 + signal.SIGTERM
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"full", "stopped"}
    state = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)
    assert (state["step"], state["ranks"]) == (1, 2)
    one = run_training(TrainConfig(**SMALL), tmp_path / "stopped", resume=True)  # on one rank
    assert one.done
    assert one.resumed_from == 2


def rank_of(monkeypatch: pytest.MonkeyPatch, **names: object) -> None:
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))


def test_variables_that_are_missing_or_wrong_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank_of(monkeypatch, RANK=0, WORLD_SIZE=2, MASTER_PORT=1)
    message = (
        "^MASTER_ADDR: expected with RANK, WORLD_SIZE, MASTER_PORT, got nothing; "
        "start the ranks with torchrun$"
    )
    with pytest.raises(InputError, match=message):
        run_training(TrainConfig(**SMALL), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    right = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
    with pytest.raises(InputError, match=r"^WORLD_SIZE: expected with RANK, got nothing"):
        world_of({"RANK": "0"})
    with pytest.raises(InputError, match=r"^RANK: expected a whole number from 0 to 1, got '2'$"):
        world_of({**right, "RANK": "2"})
    with pytest.raises(InputError, match=r"^MASTER_PORT: expected a whole number from 1 to 65535"):
        world_of({**right, "MASTER_PORT": "ssh"})
    assert world_of({"MASTER_ADDR": "here"}) is ALONE
    assert world_of(right) == World(1, 2)
    assert world_of({"RANK": "0", "WORLD_SIZE": "1"}) == ALONE
    assert world_of({**right, "LOCAL_RANK": "1", "TORCHELASTIC_RESTART_COUNT": "3"}).restarts == 3


@pytest.mark.parametrize(
    ("rank", "host", "why"),
    [
        (1, "127.0.0.1", "Connection refused"),
        (1, "nowhere.invalid", ""),  # the system's words
        (0, "127.0.0.1", "1/2 clients joined"),
    ],
)
def test_a_rendezvous_that_does_not_answer_is_an_error_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, host: str, why: str
) -> None:
    port = free_port()
    rank_of(monkeypatch, RANK=rank, WORLD_SIZE=2, MASTER_ADDR=host, MASTER_PORT=port)
    monkeypatch.setenv(PATIENCE, "1.5")
    message = (
        f"^MASTER_ADDR: expected the 2 ranks to meet at {host}:{port} within 1.5 s "
        f"\\({PATIENCE}\\), got: .*{why}"
    )
    with pytest.raises(InputError, match=message):
        run_training(TrainConfig(**SMALL), tmp_path / "run")
    monkeypatch.setenv(PATIENCE, "soon")
    with pytest.raises(InputError, match=f"^{PATIENCE}: expected 1 to 3600 seconds, got 'soon'$"):
        run_training(TrainConfig(**SMALL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ranks_that_do_not_come_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under torchrun, whose agent answers for ranks that died early."""
    here = timedelta(seconds=5)  # is the master, and waits for nobody:
    agent = dist.TCPStore("127.0.0.1", 0, None, True, here, False)  # type: ignore[attr-defined]
    rank_of(monkeypatch, RANK=1, WORLD_SIZE=4, MASTER_ADDR="127.0.0.1", MASTER_PORT=agent.port)
    rank_of(monkeypatch, TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT=0)
    monkeypatch.setenv(PATIENCE, "1.5")
    agent.set("actprune/0/4/3", "here")
    message = (
        f"^WORLD_SIZE: expected 4 ranks at 127.0.0.1:{agent.port} within 1.5 s "
        f"\\({PATIENCE}\\); missing: 0, 2$"
    )
    with pytest.raises(InputError, match=message):
        run_training(TrainConfig(**SMALL), tmp_path / "run")


class Silent(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(64):
            pass


class Banner(Silent):
    def handle(self) -> None:
        self.request.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
        super().handle()


class Closing(socketserver.BaseRequestHandler):
    pass


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of something that is no store."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), request.param) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("other", "rank", "agent"),
    [
        (BaseHTTPRequestHandler, 1, False),
        (Silent, 1, False),
        (Banner, 1, False),
        (Closing, 1, False),
        (Silent, 0, False),
        (Silent, 0, True),
        (Banner, 0, True),
    ],
    indirect=["other"],
)
def test_what_answers_and_is_no_store_ends_a_rank_in_one_line(
    tmp_path: Path, other: int, rank: int, agent: bool
) -> None:
    """torch's client itself would wait for the answer to its ping, whatever its timeout."""
    of_rank = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    of_rank["TORCHELASTIC_USE_AGENT_STORE"] = str(agent)
    done = subprocess.run(
        [sys.executable, "-m", "actprune", "train", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env={**os.environ, **of_rank, "MASTER_PORT": str(other), PATIENCE: "1.5"},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(
        f"actprune: error: MASTER_ADDR: expected the 2 ranks to meet at 127.0.0.1:{other} within "
        f"1.5 s ({PATIENCE}), got: "
    )
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_a_store_that_is_lost_while_ranks_come_is_an_error_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STORE], stdout=subprocess.PIPE, text=True
    ) as store:
        assert store.stdout is not None
        port = int(store.stdout.readline())
        rank_of(monkeypatch, RANK=1, WORLD_SIZE=4, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        monkeypatch.setenv(PATIENCE, "3")
        lost = threading.Timer(1, store.send_signal, [what])
        lost.start()
        try:
            message = f"^MASTER_ADDR: expected the 4 ranks to meet at 127.0.0.1:{port} within 3 s"
            with pytest.raises(InputError, match=message):
                run_training(TrainConfig(**SMALL), tmp_path / "run")
        finally:
            lost.join()
            store.kill()


def test_a_rank_that_is_lost_before_all_are_connected_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = timedelta(seconds=5)
    agent = dist.TCPStore("127.0.0.1", 0, None, True, here, False)  # type: ignore[attr-defined]
    rank_of(monkeypatch, RANK=1, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=agent.port)
    monkeypatch.setattr(distributed, "_COLLECTIVE", timedelta(seconds=1))
    agent.set("actprune/0/2/0", "here")  # and says nothing more
    with pytest.raises(SystemExit, match=r"^actprune: rank 1: another rank is gone"), joined():
        pass
    assert not dist.is_initialized()


def by_hand(ranks: int, command: list[str], **names: str) -> list[tuple[int, str, str]]:
    """The exit code, the output and the errors of each rank."""
    of_all = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    of_all |= {"MASTER_PORT": str(free_port()), **names}
    runs = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **of_all, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    printed = [run.communicate(timeout=120) for run in runs]
    return [(run.returncode, own(out), err) for run, (out, err) in zip(runs, printed, strict=True)]


def test_errors_of_torchs_are_one_line_and_others_stay_what_they_are() -> None:
    of_gloo = "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"
    errors = [
        ("DistBackendError", "NCCL error in: NCCLUtils.cpp:77, remote process exited\nmore"),
        ("DistNetworkError", "Connection reset by peer\nframe #0"),
        ("DistStoreError", ""),
        ("RuntimeError", of_gloo),
        ("RuntimeError", "shapes cannot be multiplied"),
    ]
    cases = json.dumps([(*error, free_port()) for error in errors])
    for rank, (code, out, err) in enumerate(by_hand(2, ["-c", FAILING, cases])):
        assert code == 0, err
        gone = f"actprune: rank {rank}: another rank is gone"
        unsure = f"{gone} or out of reach; what was saved is intact: "
        assert json.loads(out) == [
            ["SystemExit", text, False]
            for text in (
                f"{unsure}DistBackendError: NCCL error in: NCCLUtils.cpp:77, remote process exited",
                f"{unsure}DistNetworkError: Connection reset by peer",
                f"{unsure}DistStoreError: ",
                f"{gone}; what was saved is intact",
            )
        ] + [["RuntimeError", "shapes cannot be multiplied", False]]


def test_ranks_without_gpus_are_told_so_in_one_line(tmp_path: Path) -> None:
    """Before the group is made that only nccl could make."""
    command = ["-m", "actprune", "train", "--device", "cuda", "--out", str(tmp_path / "run")]
    for code, out, err in by_hand(2, command, CUDA_VISIBLE_DEVICES=""):
        assert (code, out) == (2, "")
        assert err == (
            "actprune: error: device: expected a GPU for each rank of a machine, which has 0; "
            "got 'cuda' on local rank 0\n"
        )
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_cannot_be_used_by_several_ranks_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(_: int) -> None:
        raise RuntimeError("CUDA-capable device(s) is/are busy or unavailable\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: False)
    assert World(0, 1, 0).device("cuda") == torch.device("cuda", 0)  # alone: no need of it
    message = "^device: expected a torch with nccl, for 'cuda' on 2 ranks, got torch .* without$"
    with pytest.raises(InputError, match=message):
        World(1, 2, 1).device("cuda")
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    assert World(1, 2, 1).device("cuda") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "set_device", busy)
    message = r"^device: expected a GPU that works, got of cuda:1: CUDA-capable device\(s\) .*able$"
    with pytest.raises(InputError, match=message):
        World(1, 2, 1).device("cuda")


def test_a_gpu_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = (
        "^device: expected a GPU for each rank of a machine, which has 2; got 'cuda' on local rank "
    )
    with pytest.raises(InputError, match=f"{message}2$"):
        World(2, 3, 2).device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=r"which has 0; got 'cuda' on local rank 0$"):
        run_training(TrainConfig(**SMALL, device="cuda"), tmp_path / "run")


def test_several_ranks_need_a_folder_that_a_restart_finds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rank_of(monkeypatch, RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=1)
    with pytest.raises(SystemExit) as end:
        app(["train"])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "actprune: error: --out: expected with several ranks, so that a restart finds the run\n"
    )


def test_a_share_is_changed_as_in_its_batch() -> None:
    images = torch.randint(256, (12, 1, 16, 16), dtype=torch.uint8)
    whole = crop_flip(images, 0, 1, 2)
    for rank in range(3):
        share = World(rank, 3).share(12)
        part = crop_flip(images[share], 0, 1, 2, 12, share.start)
        assert torch.equal(part, whole[share])
