"""Random selections that follow from what they are made for."""

import pytest
import torch

from actprune import parse
from actprune.layers.draws import draw_for

FIRST = torch.tensor([3, 5, 0])


def test_the_same_tensors_draw_the_same_and_others_apart() -> None:
    x, weight = torch.randn(30, 40), torch.randn(20, 40)
    one = draw_for(FIRST, x, weight)
    assert torch.equal(one, draw_for(FIRST, x.clone(), weight.t().contiguous().t()))
    assert one[:2].tolist() == [3, 5]
    counted = torch.tensor([3, 5, 1])
    others = [(FIRST, x[:15], weight), (FIRST, x[15:], weight), (FIRST, x, weight * 1.0001)]
    others += [(counted, x, weight), (FIRST, x.bfloat16(), weight), (FIRST, x.double(), weight)]
    draws = {int(draw_for(*each)[2]) for each in others} | {int(one[2])}
    assert len(draws) == 7
    assert all(0 <= draw < 2**31 for draw in draws)


def test_over_small_steps_of_a_weight_selections_are_unbiased() -> None:
    format = parse("csr:sparsity=0.8,select=priority")
    x, weight, steps = torch.randn(12, 10), torch.randn(20, 10), 2000
    kept = []
    for _ in range(steps):
        weight += 1e-5 * torch.randn(20, 10)
        kept.append(format.compress(x, draw_for(FIRST, x, weight)).to_dense())
    stores = torch.stack(kept)
    noise = stores.std(0).norm() / steps**0.5
    assert float((stores.mean(0) - x).norm()) == pytest.approx(float(noise), rel=0.35)
