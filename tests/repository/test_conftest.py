"""The poison that other tests rely on really is there, and gone after them."""

import pytest
import torch
from torch import nn


@pytest.mark.usefixtures("poison_empty")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_uninitialised_floats_are_nan(dtype: torch.dtype) -> None:
    given = torch.ones(4, dtype=dtype)
    for made in (torch.empty(4, dtype=dtype), torch.empty_like(given), given.new_empty(4)):
        assert made.isnan().all()
    assert given.new_empty(0).resize_(4).isnan().all()


@pytest.mark.usefixtures("poison_empty")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_uninitialised_integers_are_the_largest(dtype: torch.dtype) -> None:
    assert torch.empty(4, dtype=dtype).eq(torch.iinfo(dtype).max).all()


@pytest.mark.usefixtures("poison_empty")
def test_torch_itself_still_computes() -> None:
    layer = nn.Linear(8, 4)
    layer(torch.ones(3, 8)).sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.full((4, 8), 3.0))


def test_poison_is_gone_without_the_fixture() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
