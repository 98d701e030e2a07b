"""torch.compile, DDP and FSDP2 of pruned models on a real device; DEVICE=cpu as in test_cuda.py."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from actprune import saved_bytes
from actprune.strategies.grammar import apply, read
from actprune_bench.measure.tolerance import relative_error
from actprune_bench.models import MODELS

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("DEVICE", "cuda")
SCRIPT = Path(__file__).with_name("parallel_ranks.py")
# of the dense model's bytes: linear inputs are 6 of 14 units of what a block keeps
SHARES = {"bsr": 0.7, "lean": 0.15, "checkpoint": 0.5}

if DEVICE == "cuda":
    count = max(1, torch.cuda.device_count())
    WORLDS = [("nccl", count), ("gloo", 2 * count)]
else:
    WORLDS = [("gloo", 2)]


@pytest.mark.parametrize(("backend", "ranks"), WORLDS)
def test_ranks_compute_what_one_process_does(backend: str, ranks: int, tmp_path: Path) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    done = subprocess.run(
        [sys.executable, *launch, str(SCRIPT), backend, DEVICE, str(tmp_path / "rank")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(ranks):
        found = json.loads((tmp_path / f"rank{rank}").read_text())
        assert set(found) == ({"ddp"} if (backend, DEVICE) == ("gloo", "cuda") else {"ddp", "fsdp"})
        for parallel, of in found.items():
            dense = of.pop("dense")
            assert dense["off"] < 1e-5
            for spec, values in of.items():
                share = SHARES[spec.partition("+")[0].partition(":")[0]]
                assert values["off"] < 1e-3, (parallel, spec)
                assert values["saved"] < share * dense["saved"], (parallel, spec)
                assert values["fall"] > 0, (parallel, spec)


@pytest.mark.parametrize(
    "spec",
    [
        "dense",
        "bsr:block=1x64,sparsity=0.9,scope=row",
        "lean-4bit+*fc2=>bsr:block=1x128,sparsity=0.5,values=int4;*=>bsr:block=1x64,sparsity=0.9",
        "lean+quant:bits=4,group=128",
    ],
)
def test_a_compiled_model_computes_what_eager_does(spec: str) -> None:
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    backend = "inductor" if DEVICE == "cuda" else "aot_eager"  # a CPU takes minutes to build it
    dense = MODELS["resmlp_tiny"]().to(DEVICE)
    eager = apply(copy.deepcopy(dense), spec) if spec != "dense" else dense
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend=backend)
    for _ in range(5):
        x = torch.randn(6, 3, 32, 32, device=DEVICE)
        for model, call in ((eager, eager), (twin, compiled)):
            model.zero_grad()
            call(x).square().mean().backward()
        dense.zero_grad()
        dense(x).square().mean().backward()
        for ours, theirs, exact in zip(
            *(m.parameters() for m in (twin, eager, dense)), strict=True
        ):
            assert ours.grad is not None
            assert theirs.grad is not None
            assert exact.grad is not None
            # rounding at random follows from the input's bits, of which inductor makes others
            random = any(format.stochastic for _, format in read(spec).rules)
            off = relative_error(theirs.grad, exact.grad) if random else 0
            assert relative_error(ours.grad, theirs.grad) < 5e-3 + 2 * off
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    if spec != "dense" and DEVICE == "cuda":
        assert held(compiled, x) < held(torch.compile(dense, fullgraph=True), x)
        assert held(compiled, x) < 1.2 * saved_bytes(eager, x)


def held(model: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Bytes that the allocator still counts after a forward pass: no hook sees into a graph."""
    model(x)  # the first pass compiles
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    out = model(x)
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated() - before - out.nbytes
