"""Plans under torch.compile on a real device: bytes by the allocator, gradients beside dense's."""

import copy
import gc
import os

import pytest
import torch
from torch import Tensor, nn

from actprune.graph import backend

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("DEVICE", "cuda")
cuda_itself = pytest.mark.skipif(DEVICE != "cuda", reason="of CUDA itself: no CPU has it")
ROWS = 8192 if DEVICE == "cuda" else 512


class Blocks(nn.Module):
    """Four residual blocks of a transformer's second half."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(256), nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return (x - 1).square().mean()


def gradients(model: nn.Module, x: Tensor, **options: object) -> tuple[list[Tensor], int]:
    """Of a compiled twin in its second step, and the bytes that it held between the passes."""
    torch._dynamo.reset()
    twin = copy.deepcopy(model)
    compiled = torch.compile(twin, **options) if options else twin  # type: ignore[call-overload]
    compiled(x).backward()
    twin.zero_grad(set_to_none=True)
    gc.collect()
    before = torch.cuda.memory_allocated() if DEVICE == "cuda" else 0
    loss = compiled(x)
    held = torch.cuda.memory_allocated() - before if DEVICE == "cuda" else 0
    loss.backward()
    return [p.grad for p in twin.parameters() if p.grad is not None], held


def error(found: list[Tensor], exact: list[Tensor]) -> float:
    off = sum(float((a - b).double().square().sum()) for a, b in zip(found, exact, strict=True))
    return float((off / sum(float(b.double().square().sum()) for b in exact)) ** 0.5)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plan_holds_its_budget_on_the_device(compiler: str, dtype: torch.dtype) -> None:
    if DEVICE != "cuda" and compiler == "inductor":
        pytest.skip("inductor's code for the CPU has tests of its own")
    torch.manual_seed(0)
    model, x = Blocks().to(DEVICE, dtype), torch.randn(ROWS, 256, device=DEVICE, dtype=dtype)
    exact, _ = gradients(model, x)
    planned = backend(0.2, compiler=compiler)
    found, held = gradients(model, x, backend=planned)
    (plan,) = planned.plan.graphs
    assert plan.budget is not None
    assert plan.held <= plan.budget
    assert error(found, exact) < 0.1
    if DEVICE == "cuda":
        assert held <= 1.05 * plan.budget + 2**20


@cuda_itself
def test_what_is_offloaded_comes_back_as_it_was() -> None:
    torch.manual_seed(0)
    model, x = Blocks().cuda(), torch.randn(ROWS, 256, device="cuda")
    exact, dense = gradients(model, x)
    planned = backend(0.05, error=1e-9, offload=True, compiler="aot_eager")
    found, held = gradients(model, x, backend=planned)
    assert error(found, exact) < 1e-5
    assert held < 0.1 * dense
    assert {"offload"} <= {entry.choice for entry in planned.plan.graphs[0].entries}
